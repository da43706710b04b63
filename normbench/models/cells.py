"""Recurrent cells: tanh, LSTM and GRU, each with a place for every norm. They share two products, a bias and the loop
over time.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import NormScheme, Recorded

State = tuple[Tensor, ...]  # h first, each [N, units]


class RecurrentCell(Recorded):
    """state_t = step(W_x x_t, W_h h_(t-1), state_(t-1)) for t = 1 ... T; a cell says what a step is.

    n_x and n_h are the scheme's `recurrent_norm` at "input" (on W_x x) and "hidden" (on W_h h); where it has none, they
    do nothing. Every cell shows `linear` = W_x x + W_h h before any norm (without a norm, with the bias b),
    `normalized` = what its gates get where that is another tensor, and `activation` = h.

    Args:
        inputs, units: size of x_t and of h.
        steps: how long sequences are, for norms with statistics per time step.

    Shape: x [T, N, inputs], state: as many [N, units] as the cell's `states` -> h at the last step [N, units].
    Raises: Unsupported for a scheme with a norm that has no form for recurrent cells.
    """

    recurrent = True
    states: ClassVar[int] = 1  # tensors of a state
    gates: ClassVar[int]  # vectors of `units` in each product, drawn one by one
    together: ClassVar[int]  # how many of them, the first, are normalised as one vector

    def __init__(self, scheme: NormScheme, inputs: int, units: int, steps: int) -> None:
        super().__init__()
        self.units, self.steps = units, steps
        self.input = scheme.reparametrize(nn.Linear(inputs, self.gates * units, bias=False))
        self.hidden = scheme.reparametrize(nn.Linear(units, self.gates * units, bias=False))
        self.bias = nn.Parameter(torch.zeros(self.gates * units))
        if scheme.recurrent_norm is None and scheme.norm is not None:  # the plain cell under this name would mislead
            raise Unsupported(
                f"norm={scheme.name} has no form for recurrent cells: its scheme gives no recurrent_norm. "
                "Use norm=batch or norm=layer, or another model."
            )
        self.input_norm = self.norm_of(scheme, self.together * units, "input")
        self.hidden_norm = self.norm_of(scheme, self.together * units, "hidden")

    def norm_of(self, scheme: NormScheme, features: int, place: str) -> nn.Module | None:
        """The scheme's norm at a place of this cell; None where it has none."""
        return None if scheme.recurrent_norm is None else scheme.recurrent_norm(features, self.steps, place)

    @property
    def plain(self) -> bool:
        """Is neither product normalised? The bias then goes into the one product over all time steps."""
        return self.input_norm is None and self.hidden_norm is None

    def forward(self, x: Tensor, state: State) -> Tensor:
        # Read once: a re-parametrised weight is computed anew at each reading.
        w_x, w_h = cast(Tensor, self.input.weight), cast(Tensor, self.hidden.weight)
        products = F.linear(x, w_x, self.bias if self.plain else None)  # [T, N, gates * units]
        for t, from_input in enumerate(products):
            from_hidden = F.linear(state[0], w_h)
            if self.observer is not None:
                self.show("linear", from_input + from_hidden)
            state = self.step(from_input, from_hidden, state, t)
            self.show("activation", state[0])
        return state[0]

    def step(self, from_input: Tensor, from_hidden: Tensor, state: State, t: int) -> State:
        raise NotImplementedError

    def total(self, from_input: Tensor, from_hidden: Tensor, t: int) -> Tensor:
        """n_x(W_x x) + n_h(W_h h) + b: the pre-activation of cells that normalise each product as a whole."""
        gates = normalized(self.input_norm, from_input, t) + normalized(self.hidden_norm, from_hidden, t)
        if not self.plain:
            gates = gates + self.bias
            self.show("normalized", gates)
        return gates

    def start_biases(self) -> None:
        """Set the biases to their values before training: 0."""
        nn.init.zeros_(self.bias)


def normalized(norm: nn.Module | None, x: Tensor, t: int) -> Tensor:
    """`norm` of `x` at time step `t`, where there is a norm."""
    return x if norm is None else cast(Tensor, norm(x, t))


class TanhCell(RecurrentCell):
    """h = tanh(n_x(W_x x) + n_h(W_h h) + b): without a norm torch.nn.RNN.

    `normalized` is what tanh gets. There is no norm on the state.

    Shape: as RecurrentCell; the state is (h,).
    Source: Elman 1990, "Finding structure in time"; a norm on each product as in the LSTM.
    """

    gates = together = 1

    def step(self, from_input: Tensor, from_hidden: Tensor, state: State, t: int) -> State:
        return (self.total(from_input, from_hidden, t).tanh(),)


class LSTMCell(RecurrentCell):
    """gates = n_x(W_x x) + n_h(W_h h) + b;  c = s(f) c + s(i) tanh(g);  h = s(o) tanh(n_c(c)).

    n_c is the scheme's `recurrent_norm` at "state". Without norms this is torch.nn.LSTM, whose order of gates it has:
    input, forget, candidate, output. All gates are normalised together (one vector of 4 x units). The cell's own update
    is never normalised, so that the state can carry information through time. `normalized` is the gates'
    pre-activation.

    Shape: as RecurrentCell; the state is (h, c).
    Source: Hochreiter & Schmidhuber 1997; norms as Ba et al. 2016, arXiv:1607.06450, and Cooijmans et al. 2016,
        arXiv:1603.09025, place them.
    """

    gates = together = 4
    states = 2

    def __init__(self, scheme: NormScheme, inputs: int, units: int, steps: int) -> None:
        super().__init__(scheme, inputs, units, steps)
        self.state_norm = self.norm_of(scheme, units, "state")

    def step(self, from_input: Tensor, from_hidden: Tensor, state: State, t: int) -> State:
        _, c = state
        i, f, g, o = self.total(from_input, from_hidden, t).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * normalized(self.state_norm, c, t).tanh(), c

    @torch.no_grad()
    def start_biases(self) -> None:
        """0, and 1 at the forget gate: the state is kept at first. Source: Jozefowicz et al. 2015."""
        self.bias.zero_()
        self.bias[self.units : 2 * self.units] = 1.0


class GRUCell(RecurrentCell):
    """r, z = s(n_x(W_x x) + n_h(W_h h) + b);  g = tanh(m_x(V_x x) + r (m_h(V_h h) + b_h) + b_g);  h = (1 - z) g + z h.

    n and m are the scheme's `recurrent_norm` at "input" and "hidden": each of the four products is normalised,
    those of the two gates together (one vector of 2 x units), those of the candidate g by themselves. The reset gate r
    acts after the norm of V_h h, as published with layer normalisation; it is also where torch.nn.GRU has it, which
    this is without a norm. (The first GRU, Cho et al. 2014, resets h before the product.) The state has no norm.

    W and V are one matrix, in torch's order r, z, g. `normalized` = what the gates and tanh get; r makes it differ from
    `linear` without a norm, too.

    Shape: as RecurrentCell; the state is (h,).
    Source: Cho et al. 2014, arXiv:1406.1078; norms as Ba et al. 2016, arXiv:1607.06450, supplement, and their code.
    """

    gates, together = 3, 2

    def __init__(self, scheme: NormScheme, inputs: int, units: int, steps: int) -> None:
        super().__init__(scheme, inputs, units, steps)
        self.reset_bias = nn.Parameter(torch.zeros(units))  # b_h
        self.candidate_input_norm = self.norm_of(scheme, units, "input")
        self.candidate_hidden_norm = self.norm_of(scheme, units, "hidden")

    @property
    def plain(self) -> bool:
        return super().plain and self.candidate_input_norm is None and self.candidate_hidden_norm is None

    def step(self, from_input: Tensor, from_hidden: Tensor, state: State, t: int) -> State:
        (h,), split = state, [2 * self.units, self.units]
        (gates_x, new_x), (gates_h, new_h) = from_input.split(split, dim=1), from_hidden.split(split, dim=1)
        gates = normalized(self.input_norm, gates_x, t) + normalized(self.hidden_norm, gates_h, t)
        new_x = normalized(self.candidate_input_norm, new_x, t)
        if not self.plain:
            gates, new_x = gates + self.bias[: 2 * self.units], new_x + self.bias[2 * self.units :]
        r, z = gates.sigmoid().chunk(2, dim=1)
        new = new_x + r * (normalized(self.candidate_hidden_norm, new_h, t) + self.reset_bias)
        if self.observer is not None:
            self.show("normalized", torch.cat((gates, new), dim=1))
        return ((1 - z) * new.tanh() + z * h,)

    def start_biases(self) -> None:
        super().start_biases()
        nn.init.zeros_(self.reset_bias)
