import numpy as np
import pytest

from normbench.data import DataError, prepare
from normbench.data.mnist1d import mnist1d, signals


def test_is_the_same_on_every_platform_and_its_values_are_those_of_the_signals_to_half_a_grey_level(tmp_path):
    source = mnist1d(tmp_path)
    assert source.checksum == "e739c6bf010dadac865d494d1f1c3e93f7c683604e3085c5222da15281e223ad"
    assert (source.train_images.shape, source.test_images.shape) == ((4000, 1, 1, 40), (1000, 1, 1, 40))
    values, digits = signals()
    kept = np.concatenate([source.train_images, source.test_images]).reshape(5000, 40) / 25 - 5.52
    labels = np.concatenate([source.train_labels, source.test_labels])
    for part in (slice(4000), slice(4000, 5000)):  # in another order: sorted by digit, and by the values of one place
        assert np.bincount(labels[part]).tolist() == np.bincount(digits[part]).tolist()
        for digit in range(10):
            own, given = kept[part][labels[part] == digit], values[part][digits[part] == digit]
            np.testing.assert_allclose(np.sort(own, axis=0), np.sort(given, axis=0), atol=0.0201)


def test_is_that_of_the_package_where_that_is_installed():
    package = pytest.importorskip("mnist1d.data")
    theirs, (values, digits) = package.make_dataset(), signals()
    assert np.array_equal(values, np.concatenate([theirs["x"], theirs["x_test"]]))
    assert np.array_equal(digits, np.concatenate([theirs["y"], theirs["y_test"]]))


def test_images_of_one_row_are_not_moved_up_and_down(tmp_path):
    with pytest.raises(DataError, match="augment must be none for images of one row"):
        prepare(mnist1d(tmp_path), name="mnist1d", validation=500, augment="translate")
