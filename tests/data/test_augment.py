import numpy as np
import pytest
import torch
from scipy import stats

from normbench.data import canonical, prepare
from normbench.data.augment import AUGMENTATIONS, shift_and_mirror
from normbench.experiment import compose, execute
from normbench.noise import key_of

RNG = np.random.default_rng(0)
SOURCE = canonical(
    "x",
    "ab",
    (RNG.integers(0, 256, (600, 2, 7, 6), dtype=np.uint8), np.arange(600) % 2),
    (RNG.integers(0, 256, (20, 2, 7, 6), dtype=np.uint8), np.arange(20) % 2),
)
CHANGING = sorted(set(AUGMENTATIONS) - {"none"})
POSITIONS = torch.arange(500)


def data(augment: str, **options):
    return prepare(SOURCE, name="x", validation=100, augment=augment, scale="raw", **options)


def places(before: np.ndarray, after: np.ndarray, reach: int) -> list[tuple[int, int, bool]]:
    """All (down, right, mirrored) by which `before` becomes `after`, tried one by one."""
    found = []
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            moved = np.zeros_like(before)
            for y in range(before.shape[1]):
                for x in range(before.shape[2]):
                    if 0 <= y + down < before.shape[1] and 0 <= x + right < before.shape[2]:
                        moved[:, y, x] = before[:, y + down, x + right]
            found += [(down, right, mirrored) for mirrored in (False, True)
                      if np.array_equal(moved[:, :, ::-1] if mirrored else moved, after)]  # fmt: skip
    return found


@pytest.mark.parametrize(("augment", "reach", "mirrors"), [("flip_crop", 4, True), ("translate", 2, False)])
def test_images_are_moved_and_mirrored_as_promised(augment, reach, mirrors):
    torch.manual_seed(0)
    before, labels = data("none").train.batch(POSITIONS)
    after, same = data(augment).train.batch(POSITIONS)
    assert torch.equal(labels, same)
    found = [places(x, y, reach) for x, y in zip(before[:80].numpy(), after[:80].numpy(), strict=True)]
    assert all(found), "every image is a moved one"
    certain = np.array([place for (place, *others) in found if not others])
    assert len(certain) > 70
    assert {*certain[:, 0]} == {*certain[:, 1]} == set(range(-reach, reach + 1))
    assert certain[:, 2].any() == mirrors


@pytest.mark.parametrize("augment", CHANGING)
def test_draws_what_a_key_says_or_from_torchs_generator(augment):
    train = data(augment).train
    torch.manual_seed(1)
    one, two = (train.batch(POSITIONS)[0] for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(train.batch(POSITIONS)[0], one)
    assert not torch.equal(one, two)
    state = torch.get_rng_state()
    keyed = [train.batch(POSITIONS, key_of(seed, draw, "augment"))[0] for seed, draw in ((1, 1), (1, 2), (2, 1))]
    assert torch.equal(train.batch(POSITIONS, key_of(1, 1, "augment"))[0], keyed[0])
    assert not any(torch.equal(keyed[0], other) for other in keyed[1:])
    assert torch.equal(torch.get_rng_state(), state)


def test_moves_are_uniform_and_mirrors_are_even():
    pixel = torch.zeros(20_000, 1, 9, 9, dtype=torch.uint8)
    pixel[:, :, 4, 4], pixel[:, :, 4, 5] = 2, 1  # a mirror changes their order
    moved = shift_and_mirror(pixel, 2, True, key_of(1, 1, "augment"))
    down, right = np.divmod((moved == 2).flatten(1).int().argmax(1).numpy(), 9)
    mirrored = (moved == 1).flatten(1).int().argmax(1).numpy() < (moved == 2).flatten(1).int().argmax(1).numpy()
    table = np.zeros((5, 5, 2), dtype=int)
    np.add.at(table, (down - 2, right - 2, mirrored.astype(int)), 1)
    assert stats.chisquare(table.flatten()).pvalue > 1e-4


def test_validation_and_test_images_stay_as_they_are_and_the_frame_is_black_before_scaling():
    plain, changed = data("none"), data("translate", binarize=True)
    for name in ("validation", "test"):
        one, other = (getattr(d, name).batch(torch.arange(20))[0] for d in (plain, changed))
        assert torch.equal((one > 127).float(), other)
    values = prepare(SOURCE, name="x", validation=100, augment="translate", binarize=True).train.batch(POSITIONS)[0]
    assert len(values.unique()) <= 4, "two values per channel: the frame has that of a dark pixel"


def test_a_resumed_run_sees_the_same_augmented_images(tmp_path):
    words = ["dataset=synthetic", "dataset.augment=translate", "max_steps=12", "log_every=3", "checkpoint_seconds=0",
             "model.dropout=0.1", "device=cpu", "dataset.size=8", "dataset.examples=600", "model.hidden=[8]",
             "evaluations=1", "instruments=none"]  # fmt: skip
    undisturbed = execute(compose([*words, f"results_dir={tmp_path / 'a'}"]))
    cell = compose([*words, f"results_dir={tmp_path / 'b'}"])

    def stop(progress):
        if progress.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(cell, stop)
    resumed = execute(cell)
    a, b = (torch.load(run.folder / "model.pt", weights_only=True) for run in (undisturbed, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert undisturbed.summary["test_accuracy"] == resumed.summary["test_accuracy"]
