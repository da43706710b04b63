from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from normbench.analysis.answer import Options, answer, tables
from normbench.analysis.groups import Cells, read
from normbench.analysis.notes import differences
from normbench.runs import load
from tests.study_files import measure_everything

Add = Callable[..., Path]
NAMES = [
    "leaderboard",
    "comparisons",
    "own_lr",
    "lr_stability",
    "smallest_batch",
    "time_to_target",
    "inference_statistics",
]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, writer: Add) -> Cells:
    study = tmp_path_factory.mktemp("full")
    for batch_size in (4, 64):
        for lr in (0.1, 1.0):
            for seed in range(3):
                at = {"batch_size": batch_size, "lr": lr, "seed": seed}
                writer(study, norm="none", accuracy=0.90 + seed / 1000, **at)
                measure_everything(writer(study, norm="batch", accuracy=0.94 + (seed == 1) / 1000 + seed / 1000, **at))
                writer(study, norm="layer", accuracy=0.80 + lr / 10 + (seed == 1) / 100, **at)
                writer(study, norm="selu", status="diverged", **at)
    return read(load(study))


def test_every_table_can_be_written_in_every_form(cells: Cells) -> None:
    found = tables(cells)
    assert [table.name for table in found] == NAMES
    for table in found:
        assert table.rows
        assert table.caption
        assert "scheme" in table.rows[0]
        assert len({tuple(row) for row in table.rows}) == 1  # the same keys everywhere
        assert len(table.to_csv().splitlines()) == len(table.rows) + 1
        widths = {line.replace("\\|", "").count("|") for line in table.to_markdown().splitlines() if line[:1] == "|"}
        assert len(widths) == 1
        assert {column.sort or column.key for column in table.columns} <= set(table.rows[0])


def test_rows_say_what_the_page_filters_by(cells: Cells) -> None:
    for table in tables(cells):
        assert {"scheme", "model"} <= set(table.rows[0])
        assert ("batch_size" in table.rows[0]) is (table.name != "smallest_batch")


def test_a_study_of_one_run_has_notes_where_there_is_nothing_to_say(study: Path, add: Add) -> None:
    add(norm="batch")
    cells = read(load(study))
    found = {table.name: table for table in tables(cells)}
    assert {name for name, table in found.items() if table.rows} == {"leaderboard", "time_to_target"}
    assert all(table.note for table in found.values() if not table.rows)
    assert all(table.to_markdown() for table in found.values())
    assert answer(cells) == ["Nothing to compare: all runs are of batch."]


def test_a_study_without_a_result(study: Path, add: Add) -> None:
    add(norm="batch", status="unsupported")
    add(norm="none", status="failed")
    cells = read(load(study))
    assert [table.name for table in tables(cells)] == NAMES
    assert answer(cells)[1] == "Of 1 comparison: 1 without a pair of results (batch, unsupported)."


def test_the_answer(cells: Cells) -> None:
    *recommended, first, second = answer(cells)
    assert [words[:39] for words in recommended] == [f"Recommended at batch size {n}: batch, 94."[:39] for n in (4, 64)]
    assert first == (
        "Better than none, each at its own best lr: batch at batch size 4, +4.03 points (95% interval +3.89 to +4.18, "
        "3 pairs, p < 0.001 after Holm); batch at batch size 64, +4.03 points (95% interval +3.89 to +4.18, 3 pairs, "
        "p < 0.001 after Holm)."
    )
    assert second == (
        "Of 6 comparisons: 2 inconclusive (layer at batch size 4; layer at batch size 64); "
        "2 without a pair of results (selu at batch size 4, diverged; selu at batch size 64, diverged)."
    )


def test_inconclusive_is_an_answer(study: Path, add: Add) -> None:
    for seed, (ours, theirs) in enumerate(((0.93, 0.90), (0.90, 0.92), (0.94, 0.91))):
        add(norm="batch", seed=seed, accuracy=ours)
        add(norm="none", seed=seed, accuracy=theirs)
    (first, second) = answer(read(load(study)))
    assert first.startswith("No scheme is shown to be better than none. Closest: batch, +1.33 points (95% interval -5")
    assert second == "Of 1 comparison: 1 inconclusive (batch)."


def test_synthetic_data_are_said(study: Path, add: Add) -> None:
    add(norm="none", dataset="synthetic")
    cells = read(load(study))
    assert answer(cells)[0].startswith("SYNTHETIC DATA")
    assert all(table.caption.startswith("SYNTHETIC DATA") for table in tables(cells) if table.rows)


def test_the_reference_is_none_or_the_first(cells: Cells) -> None:
    assert tables(cells)[1].rows[0]["reference"] == "none"
    assert tables(cells, Options(reference="layer"))[1].rows[0]["reference"] == "layer"


def test_without_none_the_first_scheme_is_the_reference(study: Path, add: Add) -> None:
    for norm in ("layer", "batch"):
        add(norm=norm)
    (row,) = tables(read(load(study)))[1].rows
    assert (row["reference"], row["scheme"]) == ("batch", "layer")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(reference="bath"), r"got 'bath'\. Take one of: none, batch, layer, selu"),
        (Options(margin=0), r"above 0: got 0\. The usual is 0\.5"),
        (Options(targets=(95,)), r"between 0 and 1: got 95\. 95% is 0\.95"),
        (Options(targets=()), "got none"),
    ],
)
def test_options_that_do_not_fit(cells: Cells, options: Options, words: str) -> None:
    for ask in (tables, answer):
        with pytest.raises(ValueError, match=words):
            ask(cells, options)


def test_the_margin_is_in_points(cells: Cells) -> None:
    wide = tables(cells, Options(margin=20))[1]
    assert {row["verdict"] for row in wide.rows if row["scheme"] == "batch"} == {"equivalent"}
    assert wide.rows[0]["margin"] == 0.2


def test_what_differs_besides_the_scheme(study: Path, add: Add) -> None:
    for norm, batch_size, steps, parameters in (("none", 4, 1500, 9), ("batch", 4, 1500, 10), ("none", 64, 94, 9)):
        path = add(norm=norm, batch_size=batch_size, summary={"steps": steps, "parameters": parameters})
    record = yaml.safe_load((path / "config.yaml").read_text())
    record["versions"]["torch"], record["git_commit"], record["machine"] = "2.7.0", "def5678", {"cpu": "another"}
    (path / "config.yaml").write_text(yaml.safe_dump(record))
    assert differences(read(load(study))) == [
        "Updates by batch size: 4: 1,500; 64: 94. Fewer updates are part of what a large batch does.",
        "Parameters differ: none 9; batch 10.",
        "The runs were made by different versions of torch: 2.6.0, 2.7.0.",
        "The runs were made by different commits: abc1234, def5678.",
        "The runs were made on different machines (None, another): mind the seconds.",
    ]


def test_nothing_differs(study: Path, add: Add) -> None:
    add(norm="none")
    add(norm="batch")
    assert differences(read(load(study))) == []


def test_statistics_come_without_scipy_stats_and_torch() -> None:
    """scipy.stats takes a second to import, torch several."""
    code = "import sys, normbench.analysis.answer; print({'scipy.stats', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
