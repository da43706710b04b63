"""The data-dependent start: every block's pre-activation has mean 0 and variance 1, and nothing else has changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.norms import NormScheme, blocks, data_dependent_init, weight_norm

NAMES = ["none", "weight", "weight_mean_only"]


@pytest.fixture
def pre_activations(tensors_of):
    """What enters each block's activation: the last of `linear` and `normalized`."""

    def seen(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        recurrent = {name for name, block in blocks(model) if block.recurrent}
        every = tensors_of(model, images)
        return {layer: t for (layer, kind), t in every.items() if kind != "activation" and layer not in recurrent}

    return seen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model_kind", ["mlp", "cnn", "rnn"])
@pytest.mark.parametrize("normalize_output", [False, True])
def test_every_pre_activation_is_standardised(
    name, model_kind, normalize_output, network_of, scheme_of, batch_of, pre_activations, device
):
    model = network_of(name, model_kind, dropout=0.5, normalize_output=normalize_output).to(device)
    images = batch_of(200)[0].to(device) * 3 + 1
    before = pre_activations(model, images)
    assert any(t.var(correction=0).sub(1).abs() > 0.1 for t in before.values())
    scheme_of(name).data_dependent_init(model, images)
    after = pre_activations(model, images)
    assert after.keys() == before.keys()
    for layer, t in after.items():
        over = (0, *range(2, t.dim()))
        assert t.mean(over).abs().max() < 1e-4, layer
        assert t.std(over, correction=0).sub(1).abs().max() < 1e-4, layer


def test_is_the_papers_formula():
    torch.manual_seed(0)
    linear, x = weight_norm(nn.Linear(6, 4).double()), torch.randn(50, 6, dtype=torch.float64) + 2
    with torch.no_grad():
        linear.parametrizations.weight.original0.copy_(torch.rand(4, 1) + 0.5)
        linear.bias.copy_(torch.randn(4))
    v = linear.parametrizations.weight.original1.detach().clone()
    model = nn.Sequential(NormScheme().block(linear, nn.ReLU))
    data_dependent_init(model, x)
    t = x @ (v / v.norm(dim=1, keepdim=True)).T
    g, b = 1 / t.std(0, correction=0), -t.mean(0) / t.std(0, correction=0)
    torch.testing.assert_close(linear.parametrizations.weight.original0.detach()[:, 0], g)
    torch.testing.assert_close(linear.bias.detach(), b)
    assert torch.equal(linear.parametrizations.weight.original1, v)


def test_plain_and_normalised_weights_start_as_the_same_function(network_of, batch_of):
    # The paper's baseline without normalisation has the same start.
    images, models = batch_of(200)[0], [network_of(name, "cnn").eval() for name in ("none", "weight")]
    for model in models:
        data_dependent_init(model, images)
    torch.testing.assert_close(models[0](images), models[1](images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_leaves_everything_else_as_it_was(name, network_of, batch_of, device):
    model = network_of(name, "rnn", dropout=0.5).to(device)
    images = batch_of(50)[0].to(device)
    model(images).sum().backward()
    model.output.eval()

    def snapshot() -> dict[str, Any]:
        state: dict[str, Any] = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("output")}
        state |= {f"gradient {k}": p.grad.clone() for k, p in model.named_parameters()}
        state |= {f"mode {k}": torch.tensor(m.training) for k, m in model.named_modules()}
        state |= {f"asks {k}": torch.tensor(p.requires_grad) for k, p in model.named_parameters()}
        return state | {
            "random numbers": torch.get_rng_state(),
            "hooks": torch.tensor(len(model.output._forward_hooks)),
        }

    before = snapshot()  # the cell's weights are part of it: recurrent cells are left alone
    data_dependent_init(model, images)
    after = snapshot()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    with pytest.raises(RuntimeError):
        data_dependent_init(model, images[..., :-1])
    assert all(torch.equal(value, snapshot()[key]) for key, value in before.items())


def test_units_that_do_not_vary_are_left_alone():
    torch.manual_seed(1)
    model = nn.Sequential(NormScheme().block(nn.Linear(6, 4), nn.ReLU), NormScheme().block(nn.Linear(4, 3)))
    with torch.no_grad():
        model[0].linear.weight[1] = 0
    still, x = copy.deepcopy(model[0].linear), torch.randn(50, 6)
    data_dependent_init(model, x)
    assert torch.equal(model[0].linear.weight[1], still.weight[1])
    assert torch.equal(model[0].linear.bias[1], still.bias[1])
    assert not torch.equal(model[0].linear.weight[0], still.weight[0])
    unchanged = copy.deepcopy(model.state_dict())
    data_dependent_init(model, x[:1].expand(50, 6) * 1000)  # nothing varies but for rounding
    assert all(torch.equal(value, unchanged[key]) for key, value in model.state_dict().items())


def test_is_off_by_default_and_takes_two_images(scheme_of):
    for name in NAMES:
        assert scheme_of(name).init_images == 0
        assert scheme_of(name, "norm.init_images=500").init_images == 500
    for wrong in (-1, 1):
        with pytest.raises(ValueError, match=f"norm.init_images must be 2 or more, .* got {wrong}"):
            NormScheme(init_images=wrong)
