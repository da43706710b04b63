"""Plain convolutional networks: layers in order, parameters counted by hand, sides halved while they can be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normbench.models import CNN, ConvPoolC
from normbench.models.cnn import GaussianNoise
from normbench.norms import BatchNorm, NormScheme, blocks, weight_norm

# 8x8 -> conv 4 -> 4x4 -> conv 6 -> 2x2 -> 5 classes, by hand.
WEIGHTS = 9 * 1 * 4 + 9 * 4 * 6 + 6 * 2 * 2 * 5
CHANNELS, OUTPUT = 4 + 6, 5


@pytest.mark.parametrize("norm", ["none", "selu", "batch", "layer", "weight", "weight_mean_only"])
def test_parameters(norm, network_of):
    count = WEIGHTS + OUTPUT + CHANNELS * (1 if norm in ("none", "selu") else 2)  # a bias; gain and bias
    assert sum(p.numel() for p in network_of(norm, "cnn").parameters()) == count


def test_blocks_and_logits(network_of, batch_of):
    model = network_of("none", "cnn")
    assert [name for name, _ in blocks(model)] == ["conv1", "conv2", "output"]
    x = batch_of(3)[0]
    h = F.max_pool2d(model.conv1.linear(x).relu(), 2)
    h = F.max_pool2d(model.conv2.linear(h).relu(), 2)
    assert h.shape == (3, 6, 2, 2)
    torch.testing.assert_close(model(x), model.output.linear(h.flatten(1)))


@pytest.mark.parametrize(
    ("shape", "channels", "inputs"),
    [
        ((1, 28, 28), [2, 3, 4], 4 * 3 * 3),  # 28 -> 14 -> 7 -> 3
        ((3, 32, 32), [2, 3, 4], 4 * 4 * 4),
        ((1, 4, 4), [2, 3, 4, 5], 5),  # 4 -> 2 -> 1, and then no pooling
        ((1, 5, 9), [2, 3], 3 * 1 * 2),
        ((1, 1, 9), [2], 2 * 9),
        ((2, 3, 3), [], 2 * 3 * 3),
    ],
)
def test_sides_are_halved_while_they_are_two_or_more(shape, channels, inputs):
    model = CNN(NormScheme(), shape, 10, channels=channels)
    assert model.output.linear.in_features == inputs
    assert model(torch.randn(2, *shape)).shape == (2, 10)


# ---- VGG-11. With a factor k of the published numbers of channels 64 128 256 256 512 512 512 512, in units of 64:
# 1 2 4 4 8 8 8 8; products of neighbours: 2 + 8 + 16 + 32 + 64 + 64 + 64 = 250; their sum 43.


@pytest.fixture
def vgg11(parts_of):
    def make(norm: str, shape: tuple[int, int, int], width: float) -> nn.Module:
        parts = parts_of(norm, "vgg11", width=width)
        return parts.model(parts.scheme, shape, 10)

    return make


@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_parameters_of_vgg11(width, shape, norm, vgg11):
    with torch.device("meta"):
        model = vgg11(norm, shape, width)
    k = int(64 * width)
    weights = 9 * (shape[0] * k + 250 * k * k) + 8 * k * 10
    per_channel = 1 if norm == "none" else 2  # a bias; gamma and beta
    assert sum(p.numel() for p in model.parameters()) == weights + per_channel * 43 * k + 10


@pytest.mark.parametrize(
    ("shape", "sides", "pools"),
    [
        ((3, 32, 32), [32, 16, 8, 8, 4, 4, 2, 2], [1, 2, 4, 6, 8]),
        ((1, 28, 28), [28, 14, 7, 7, 3, 3, 1, 1], [1, 2, 4, 6]),  # nothing is left to pool
        ((1, 8, 8), [8, 4, 2, 2, 1, 1, 1, 1], [1, 2, 4]),
    ],
)
def test_sides_in_vgg11(shape, sides, pools, vgg11):
    model, seen = vgg11("none", shape, 1 / 32), []
    for name, block in blocks(model):
        if name != "output":
            block.observer = lambda name, tensor: seen.append(tensor.shape[2]) if name == "linear" else None
    assert model(torch.randn(2, *shape)).shape == (2, 10)
    assert seen == sides
    assert [name for name, _ in model.named_children() if name.startswith("pool")] == [f"pool{i}" for i in pools]
    assert model.output.linear.in_features == 16


@pytest.mark.parametrize("width", [0.0, -1.0, float("inf"), float("nan")])
def test_a_width_that_is_no_factor_is_refused(width):
    for make in (lambda: CNN(NormScheme(), (1, 8, 8), 3, channels=[2], width=width),
                 lambda: ConvPoolC(NormScheme(), (1, 8, 8), 3, width=width)):  # fmt: skip
        with pytest.raises(ValueError, match=r"model.width, a factor of the numbers of channels, must be above 0: got"):
            make()


# ---- ConvPool-CNN-C. With k for 96: convolutions of c k + 2 k k + 2 k k + 4 k k + 4 k k + 4 k k times 9, and two 1x1
# of 4 k k.


@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("normalize_output", [True, False])
def test_parameters_of_convpool_c(width, shape, normalize_output):
    with torch.device("meta"):
        model = ConvPoolC(NormScheme(norm=BatchNorm), shape, 10, width=width, normalize_output=normalize_output)
    k, c = int(96 * width), shape[0]
    weights = 9 * (c * k + k * k + k * k + 2 * k * k + 3 * 4 * k * k) + 2 * 4 * k * k + 2 * k * 10
    channels = 3 * k + 6 * 2 * k  # with gamma and beta each
    assert sum(p.numel() for p in model.parameters()) == weights + 2 * channels + (20 if normalize_output else 10)


def test_layers_of_convpool_c_one_by_one():
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


@pytest.mark.parametrize("norm", ["none", "batch", "selu"])
def test_noise_on_the_image_and_dropout_after_pooling_in_training_alone(norm, network_of, batch_of):
    x = batch_of(8)[0]
    for options in ({"noise": 0.0}, {"dropout": 0.0}):
        model = network_of(norm, "convpool_c", normalize_output=False, **options)
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))
    names = [name for name, _ in network_of(norm, "convpool_c", normalize_output=False).named_children()]
    assert names[:3] == ["noise", "conv1", "conv2"]
    assert [names[names.index(f"dropout{i}") - 1] for i in (3, 6)] == ["pool3", "conv6"]  # 8x8: 4x4 is not pooled


def test_gaussian_noise():
    noise, x = GaussianNoise(0.15), torch.full((200, 1, 10, 10), 3.0)
    added = noise(x) - x
    assert added.std().item() == pytest.approx(0.15, rel=0.03)  # 20,000 draws: 0.5% is one sigma
    assert abs(added.mean().item()) < 0.01
    assert torch.equal(noise.eval()(x), x)
    with pytest.raises(ValueError, match=r"model.noise must be 0 or more: got -1"):
        GaussianNoise(-1)


def test_the_output_of_convpool_c_is_normalised_by_default(cell_of):
    assert cell_of("model=convpool_c").config["model"]["normalize_output"] is True
    model = ConvPoolC(NormScheme(reparametrize=weight_norm, norm=BatchNorm), (1, 8, 8), 10, width=1 / 48)
    assert model.output.norm is not None
    assert hasattr(model.output.linear, "parametrizations")
    assert model.output.activation is None
