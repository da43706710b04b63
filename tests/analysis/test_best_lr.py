"""Two schemes over three learning rates and two batch sizes, with three fresh seeds at the best: answers by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from normbench.analysis.batch_sizes import smallest_batch_table, usable
from normbench.analysis.best_lr import best_lr_table, choices, compare_at_best_lr, lr_table
from normbench.analysis.groups import Group, Groups, read
from normbench.analysis.tables import records
from normbench.runs import load

Add = Callable[..., Path]
T2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))

# norm, batch size, lr -> validation and test accuracy by seed; None: diverged
RUNS: dict[tuple[str, int, float], dict[int, tuple[float, float] | None]] = {
    ("none", 32, 0.01): {0: (0.80, 0.80), 1: (0.81, 0.81), 2: (0.82, 0.82)},
    ("none", 32, 0.1): {
        **{0: (0.90, 0.89), 1: (0.91, 0.91), 2: (0.92, 0.90)},
        **{5: (0.99, 0.90), 6: (0.99, 0.90), 7: (0.99, 0.91)},
    },
    ("none", 32, 1.0): {0: None, 1: (0.95, 0.95), 2: (0.96, 0.96)},
    ("batch", 32, 0.01): {0: (0.85, 0.85), 1: (0.85, 0.85), 2: (0.85, 0.85)},
    ("batch", 32, 0.1): {0: (0.926, 0.92), 1: (0.930, 0.92), 2: (0.925, 0.92)},
    ("batch", 32, 1.0): {
        **{0: (0.930, 0.95), 1: (0.940, 0.96), 2: (0.935, 0.97)},
        **{5: (0.50, 0.92), 6: (0.50, 0.93), 7: (0.50, 0.94)},
    },
    ("none", 8, 0.01): {0: (0.80, 0.80), 1: (0.81, 0.81), 2: (0.82, 0.82)},
    ("none", 8, 0.1): {0: (0.90, 0.90), 1: (0.91, 0.91), 2: (0.92, 0.92)},
    ("none", 8, 1.0): {0: None, 1: None, 2: None},
    ("batch", 8, 0.01): {0: (0.70, 0.70), 1: (0.71, 0.71), 2: (0.72, 0.72)},
    ("batch", 8, 0.1): {0: (0.80, 0.80), 1: (0.81, 0.82), 2: (0.82, 0.81)},
    ("batch", 8, 1.0): {0: (0.10, 0.10), 1: (0.10, 0.10), 2: (0.10, 0.10)},
}


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory, writer: Add) -> Groups:
    study = tmp_path_factory.mktemp("results") / "first"
    study.mkdir()
    for (norm, batch_size, lr), runs in RUNS.items():
        for seed, values in runs.items():
            options: dict[str, Any] = {"norm": norm, "batch_size": batch_size, "lr": lr, "seed": seed}
            if values is None:
                writer(study, status="diverged", **options)
            else:
                chance = {"at_chance": values[1] <= 0.1}
                writer(study, accuracy=values[1], summary={"validation_accuracy": values[0], **chance}, **options)
    return read(load(study))


def by_name(table: Any) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["scheme"], row.get("batch_size")): dict(row) for row in table.rows}


def test_the_best_lr_is_chosen_on_validation_and_behind_none_that_diverged(groups: Groups) -> None:
    found = {(dict(s)["batch_size"], scheme): c for s, by in choices(groups).items() for scheme, c in by.items()}
    assert {key: choice.lr for key, choice in found.items()} == {
        (8, "none"): 0.1, (8, "batch"): 0.1, (32, "none"): 0.1, (32, "batch"): 1.0
    }  # fmt: skip
    assert (found[32, "none"].on, found[32, "none"].fresh) == ({0, 1, 2}, {5, 6, 7})
    assert found[32, "none"].means == {0.01: pytest.approx(0.81), 0.1: pytest.approx(0.91), 1.0: None}


def test_fresh_seeds_tell_alone(groups: Groups) -> None:
    rows = by_name(best_lr_table(groups, compare_at_best_lr(groups, "none", 0.005), "none", 0.005))
    row, sd = rows["batch", 32], 0.01 / math.sqrt(3)  # differences 0.02, 0.03, 0.03
    expected = {
        "test_mean": 0.93, "test_low": 0.93 - T2 * 0.01 / math.sqrt(3), "difference": 0.08 / 3, "sd": sd,
        "low": 0.08 / 3 - T2 * sd / math.sqrt(3), "p": 1 - 8 / math.sqrt(66), "validation_mean": 0.935,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert (row["seeds"], row["n"], row["test_n"], row["lr"], row["reference_lr"]) == ("fresh: 5..7", 3, 3, 1.0, 0.1)
    assert row["remarks"] == ""
    itself = rows["none", 32]
    assert (itself["seeds"], itself["test_mean"]) == ("fresh: 5..7", pytest.approx(2.71 / 3, abs=1e-9))
    assert (itself["n"], itself["difference"], itself["verdict"]) == (None, None, None)


def test_where_there_are_no_fresh_seeds_it_says_so_and_asks_for_some(groups: Groups) -> None:
    row = by_name(best_lr_table(groups, compare_at_best_lr(groups, "none", 0.005), "none", 0.005))["batch", 8]
    sd = 0.01  # differences -0.10, -0.09, -0.11
    assert row["seeds"] == "the same seeds chose the lr"
    assert (row["difference"], row["high"]) == pytest.approx((-0.1, -0.1 + T2 * sd / math.sqrt(3)), abs=1e-9)
    p = 1 - math.sqrt(300 / 302)  # t = -10 sqrt(3)
    assert (row["p"], row["p_holm"], row["verdict"]) == (pytest.approx(p), pytest.approx(2 * p), "worse")


def test_fresh_seeds_are_new_at_every_lr(study: Path, add: Add) -> None:
    for lr, gain in ((0.1, 0.0), (1.0, 0.01)):
        for seed in range(4):
            add(norm="none", lr=lr, seed=seed, accuracy=0.90 + seed / 100)
            add(norm="batch", lr=lr, seed=seed, accuracy=0.90 + gain + (seed % 2) / 100)
    add(norm="none", lr=1.0, seed=9, accuracy=0.90)  # not fresh, though neither best lr has seen it
    (found,) = records(compare_at_best_lr(read(load(study)), "none", 0.005))
    first, second = found["command"].split(" && ")
    assert " norm=batch " in first
    assert " lr=1.0 " in first
    assert " lr=0.1 " in second  # of two equally good lrs the smaller
    assert found["seeds_needed"] == 48
    assert first.endswith("'seed=range(10,58)'")
    assert first.partition("seed=")[2] == second.partition("seed=")[2]


def test_lr_ranges(groups: Groups) -> None:
    rows = by_name(lr_table(groups))
    shown = ("best_lr", "band_text", "own_band_text", "largest_stable_text")
    assert {key: tuple(row[name] for name in shown) for key, row in rows.items()} == {
        ("none", 8): (0.1, "0.0", "0.0", "0.1"),
        ("batch", 8): (0.1, "–", "0.0", "0.1"),  # within a point of its own best, far from that of none
        ("none", 32): (0.1, "–", "0.0", "0.1"),
        ("batch", 32): (1.0, "≥ 1.0", "≥ 1.0", "≥ 1"),
    }
    assert rows["batch", 32]["band"] == pytest.approx(1.0, abs=1e-9)
    assert rows["batch", 32]["remarks"] == "the best lr lies at the edge (1); add lr=3"
    assert rows["batch", 32]["command"] == (
        "normbench run -m norm=batch model=mlp batch_size=32 study=first lr=3 seed=0,1,2"
    )
    assert rows["none", 32]["remarks"] == "1 of 3 diverged at lr 1"
    assert rows["batch", 8]["remarks"] == "3 of 3 at chance at lr 1"
    assert rows["none", 32]["validation_mean"] == pytest.approx(0.91, abs=1e-9)


def test_smallest_usable_batch_size(groups: Groups) -> None:
    (row,) = smallest_batch_table(groups, compare_at_best_lr(groups, "none", 0.005), "none", 0.005).rows
    assert (row["scheme"], row["smallest_usable"], row["largest_unusable"]) == ("batch", 32, 8)
    assert (row["usable"], row["unusable"], row["inconclusive"]) == ("32", "8", "")
    assert "batch_size" not in row


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.004, 0.02, "usable"),  # worse, perhaps, but by less than the margin
        (-0.006, 0.02, "inconclusive"),
        (-0.02, -0.004, "inconclusive"),
        (-0.02, -0.006, "unusable"),
        (None, None, "inconclusive"),
    ],
)
def test_usable_is_not_worse_than_the_margin(low: float | None, high: float | None, word: str) -> None:
    empty = Group("batch", (), pd.DataFrame({"seed": [], "status": []}), ())
    assert usable({"low": low, "high": high, "ours": empty, "theirs": empty}, 0.005) == word


def test_batch_sizes_that_cannot_be_trained_are_unusable_and_one_seed_is_inconclusive(study: Path, add: Add) -> None:
    for batch_size in (1, 2, 4):
        add(norm="none", batch_size=batch_size, seed=0)
    add(norm="batch", batch_size=1, seed=0, status="unsupported")
    add(norm="batch", batch_size=2, seed=0, status="diverged")
    add(norm="batch", batch_size=4, seed=0)
    groups = read(load(study))
    (row,) = smallest_batch_table(groups, compare_at_best_lr(groups, "none", 0.005), "none", 0.005).rows
    assert (row["unusable"], row["inconclusive"], row["smallest_usable"]) == ("1, 2", "4", None)
    assert row["remarks"] == "not shown usable at any size"


def test_a_run_that_failed_does_not_take_its_seed_from_the_choice(study: Path, add: Add) -> None:
    for seed in range(3):
        for lr in (0.01, 0.1):
            add(lr=lr, seed=seed, accuracy=0.9 if lr == 0.1 else 0.8)
        add(lr=1.0, seed=seed, status="complete" if seed == 0 else "failed", accuracy=0.5)
    (choice,) = (c for by in choices(read(load(study))).values() for c in by.values())
    assert (choice.lr, choice.on, choice.fresh) == (0.1, {0, 1, 2}, frozenset())


def test_seeds_that_had_to_decide_are_not_fresh(study: Path, add: Add) -> None:
    for seed in range(3):
        add(lr=0.01, seed=seed, accuracy=0.7)
        add(lr=0.1, seed=seed, accuracy=0.8)
        add(lr=1.0, seed=seed + 3, accuracy=0.9)
    (choice,) = (c for by in choices(read(load(study))).values() for c in by.values())
    assert (choice.lr, choice.on, choice.fresh) == (1.0, {0, 1, 2}, frozenset())


def test_an_lr_at_which_all_runs_failed_is_the_one_to_add(study: Path, add: Add) -> None:
    for seed in range(2):
        for lr in (0.01, 0.1):
            add(lr=lr, seed=seed, accuracy=0.8 + lr)
        add(lr=0.3, seed=seed, status="failed")
    (row,) = lr_table(read(load(study))).rows
    assert row["remarks"] == "the best lr lies at the edge (0.1); add lr=0.3; failed at lr 0.3"


def test_all_diverged(study: Path, add: Add) -> None:
    for lr in (0.1, 1.0):
        add(norm="none", lr=lr)
        add(norm="batch", lr=lr, status="diverged")
    groups = read(load(study))
    row = by_name(lr_table(groups))["batch", 64]
    assert (row["best_lr"], row["band"], row["own_band"], row["largest_stable"]) == (0.1, None, None, None)
    (found,) = records(compare_at_best_lr(groups, "none", 0.005))
    assert (found["verdict"], found["n"]) == (None, 0)


def test_one_lr_gives_a_note(study: Path, add: Add) -> None:
    add(norm="none")
    add(norm="batch")
    groups = read(load(study))
    for table in (best_lr_table(groups, compare_at_best_lr(groups, "none", 0.005), "none", 0.005), lr_table(groups)):
        assert table.rows == []
        assert "one lr only" in table.note
    assert "same batch size" in smallest_batch_table(groups, pd.DataFrame(), "none", 0.005).note
