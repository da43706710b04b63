"""What schemes do not notice is what they declare, and what follows for gradients and inside recurrent cells.

`verify` checks by trial, for every scheme, that it does not notice what `normbench.verify.definitions` says.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from normbench import seeding
from normbench.models import LSTMCell
from normbench.norms.describe import invariances
from normbench.verify.definitions import DEFINITIONS
from normbench.verify.trial import COLUMNS, PLACES, Trial, passed_through, weight_of

UNMOVED = {
    (name, place): {column for column, answer in zip(COLUMNS, answers.split(), strict=True) if answer == "yes"}
    for name, definition in DEFINITIONS.items()
    for place, answers in zip(PLACES, (definition.unmoved, definition.unmoved_conv or definition.unmoved), strict=True)
    if answers != "-"
}
SCALE_INVARIANT = [
    (name, column, place)
    for (name, place), columns in UNMOVED.items()
    for column in sorted(columns & {"matrix scaled", "vector scaled"})
]


@pytest.mark.parametrize(("name", "place"), UNMOVED)
def test_what_norms_declare_is_what_they_do_not_notice(name, place, scheme_of):
    block = Trial(scheme_of(name), {}, place).block()
    assert invariances(block.linear, block.norm) == UNMOVED[name, place]


@pytest.fixture
def gradient(scheme_of, cell_of):
    """The weight of a block, scaled as `column` says, and the gradient of a random sum of its outputs, in float64."""

    def found(name: str, column: str, place: str, factor: float) -> tuple[Tensor, Tensor]:
        trial = Trial(scheme_of(name), cell_of(f"norm={name}").config["norm"], place)
        block = trial.block()
        for module in block.modules():
            if hasattr(module, "eps"):
                module.eps = 1e-30
        w = weight_of(block)
        with torch.no_grad():
            w[slice(None) if column == "matrix scaled" else 2] *= factor
        y = passed_through(block, trial.data())
        (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).sum().backward()
        return w.detach(), w.grad

    return found


@pytest.mark.parametrize(("name", "column", "place"), SCALE_INVARIANT)
def test_gradient_is_orthogonal_to_the_weight_and_goes_as_one_over_its_scale(name, column, place, gradient):
    (w, g), (w2, g2) = gradient(name, column, place, 1.0), gradient(name, column, place, 2.0)
    part = slice(None) if column == "matrix scaled" else 2
    for weight, grad in ((w[part], g[part]), (w2[part], g2[part])):
        assert grad.norm() > 0.1
        cosine = (weight * grad).sum() / (weight.norm() * grad.norm())
        assert cosine.abs() < 1e-13
    # Doubling is exact in binary: so is the halving of the gradient, but for the sums that the gradient is made of.
    torch.testing.assert_close(g2[part], g[part] / 2, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["batch", "layer", "weight_mean_only", "group", "rms", "weight_standardization"])
@pytest.mark.parametrize("matrix", ["input", "hidden"])
def test_the_cell_does_not_notice_the_scale_of_either_matrix(name, matrix, scheme_of):
    cell = LSTMCell(scheme_of(name), inputs=4, units=6, steps=6).double()
    for module in cell.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-30
    x = torch.randn(6, 8, 4, generator=seeding.generator(0, "x"), dtype=torch.float64)
    start = torch.randn(2, 8, 6, generator=seeding.generator(0, "state"), dtype=torch.float64)
    linear: Any = getattr(cell, matrix)
    weight = linear.parametrizations.weight.original1 if hasattr(linear, "parametrizations") else linear.weight
    with torch.no_grad():
        before = cell(x, (start[0], start[1]))
        weight.mul_(3)
        assert (cell(x, (start[0], start[1])) - before).abs().max() < 1e-9
