"""Every scheme's blocks in stacks: under vmap, gradients and buffers are those of separate modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from normbench.norms import NormScheme, RecurrentBatchNorm

# torch's weight norm is right, but done member by member
pytestmark = pytest.mark.filterwarnings("ignore:.*batching rule for aten.._weight_norm:UserWarning")
K, STEPS, N = 3, 3, 8
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def assert_stacks(modules: list[nn.Module], x: Tensor, *arguments: Any) -> None:
    """Three steps of gradient descent of K modules in one, and one by one. Shape: x [STEPS, K, N, C, ...]."""
    params, buffers = stack_module_state(modules)  # type: ignore[arg-type]
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    buffers = {name: value.detach().clone() for name, value in buffers.items()}
    shared = copy.deepcopy(modules[0])
    up = torch.randn(modules[0](x[0, 0], *arguments).shape, dtype=torch.float64)
    for k, module in enumerate(modules):
        module.load_state_dict({name: value[k] for name, value in (params | buffers).items()})
    for images in x:
        y = vmap(lambda p, b, x: functional_call(shared, (p, b), (x, *arguments)))(params, buffers, images)
        gradients = torch.autograd.grad((y * up).sum(), list(params.values()), allow_unused=True)
        for k, module in enumerate(modules):
            own = dict(module.named_parameters())
            wanted = torch.autograd.grad(
                (module(images[k], *arguments) * up).sum(), list(own.values()), allow_unused=True
            )
            with torch.no_grad():
                for name, together, alone in zip(own, gradients, wanted, strict=True):
                    if alone is not None:
                        torch.testing.assert_close(together[k], alone, **CLOSE)
                        own[name] -= 0.1 * alone
                        params[name][k] -= 0.1 * together[k]
            for name, value in module.named_buffers():
                torch.testing.assert_close(buffers[name][k], value, **CLOSE)


def inputs(*shape: int) -> Tensor:
    return torch.randn(STEPS, K, N, *shape, dtype=torch.float64) + 1


@pytest.mark.parametrize("conv", [False, True], ids=["dense", "conv"])
def test_blocks(norm_name: str, conv: bool, scheme_of: Any) -> None:
    torch.manual_seed(0)
    if norm_name == "instance" and not conv:
        return
    scheme: NormScheme = scheme_of(norm_name)
    made = [scheme.block(nn.Conv2d(3, 4, 3) if conv else nn.Linear(3, 4), nn.ReLU).double() for _ in range(K)]
    for block in made:
        if hasattr(block.norm, "noisy"):
            block.norm.noisy = False
    assert_stacks(list(made), inputs(3, 5, 5) if conv else inputs(3))


@pytest.mark.parametrize("name", ["batch", "ghost_batch", "mean_only", "layer"])
def test_cells(name: str, scheme_of: Any) -> None:
    torch.manual_seed(0)
    make = scheme_of(name).recurrent_norm
    assert_stacks([make(4, 3, "input").double() for _ in range(K)], inputs(4), 1)


def test_plain_averages(scheme_of: Any) -> None:
    torch.manual_seed(0)
    scheme = scheme_of("batch", "norm.momentum=null")
    assert_stacks([scheme.block(nn.Linear(3, 4)).double() for _ in range(K)], inputs(3))
    assert_stacks([RecurrentBatchNorm(4, 3, "state", momentum=None).double() for _ in range(K)], inputs(4), 1)
