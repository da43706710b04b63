import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normbench.data import DataError
from normbench.data.splits import cut, stratified_order

class_sizes = st.lists(st.integers(3, 40), min_size=1, max_size=8)
seeds = st.integers(0, 2**32)


def labels_of(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


@given(class_sizes, seeds)
def test_every_beginning_holds_the_classes_in_proportion(sizes, seed):
    order = stratified_order(labels_of(sizes), seed)
    assert sorted(order) == list(range(sum(sizes)))
    counts = np.cumsum(labels_of(sizes)[order][:, None] == np.arange(len(sizes)), axis=0)  # [N, classes]
    share = np.array(sizes) / sum(sizes)
    target = np.arange(1, len(order) + 1)[:, None] * share
    # a count is within 1/2 of (threshold * n), and the threshold within (classes / 2) of m / N
    assert np.all(np.abs(counts - target) <= 0.5 + share * len(sizes) / 2 + 1e-9)


@given(class_sizes, seeds, st.data())
def test_splits_are_disjoint_and_complete_and_nested(sizes, seed, data):
    labels, classes = labels_of(sizes), len(sizes)
    validation = data.draw(st.integers(classes, max(classes, len(labels) // 3)))
    below_1 = st.floats(0.7, 1.0, exclude_max=True)
    fractions = sorted(data.draw(st.lists(below_1, min_size=2, max_size=2)))

    def split(fraction, draw_seed):
        return cut(
            labels, classes, validation=validation, split_seed=seed, train_fraction=fraction, draw_seed=draw_seed
        )

    one, other = data.draw(st.lists(seeds, min_size=2, max_size=2, unique=True))
    (small, v1), (large, v2), (full, v3) = (split(fraction, one) for fraction in (*fractions, 1.0))
    order = stratified_order(labels, seed)  # with all training images nothing is drawn
    assert np.array_equal(full, order[validation:])
    assert all(np.array_equal(v, order[:validation]) for v in (v1, v2, v3))
    # a smaller fraction is the beginning of a larger
    assert np.array_equal(small, large[: len(small)])
    assert len(np.unique(large)) == len(large)
    assert set(large) <= set(full)
    assert len(small) == round(fractions[0] * len(full))
    # another draw has as many images of each class, so that no draw is refused where another isn't
    redrawn, held_out = split(fractions[0], other)
    assert np.array_equal(held_out, v1)
    assert labels[redrawn].tolist() == labels[small].tolist() == labels[full[: len(small)]].tolist()


def test_another_draw_seed_draws_other_images_each_as_often():
    labels = np.repeat(np.arange(3), (30, 60, 90))
    options = {"validation": 30, "split_seed": 0, "train_fraction": 0.2}
    draws = [cut(labels, 3, **options, draw_seed=seed)[0] for seed in range(500)]
    assert len({tuple(sorted(rows)) for rows in draws}) == 500
    held_out = cut(labels, 3, **options, draw_seed=0)[1]
    counts = np.delete(np.bincount(np.concatenate(draws), minlength=180), held_out)
    # of 500 draws, each has 30 of 150 images: 100 times, with a standard deviation of 9 by chance
    assert abs(counts - 100).max() < 40
    assert counts.std() < 12


def test_order_is_the_same_on_every_platform():
    assert stratified_order(np.repeat(np.arange(3), 4), 0).tolist() == [11, 3, 6, 2, 8, 7, 1, 4, 10, 0, 5, 9]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"validation": 9}, "validation must be 10 or more.*: got 9"),
        ({"validation": 1000}, "less than the 1,000 training images"),
        ({"train_fraction": 0.001}, "every class needs a training image"),
        ({"validation": 995}, "every class needs a training image.*or a smaller dataset.validation"),
    ],
)
def test_refuses(change, says):
    options = {"validation": 100, "split_seed": 0, "train_fraction": 1.0, "draw_seed": 0, **change}
    with pytest.raises(DataError, match=says) as refusal:
        cut(np.repeat(np.arange(10), 100), 10, **options)
    assert "dataset." in str(refusal.value)  # what to type
    assert str(refusal.value).count("\n") < 2


@pytest.mark.parametrize("sizes", [[5] * 8, [1, 9, 9], [2, 2], [2] * 40])
def test_what_a_refusal_suggests_is_accepted(sizes):
    options = {"split_seed": 0, "train_fraction": 1.0, "draw_seed": 0}
    with pytest.raises(DataError) as refusal:
        cut(labels_of(sizes), len(sizes), validation=5000, **options)
    words, _, number = str(refusal.value).partition("dataset.validation=")
    if number:
        cut(labels_of(sizes), len(sizes), validation=int(number), **options)
    else:
        assert "needs more images per class" in words
