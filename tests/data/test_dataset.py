import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from normbench.data import canonical, prepare
from normbench.data.dataset import _shift_and_scale
from normbench.data.splits import mislabel

RNG = np.random.default_rng(0)
# dark, narrow and offset channels: a naive sum of squares in float32 fails on the last
CHANNELS = [RNG.integers(low, high, (300, 1, 6, 5), dtype=np.uint8) for low, high in ((0, 3), (0, 256), (250, 253))]
SOURCE = canonical(
    "x",
    "abc",
    (np.concatenate(CHANNELS, axis=1), np.arange(300) % 3),
    (RNG.integers(0, 256, (50, 3, 6, 5), dtype=np.uint8), np.arange(50) % 3),
)


def everything(split):
    return split.batch(torch.arange(len(split)))


@pytest.mark.parametrize("binarize", [False, True])
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_mean_and_std_of_the_train_split_are_exact(fraction, binarize):
    data = prepare(SOURCE, name="x", validation=30, train_fraction=fraction, binarize=binarize)
    rows = data.train.index.numpy()
    shift, scale = _shift_and_scale(SOURCE.train_images, rows, "standard", binarize)
    for c in range(3):
        values = [int(v > 127) if binarize else int(v) for v in SOURCE.train_images[rows, c].ravel()]
        mean = Fraction(sum(values), len(values))
        variance = Fraction(sum(v * v for v in values), len(values)) - mean**2
        assert shift[c] == float(mean)
        assert math.isclose(scale[c], float(variance) ** -0.5 if variance else 1.0, rel_tol=1e-15)
    varies = [c for c in range(3) if scale[c] != 1.0]
    images = everything(data.train)[0].double()[:, varies]
    # shift is rounded to float32: up to 8e-6 at 252, times a scale of 1.2
    np.testing.assert_allclose(images.mean(dim=(0, 2, 3)), 0, atol=1.5e-5)
    np.testing.assert_allclose(images.std(dim=(0, 2, 3), correction=0), 1, atol=1e-6)


@pytest.mark.parametrize("scale", ["standard", "unit", "raw"])
def test_batch_agrees_with_a_naive_one(scale):
    data = prepare(SOURCE, name="x", validation=30, scale=scale)
    for split, images, labels in (
        (data.train, SOURCE.train_images, SOURCE.train_labels),
        (data.validation, SOURCE.train_images, SOURCE.train_labels),
        (data.test, SOURCE.test_images, SOURCE.test_labels),
    ):
        positions = torch.tensor([3, 0, 29, 3])  # a repeated one as well
        x, y = split.batch(positions)
        rows = split.index.numpy()[positions.numpy()]
        naive = (images[rows].astype(np.float64) - split.shift.double().numpy()) * split.scale.double().numpy()
        np.testing.assert_allclose(x, naive, rtol=3e-7, atol=1e-7)
        np.testing.assert_array_equal(y, labels[rows])
        assert (x.dtype, y.dtype, x.shape) == (torch.float32, torch.int64, (4, 3, 6, 5))


def test_splits_are_disjoint_and_complete():
    data = prepare(SOURCE, name="shown", validation=30)
    assert sorted([*data.train.index.tolist(), *data.validation.index.tolist()]) == list(range(300))
    assert sorted(data.test.index.tolist()) == list(range(50))
    assert (len(data.train), len(data.validation), len(data.test)) == (270, 30, 50)
    assert (data.name, data.shape, data.classes) == ("shown", (3, 6, 5), ("a", "b", "c"))
    assert (data.checksum, data.synthetic) == (SOURCE.checksum, False)


def test_a_constant_channel_becomes_zero():
    images = SOURCE.train_images.copy()
    images[:, 1] = 9
    source = canonical("x", "abc", (images, SOURCE.train_labels), (SOURCE.test_images, SOURCE.test_labels))
    x, _ = everything(prepare(source, name="x", validation=30).train)
    assert torch.isfinite(x).all()
    assert not x[:, 1].any()


def test_binarize_cuts_at_the_middle_of_the_range():
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(20, axis=0)
    source = canonical("x", "ab", (every, np.arange(20) % 2), (every, np.arange(20) % 2))
    for scale in ("unit", "raw"):
        data = prepare(source, name="x", validation=4, scale=scale, binarize=True)
        for split in (data.train, data.validation, data.test):
            expected = (torch.arange(256) > 127).float().view(1, 1, 16, 16)
            assert torch.equal(everything(split)[0], expected.expand(len(split), 1, 16, 16))


def noisy(share, **options):
    return prepare(SOURCE, name="x", validation=30, label_noise=share, **options)


def test_label_noise_changes_the_share_that_was_asked_for_and_train_labels_alone():
    clean = prepare(SOURCE, name="x", validation=30)
    for share in (0.01, 0.2, 0.5, 0.999):
        data = noisy(share)
        x, y = everything(data.train)
        assert (y != everything(clean.train)[1]).sum() == round(share * 270)
        assert torch.equal(x, everything(clean.train)[0])
        for name in ("validation", "test"):
            assert torch.equal(everything(getattr(data, name))[1], everything(getattr(clean, name))[1])
    np.testing.assert_array_equal(SOURCE.train_labels, np.sort(np.arange(300) % 3))


def test_label_noise_is_nested_balanced_and_uniform():
    true = everything(prepare(SOURCE, name="x", validation=30).train)[1]
    small, large = (everything(noisy(share).train)[1] for share in (0.2, 0.4))
    changed = small != true
    assert torch.equal(small[changed], large[changed])
    assert torch.bincount(true[changed]).tolist() == [18, 18, 18]
    steps = torch.bincount((large - true)[large != true] % 3, minlength=3)
    assert steps[0] == 0
    assert 35 <= steps[1] <= 73  # of 108, by chance: four standard deviations
    assert torch.equal(everything(noisy(0.2).train)[1], small)
    other = everything(noisy(0.2, draw_seed=1).train)[1] != true
    assert other.sum() == changed.sum()
    assert (other & changed).sum() < 30  # of 54: draw_seed says which
    one, other = (mislabel(true.numpy(), 3, 0.2, seed) for seed in (0, 1))
    assert (one != true.numpy()).tolist() == changed.tolist()
    assert np.mean((other != true.numpy())[changed]) < 0.5, "another seed, other images"
