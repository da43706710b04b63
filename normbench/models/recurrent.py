"""What recurrent cells share: two products, a bias, a place for each norm, and the loop over time."""

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
        norm = scheme.recurrent_norm or (lambda features, steps, place: None)
        self.input_norm = norm(self.together * units, steps, "input")
        self.hidden_norm = norm(self.together * units, steps, "hidden")

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
