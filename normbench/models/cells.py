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
    places: ClassVar[tuple[tuple[str, str, int], ...]]  # norms: name, place, vectors of `units` normalised as one

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
        for name, place, vectors in self.places:
            norm = None if scheme.recurrent_norm is None else scheme.recurrent_norm(vectors * units, steps, place)
            self.add_module(name, norm)
        # Is no product normalised? The bias then goes into the one product over all time steps.
        self.plain = not set(self.norms) - {"state_norm"}

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

    def normalized(self, name: str, x: Tensor, t: int) -> Tensor:
        """`x` at time step `t` after the norm of this name, where there is one."""
        norm = self._modules[name]
        return x if norm is None else cast(Tensor, norm(x, t))

    def total(self, from_input: Tensor, from_hidden: Tensor, t: int) -> Tensor:
        """n_x(W_x x) + n_h(W_h h) + b: the pre-activation of cells that normalise each product as a whole."""
        gates = self.normalized("input_norm", from_input, t) + self.normalized("hidden_norm", from_hidden, t)
        if not self.plain:
            gates = gates + self.bias
            self.show("normalized", gates)
        return gates

    def start_biases(self) -> None:
        """Set the biases to their values before training: 0."""
        nn.init.zeros_(self.bias)


class TanhCell(RecurrentCell):
    """h = tanh(n_x(W_x x) + n_h(W_h h) + b): without a norm torch.nn.RNN.

    `normalized` is what tanh gets. There is no norm on the state.

    Shape: as RecurrentCell; the state is (h,).
    Source: Elman 1990, "Finding structure in time"; a norm on each product as in the LSTM.
    """

    gates = 1
    places = (("input_norm", "input", 1), ("hidden_norm", "hidden", 1))

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

    gates, states = 4, 2
    places = (("input_norm", "input", 4), ("hidden_norm", "hidden", 4), ("state_norm", "state", 1))

    def step(self, from_input: Tensor, from_hidden: Tensor, state: State, t: int) -> State:
        i, f, g, o = self.total(from_input, from_hidden, t).chunk(4, dim=1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * self.normalized("state_norm", c, t).tanh(), c

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

    gates = 3
    places = (("input_norm", "input", 2), ("hidden_norm", "hidden", 2),
              ("candidate_input_norm", "input", 1), ("candidate_hidden_norm", "hidden", 1))  # fmt: skip

    def __init__(self, scheme: NormScheme, inputs: int, units: int, steps: int) -> None:
        super().__init__(scheme, inputs, units, steps)
        self.reset_bias = nn.Parameter(torch.zeros(units))  # b_h

    def step(self, from_input: Tensor, from_hidden: Tensor, state: State, t: int) -> State:
        split = [2 * self.units, self.units]
        (gates_x, new_x), (gates_h, new_h) = from_input.split(split, dim=1), from_hidden.split(split, dim=1)
        gates = self.normalized("input_norm", gates_x, t) + self.normalized("hidden_norm", gates_h, t)
        new_x = self.normalized("candidate_input_norm", new_x, t)
        if not self.plain:
            gates, new_x = gates + self.bias[: 2 * self.units], new_x + self.bias[2 * self.units :]
        r, z = gates.sigmoid().chunk(2, dim=1)
        new = new_x + r * (self.normalized("candidate_hidden_norm", new_h, t) + self.reset_bias)
        if self.observer is not None:
            self.show("normalized", torch.cat((gates, new), dim=1))
        return ((1 - z) * new.tanh() + z * state[0],)

    def start_biases(self) -> None:
        super().start_biases()
        nn.init.zeros_(self.reset_bias)
