"""Networks of one architecture train in a stack as they do alone, noise included: what `torch.func.vmap` asks of every
module. Traps: statistics written into views, buffers that are replaced and not written to, random numbers drawn in an
order.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from normbench import seeding
from normbench.errors import Unsupported
from normbench.noise import next_draw, seed_noise

K, N, UPDATES, LR = 3, 6, 3, 0.05
RECURRENT = ("none", "batch", "layer", "rms", "group", "ghost_batch", "weight", "weight_mean_only", "selu")
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # operations without a batching rule
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def members(norm: str, model: str, network_of: Any, *words: str, **options: Any) -> list[nn.Module]:
    """K networks of their own weights and noise, in float64 and in training."""
    try:
        made = [network_of(norm, model, *words, seed=seed, skip=False, **options).double() for seed in range(K)]
    except Unsupported as reason:
        pytest.skip(str(reason))
    for seed, network in enumerate(made):
        seed_noise(network, seeding.derive(seed, "noise"))
    return made


def alone(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One update by plain SGD. Returns its loss and gradients."""
    next_draw(network)
    loss = F.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter -= LR * gradient
    return loss.detach(), list(gradients)


def check(networks: list[nn.Module], shape: tuple[int, ...] = (1, 8, 8)) -> None:
    torch.manual_seed(0)
    template = deepcopy(networks[0])
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]
    start = {name: buffer.clone() for name, buffer in buffers.items()}

    def loss_of(parameters: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(template, (parameters, buffers), (x,)), y)

    for update in range(UPDATES):
        x, y = torch.randn(K, N, *shape, dtype=torch.float64), torch.randint(5, (K, N))
        for name, buffer in buffers.items():
            if name.endswith("noise_draw"):
                buffer += 1
        losses = vmap(loss_of)(parameters, buffers, x, y)
        together = torch.autograd.grad(losses.sum(), list(parameters.values()), allow_unused=True,
                                       materialize_grads=True)  # fmt: skip
        parameters = {name: (p - LR * g).detach().requires_grad_()
                      for (name, p), g in zip(parameters.items(), together, strict=True)}  # fmt: skip
        for k, network in enumerate(networks):
            loss, gradients = alone(network, x[k], y[k])
            torch.testing.assert_close(losses[k], loss, **EXACT, msg=lambda m, at=update: f"loss of update {at}: {m}")
            for name, one, other in zip(parameters, together, gradients, strict=True):
                torch.testing.assert_close(one[k], other, **EXACT, msg=lambda m, name=name: f"{name}: {m}")
    for k, network in enumerate(networks):
        for name, buffer in network.named_buffers():
            torch.testing.assert_close(buffers[name][k], buffer, **EXACT, msg=lambda m, name=name: f"{name}: {m}")
    moved = {name.rpartition(".")[2] for name, buffer in buffers.items() if not torch.equal(buffer, start[name])}
    assert "noise_draw" in moved
    assert not {"running_mean", "running_var"} & {name.rpartition(".")[2] for name in buffers} - moved


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_scheme(norm_name, model, network_of):
    check(members(norm_name, model, network_of, dropout=0.3))


@pytest.mark.parametrize(
    ("norm", "cell"),
    [*((norm, "lstm") for norm in RECURRENT), *product(("batch", "layer", "weight_mean_only"), ("gru", "tanh"))],
)
def test_recurrent_cells(norm, cell, network_of):
    check(members(norm, "rnn", network_of, cell=cell, dropout=0.3, initial_state_noise=0.3))


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "selu", "noisy_batch", "weight_mean_only"])
def test_resnet(norm, network_of):
    check(members(norm, "resnet", network_of, dropout=0.3))


def test_noise_on_the_image(network_of):
    check(members("batch", "convpool_c", network_of))


@pytest.mark.parametrize("model", ["mlp", "rnn"])
@pytest.mark.parametrize(("norm", "word"), [("batch", "momentum=null"), ("ghost_batch", "update_per=ghost_batch")])
def test_other_averages(norm, word, model, network_of):
    check(members(norm, model, network_of, f"norm.{word}", dropout=0.3))
