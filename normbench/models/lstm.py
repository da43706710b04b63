"""An LSTM cell with a place for each norm."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.norms import NormScheme, Observed

GATES = 4  # input, forget, candidate, output: the order of torch.nn.LSTM


class LSTMCell(Observed):
    """gates = n_x(W_x x) + n_h(W_h h) + b;  c = s(f) c + s(i) tanh(g);  h = s(o) tanh(n_c(c)).

    n_x, n_h, n_c are the scheme's `cell_norm` at "input", "hidden" and "state"; where it has none, they do nothing and
    this is torch.nn.LSTM. All gates are normalised together (one vector of 4 x units). The cell's own update is never
    normalised, so that the state can carry information through time.

    It shows `linear` = W_x x + W_h h before any norm, `normalized` = the gates' pre-activation, `activation` = h;
    without a norm, `linear` includes b.

    Args:
        inputs, units: size of x_t and of h.
        steps: how long sequences are, for norms with statistics per time step.

    Shape: x [T, N, inputs], (h, c) [N, units] each -> h at the last step [N, units].
    Source: Hochreiter & Schmidhuber 1997; norms as Ba et al. 2016 and Cooijmans et al. 2016 place them.
    """

    recurrent = True

    def __init__(self, scheme: NormScheme, inputs: int, units: int, steps: int) -> None:
        super().__init__()
        self.units = units
        self.input = scheme.wrap(nn.Linear(inputs, GATES * units, bias=False))
        self.hidden = scheme.wrap(nn.Linear(units, GATES * units, bias=False))
        self.bias = nn.Parameter(torch.zeros(GATES * units))
        norm = scheme.cell_norm or (lambda features, steps, place: None)
        self.input_norm = norm(GATES * units, steps, "input")
        self.hidden_norm = norm(GATES * units, steps, "hidden")
        self.state_norm = norm(units, steps, "state")

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        h, c = state
        w_x, w_h = (
            cast(Tensor, self.input.weight),
            cast(Tensor, self.hidden.weight),
        )  # read once: a re-parametrised weight is computed anew at each reading
        plain = self.input_norm is None and self.hidden_norm is None
        # Without a norm the bias can go into the one product over all time steps.
        products = F.linear(x, w_x, self.bias if plain else None)  # [T, N, 4 units]
        for t, from_input in enumerate(products):
            from_hidden = F.linear(h, w_h)
            if self.observer is not None:
                self.show("linear", from_input + from_hidden)
            if self.input_norm is not None:
                from_input = self.input_norm(from_input, t)
            if self.hidden_norm is not None:
                from_hidden = self.hidden_norm(from_hidden, t)
            gates = from_input + from_hidden
            if not plain:
                gates = gates + self.bias
                self.show("normalized", gates)
            i, f, g, o = gates.chunk(GATES, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * (c if self.state_norm is None else self.state_norm(c, t)).tanh()
            self.show("activation", h)
        return h
