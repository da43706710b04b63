"""An LSTM cell with a place for each norm."""

from __future__ import annotations

import torch
from torch import Tensor

from normbench.models.recurrent import RecurrentCell, State, normalized
from normbench.norms import NormScheme


class LSTMCell(RecurrentCell):
    """gates = n_x(W_x x) + n_h(W_h h) + b;  c = s(f) c + s(i) tanh(g);  h = s(o) tanh(n_c(c)).

    n_x, n_h, n_c are the scheme's `recurrent_norm` at "input", "hidden" and "state"; where it has none, they do nothing
    and this is torch.nn.LSTM, whose order of gates it has: input, forget, candidate, output. All gates are normalised
    together (one vector of 4 x units). The cell's own update is never normalised, so that the state can carry
    information through time. `normalized` is the gates' pre-activation.

    Shape: as RecurrentCell; the state is (h, c).
    Source: Hochreiter & Schmidhuber 1997; norms as Ba et al. 2016, arXiv:1607.06450, and Cooijmans et al. 2016,
        arXiv:1603.09025, place them.
    """

    gates = together = 4
    states = 2

    def __init__(self, scheme: NormScheme, inputs: int, units: int, steps: int) -> None:
        super().__init__(scheme, inputs, units, steps)
        self.state_norm = scheme.recurrent_norm(units, steps, "state") if scheme.recurrent_norm is not None else None

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
