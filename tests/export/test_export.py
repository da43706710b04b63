"""Each format read back by a reader of its own, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from normbench.cli import main
from normbench.export import FORMATS, files
from normbench.export.latex import escape
from normbench.export.tensorboard import FILE, histogram
from normbench.runs import load
from tests.study_files import measure

NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture
def small(study: Path, add: Callable[..., Path]) -> Path:
    """Two schemes, two batch sizes and two seeds; a run that diverged, one that failed, and an instrument's table."""
    for norm in ("none", "batch"):
        for batch_size in (4, 64):
            for seed in (0, 1):
                add(norm=norm, batch_size=batch_size, seed=seed, accuracy=0.8 + 0.01 * seed + 0.001 * batch_size)
    add(norm="layer", batch_size=4, status="diverged", curve=(0.1, NAN))
    add(norm="layer", batch_size=64, status="failed", options={"dataset.channels": "auto"})
    run = add(norm="layer", batch_size=4, seed=1, options={"dataset.channels": 3})
    quantiles = dict(zip(("p01", "p15", "p50", "p85", "p99"), (-2, -1, 0, 1, 2), strict=True))
    at = {"layer": "hidden1", "tensor": "linear", "bn_mode": "probe", "train_seconds": 0.5}
    rows = [{"step": step, **at, "unit": unit, **quantiles} for step in (0, 100) for unit in ("", 3)]
    measure(run, "activations", [*rows, {"step": 200, **at, "p01": "inf"}])
    measure(run, "gradients", [{"step": 0, **at, "tensor": "w", "gradient": 2.5, "update_ratio": ""}])
    return study


def written(folder: Path, to: str) -> dict[str, bytes]:
    return dict(files(load(folder), to))


@pytest.mark.parametrize("to", FORMATS)
def test_the_same_runs_give_the_same_bytes(to: str, small: Path, tmp_path: Path) -> None:
    for output in ("once", "twice"):
        assert main(["export", str(small), "--to", to, "--output", str(tmp_path / output)]) == 0
    once, twice = (
        {
            path.relative_to(tmp_path / output): path.read_bytes()
            for path in (tmp_path / output).rglob("*")
            if path.is_file()
        }
        for output in ("once", "twice")
    )
    assert once == twice
    assert len(once) >= 1


@pytest.mark.parametrize("to", FORMATS)
def test_a_strangers_study_is_nothing_but_text(to: str, hostile_study: Path, tmp_path: Path) -> None:
    for name, data in written(hostile_study, to).items():
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts
        assert to in ("parquet", "tensorboard") or b"\x1b" not in data  # text is text in these two
    assert not (tmp_path / "boom").exists()


def test_json_holds_settings_summaries_and_every_row(small: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    [data] = written(small, "json").values()
    found, study = json.loads(data, parse_constant=refuse), load(small)
    assert (found["study"], found["varied"][:2]) == ("first", ["norm", "batch_size"])
    assert len(found["runs"]) == len(study.members) == 11
    for run in found["runs"]:
        member = study.members[run["run"]]
        assert run["summary"] == member.summary
        assert run["values"] == member.values
        for name, table in run["tables"].items():
            again = pd.DataFrame(table["rows"], columns=table["columns"]).replace({"Infinity": INFINITE, None: NAN})
            pd.testing.assert_frame_equal(again, member.table(name), check_dtype=False)
    tables = [run["tables"] for run in found["runs"]]
    assert sum("measured/activations" in of_run for of_run in tables) == 1
    assert b'"Infinity"' in data
    assert sum(row[-1] is None for of_run in tables for row in of_run.get("epochs", {"rows": []})["rows"]) == 1  # NaN


def test_parquet_is_read_by_pandas_and_duckdb(small: Path, tmp_path: Path) -> None:
    assert main(["export", str(small), "--to", "parquet", "--output", str(tmp_path / "out")]) == 0
    study, out = load(small), tmp_path / "out"
    names = {"runs", "steps", "epochs", "measured/activations", "measured/gradients", "measured/shift"}
    found = {path.relative_to(out).as_posix().removesuffix(".parquet") for path in out.rglob("*.parquet")}
    assert found <= names | {"measured/batch_noise"}
    for name, frame in (("steps", study.steps), ("measured/activations", study.measured("activations"))):
        again = pd.read_parquet(out / f"{name}.parquet")
        assert list(again)[:5] == ["run", "norm", "batch_size", "dataset.channels", "seed"]
        numbers = [column for column in frame if frame[column].dtype.kind in "if"]
        pd.testing.assert_frame_equal(again[numbers], frame[numbers], check_dtype=False)
    runs = pd.read_parquet(out / "runs.parquet").set_index("run")
    assert runs["test_accuracy"].dropna().to_dict() == study.runs["test_accuracy"].dropna().to_dict()
    assert set(runs["dataset.channels"].dropna()) == {"auto", "3"}  # a number and a word: both are text
    import duckdb

    ask = f"select norm, avg(loss) from '{out}/steps.parquet' where batch_size = 64 group by norm order by norm"
    steps = study.steps[study.steps.batch_size == 64].groupby("norm").loss.mean()
    assert duckdb.sql(ask).fetchall() == [(norm, pytest.approx(loss)) for norm, loss in steps.items()]


def test_tensorboard_reads_curves_histograms_and_hparams(small: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.distribution.compressor import compress_histogram
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util.tensor_util import make_ndarray

    assert main(["export", str(small), "--to", "tensorboard", "--output", str(tmp_path / "out")]) == 0
    study = load(small)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*study.members, FILE}

    def read(name: str) -> Any:
        return EventAccumulator(str(tmp_path / "out" / name)).Reload()

    def hparams(events: Any, tag: str) -> Any:
        content = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
        return HParamsPluginData.FromString(content)

    run = next(run for run in study.members.values() if run.instruments and run.seed == 1 and "layer" in run.name)
    events = read(run.name)
    curve = [(event.step, event.wall_time, event.value) for event in events.Scalars("loss/training")]
    expected = run.steps[["step", "train_seconds", "loss"]].itertuples(index=False, name=None)
    assert curve == [pytest.approx(row) for row in expected]
    assert [event.value for event in events.Scalars("gradient/hidden1/w")] == [2.5]
    [tested] = events.Scalars("accuracy/test")
    assert (tested.step, tested.value) == (100, pytest.approx(run.summary["test_accuracy"]))
    snapshots = events.Tensors("hidden1/linear")
    assert [event.step for event in snapshots] == [0, 100]  # neither a unit's, nor the one with an infinity
    buckets = make_ndarray(snapshots[0].tensor_proto)
    percentiles = dict(compress_histogram(buckets, (100, 1500, 5000, 8500, 9900, 10000)))
    assert percentiles == pytest.approx({100: -2, 1500: -1, 5000: 0, 8500: 1, 9900: 2, 10000: 2}, abs=1e-5)
    start = hparams(events, "session_start_info").session_start_info
    assert {"norm", "batch_size", "dataset.channels", "seed"} == set(start.hparams)
    assert start.hparams["batch_size"].number_value == 4
    assert start.hparams["dataset.channels"].string_value == "3"
    infos = hparams(read(FILE), "experiment").experiment.hparam_infos
    assert {info.name for info in infos} == set(start.hparams)
    [diverged] = [name for name, run in study.members.items() if run.status == "diverged"]
    assert len(read(diverged).Scalars("loss/validation")) == 1  # the NaN is left out
    assert hparams(read(diverged), "session_end_info").session_end_info.status == 2  # STATUS_FAILURE


@pytest.mark.parametrize("quantiles", [(0, 0, 0, 1, 3), (5, 5, 5, 5, 5), (-1e-8, 0, 0, 0, 1e8)])
def test_buckets_hold_every_value_and_have_a_width(quantiles: tuple[float, ...]) -> None:
    levels = np.array([0, 0.25, 0.5, 0.75, 1])
    left, right, percent = histogram(np.array(quantiles, float), levels).T
    assert percent.tolist() == [25, 25, 25, 25]
    assert (right > left).all()
    assert (right[:-1] == left[1:]).all()
    assert np.abs(right - quantiles[1:]).max() <= 1e-6 * max(1, np.ptp(quantiles), max(quantiles))


# What `escape` may write: a command of ours, an escaped sign, a formula, and signs that mean themselves.
PRINTED = re.compile(
    r"(\\(text\w+|ldots|char34)\{\}|\\[{}$&#%_]|\{[][*]\}|-\{\}|\$[-\\a-z]+\$|[\w .,:;!?'()+=/@-])*", re.A
)


@pytest.mark.parametrize("text", [
    "中\u202e\x07", "\n\n%", r"\input{/etc/passwd}", "a & b % c # d _ e ^ f ~ g $x$ {", "[4pt] * ]", '<"|`>',
    "--- --filter -1 1e-05",
])  # fmt: skip
def test_no_sign_in_a_text_is_a_command_of_latex(text: str) -> None:
    assert PRINTED.fullmatch(escape(text)), escape(text)


def test_a_minus_is_one_and_two_hyphens_stay_two() -> None:
    assert escape("-0.5 (-1.0 to 2) lr=-1 1e-05 a-1") == "$-$0.5 ($-$1.0 to 2) lr=$-$1 1e-05 a-1"
    assert escape("x --y") == "x -{}-y"
    assert escape("95 ± 1 – é 中") == r"95 $\pm$ 1 \textendash{} é {[}U+4E2D{]}"


def test_latex_has_the_reports_tables_with_intervals_and_compiles(
    small: Path, add: Callable[..., Path], tmp_path: Path
) -> None:
    for seed in (0, 1, 2):
        add(norm=r"a_b\c{$%&#^~", batch_size=4, seed=seed, accuracy=0.9 + 0.001 * seed)
    assert main(["export", str(small), "--to", "latex", "--output", str(tmp_path / "out")]) == 0
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert {"tables.tex", "leaderboard.tex", "comparisons.tex"} <= set(found)
    assert found["leaderboard.tex"].splitlines()[1] == r"\toprule"
    name = r"a\_b\textbackslash{}c\{\$\%\&\#\textasciicircum{}\textasciitilde{}"
    row = rf"4 & \textendash{{}} & {name} & 90.10 $\pm$ 0.25 & 3/3 "
    assert any(line.startswith(row) for line in found["leaderboard.tex"].splitlines())
    for name, text in found.items():
        columns = {len(re.findall(r"(?<!\\)&", line)) for line in text.splitlines() if line.endswith(r"\\")}
        assert len(columns) == (name != "tables.tex"), name
        assert name == "tables.tex" or rf"\fit{{{name.removesuffix('.tex')}}}" in found["tables.tex"]
    if shutil.which("pdflatex"):
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
        done = subprocess.run(words, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]


def test_bad_input_writes_nothing(
    small: Path, own_folder: Path, refused: Callable[[list[str], str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(own_folder.rglob("*"))
    refused(["export", "nowhere", "--to", "json"], "is no folder")
    refused(["export", str(small)], "--to")
    refused(["export", str(small), "--to", "excel"], "invalid choice")
    refused(["export", str(small), "--to", "json", "--output", str(small / "out")], "lies in the study's folder")
    for name, package in (("parquet", "pyarrow"), ("tensorboard", "tensorboard")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            refused(["export", str(small), "--to", name], f'pip install "normbench[{name}]"')
    run = next(small.glob("*none*"))
    (run / "steps.csv").write_text("step,loss\n1,2,3\n4,5\n6,7,8,9,0\n")
    refused(["export", str(small), "--to", "json"], "can't be exported")
    (own_folder / "file").write_text("")
    refused(["export", str(small), "--to", "latex", "--output", "file"], "can't be written")
    assert set(own_folder.rglob("*")) - before == {own_folder / "file"}


def test_steps_csv_has_what_trackio_imports(add: Callable[..., Path]) -> None:
    """`trackio.import_csv` takes a column `step` of whole numbers, and as a metric each other column of numbers."""
    for name in ("steps", "epochs"):
        with (add(seed=5) / f"{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                assert int(float(row.pop("step"))) >= 0
                assert all(np.isfinite(float(value)) for value in row.values())
