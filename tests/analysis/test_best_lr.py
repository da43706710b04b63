"""Two schemes over three learning rates and two batch sizes, with three fresh seeds at the best: answers by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from normbench.analysis.batch_sizes import sizes_row, smallest_batch_table, usable
from normbench.analysis.best_lr import Choice, best_lr_table, candidates, choices, compare_at_best_lr, lr_table
from normbench.analysis.comparisons import Pair
from normbench.analysis.groups import Group, Groups, read
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
    ("batch", 32, 3.0): {0: (0.5, 0.5), 1: (0.5, 0.5), 2: (0.5, 0.5)},
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


def test_candidates_are_those_that_gupta_s_rule_leaves(study: Path, add: Add) -> None:
    """Of blocks of three seeds; a scheme whose runs diverged counts at chance, and not in the spread."""
    rows = {"none": (0.90, 0.91, 0.92), "batch": (0.93, 0.945, 0.95), "layer": (0.925, 0.94, 0.941),
            "selu": (0.91, 0.93, 0.93), "weight": None}  # fmt: skip
    for norm, values in rows.items():
        for seed in range(3):
            lost = values is None
            given = {"status": "diverged"} if lost else {"summary": {"validation_accuracy": values[seed]}}
            add(norm=norm, seed=seed, **given)
    [by_scheme] = choices(read(load(study))).values()
    table = pd.DataFrame({norm: values for norm, values in rows.items() if values})
    rest = table.sub(table.mean(axis=1), axis=0) - table.mean() + table.mean().mean()
    degrees = 3 * 2
    least = stats.t.ppf(1 - 0.05 / 4, degrees) * math.sqrt(2 / 3 * (rest**2).to_numpy().sum() / degrees)
    assert candidates(by_scheme) == [norm for norm in table if table["batch"].mean() - table[norm].mean() <= least]
    assert candidates(by_scheme) == ["batch", "layer"]


def test_where_there_are_no_fresh_seeds_it_says_so_and_asks_for_some(groups: Groups) -> None:
    """Three lrs were tried: interval and p values hold for all of them at once."""
    row = by_name(best_lr_table(groups, compare_at_best_lr(groups, "none", 0.005), "none", 0.005))["batch", 8]
    sd, within = 0.01, 1 - 0.05 / 3  # differences -0.10, -0.09, -0.11
    t = within * math.sqrt(2 / (1 - within**2))  # closed form for 2 degrees of freedom
    assert (row["seeds"], row["tried"]) == ("the same seeds chose the lr", 3)
    assert (row["difference"], row["high"]) == pytest.approx((-0.1, -0.1 + t * sd / math.sqrt(3)), abs=1e-9)
    p = 3 * (1 - math.sqrt(300 / 302))  # t = -10 sqrt(3)
    assert (row["p"], row["p_holm"], row["verdict"]) == (pytest.approx(p), pytest.approx(2 * p), "worse")


def test_fresh_seeds_are_new_at_every_lr(study: Path, add: Add) -> None:
    for lr, ours, theirs in ((0.01, -0.2, -0.2), (0.1, 0.0, 0.0), (1.0, 0.01, -0.1), (3.0, -0.2, -0.2)):
        for seed in range(4):
            add(norm="none", lr=lr, seed=seed, accuracy=0.90 + theirs + seed / 100)
            add(norm="batch", lr=lr, seed=seed, accuracy=0.90 + ours + (seed % 2) / 100)
    add(norm="none", lr=1.0, seed=9, accuracy=0.80)  # not fresh, though neither best lr has seen it
    (found,) = compare_at_best_lr(read(load(study)), "none", 0.005)
    first, second = found["command"].split(" && ")
    assert " norm=batch " in first
    assert " lr=1.0 " in first
    assert " lr=0.1 " in second
    assert found["seeds_needed"] == 48
    assert first.endswith("'seed=range(10,58)'")
    assert first.partition("seed=")[2] == second.partition("seed=")[2]


def test_a_best_lr_at_the_edge_decides_nothing(study: Path, add: Add) -> None:
    """The small batch looks 11 points worse, and is better one step of the lr further."""
    for seed in range(5):
        for lr, small, large in ((0.01, 0.70, 0.60), (0.03, 0.65, 0.81), (0.1, 0.6, 0.7)):
            add(norm="batch", lr=lr, seed=seed, accuracy=small + seed / 1000)
            add(norm="none", lr=lr, seed=seed, accuracy=large + (seed % 2) / 1000)
    groups = read(load(study))
    found = compare_at_best_lr(groups, "none", 0.005)
    (row,) = found
    assert (row["verdict"], row["seeds_needed"]) == ("undecided", None)
    assert row["remarks"] == "batch: the best lr lies at the edge (0.01); add lr=0.003"
    assert row["command"] == "normbench run -m norm=batch model=mlp study=first lr=0.003 seed=0,1,2,3,4"
    rows = {row["scheme"]: (row["lr"], row["lr_inside"]) for row in best_lr_table(groups, found, "none", 0.005).rows}
    assert rows == {"none": (0.03, "yes"), "batch": (0.01, "no")}
    assert usable(row, 0.005) == "undecided"
    for seed in range(5):
        add(norm="batch", lr=0.003, seed=seed, accuracy=0.83 + seed / 1000)
        add(norm="batch", lr=0.001, seed=seed, accuracy=0.80 + seed / 1000)
    assert compare_at_best_lr(read(load(study)), "none", 0.005)[0]["verdict"] == "better"


@pytest.mark.parametrize(
    ("grid", "best", "beyond"),
    [((0.01, 0.1, 1), 1, 3), ((0.01, 0.1), 0.01, 0.003), ((0.02, 0.05), 0.02, 0.01), ((0.1, 0.2), 0.2, 0.4),
     ((0.01, 0.1, 1), 0.1, None), ((0.1,), 0.1, None)],
)  # fmt: skip
def test_the_next_lr_is_a_step_of_the_grid_and_at_most_a_factor_of_three(
    grid: tuple[float, ...], best: float, beyond: float | None
) -> None:
    means = dict.fromkeys(grid, 0.5)
    choice = Choice((), "batch", dict.fromkeys(grid), means, best, frozenset(), frozenset())  # type: ignore[arg-type]
    assert choice.beyond == beyond


def test_lr_ranges(groups: Groups) -> None:
    rows = by_name(lr_table(groups))
    shown = ("best_lr", "band_text", "own_band_text", "largest_stable_text")
    assert {key: tuple(row[name] for name in shown) for key, row in rows.items()} == {
        ("none", 8): (0.1, "0.0", "0.0", "0.1"),
        ("batch", 8): (0.1, "–", "0.0", "0.1"),  # within a point of its own best, far from that of none
        ("none", 32): (0.1, "–", "0.0", "0.1"),
        ("batch", 32): (1.0, "1.0", "1.0", "≥ 3"),
    }
    assert rows["batch", 32]["band"] == pytest.approx(1.0, abs=1e-9)
    assert (rows["batch", 32]["remarks"], rows["batch", 32]["command"]) == ("", "")
    assert rows["none", 32]["remarks"] == "1 of 3 diverged at lr 1"
    assert rows["batch", 8]["remarks"] == "3 of 3 at chance at lr 1"
    assert rows["none", 32]["validation_mean"] == pytest.approx(0.91, abs=1e-9)


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
    found = {"low": low, "high": high, "ours": empty, "theirs": empty, "pair": Pair((), empty, empty)}
    assert usable({**found, "verdict": "worse"}, 0.005) == word
    # what one table leaves open, as it compares many, another does not decide
    assert usable({**found, "verdict": "inconclusive"}, 0.005) == word.replace("unusable", "inconclusive")


@pytest.mark.parametrize(
    ("by_size", "smallest", "remarks"),
    [
        ("2 unusable, 4 usable, 8 usable", 4, ""),
        ("2 usable, 4 usable", 2, "the smallest tried: it may be usable below"),
        ("2 usable, 4 inconclusive, 8 usable", 8, "usable at 2, but 4 is inconclusive"),
        ("2 usable, 4 usable, 8 undecided", None, "usable at 2, 4, but 8 is undecided"),
        ("2 usable, 4 undecided, 8 unusable", None, "usable at 2, but 4 is undecided"),
        ("2 inconclusive, 4 unusable", None, "not shown usable at any size"),
    ],
)
def test_usable_from_a_size_on_is_said_only_where_every_larger_size_is(
    by_size: str, smallest: int | None, remarks: str
) -> None:
    row = sizes_row({int(size): word for size, word in (part.split() for part in by_size.split(", "))})
    assert (row["smallest_usable"], row["remarks"]) == (smallest, remarks)


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
    (found,) = compare_at_best_lr(groups, "none", 0.005)
    assert (found["verdict"], found["n"]) == ("undecided", 1)


def test_one_lr_gives_a_note(study: Path, add: Add) -> None:
    add(norm="none")
    add(norm="batch")
    groups = read(load(study))
    for table in (best_lr_table(groups, compare_at_best_lr(groups, "none", 0.005), "none", 0.005), lr_table(groups)):
        assert table.rows == []
        assert "one lr only" in table.note
    assert "same batch size" in smallest_batch_table(groups, [], "none", 0.005).note
