"""What the tests of norms share: tolerances, gains and shifts of their own, and sums over a feature's values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: sums over some 100 values lose at most three digits of sixteen
# At a batch of two, x's gradient is a difference of equal numbers: absolute error, on the scale of 1/std.
GRADIENT = {"rtol": 1e-10, "atol": 1e-11}
SHAPES = [(6, 5), (2, 5), (4, 5, 3, 2), (1, 5, 4, 4)]


def axes(x: Tensor) -> tuple[int, ...]:
    """All axes of x [N, C, ...] but that of the features."""
    return (0, *range(2, x.dim()))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


def randomize(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter, low, high in ((norm.weight, 0.5, 2.0), (norm.bias, -1.0, 1.0)):
            if parameter is not None:
                parameter.copy_(torch.linspace(low, high, len(parameter)))
    return norm


def one_step(norm: nn.Module, x: Tensor, *t: int) -> list[Tensor]:
    """Output, gradients and state after one training step."""
    x = x.clone().requires_grad_()
    y = norm(x, *t)
    up = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype).to(y.device)
    gradients = torch.autograd.grad(y, [x, *norm.parameters()], up)
    return [y.detach(), *gradients, *norm.buffers()]


def assert_same(
    y: Tensor,
    wanted: Tensor,
    got: Sequence[Tensor],
    expected: Sequence[Tensor] | None = None,
    error: float = 0.0,
) -> None:
    """The same outputs, and gradients of the same random sum of them with respect to `got` and `expected`.

    Args:
        error: allowed besides rounding in float64.
    """
    exact, gradient = ({key: value + error for key, value in close.items()} for close in (EXACT, GRADIENT))
    torch.testing.assert_close(y, wanted, **exact)
    up = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(9)).to(y.device)
    gradients = torch.autograd.grad(y, got, up), torch.autograd.grad(wanted, expected or got, up)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **gradient)


def compare(ours: nn.Module, theirs: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    """Outputs and all gradients of two norms with the same gains and shifts, in float64."""
    torch.manual_seed(0)
    randomize(ours.to(device, torch.float64)), randomize(theirs.to(device, torch.float64))
    a = (torch.randn(shape, dtype=torch.float64) * 3 + 1).to(device).requires_grad_()
    b = a.detach().clone().requires_grad_()
    assert_same(ours(a), theirs(b), (a, ours.weight, ours.bias), (b, theirs.weight, theirs.bias))
