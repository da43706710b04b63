import numpy as np
import pytest
import torch
from tiny_files import flip_byte

from normbench.data import DataError, canonical, prepare, whitening

RNG = np.random.default_rng(0)
SMOOTH = np.cumsum(RNG.integers(-60, 61, (400, 2, 5, 4)), axis=3).clip(-128, 127) + 128  # neighbours are alike
SOURCE = canonical(
    "x",
    "ab",
    (SMOOTH[:340].astype(np.uint8), np.arange(340) % 2),
    (SMOOTH[340:].astype(np.uint8), np.arange(60) % 2),
)


def data(data_dir, source=SOURCE, **options):
    return prepare(source, name="x", **{"validation": 40, "whiten": "zca", "data_dir": data_dir, **options})


def everything(split):
    return split.batch(torch.arange(len(split)))[0].flatten(1).double().numpy()


@pytest.mark.parametrize("options", [{}, {"scale": "unit"}, {"binarize": True}, {"train_fraction": 0.6}], ids=str)
def test_agrees_with_a_naive_fit(tmp_path, options):
    white, plain = data(tmp_path, **options), data(tmp_path, whiten="none", **options)
    x = everything(plain.train)
    mean, covariance = x.mean(axis=0), np.cov(x.T, bias=True)
    w = white.train.whitening.double().numpy()
    identity = np.eye(40)
    np.testing.assert_allclose(w @ (covariance + 1e-5 * identity) @ w, identity, atol=1e-4)
    np.testing.assert_array_equal(w, w.T)
    spread, vectors = np.linalg.eigh(covariance)
    naive = vectors @ np.diag((spread + 1e-5) ** -0.5) @ vectors.T
    for name in ("train", "validation", "test"):
        expected = (everything(getattr(plain, name)) - mean) @ naive
        np.testing.assert_allclose(everything(getattr(white, name)), expected, atol=2e-4 * np.abs(expected).max())
    z = everything(white.train)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(z.T, bias=True), identity, atol=0.02)  # 1e-5 against the smallest eigenvalue


def test_sums_are_exact_in_parts(monkeypatch):
    images = np.full((3000, 1, 1, 3), 255, np.uint8)
    images[::2] = 0  # the largest products: 128 * 128
    images[5] = 7
    whole = images.reshape(-1, 3).astype(np.int64)
    mean, covariance = whitening._moments(images, np.arange(3000), False)
    centred = whole.sum(axis=0) - 128 * 3000, (whole - 128).T @ (whole - 128)
    np.testing.assert_array_equal(mean, centred[0] / 3000 + 128)
    np.testing.assert_array_equal(covariance, centred[1] / 3000 - np.outer(centred[0] / 3000, centred[0] / 3000))


def test_is_fitted_once_for_each_choice(tmp_path, monkeypatch, messages):
    first = data(tmp_path, scale="raw").train
    matrix = first.whitening.clone()  # the first is the mapped file itself
    with monkeypatch.context() as patched:
        patched.setattr(np.linalg, "eigh", None)
        again = data(tmp_path, scale="raw", label_noise=0.1, augment="translate", draw_seed=5).train
        assert [record.message for record in messages.records] == ["Fitting the whitening matrix of x, 40 x 40, once"]
        for change in ({"scale": "unit"}, {"binarize": True}, {"split_seed": 1}, {"train_fraction": 0.9}):
            with pytest.raises(TypeError, match="not callable"):
                data(tmp_path, **{"scale": "raw", **change})
    one, other = (data(tmp_path / "drawn", train_fraction=0.5, draw_seed=seed).train for seed in (0, 1))
    assert not torch.equal(one.whitening, other.whitening), "each draw has one of its own"
    assert torch.equal(matrix, again.whitening)
    assert torch.equal(first.shift, again.shift)
    (path,) = (tmp_path / "normbench" / "zca").glob("*/matrix.npy")
    flip_byte(path, path.stat().st_size // 2)
    assert torch.equal(data(tmp_path, scale="raw").train.whitening, matrix)
    assert "damaged" in messages.text


def test_works_where_nothing_can_be_written(tmp_path, messages):
    (tmp_path / "normbench").write_text("a file where a folder should be")
    assert data(tmp_path).train.whitening is not None
    assert "cannot write" in messages.text


def test_too_large_a_matrix_is_refused(tmp_path):
    large = np.zeros((20, 3, 60, 60), np.uint8), np.arange(20) % 2
    with pytest.raises(DataError, match=r"at most 8,192 values per image: got 3x60x60 = 10,800."):
        data(tmp_path, canonical("x", "ab", large, large), validation=4)
