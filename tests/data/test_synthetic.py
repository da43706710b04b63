import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from normbench.data import DataError, prepare
from normbench.data.synthetic import synthetic

NOWHERE = Path("does not exist")


def test_is_the_same_on_every_platform():
    assert synthetic(NOWHERE).checksum == "e6eb6a23cdbbab5f0bfd4ba3a4b15c01e2cd40fe66dc121fea6334b0446df0bb"


def test_shapes_and_options():
    source = synthetic(NOWHERE, examples=100, size=16, channels=3)
    assert source.train_images.shape == (100, 3, 16, 16)
    assert source.test_images.shape == (25, 3, 16, 16)
    assert set(np.bincount(source.train_labels)) == {10}
    assert source.synthetic
    assert not NOWHERE.exists()
    assert prepare(source, name="synthetic", validation=20).synthetic


def test_every_option_changes_the_images():
    checksums = {
        synthetic(NOWHERE, examples=100, **change).checksum for change in ({}, {"seed": 1}, {"noise": 3}, {"size": 20})
    }
    assert len(checksums) == 4


def test_train_and_test_images_differ():
    source = synthetic(NOWHERE, examples=400)
    assert not {x.tobytes() for x in source.train_images} & {x.tobytes() for x in source.test_images}


def test_takes_no_time():
    synthetic(NOWHERE)
    start = time.perf_counter()
    synthetic(NOWHERE)
    assert time.perf_counter() - start < 0.5  # 0.04 s on an idle core


def test_a_small_network_learns_it_but_not_in_one_step():
    data = prepare(synthetic(NOWHERE), name="synthetic", validation=400)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def accuracy() -> float:
        x, y = data.test.batch(torch.arange(len(data.test)))
        return (model(x).argmax(dim=1) == y).float().mean().item()

    for step in range(150):
        x, y = data.train.batch(torch.randint(len(data.train), (64,)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if step == 0:
            assert accuracy() < 0.4
    assert accuracy() > 0.9


@pytest.mark.parametrize(
    "options",
    [{"examples": 39}, {"size": 7}, {"channels": 0}, {"seed": -1}, {"noise": -1}, {"size": 28.0}, {"seed": "a"}],
)
def test_refuses(options):
    (name,) = options
    with pytest.raises(DataError, match=rf"{name} must be a whole number .* Type e.g. dataset.{name}="):
        synthetic(NOWHERE, **options)
