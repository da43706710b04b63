"""Corruptions: the same whatever the batch, stronger with severity, before all scaling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from normbench.data import CORRUPTIONS, Corrupted, canonical, check_corruption, prepare
from normbench.data.corruptions import SEVERITIES, STRENGTHS, corrupt

PLACES = torch.arange(24) * 7
by_name = pytest.mark.parametrize("name", CORRUPTIONS)


def smooth(shape: tuple[int, int, int], count: int = 24, seed: int = 0) -> Tensor:
    """Bright blobs on black."""
    coarse = torch.rand(count, shape[0], 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate((coarse - 0.3) * 400, shape[1:], mode="bicubic").clamp(0, 255).to(torch.uint8)


@by_name
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 24), (1, 3, 2), (2, 9, 9), (1, 1, 40)])
def test_an_image_is_the_same_in_every_batch(name, shape, device):
    images, places = smooth(shape).to(device), PLACES.to(device)
    state, before = torch.get_rng_state(), images.clone()
    together = corrupt(images, name, 4, places)
    assert (together.dtype, together.shape, together.device) == (torch.uint8, images.shape, images.device)
    assert torch.equal(together, corrupt(images, name, 4, places))
    apart = [corrupt(images[i : i + 5], name, 4, places[i : i + 5]) for i in range(0, 24, 5)]
    assert torch.equal(together, torch.cat(apart))
    backwards = corrupt(images.flip(0), name, 4, places.flip(0)).flip(0)
    assert torch.equal(together, backwards)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn from torch's own numbers"


@by_name
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_severity_changes_more_than_the_one_below(name, shape):
    images = smooth(shape)
    assert corrupt(images, name, 0, PLACES) is images
    changes = [(corrupt(images, name, s, PLACES).float() - images.float()).square().mean() for s in (0, *SEVERITIES)]
    assert all(more > 1.03 * less for less, more in pairwise(changes)), changes
    assert changes[1] > 4


def test_what_is_done_is_what_the_table_says():
    images = smooth((3, 28, 28))
    x = images.numpy().astype(np.float32)
    assert torch.equal(corrupt(images, "invert", 5, PLACES), 255 - images)
    assert np.array_equal(corrupt(images, "brightness", 1, PLACES).numpy(), (x * np.float32(0.6)).astype(np.uint8))
    grey = corrupt(images[:, :1], "contrast", 2, PLACES).numpy().astype(np.float32)
    means = x[:, :1].mean((1, 2, 3), keepdims=True)
    assert np.abs(grey - (0.3 * x[:, :1] + 0.7 * means)).max() < 1.01
    middle = torch.full((24, 1, 28, 28), 127, dtype=torch.uint8)
    noise = corrupt(middle, "noise", 1, PLACES).float() - 127
    assert noise.std().item() == pytest.approx(255 * STRENGTHS["noise"][0], rel=0.02)
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.15
    dot = torch.zeros(1, 1, 29, 29, dtype=torch.uint8)
    dot[0, 0, 14, 14] = 255
    spread = corrupt(dot.expand(24, -1, -1, -1), "blur", 2, PLACES)[0, 0].float()
    offsets = torch.arange(29) - 14
    variance = ((spread.sum(0) * offsets**2).sum() / spread.sum()).item()
    assert variance**0.5 == pytest.approx(0.04 * 29, rel=0.05)
    turned = torch.rot90(F.pad(images, (2, 2, 2, 2)), 1, (2, 3))
    near = corrupt(F.pad(images, (2, 2, 2, 2)), "rotate", 5, PLACES).float()
    wrong_way = torch.rot90(F.pad(images, (2, 2, 2, 2)), -1, (2, 3))
    assert (near - turned.float()).square().mean() < (near - wrong_way.float()).square().mean(), "anticlockwise"


def data(**options):
    rng = np.random.default_rng(0)
    arrays = [(rng.integers(0, 256, (n, 3, 7, 6), dtype=np.uint8), np.arange(n) % 2) for n in (200, 20)]
    return prepare(canonical("x", "ab", *arrays), name="x", validation=50, **options)


@pytest.mark.parametrize("options", [{}, {"binarize": True}, {"scale": "unit"}])
def test_a_split_is_corrupted_before_it_is_scaled(options):
    split, places = data(**options).validation, torch.tensor([3, 40, 0])
    corrupted = Corrupted(split, "brightness", 3)
    assert len(corrupted) == 50
    images, labels = corrupted.batch(places)
    assert torch.equal(labels, split.batch(places)[1])
    raw = (split.images[split.index[places]].numpy() * np.float32(0.25)).astype(np.uint8).astype(np.float32)
    raw = (raw > 127).astype(np.float32) if "binarize" in options else raw
    wanted = (raw - split.shift.numpy()) * split.scale.numpy()
    assert images.numpy() == pytest.approx(wanted, abs=1e-6)
    assert torch.equal(Corrupted(split, "none", 0).batch(places)[0], split.batch(places)[0])


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("fog", 1, "corruption must be one of contrast, .*, rotate, invert: got fog"),
        ("noise", 6, r"corruption\.severity must be a whole number, 1 to 5: got 6\. Type e\.g\. corruption\.sev"),
        ("noise", 2.5, "got 2.5"),
        ("noise", True, "got True"),
    ],
)
def test_unknown_corruptions_and_severities_are_refused(name, severity, message):
    with pytest.raises(ValueError, match=message):
        check_corruption(name, severity)
    with pytest.raises(ValueError, match=message):
        corrupt(smooth((1, 8, 8)), name, severity, PLACES)
