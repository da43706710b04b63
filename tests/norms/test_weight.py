"""Weight norm, weight standardization, mean-only batch norm and the data-dependent start, against their formulas."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from formulas import EXACT, SHAPES, axes, per_channel
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import MeanOnlyBatchNorm, NormScheme, blocks, recurrent_mean_only, weight_norm
from normbench.norms.weight import RecurrentMeanOnlyBatchNorm, data_dependent_init, weight_standardization

GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # what ReLU takes from a normal variable's standard deviation
NAMES = ["none", "weight", "weight_mean_only"]


def layers() -> list[nn.Module]:
    return [nn.Linear(6, 4).double(), nn.Conv2d(3, 4, 3).double()]


def parts(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.parametrizations.weight.original0, layer.parametrizations.weight.original1


def length(v: Tensor) -> Tensor:
    """|v| of each output unit or channel, over all its other axes; [C', 1, ...]."""
    return (v**2).sum(tuple(range(1, v.dim())), keepdim=True).sqrt()


@pytest.mark.parametrize("kind", [0, 1], ids=["linear", "conv"])
def test_starts_unchanged_with_g_the_length_of_the_weight(kind):
    layer = layers()[kind]
    weight = layer.weight.detach().clone()
    g, v = parts(weight_norm(layer))
    torch.testing.assert_close(g.detach(), length(weight), **EXACT)
    torch.testing.assert_close(v.detach(), weight, **EXACT)
    torch.testing.assert_close(layer.weight.detach(), weight, **EXACT)
    assert {name for name, _ in layer.named_parameters()} == {
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1"
    }  # fmt: skip


# ---- weight standardization


def standardized(g: Tensor, v: Tensor, gain: float) -> Tensor:
    """Unit by unit."""
    out = []
    for scale, unit in zip(g.flatten(), v, strict=True):
        mean = unit.sum() / unit.numel()
        sigma = (((unit - mean) ** 2).sum() / unit.numel()).sqrt()
        out.append(scale * gain * (unit - mean) / (sigma * unit.numel() ** 0.5))
    return torch.stack(out)


@pytest.mark.parametrize("kind", [0, 1], ids=["linear", "conv"])
def test_weights_have_mean_zero_and_the_length_of_the_gain(kind):
    torch.manual_seed(0)
    layer = weight_standardization(layers()[kind], gain=1.5)
    w = layer.weight.detach().flatten(1)
    torch.testing.assert_close(w.mean(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(w.norm(dim=1), torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(w.var(1, correction=0) * w.shape[1], torch.full((4,), 1.5**2, dtype=torch.float64))
    assert {name for name, _ in layer.named_parameters()} == {
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1"
    }  # fmt: skip


def test_the_default_gain_is_that_of_relu(scheme_of):
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5 * (z[1] - z[0])
    y = z.relu()
    var = (density * y**2).sum() - (density * y).sum() ** 2
    assert var.rsqrt().item() == pytest.approx(GAIN, rel=1e-6)
    layer = scheme_of("weight_standardization").block(nn.Linear(6, 4), nn.ReLU).linear
    assert layer.weight.norm(dim=1).tolist() == pytest.approx([GAIN] * 4, rel=1e-4)
    layer = scheme_of("weight_standardization", "norm.gain=1", "norm.affine=false").block(nn.Linear(6, 4)).linear
    assert layer.weight.norm(dim=1).tolist() == pytest.approx([1] * 4, rel=1e-4)
    assert [p.requires_grad for p in parts(layer)] == [False, True]


def test_a_signal_keeps_its_size_through_a_relu_network(scheme_of):
    # Without the centring of the weights, means would add up layer by layer and variances go astray.
    torch.manual_seed(3)
    scheme, t = scheme_of("weight_standardization"), torch.randn(1000, 500)
    for _ in range(10):
        t = scheme.block(nn.Linear(500, 500, bias=False)).linear(t.relu())
        # 500 units: a layer's variance is known to some percent, and the errors of ten multiply.
        assert t.var(0).mean().item() == pytest.approx(1, rel=0.2)


def test_setting_a_standardized_weight_sets_v_and_keeps_the_length():
    layer = weight_standardization(nn.Linear(6, 4).double(), gain=1.0)
    with torch.no_grad():
        parts(layer)[0].fill_(7)
    wanted = torch.randn(4, 6, dtype=torch.float64)
    layer.weight = wanted
    assert torch.equal(parts(layer)[1].detach(), wanted)
    assert torch.equal(parts(layer)[0].detach(), torch.ones(4, 1, dtype=torch.float64))
    torch.testing.assert_close(layer.weight.detach(), standardized(torch.ones(4), wanted, 1.0))


def test_weights_that_are_all_the_same_stay_finite():
    layer = weight_standardization(nn.Linear(6, 4))
    layer.weight = torch.full((4, 6), 0.3)
    layer(torch.randn(3, 6)).sum().backward()
    assert not layer.weight.abs().max() > 1e-4
    assert parts(layer)[1].grad.isfinite().all()


def test_one_input_is_unsupported():
    with pytest.raises(Unsupported, match="Weight standardization needs two inputs to a unit: got 1"):
        weight_standardization(nn.Linear(1, 4))


# ---- mean-only batch norm


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", [0.05, 0.1, 1.0])
def test_mean_only_is_the_formula_over_several_steps(shape, momentum, device):
    torch.manual_seed(0)
    norm = MeanOnlyBatchNorm(5, momentum=momentum).to(device, torch.float64)
    beta = torch.linspace(-1, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        norm.bias.copy_(beta)
    running = torch.zeros(5, dtype=torch.float64)
    for step in range(4):
        x = torch.randn(shape, dtype=torch.float64) * (step + 1) + 3 * step
        mean = x.sum(axes(x)) / (x.numel() // 5)
        running = (1 - momentum) * running + momentum * mean
        wanted = x - per_channel(mean, x) + per_channel(beta, x)
        torch.testing.assert_close(norm(x.to(device)).cpu(), wanted, **EXACT)
        torch.testing.assert_close(norm.running_mean.cpu(), running, **EXACT)
        assert norm.num_batches_tracked == step + 1
    before = copy.deepcopy(norm.eval().state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    wanted = x - per_channel(running, x) + per_channel(beta, x)
    torch.testing.assert_close(norm(x.to(device)).cpu(), wanted, **EXACT)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_centred(shape, device):
    torch.manual_seed(1)
    norm = MeanOnlyBatchNorm(5).to(device, torch.float64)
    x = torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
    up = (torch.randn(shape, dtype=torch.float64) + 2).to(device)
    norm(x).backward(up)
    torch.testing.assert_close(x.grad, up - per_channel(up.mean(axes(up)), up), **EXACT)
    assert x.grad.mean(axes(up)).abs().max() < 1e-14
    torch.testing.assert_close(norm.bias.grad, up.sum(axes(up)), **EXACT)


def test_starts_at_zero_and_keeps_no_variance():
    norm = MeanOnlyBatchNorm(4)
    assert set(norm.state_dict()) == {"bias", "running_mean", "num_batches_tracked"}
    assert not any(value.any() for value in norm.state_dict().values())
    assert list(MeanOnlyBatchNorm(4, affine=False).parameters()) == []


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1)])
def test_one_value_per_feature_is_unsupported_in_training_alone(shape):
    norm = MeanOnlyBatchNorm(4)
    with pytest.raises(
        Unsupported, match="Mean-only batch norm needs two values per feature to train: got a batch of 1"
    ):
        norm(torch.randn(shape))
    assert norm.num_batches_tracked == 0
    assert norm.eval()(torch.randn(shape)).shape == shape


def test_recurrent_means_are_each_steps_own(device):
    torch.manual_seed(2)
    norm = RecurrentMeanOnlyBatchNorm(4, 3, "input", momentum=0.2).to(device, torch.float64)
    assert list(norm.parameters()) == []  # the cell adds the one bias
    running = [torch.zeros(4, dtype=torch.float64) for _ in range(3)]
    for _ in range(3):
        for t in range(5):  # longer than there are statistics: the last ones serve
            x = torch.randn(6, 4, dtype=torch.float64) + t
            running[min(t, 2)] = 0.8 * running[min(t, 2)] + 0.2 * x.mean(0)
            torch.testing.assert_close(norm(x.to(device), t).cpu(), x - x.mean(0), **EXACT)
    torch.testing.assert_close(norm.running_mean.cpu(), torch.stack(running), **EXACT)
    assert norm.num_batches_tracked.tolist() == [3, 3, 9]
    norm.eval()
    for t in range(5):
        x = torch.randn(1, 4, dtype=torch.float64)
        torch.testing.assert_close(norm(x.to(device), t).cpu(), x - running[min(t, 2)], **EXACT)


def test_shared_mean_looks_back_as_far_as_separate_ones():
    norm = RecurrentMeanOnlyBatchNorm(2, 4, "hidden", momentum=0.1, per_step=False).double()
    for t in range(4):
        norm(torch.ones(3, 2, dtype=torch.float64), t)
    torch.testing.assert_close(norm.running_mean, torch.full((1, 2), 0.1, dtype=torch.float64), **EXACT)


def test_there_is_none_on_the_cells_state():
    assert recurrent_mean_only(4, 3, "state") is None
    assert isinstance(recurrent_mean_only(4, 3, "input", momentum=0.2), RecurrentMeanOnlyBatchNorm)


def test_recurrent_one_example_is_unsupported_in_training_alone():
    norm = RecurrentMeanOnlyBatchNorm(4, 3, "hidden")
    with pytest.raises(Unsupported, match="needs two values per feature to train: got a batch of 1"):
        norm(torch.randn(1, 4), 0)
    assert norm.eval()(torch.randn(1, 4), 0).shape == (1, 4)


# ---- the data-dependent start


@pytest.fixture
def pre_activations(tensors_of):
    """What enters each block's activation: the last of `linear` and `normalized`."""

    def seen(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        recurrent = {name for name, block in blocks(model) if block.recurrent}
        every = tensors_of(model, images)
        return {layer: t for (layer, kind), t in every.items() if kind != "activation" and layer not in recurrent}

    return seen


@pytest.mark.parametrize(
    ("name", "model_kind", "normalize_output"),
    [("none", "cnn", True), ("weight", "mlp", True), ("weight", "cnn", False), ("weight_mean_only", "cnn", True),
     ("weight_mean_only", "rnn", False)],
)  # fmt: skip
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


def test_the_start_is_the_papers_formula():
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
def test_the_start_leaves_everything_else_as_it_was(name, network_of, batch_of, device):
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


def test_the_start_is_off_by_default_and_takes_two_images(scheme_of):
    for name in NAMES:
        assert scheme_of(name).init_images == 0
        assert scheme_of(name, "norm.init_images=500").init_images == 500
    for wrong in (-1, 1):
        with pytest.raises(ValueError, match=f"norm.init_images must be 2 or more, .* got {wrong}"):
            NormScheme(init_images=wrong)
