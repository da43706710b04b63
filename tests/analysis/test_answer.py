"""The answer in words, the recommendation, and every table of a study."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from normbench.analysis.answer import Options, answer, tables
from normbench.analysis.groups import Groups, read
from normbench.analysis.notes import differences
from normbench.runs import load
from tests.study_files import measure, measure_everything

Add = Callable[..., Path]
NAMES = [
    "leaderboard",
    "shortlist",
    "comparisons",
    "own_lr",
    "lr_stability",
    "smallest_batch",
    "time_to_target",
    "inference_statistics",
]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory, writer: Add) -> Groups:
    """Everybody's best lr is 0.1, inside those tried, but for layer's; selu diverges there, too."""
    study = tmp_path_factory.mktemp("full")
    for batch_size, lr, seed in itertools.product((4, 64), (0.01, 0.1, 1.0), range(3)):
        at, off = {"batch_size": batch_size, "lr": lr, "seed": seed}, 0.2 * (lr != 0.1)
        writer(study, norm="none", accuracy=0.90 - off + seed / 1000, **at)
        batch = writer(study, norm="batch", accuracy=0.94 - off + (seed == 1) / 1000 + seed / 1000, **at)
        measure_everything(batch)
        writer(study, norm="layer", accuracy=0.80 + lr / 10 + (seed == 1) / 100, **at)
        writer(study, norm="selu", status="diverged", **at)
    return read(load(study))


def test_every_table_can_be_written_in_every_form(groups: Groups) -> None:
    found = tables(groups)
    assert [table.name for table in found] == NAMES
    for table in found:
        assert table.rows
        assert table.caption
        assert len({tuple(row) for row in table.rows}) == 1  # the same keys everywhere
        assert len(table.to_csv().splitlines()) == len(table.rows) + 1
        widths = {line.replace("\\|", "").count("|") for line in table.to_markdown().splitlines() if line[:1] == "|"}
        assert len(widths) == 1
        assert {column.sort or column.key for column in table.columns} <= set(table.rows[0])


def test_rows_say_what_the_page_filters_by(groups: Groups) -> None:
    for table in tables(groups):
        assert {"model"} | ({"scheme"} if table.name != "shortlist" else set()) <= set(table.rows[0])
        assert ("batch_size" in table.rows[0]) is (table.name != "smallest_batch")


def test_a_study_of_one_run_has_notes_where_there_is_nothing_to_say(study: Path, add: Add) -> None:
    add(norm="batch")
    groups = read(load(study))
    found = {table.name: table for table in tables(groups)}
    assert {name for name, table in found.items() if table.rows} == {"leaderboard", "time_to_target"}
    assert all(table.note for table in found.values() if not table.rows)
    assert all(table.to_markdown() for table in found.values())
    assert answer(groups) == ["Nothing to compare: all runs are of batch."]


def test_a_study_without_a_result(study: Path, add: Add) -> None:
    add(norm="batch", status="unsupported")
    add(norm="none", status="failed")
    groups = read(load(study))
    assert [table.name for table in tables(groups)] == NAMES
    assert answer(groups)[1] == "Of 1 comparison: 1 without a pair of results (batch, unsupported)."


def test_the_answer(groups: Groups) -> None:
    *recommended, first, second = answer(groups)
    assert [words[:39] for words in recommended] == [f"Recommended at batch size {n}: batch, 94."[:39] for n in (4, 64)]
    assert (
        "With 95% confidence it is the best of the 2 schemes whose best lr lies inside those tried." in recommended[0]
    )
    layer, selu = (
        "layer: the best lr lies at the edge (1); add lr=3",
        "selu: the best lr lies at the edge (0.01); add",
    )
    assert recommended[0].endswith(f" Undecided: {layer}; {selu} lr=0.003.")
    of_batch = "+4.03 points (95% interval +3.78 to +4.29, 3 pairs, p < 0.001 after Holm)"
    both = f"batch at batch size 4, {of_batch}; batch at batch size 64, {of_batch}."
    assert first.startswith(f"Better than none, each at its own best lr: {both}")
    assert first.endswith("Where the same seeds chose the lrs, intervals and p values allow for their number.")
    assert second.startswith("Of 6 comparisons: 4 undecided, as a best lr lies at the edge of those tried (")
    assert (
        "layer at batch size 4, add lr=3 for layer; selu at batch size 4, 3 of 3 diverged, add lr=0.003 for" in second
    )


def test_survivors_do_not_win(study: Path, add: Add) -> None:
    """Batch is better by a point in the seeds in which it survives, and diverges in two of five."""
    for seed in range(5):
        add(norm="none", seed=seed, accuracy=0.90 + seed / 1000)
        add(norm="layer", seed=seed, accuracy=0.905 + (seed % 2) / 1000)
        add(norm="batch", seed=seed, **({"status": "diverged"} if seed < 2 else {"accuracy": 0.91 + seed / 900}))
    groups = read(load(study))
    able, first, second = answer(groups)
    assert able.startswith(
        "Cannot be told apart here: batch (2 of 5 diverged), layer (with 95% confidence the best of "
    )
    assert "Highest in validation accuracy: layer, 90.54% test accuracy" in able
    assert "batch" not in first
    assert "inconclusive (batch, 2 of 5 diverged)" in second
    assert [row["scheme"] for row in tables(groups)[0].rows] == ["layer", "none", "batch"]


def test_where_all_runs_are_at_chance_nothing_is_recommended(study: Path, add: Add) -> None:
    for norm in ("none", "batch", "layer"):
        for seed in range(3):
            add(norm=norm, seed=seed, accuracy=0.1 + seed / 1000, summary={"at_chance": True})
        add(norm=norm, seed=3, status="diverged")
    assert answer(read(load(study)))[0] == "Nothing is recommended here: no run does better than chance."


def test_inconclusive_is_an_answer(study: Path, add: Add) -> None:
    for seed, (ours, theirs) in enumerate(((0.93, 0.90), (0.90, 0.92), (0.94, 0.91))):
        add(norm="batch", seed=seed, accuracy=ours)
        add(norm="none", seed=seed, accuracy=theirs)
    (first, second) = answer(read(load(study)))
    assert first.startswith("No scheme is shown to be better than none. Closest: batch, +1.33 points (95% interval -5")
    assert second == "Of 1 comparison: 1 inconclusive (batch)."


def test_synthetic_data_are_said(study: Path, add: Add) -> None:
    add(norm="none", dataset="synthetic")
    groups = read(load(study))
    assert answer(groups)[0].startswith("SYNTHETIC DATA")
    assert all(table.caption.startswith("SYNTHETIC DATA") for table in tables(groups) if table.rows)


def test_without_none_the_first_scheme_is_the_reference(study: Path, add: Add) -> None:
    for norm in ("layer", "batch"):
        add(norm=norm)
    (row,) = next(table for table in tables(read(load(study))) if table.name == "comparisons").rows
    assert (row["reference"], row["scheme"]) == ("batch", "layer")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(reference="bath"), r"got 'bath'\. Take one of: none, batch, layer, selu"),
        (Options(margin=0), r"above 0: got 0\. The usual is 0\.5"),
        (Options(targets=(95,)), r"between 0 and 1: got 95\. 95% is 0\.95"),
    ],
)
def test_options_that_do_not_fit(groups: Groups, options: Options, words: str) -> None:
    for ask in (tables, answer):
        with pytest.raises(ValueError, match=words):
            ask(groups, options)


def test_the_margin_is_in_points(groups: Groups) -> None:
    wide = next(table for table in tables(groups, Options(margin=20)) if table.name == "comparisons")
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


def test_what_statistics_at_inference_cost_is_said(study: Path, add: Add) -> None:
    for norm, size, ema, precise in (("batch", 4, 0.901, 0.95), ("batch", 64, 0.94, 0.949), ("layer", 4, 0.93, 0.95)):
        run = add(norm=norm, batch_size=size)
        found = {"ema": ema, "precise": precise}
        measure(run, "statistics", [{"step": 9, "statistics": k, "accuracy": v} for k, v in found.items()])
    words = answer(read(load(study)))
    assert words[-1] == (
        "Validation accuracy lost to the statistics at inference, the weights being the same: batch at batch size 4, "
        "4.90 points (90.10% with ema, 95.00% with precise); layer at batch size 4, 2.00 points (93.00% with ema, "
        "95.00% with precise). norm.statistics=precise compares training alone."
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train_fraction": 0.1, "draw_seed": 0}, True),
        ({"label_noise": 0.2, "draw_seed": 3}, True),
        ({"train_fraction": 0.1, "draw_seed": None}, False),
        ({"train_fraction": 1.0, "draw_seed": 0}, False),
    ],
)
def test_that_all_seeds_share_one_draw_of_the_data_is_said(
    study: Path, add: Add, options: dict[str, float | None], said: bool
) -> None:
    add(options={f"dataset.{key}": value for key, value in options.items()})
    assert any(words.startswith("All seeds share one draw") for words in answer(read(load(study)))) is said


def test_statistics_come_without_scipy_stats_and_torch() -> None:
    """scipy.stats takes a second to import, torch several."""
    code = "import sys, normbench.analysis.answer; print({'scipy.stats', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_how_many_updates_fit_into_the_seconds_is_said(study: Path, add: Add) -> None:
    for seed, steps in enumerate((300, 400, 1500)):
        add(norm="none", seed=seed, accuracy=0.9, max_seconds=60.0, summary={"steps": steps})
        add(norm="batch", seed=seed, accuracy=0.9, max_seconds=60.0, lr=0.3, summary={"steps": steps // 2})
        add(norm="layer", seed=seed, status="diverged", max_seconds=60.0)
    said = "In 60 seconds of training: none 400 updates, batch 200 updates (medians, on the machine at hand)."
    assert said in answer(read(load(study)))
