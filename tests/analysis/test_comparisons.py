"""A ragged study whose answers are computed by hand: closed forms of Student's t with 2 and 3 degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from normbench.analysis.comparisons import comparisons
from normbench.analysis.groups import read
from normbench.runs import load

Add = Callable[..., Path]
Rows = dict[tuple[str, int], dict[str, Any]]
T2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, writer: Add) -> Rows:
    study = tmp_path_factory.mktemp("results") / "first"
    study.mkdir()
    add = partial(writer, study)
    for seed, accuracy in enumerate((0.90, 0.92, 0.91, 0.93)):
        add(norm="none", batch_size=4, seed=seed, accuracy=accuracy)
        add(norm="weight", batch_size=4, seed=seed, accuracy=accuracy + 0.01)
    for seed, accuracy in enumerate((0.92, 0.95, 0.92)):  # seed 3 is missing; differences 0.02, 0.03, 0.01
        add(norm="batch", batch_size=4, seed=seed, accuracy=accuracy)
    for seed, accuracy in ((0, 0.93), (2, 0.95), (3, 0.96)):  # differences 0.03, 0.04, 0.03, and 0.1 - 0.92
        add(norm="layer", batch_size=4, seed=seed, accuracy=accuracy, summary={"at_chance": seed == 0})
    add(norm="layer", batch_size=4, seed=1, status="diverged")
    add(norm="selu", batch_size=4, seed=0, status="unsupported")
    add(norm="none", batch_size=64, seed=0, accuracy=0.96)
    add(norm="batch", batch_size=64, seed=0, accuracy=0.97)
    add(norm="layer", batch_size=64, seed=0, status="failed")
    add(norm="rms", batch_size=64, seed=7, accuracy=0.97)
    table = comparisons(read(load(study)), "none", 0.005)
    found = {(row["scheme"], row["batch_size"]): dict(row) for row in table.rows}
    assert list(found) == [
        ("batch", 4), ("layer", 4), ("weight", 4), ("selu", 4), ("batch", 64), ("layer", 64), ("rms", 64)
    ]  # fmt: skip
    return found


def test_a_seed_missing_in_one_arm(rows: Rows) -> None:
    row, error = rows["batch", 4], 0.01 / math.sqrt(3)
    p, p_equivalent = 1 - math.sqrt(12 / 14), 0.5 + math.sqrt(6.75 / 8.75) / 2
    expected = {
        "difference": 0.02, "low": 0.02 - T2 * error, "high": 0.02 + T2 * error, "sd": 0.01, "p": p, "p_holm": 2 * p,
        "p_equivalent": p_equivalent, "p_equivalent_holm": 1.0, "correlation": math.sqrt(3) / 2, "margin": 0.005,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert (row["n"], row["unpaired_scheme"], row["unpaired_reference"], row["diverged_scheme"]) == (3, 0, 1, 0)
    assert (row["model"], row["reference"], row["verdict"]) == ("mlp", "none", "inconclusive")
    assert row["remarks"] == "seed 3 of none has no partner"


def test_the_command_adds_the_seeds_that_are_needed(rows: Rows) -> None:
    row = rows["batch", 4]
    # Neither of two comparisons with a p value is rejected, so that each faces 0.025; the effect is 2 sd.
    t = {n: stats.t.isf(0.0125, n - 1) for n in range(2, 9)}
    with np.errstate(divide="ignore"):  # scipy 1.11 to 1.13 divide by zero on their way
        enough = [n for n in t if stats.nct.sf(t[n], n - 1, 2 * math.sqrt(n)) >= 0.8]
    assert row["seeds_needed"] == enough[0] == 6
    assert row["command"] == "normbench run -m norm=batch,none model=mlp batch_size=4 study=first seed=3,4,5"
    one = rows["batch", 64]  # one pair starts with five
    assert (one["n"], one["difference"], one["low"], one["verdict"]) == (1, pytest.approx(0.01), None, "inconclusive")
    assert one["command"].endswith("batch_size=64 study=first seed=1,2,3,4")


def test_a_diverged_run_counts_at_chance(rows: Rows) -> None:
    row = rows["layer", 4]
    differences = [0.03, 0.1 - 0.92, 0.04, 0.03]
    by_scipy = stats.ttest_1samp(differences, 0)
    assert (row["n"], row["difference"], row["p"]) == pytest.approx((4, sum(differences) / 4, by_scipy.pvalue))
    assert row["low"] == pytest.approx(max(-1, by_scipy.confidence_interval().low))
    assert (row["diverged_scheme"], row["diverged_reference"], row["verdict"]) == (1, 0, "inconclusive")
    assert row["remarks"].startswith("layer: 1 diverged, 1 at chance of 4; too small a difference")


def test_the_same_difference_everywhere_is_not_tested(rows: Rows) -> None:
    row = rows["weight", 4]
    assert (row["n"], row["difference"], row["sd"], row["p"]) == (4, pytest.approx(0.01, abs=1e-9), 0.0, None)
    assert (row["verdict"], row["seeds_needed"], row["command"]) == ("inconclusive", None, "")
    assert row["remarks"] == "the same difference in all 4 pairs: without a spread there is no interval and no test"


def test_nothing_to_pair_is_no_verdict(rows: Rows, study: Path, add: Add) -> None:
    selu, layer, rms = rows["selu", 4], rows["layer", 64], rows["rms", 64]
    assert {(row["n"], row["difference"], row["verdict"]) for row in (selu, layer, rms)} == {(0, None, None)}
    assert "selu unsupported: BatchNorm needs two values per feature to train." in selu["remarks"]
    assert layer["remarks"] == "layer: 1 failed of 1"
    assert rms["remarks"] == "seed 7 of rms has no partner; seed 0 of none has no partner"
    add(norm="none", batch_size=4)
    add(norm="batch", batch_size=64)
    (row,) = comparisons(read(load(study)), "none", 0.005).rows
    assert (row["batch_size"], row["n"], row["remarks"]) == (64, 0, "no run of the reference here")


def test_seeds_that_can_give_no_pair_are_not_asked_for_again(study: Path, add: Add) -> None:
    for seed, accuracy in enumerate((0.90, 0.92, 0.91, 0.93)):
        add(norm="none", seed=seed, accuracy=accuracy)
    add(norm="batch", seed=0, status="unsupported")
    add(norm="batch", seed=1, accuracy=0.95)
    add(norm="batch", seed=2, accuracy=0.92)
    add(norm="batch", seed=3, status="failed")
    (row,) = comparisons(read(load(study)), "none", 0.005).rows
    assert row["seeds_needed"] == 7  # differences 0.03 and 0.01: an effect of sqrt(2) sd has power 0.79 at 6, 0.87 at 7
    assert row["command"].endswith(" seed=3,4,5,6,7")


def test_a_reference_that_diverges_everywhere_makes_others_better(study: Path, add: Add) -> None:
    for seed in range(4):
        add(norm="none", seed=seed, status="diverged")
        add(norm="batch", seed=seed, accuracy=0.9 + seed / 100)
        add(norm="layer", seed=seed, status="diverged")
    batch, layer = comparisons(read(load(study)), "none", 0.005).rows
    assert (batch["verdict"], batch["difference"]) == ("better", pytest.approx(0.815))
    assert (layer["verdict"], layer["difference"]) == ("inconclusive", 0)


def test_equivalent_within_a_wide_margin(study: Path, add: Add) -> None:
    for seed, (accuracy, more) in enumerate(((0.90, 0.001), (0.92, 0.002), (0.91, 0.003))):
        add(norm="none", seed=seed, accuracy=accuracy)
        add(norm="batch", seed=seed, accuracy=accuracy + more)
    groups = read(load(study))
    assert [comparisons(groups, "none", margin).rows[0]["verdict"] for margin in (0.0025, 0.005)] == [
        "inconclusive", "equivalent"
    ]  # fmt: skip


def test_schemes_that_differ_in_more_than_a_name_take_two_commands(study: Path, add: Add) -> None:
    for seed, accuracy in enumerate((0.90, 0.92)):
        add(norm="none", seed=seed, accuracy=accuracy)
        add(norm="group", seed=seed, accuracy=0.91 + seed / 50 + seed / 200, options={"norm.groups": 2})
        add(norm="group", seed=seed, accuracy=0.91, options={"norm.groups": 4})
    command = comparisons(read(load(study)), "none", 0.005).rows[0]["command"]
    first, second = command.split(" && ")
    assert first.startswith("normbench run -m norm=group model=mlp norm.groups=2 study=first seed=2")
    assert second.startswith("normbench run -m norm=none model=mlp study=first seed=2")
