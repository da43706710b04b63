"""The simple recurrent cell."""

from __future__ import annotations

from torch import Tensor

from normbench.models.recurrent import RecurrentCell, State


class TanhCell(RecurrentCell):
    """h = tanh(n_x(W_x x) + n_h(W_h h) + b).

    n_x and n_h are the scheme's `recurrent_norm` at "input" and "hidden"; where it has none, this is torch.nn.RNN.
    `normalized` is what tanh gets. There is no norm on the state.

    Shape: as RecurrentCell; the state is (h,).
    Source: Elman 1990, "Finding structure in time"; a norm on each product as in the LSTM.
    """

    gates = together = 1

    def step(self, from_input: Tensor, from_hidden: Tensor, state: State, t: int) -> State:
        return (self.total(from_input, from_hidden, t).tanh(),)
