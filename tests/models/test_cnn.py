"""Plain convolutional networks: layers in order, parameters counted by hand, sides halved while they can be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from normbench.models import CNN, ConvPoolC
from normbench.models.cnn import GaussianNoise
from normbench.norms import BatchNorm, NormScheme, blocks


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
        ((1, 1, 9), [2, 3], 3 * 2),
        ((2, 3, 3), [], 2 * 3 * 3),
    ],
)
def test_sides_are_halved_while_they_are_two_or_more(shape, channels, inputs):
    model = CNN(NormScheme(), shape, 10, channels=channels)
    assert model.output.linear.in_features == inputs
    assert model(torch.randn(2, *shape)).shape == (2, 10)


def test_a_signal_goes_through_convolutions_of_one_dimension(network_of, batch_of):
    model, h = network_of("batch", "cnn", shape=(1, 1, 20)), batch_of(6, (1, 20))[0]
    logits = model(h.unsqueeze(2))
    for conv in (model.conv1.linear, model.conv2.linear):
        h = F.conv1d(h, conv.weight.squeeze(2), padding=1)
        h = F.max_pool1d(F.batch_norm(h, None, None, training=True).relu(), 2)
    assert h.shape == (6, 6, 5)
    torch.testing.assert_close(logits, model.output.linear(h.flatten(1)), rtol=1e-4, atol=1e-5)


# VGG-11. With a factor k of the published numbers of channels 64 128 256 256 512 512 512 512, in units of 64:
# 1 2 4 4 8 8 8 8; products of neighbours: 2 + 8 + 16 + 32 + 64 + 64 + 64 = 250; their sum 43.
@pytest.mark.parametrize(
    ("norm", "shape", "width", "sides", "pools"),
    [
        ("none", (3, 32, 32), 1.0, [32, 16, 8, 8, 4, 4, 2, 2], [1, 2, 4, 6, 8]),
        ("batch", (1, 28, 28), 0.25, [28, 14, 7, 7, 3, 3, 1, 1], [1, 2, 4, 6]),  # nothing is left to pool
        ("none", (1, 8, 8), 1 / 32, [8, 4, 2, 2, 1, 1, 1, 1], [1, 2, 4]),
    ],
)
def test_vgg11(norm, shape, width, sides, pools, parts_of):
    parts, seen = parts_of(norm, "vgg11", width=width), []
    with torch.device("meta"):
        model = parts.model(parts.scheme, shape, 10)
        for name, block in blocks(model):
            if name != "output":
                block.observer = lambda name, tensor: seen.append(tensor.shape[2]) if name == "linear" else None
        assert model(torch.empty(2, *shape)).shape == (2, 10)
    assert seen == sides
    assert [name for name, _ in model.named_children() if name.startswith("pool")] == [f"pool{i}" for i in pools]
    k, per_channel = int(64 * width), 1 if norm == "none" else 2  # a bias; gamma and beta
    weights = 9 * (shape[0] * k + 250 * k * k) + 8 * k * 10
    assert sum(p.numel() for p in model.parameters()) == weights + per_channel * 43 * k + 10


# ---- ConvPool-CNN-C. With k for 96: convolutions of c k + 2 k k + 2 k k + 4 k k + 4 k k + 4 k k times 9, and two 1x1
# of 4 k k.


@pytest.mark.parametrize(
    ("shape", "width", "normalized"), [((3, 32, 32), 1.0, True), ((1, 28, 28), 0.25, False), ((1, 8, 8), 1 / 48, None)]
)
def test_parameters_of_convpool_c(shape, width, normalized):
    options = {} if normalized is None else {"normalize_output": normalized}
    with torch.device("meta"):
        model = ConvPoolC(NormScheme(norm=BatchNorm), shape, 10, width=width, **options)
    k, c = int(96 * width), shape[0]
    weights = 9 * (c * k + k * k + k * k + 2 * k * k + 3 * 4 * k * k) + 2 * 4 * k * k + 2 * k * 10
    channels = 3 * k + 6 * 2 * k  # with gamma and beta each
    output = 10 if normalized is False else 20  # the output is normalised by default
    assert sum(p.numel() for p in model.parameters()) == weights + 2 * channels + output


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


@pytest.mark.parametrize(("side", "last"), [(28, 5), (12, 1), (11, 3), (8, 2), (5, 3), (3, 1)])
def test_small_images_are_pooled_where_three_by_three_remain(side, last):
    model = ConvPoolC(NormScheme(), (1, side, side), 10, width=1 / 48)  # 11: 5, and a second pooling would leave 2
    sizes = []
    model.conv9.observer = lambda name, tensor: sizes.append(tensor.shape[2:])
    assert model(torch.randn(2, 1, side, side)).shape == (2, 10)
    assert set(sizes) == {(last, last)}


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 2, 9), (3, 32, 1)])
def test_smaller_images_are_refused(shape):
    with pytest.raises(ValueError, match=f"convpool_c needs images of 3x3 or more: got {shape[1]}x{shape[2]}"):
        ConvPoolC(NormScheme(), shape, 10)


@pytest.mark.parametrize("norm", ["batch", "selu"])
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
