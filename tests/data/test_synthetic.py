from pathlib import Path

import numpy as np
import torch
from torch import nn

from normbench.data import prepare
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
