"""The leaderboard's numbers by hand, and its two forms of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.groups import STATUSES, read
from normbench.analysis.leaderboard import (
    Leaderboard,
    Row,
    leaderboard,
    leaderboard_table,
    synopsis,
    to_markdown,
)
from normbench.runs import load
from tests.study_files import measure

Add = Callable[..., Path]
T1, T2 = 12.706204736174698, 4.302652729749464  # 97.5% quantiles of Student's t with 1 and 2 degrees of freedom


def board(study: Path) -> Leaderboard:
    return leaderboard(read(load(study)))


@pytest.fixture
def ragged(study: Path, add: Add) -> Path:
    """Batch size 4: three seeds of none, two of batch, one of three layer runs not diverged. 64: everything else."""
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        add(norm="none", batch_size=4, seed=seed, accuracy=accuracy, summary={"train_loss": 0.1 * (seed + 1)})
    for seed, accuracy in enumerate((0.80, 0.82)):
        add(norm="batch", batch_size=4, seed=seed, accuracy=accuracy, summary={"at_chance": seed == 0})
    add(norm="layer", batch_size=4, seed=0, accuracy=0.95)
    add(norm="layer", batch_size=4, seed=1, status="diverged")
    add(norm="layer", batch_size=4, seed=2, status="diverged", summary={"diverged_step": 50})
    for seed in range(3):
        add(norm="selu", batch_size=4, seed=seed, status="diverged")
    add(norm="none", batch_size=64, seed=0, accuracy=0.96)
    add(norm="batch", batch_size=64, seed=0, status="unsupported")
    add(norm="layer", batch_size=64, seed=0, status="failed")
    add(norm="weight", batch_size=64, seed=0, status="interrupted")
    return study


def test_every_number(ragged: Path) -> None:
    small, large = board(ragged).groups.values()
    assert [row["scheme"] for row in small] == ["none", "batch", "layer", "selu"]  # diverged runs count at chance
    assert [row["rank"] for row in small] == [1, 2, 3, 4]
    none, batch, layer, selu = small

    def numbers(row: Row, *keys: str) -> list[float]:
        return [row[f"test_accuracy_{key}"] for key in keys]

    half = T2 * 0.02 / 3**0.5
    expected = [3, 0.92, 0.92, 0.92 - half, 0.92 + half]
    assert numbers(none, "n", "mean", "median", "low", "high") == pytest.approx(expected, abs=1e-9)
    more = ("validation_accuracy_mean", "train_loss_mean", "training_seconds_mean", "parameters")
    assert [none[key] for key in more] == pytest.approx([0.91, 0.2, 10.0, 89610], abs=1e-9)
    assert none["remarks"] == ""

    half = T1 * (0.02 / 2**0.5) / 2**0.5
    assert numbers(batch, "low", "high") == pytest.approx([0.81 - half, 0.81 + half], abs=1e-9)
    assert (batch["at_chance"], batch["remarks"]) == (1, "1 at chance; no run of seed 2")

    assert numbers(layer, "n", "mean", "low", "high") == pytest.approx([3, (0.95 + 0.1 + 0.1) / 3, 0.0, 1.0])
    assert layer["train_loss_n"] == 1  # of a loss there is no chance
    assert {status: layer[status] for status in (*STATUSES, "at_chance")} == {
        "complete": 1, "diverged": 2, "unsupported": 0, "failed": 0, "running": 0, "interrupted": 0, "at_chance": 0
    }  # fmt: skip
    assert layer["remarks"] == "2 of 3 diverged (at step 350, 50) and count at chance"
    assert (selu["test_accuracy_mean"], selu["train_loss_mean"]) == (pytest.approx(0.1), None)

    assert [row["scheme"] for row in large] == ["none", "batch", "layer", "weight"]
    assert [row["remarks"] for row in large] == [
        "",
        "1 unsupported: BatchNorm needs two values per feature to train.",
        "1 failed: out of memory",
        "1 interrupted",
    ]


def test_the_synopsis_claims_no_winner(ragged: Path, study: Path, add: Add) -> None:
    small, large = board(ragged).groups.values()
    assert synopsis(small).startswith(
        "Highest mean: none, 92.00 ± 4.97; its interval overlaps those of batch and layer."
    )
    assert synopsis(small[3:]) == "No run does better than chance."
    assert synopsis(large[1:]) == "No run has finished with a result."
    assert synopsis(large[:1]) == "Highest mean: none, 96.00 (n = 1), the only scheme with a result."
    assert "one seed, so no interval" in synopsis([large[0], *small])


def test_no_number_is_printed_that_cannot_be(ragged: Path) -> None:
    """Of "38.33 ± 121.93" nobody learns anything; the interval of an accuracy ends at 0 and 100."""
    layer = board(ragged).rows[2]
    assert layer["test_accuracy_text"] == "38.33 (0.00 to 100.00)"
    selu = board(ragged).rows[3]
    assert (selu["test_accuracy_text"], selu["n_text"]) == ("diverged", "3/3")
    row = next(row for row in leaderboard_table(board(ragged)).rows if row["scheme"] == "layer")
    assert (row["test_accuracy_low"], row["test_accuracy_high"]) == (0.0, 1.0)


def test_notes_say_what_the_numbers_are(ragged: Path, add: Add) -> None:
    notes = " ".join(board(ragged).notes)
    assert "95% Student t interval" in notes
    assert "n = 1: one seed gives no interval" in notes
    assert "A run that diverged counts at chance, 1 / classes, in accuracies." in notes
    assert "SYNTHETIC" not in notes


def test_the_table_has_what_became_of_every_run(ragged: Path, add: Add) -> None:
    for seed, accuracy in enumerate((0.1, 0.93, 0.94, 0.95, 0.96)):
        add(norm="rms", batch_size=64, seed=seed, accuracy=accuracy)
    table = leaderboard_table(board(ragged))
    rows = {(row["scheme"], row["batch_size"]): row for row in table.rows}
    rms = rows["rms", 64]
    assert rms["test_accuracy_iqm"] == pytest.approx(0.94, abs=1e-9)  # 0.1 and 0.96 cut off
    assert rms["test_accuracy_mean"] == pytest.approx(0.776, abs=1e-9)
    assert rms["test_accuracy_median"] == 0.94
    counts = ("complete", "diverged", "at_chance", "failed", "unsupported")
    assert {key: tuple(row[count] for count in counts) for key, row in rows.items()} == {
        ("layer", 4): (1, 2, 0, 0, 0), ("none", 4): (3, 0, 0, 0, 0), ("batch", 4): (2, 0, 1, 0, 0),
        ("selu", 4): (0, 3, 0, 0, 0), ("none", 64): (1, 0, 0, 0, 0), ("rms", 64): (5, 0, 0, 0, 0),
        ("batch", 64): (0, 0, 0, 0, 1), ("layer", 64): (0, 0, 0, 1, 0), ("weight", 64): (0, 0, 0, 0, 0),
    }  # fmt: skip
    assert "92.00" in table.texts(rows["none", 4])


def test_csv_holds_everything_at_full_precision(ragged: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(leaderboard_table(board(ragged)).to_csv())))
    assert len(lines) == 8
    none = lines[0]
    assert (none["scheme"], none["model"], none["batch_size"], none["seeds"]) == ("none", "mlp", "4", "0 1 2")
    assert float(none["test_accuracy_low"]) == pytest.approx(0.92 - T2 * 0.02 / 3**0.5, abs=1e-11)
    assert (lines[3]["train_loss_mean"], lines[3]["rank"], lines[3]["diverged"]) == ("", "4", "3")
    assert (lines[5]["test_accuracy_mean"], lines[5]["rank"], lines[5]["unsupported"]) == ("", "", "1")


def test_markdown(ragged: Path) -> None:
    text = to_markdown(board(ragged))
    assert "| batch size | norm | test accuracy % | n | validation % | train loss | parameters | train" in text
    assert "| 4 | none | 92.00 ± 4.97 | 3/3 | 91.00 ± 4.97 | 0.2000 | 89,610 | 10.0 |  |" in text
    assert "| 64 | batch | – | 0/1 |" in text
    assert "`model=mlp dataset=mnist optimizer=adam lr=0.001 epochs=1 weight_decay=0`" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    assert "with precise" not in text


def test_accuracy_with_precise_statistics_has_a_column_where_it_was_measured(study: Path, add: Add) -> None:
    for seed, precise in enumerate((0.85, 0.86)):
        found = {"ema": 0.93, "precise": precise}
        measure(add(seed=seed), "statistics", [{"step": 9, "statistics": k, "accuracy": v} for k, v in found.items()])
    found = board(study)
    assert "| 85.50 ± 6.35 |" in to_markdown(found)
    assert found.rows[0]["precise_mean"] == pytest.approx(0.855)
    assert [c.heading for c in leaderboard_table(found).columns].count("validation % with precise") == 1


def test_names_cannot_break_the_markdown_table(study: Path, add: Add) -> None:
    add(norm="a|b<script>")
    assert "| a\\|b&lt;script&gt; |" in to_markdown(board(study))


@pytest.mark.parametrize("dataset", ["synthetic", "mnist"])
def test_synthetic_data_are_marked_in_every_table(study: Path, add: Add, dataset: str) -> None:
    add(norm="none", dataset=dataset)
    found = board(study)
    assert ("dataset=synthetic (synthetic)" in to_markdown(found)) is (dataset == "synthetic")
    assert ("SYNTHETIC DATA" in to_markdown(found)) is (dataset == "synthetic")
    assert f",{dataset == 'synthetic'}," in leaderboard_table(found).to_csv()


def test_flops_have_a_column_where_they_were_counted(study: Path, add: Add) -> None:
    add(norm="none", accuracy=0.9)
    assert "MFLOPs per update" not in to_markdown(board(study))
    add(norm="batch", accuracy=0.8, summary={"measured": {"memory_time": {"flops": 28_134_400}}})
    found = board(study)
    [column] = [column for column in found.short if column.key == "flops"]
    assert [column.show(row["flops"]) for row in found.rows] == ["–", "28.1"]
    assert "a norm itself does is not among them" in leaderboard_table(found).caption
