from pathlib import Path

import numpy as np
import pytest

from normbench.data import DataError, prepare
from normbench.data.synthetic import synthetic

NOWHERE = Path("does not exist")


def test_is_the_same_on_every_platform():
    assert synthetic(NOWHERE).checksum == "e6eb6a23cdbbab5f0bfd4ba3a4b15c01e2cd40fe66dc121fea6334b0446df0bb"
    assert synthetic(NOWHERE, seed=1).checksum != synthetic(NOWHERE).checksum


def test_shapes_and_options():
    source = synthetic(NOWHERE, examples=100, size=16, channels=3)
    assert source.train_images.shape == (100, 3, 16, 16)
    assert source.test_images.shape == (25, 3, 16, 16)
    assert set(np.bincount(source.train_labels)) == {10}
    assert source.synthetic
    assert not NOWHERE.exists()
    assert prepare(source, name="synthetic", validation=20).synthetic


@pytest.mark.parametrize("size", [7, None])
def test_refuses_a_size_that_patterns_do_not_fit(size):
    with pytest.raises(DataError, match="size must be 8 or more: got"):
        synthetic(NOWHERE, size=size)
