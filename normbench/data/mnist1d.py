"""MNIST-1D: ten digits as noisy signals of 40 values. They are computed: there is nothing to download."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from normbench.data.cache import cached
from normbench.data.canonical import Source, canonical

SIGNALS, TRAINING, LENGTH = 5000, 4000, 40
TEMPLATES = """
5 6   6.5 6.75 7   7    7    7   6.75 6.5 6   5
5 3   3   3.4  3.8 4.2  4.6  5   5.4  5.8 5   5
5 6   6.5 6.5  6   5.25 4.75 4   3.5  3.5 4   5
5 6   6.5 6.5  6   5    5    6   6.5  6.5 6   5
5 4.4 3.8 3.2  2.6 2.6  5    5   5    5   5   5
5 3   3   3    3   5    6    6.5 6.5  6   4.5 5
5 4   3.5 3.25 3   3    3    3   3.25 3.5 4   5
5 7   7   6.6  6.2 5.8  5.4  5   4.6  4.2 5   5
5 4   3.5 3.5  4   5    5    4   3.5  3.5 4   5
5 4   3.5 3.5  4   5    5    5   5    4.7 4.3 5
"""  # of the digits 0 to 9


def mnist1d(data_dir: Path) -> Source:
    """The default data set of the package mnist1d: 4,000 signals for training and 1,000 for testing, each an image of
    one row.

    Values are kept as 256 grey levels, one of which is 0.04 standard deviations; the noise in each value has 0.1.

    Source: Greydanus & Kobak 2020, arXiv:2011.14439.
    """

    def make() -> Source:
        values, labels = signals()
        images = np.round(25 * values + 138).astype(np.uint8)[:, None, None]  # [N, 40] -> [N, 1, 1, 40]
        train, test = ((images[part], labels[part]) for part in (slice(TRAINING), slice(TRAINING, None)))
        return canonical("mnist1d", "0123456789", train, test)

    return cached("mnist1d", data_dir, make)


def signals() -> tuple[np.ndarray, np.ndarray]:
    """What `mnist1d.data.make_dataset()` gives, to the bit: those for training first.

    A template is padded with zeros, stretched, scaled, moved around and sheared; noise that is smooth replaces the
    zeros, and more noise is added to every value.

    Shape: float64 [N, 40], mean 0 and standard deviation 1 over all; digits [N].

    Source: the templates, and the order in which random numbers are drawn: https://github.com/greydanus/mnist1d,
        version 0.0.2, (c) Sam Greydanus and others, Apache License 2.0. numpy promises that the numbers of
        `RandomState` stay the same.
    """
    draw = np.random.RandomState(42)
    templates = np.array(TEMPLATES.split(), float).reshape(10, 12)
    templates -= templates.mean(1, keepdims=True)
    templates /= templates.std(1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6.0  # each begins and ends at 0
    made = []
    for template in np.repeat(templates, SIGNALS // 10, axis=0):
        padded = np.concatenate([template + 1e-8, np.zeros(36 + int(draw.rand() * 25))])
        x = _stretched(padded, 72) * (1 + 0.4 * (draw.rand() - 0.5))
        x = np.roll(x, draw.choice(48))
        x = np.where(x != 0, x, gaussian_filter(0.25 * draw.randn(72), 2))
        x = x + 0.02 * draw.randn(72)
        x = x - 0.75 * (draw.rand() - 0.5) * np.linspace(-0.5, 0.5, 72)
        made.append(_stretched(x, LENGTH))
    order = draw.permutation(SIGNALS)
    values = np.stack(made)[order]
    return (values - values.mean()) / values.std(), np.repeat(np.arange(10), SIGNALS // 10)[order]


def _stretched(x: np.ndarray, length: int) -> np.ndarray:
    """`x` at `length` evenly spaced places, by linear interpolation."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x)
