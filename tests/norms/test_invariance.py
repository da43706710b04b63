"""What each scheme does not notice: the table of Ba, Kiros & Hinton 2016 (arXiv:1607.06450), table 1, on real blocks.

All in float64 and with an eps of 1e-30, because the laws hold up to eps: "yes" then means to 10 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from normbench.verify.invariance import COLUMNS, transformed, weight_of
from torch import Tensor, nn

from normbench import seeding
from normbench.errors import Unsupported
from normbench.models import LSTMCell
from normbench.norms import NormScheme, uses_batch
from normbench.norms.describe import invariances

N, INPUTS, UNITS = 16, 8, 6
# The first three rows of DENSE are the published table; the others follow from the formulas in the same way.
DENSE = {
    "batch": "yes no yes yes yes no",
    "weight": "yes no yes no no no",
    "layer": "yes yes no yes no yes",
    "weight_mean_only": "yes no yes no yes no",
    "none": "no no no no no no",
    "group": "yes yes no yes no yes",
    "rms": "yes no no yes no yes",
    "layer2d": "yes yes no yes no yes",
    "mean_only": "no no no no yes no",
    "ghost_batch": "yes no yes yes yes no",
    "batch_renorm": "yes no yes yes yes no",  # before its corrections start
    "weight_standardization": "yes no yes no no no",
    "dynamic_tanh": "no no no no no no",
}
# Convolutions without padding. A shift of all kernels by one moves all channels alike, but each position differently,
# and layer and group norm take one mean over positions: there the table's "yes" holds for dense layers alone.
CONV = {
    **DENSE,
    "layer": "yes no no yes no yes",
    "group": "yes no no yes no yes",
    "instance": "yes no yes yes yes yes",
}
FIT = {"group": ["norm.groups=2"], "ghost_batch": ["norm.virtual=8"]}  # these layers and batches


def table(rows: dict[str, str]) -> list[Any]:
    return [
        pytest.param(name, column, answer == "yes", id=f"{name}-{column}-{answer}".replace(" ", "_"))
        for name, answers in rows.items()
        for column, answer in zip(COLUMNS, answers.split(), strict=True)
    ]


def without_eps(name: str) -> list[str]:
    has_eps = name not in ("none", "weight", "weight_mean_only", "mean_only", "dynamic_tanh")
    return ["norm.eps=1e-30"] * has_eps + FIT.get(name, [])


def block_of(scheme: NormScheme, conv: bool) -> nn.Module:
    """A block without activation in float64; gains, biases and g have values of their own."""
    torch.manual_seed(0)
    block = scheme.block(nn.Conv2d(INPUTS, UNITS, 3) if conv else nn.Linear(INPUTS, UNITS)).double().train()
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter is not weight_of(block):
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    return block


def data(conv: bool) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(N, INPUTS, *((5, 5) if conv else ()), generator=g, dtype=torch.float64)


def change(scheme: NormScheme, column: str, conv: bool, by: float = 3.0) -> float:
    """The largest difference that the transformation makes to the block's output."""
    block = block_of(scheme, conv)
    x = data(conv)
    with torch.no_grad():
        before = block(x)
        w, x = transformed(column, weight_of(block), x, by)
        weight_of(block).copy_(w)
        return (block(x) - before).abs().max().item()


@pytest.mark.parametrize(("name", "column", "invariant"), table(DENSE))
def test_dense(name, column, invariant, scheme_of):
    scheme = scheme_of(name, *without_eps(name))
    moved = change(scheme, column, conv=False)
    assert moved < 1e-10 if invariant else moved > 0.05
    block = block_of(scheme, conv=False)
    assert (column in invariances(block.linear, block.norm)) == invariant


@pytest.mark.parametrize(("name", "column", "invariant"), table(CONV))
def test_conv(name, column, invariant, scheme_of):
    scheme = scheme_of(name, *without_eps(name))
    moved = change(scheme, column, conv=True)
    assert moved < 1e-10 if invariant else moved > 0.05
    block = block_of(scheme, conv=True)
    assert (column in invariances(block.linear, block.norm)) == invariant


@settings(max_examples=15, deadline=None)
@given(by=st.floats(0.01, 100))
def test_dense_by_any_positive_factor(by, scheme_of):
    for name, column, invariant in (p.values for p in table(DENSE)):
        if invariant:
            # Scaled by 0.01 and 100, sums lose two digits more.
            assert change(scheme_of(name, *without_eps(name)), column, False, by) < 1e-8, (name, column)


# ---- the gradient of a weight whose scale does not matter


def gradient(scheme: NormScheme, conv: bool, column: str, factor: float) -> tuple[Tensor, Tensor]:
    block = block_of(scheme, conv)
    w = weight_of(block)
    with torch.no_grad():
        if column == "matrix scaled":
            w.mul_(factor)
        else:
            w[2] *= factor
    y = block(data(conv))
    up = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (y * up).sum().backward()
    return w.detach(), w.grad


SCALE_INVARIANT = [
    (name, column, conv)
    for conv, rows in ((False, DENSE), (True, CONV))
    for name, answers in rows.items()
    for column, answer in zip(COLUMNS, answers.split(), strict=True)
    if answer == "yes" and column in ("matrix scaled", "vector scaled")
]


@pytest.mark.parametrize(("name", "column", "conv"), SCALE_INVARIANT)
def test_gradient_is_orthogonal_to_the_weight_and_goes_as_one_over_its_scale(name, column, conv, scheme_of):
    scheme = scheme_of(name, *without_eps(name))
    (w, g), (w2, g2) = gradient(scheme, conv, column, 1.0), gradient(scheme, conv, column, 2.0)
    part = slice(None) if column == "matrix scaled" else 2
    for weight, grad in ((w[part], g[part]), (w2[part], g2[part])):
        assert grad.norm() > 0.1
        cosine = (weight * grad).sum() / (weight.norm() * grad.norm())
        assert cosine.abs() < 1e-13
    # Doubling is exact in binary: so is the halving of the gradient, but for the sums that the gradient is made of.
    torch.testing.assert_close(g2[part], g[part] / 2, rtol=1e-11, atol=1e-13)


def test_with_the_usual_eps_the_gradient_is_nearly_orthogonal(scheme_of):
    for name in ("batch", "layer"):
        w, g = gradient(scheme_of(name), False, "matrix scaled", 1.0)
        cosine = ((w * g).sum() / (w.norm() * g.norm())).abs()
        assert 1e-12 < cosine < 1e-3, name


# ---- inside the recurrent cell


@pytest.mark.parametrize(
    "name",
    [
        "batch",
        "layer",
        "weight",
        "weight_mean_only",
        "group",
        "rms",
        "layer2d",
        "ghost_batch",
        "weight_standardization",
    ],
)
@pytest.mark.parametrize("matrix", ["input", "hidden"])
def test_the_cell_does_not_notice_the_scale_of_either_matrix(name, matrix, scheme_of):
    cell = LSTMCell(scheme_of(name, *without_eps(name)), inputs=4, units=6, steps=6).double()
    x = torch.randn(6, 8, 4, generator=seeding.generator(0, "x"), dtype=torch.float64)
    start = torch.randn(2, 8, 6, generator=seeding.generator(0, "state"), dtype=torch.float64)
    linear: Any = getattr(cell, matrix)
    weight = linear.parametrizations.weight.original1 if hasattr(linear, "parametrizations") else linear.weight
    with torch.no_grad():
        before = cell(x, (start[0], start[1]))
        weight.mul_(3)
        assert (cell(x, (start[0], start[1])) - before).abs().max() < 1e-9


# ---- who depends on whom


@pytest.mark.parametrize("conv", [False, True], ids=["dense", "conv"])
def test_batch_mates_matter_only_to_schemes_that_use_the_batch(norm_name, conv, scheme_of):
    uses: Callable[[nn.Module], bool] = lambda block: any(uses_batch(m) for m in block.modules())  # noqa: E731
    block = block_of(scheme_of(norm_name, *FIT.get(norm_name, [])), conv)
    x = data(conv)
    others = torch.cat([x[:1], x[1:] * 2 + 1])
    for training in (True, False):
        block.train(training)
        outputs = []
        for images in (x, others):
            torch.manual_seed(2)  # of the noise, where there is some
            try:
                outputs.append(block(images)[0].detach())
            except Unsupported:
                assert (norm_name, conv) == ("instance", False)
                return
        moved = (outputs[0] - outputs[1]).abs().max().item()
        if training and uses(block):
            assert moved > 0.01
        else:
            assert moved < 1e-12
