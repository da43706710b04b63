"""ConvPool-CNN-C: its layers in order, its parameters counted by hand, noise and dropout in training alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normbench.config.compose import build
from normbench.models import ConvPoolC
from normbench.models.convpool_c import GaussianNoise
from normbench.norms import BatchNorm, NormScheme, blocks, weight_norm


# With k for 96: convolutions of c k + 2 k k + 2 k k + 4 k k + 4 k k + 4 k k times 9, and two 1x1 of 4 k k.
@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("normalize_output", [True, False])
def test_parameters(width, shape, normalize_output):
    with torch.device("meta"):
        model = ConvPoolC(NormScheme(norm=BatchNorm), shape, 10, width=width, normalize_output=normalize_output)
    k, c = int(96 * width), shape[0]
    weights = 9 * (c * k + k * k + k * k + 2 * k * k + 3 * 4 * k * k) + 2 * 4 * k * k + 2 * k * 10
    channels = 3 * k + 6 * 2 * k  # with gamma and beta each
    assert sum(p.numel() for p in model.parameters()) == weights + 2 * channels + (20 if normalize_output else 10)


def test_layers_one_by_one():
    torch.manual_seed(0)
    model = ConvPoolC(NormScheme(), (3, 32, 32), 10, width=1 / 24).eval()
    assert [name for name, _ in blocks(model)] == [f"conv{i}" for i in range(1, 10)] + ["output"]
    x = h = torch.randn(2, 3, 32, 32)
    sides = []
    for i in range(1, 10):
        conv = getattr(model, f"conv{i}").linear
        assert conv.kernel_size == ((1, 1) if i >= 8 else (3, 3))
        h = F.leaky_relu(F.conv2d(h, conv.weight, conv.bias, padding=1 if i <= 6 else 0), 0.1)
        sides.append(h.shape[2])
        if i in (3, 6):
            h = F.max_pool2d(h, 2)
    assert sides == [32, 32, 32, 16, 16, 16, 6, 6, 6]
    torch.testing.assert_close(model(x), model.output.linear(h.mean((2, 3))))


@pytest.mark.parametrize(
    ("side", "last"), [(32, 6), (28, 5), (12, 1), (11, 3), (8, 2), (6, 1), (5, 3), (3, 1)]
)  # 11: 5, and a second pooling would leave 2
def test_small_images_are_pooled_where_three_by_three_remain(side, last):
    model = ConvPoolC(NormScheme(), (1, side, side), 10, width=1 / 48)
    sizes = []
    model.conv9.observer = lambda name, tensor: sizes.append(tensor.shape[2:])
    assert model(torch.randn(2, 1, side, side)).shape == (2, 10)
    assert set(sizes) == {(last, last)}


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 2, 9), (3, 32, 1)])
def test_smaller_images_are_refused(shape):
    with pytest.raises(ValueError, match=f"convpool_c needs images of 3x3 or more: got {shape[1]}x{shape[2]}"):
        ConvPoolC(NormScheme(), shape, 10)


def test_noise_on_the_image_and_dropout_after_pooling_in_training_alone(norm_name, network_of, batch_of):
    x = batch_of(8)[0]
    for options in ({"noise": 0.0}, {"dropout": 0.0}):
        model = network_of(norm_name, "convpool_c", normalize_output=False, **options)
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))
    names = [name for name, _ in network_of(norm_name, "convpool_c", normalize_output=False).named_children()]
    assert names[:3] == ["noise", "conv1", "conv2"]
    assert [names[names.index(f"dropout{i}") - 1] for i in (3, 6)] == ["pool3", "conv6"]  # 8x8: 4x4 is not pooled


def test_without_noise_and_dropout_training_draws_no_random_numbers(network_of, batch_of):
    model = network_of("batch", "convpool_c", quiet=True)
    state = torch.get_rng_state()
    model(batch_of(4)[0])
    assert torch.equal(state, torch.get_rng_state())


def test_gaussian_noise():
    noise, x = GaussianNoise(0.15), torch.full((200, 1, 10, 10), 3.0)
    added = noise(x) - x
    assert added.std().item() == pytest.approx(0.15, rel=0.03)  # 20,000 draws: 0.5% is one sigma
    assert abs(added.mean().item()) < 0.01
    assert torch.equal(noise.eval()(x), x)
    with pytest.raises(ValueError, match=r"model.noise must be 0 or more: got -1"):
        GaussianNoise(-1)


def test_the_output_is_normalised_by_default(cell_of):
    assert cell_of("model=convpool_c").config["model"]["normalize_output"] is True
    model = ConvPoolC(NormScheme(reparametrize=weight_norm, norm=BatchNorm), (1, 8, 8), 10, width=1 / 48)
    assert model.output.norm is not None
    assert hasattr(model.output.linear, "parametrizations")
    assert model.output.activation is None


def test_options_of_the_yaml_reach_the_model(cell_of):
    words = ("model.width=0.0625", "model.activation=tanh", "model.noise=0.25", "model.dropout=0.125",
             "model.normalize_output=false")  # fmt: skip
    parts = build(cell_of("norm=batch", "model=convpool_c", *words).config)
    model = parts.model(parts.scheme, (1, 8, 8), 3)
    assert [model.conv1.linear.out_channels, model.conv9.linear.out_channels] == [6, 12]
    assert type(model.conv1.activation) is nn.Tanh
    assert (model.noise.std, model.dropout3.p, model.dropout6.p) == (0.25, 0.125, 0.125)
    assert model.output.norm is None
