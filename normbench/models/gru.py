"""A GRU cell with a place for each norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normbench.models.recurrent import RecurrentCell, State, normalized
from normbench.norms import NormScheme


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
        norm = scheme.recurrent_norm or (lambda features, steps, place: None)
        self.candidate_input_norm = norm(units, steps, "input")
        self.candidate_hidden_norm = norm(units, steps, "hidden")

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
