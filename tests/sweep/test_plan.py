"""What a sweep is going to do, and how long it will take."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normbench.cli import main
from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError
from normbench.experiment import execute, record_failure
from normbench.runs import RunFolder
from normbench.sweep.plan import make_plan, shard
from normbench.sweep.timing import Timings

SMALL = ["dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8", "instruments=none"]


@pytest.fixture
def cell(cell_with: Callable[..., Callable[..., RunConfig]]) -> Callable[..., RunConfig]:
    return cell_with(*SMALL)


def test_every_status(cell: Callable[..., RunConfig]) -> None:
    cells = {
        "done": cell("max_steps=5"),
        "resumes": cell("max_steps=400", checkpoint_seconds=0.0),
        "new": cell("max_steps=7"),
        "again": cell("max_steps=8"),
        "running": cell("max_steps=9"),
        "unsupported": cell("max_steps=10", "batch_size=1"),
    }
    execute(cells["done"])
    with pytest.raises(RuntimeError, match="on purpose"):
        execute(cells["resumes"], on_progress=_fail_at_200)
    (cells["resumes"].folder / "error.json").unlink()
    record_failure(cells["again"], "it broke")
    with RunFolder(cells["running"].folder) as folder:
        folder.start({"config": {}})
        plan = make_plan(cells.values())
    assert {item.status: item.run_config for item in plan.items} == cells
    left = {item.status: (item.steps, item.steps_behind) for item in plan.items}
    assert left["resumes"] == (400, 200)
    assert left["new"] == (7, 0)
    assert next(item.reason for item in plan.having("unsupported")).startswith("BatchNorm needs two values")
    assert {item.status for item in plan.todo} == {"resumes", "new", "again", "running"}
    assert sorted(path.name for path in cells["new"].folder.parent.iterdir()) == sorted(
        cells[status].folder.name for status in ("done", "resumes", "again", "running")
    ), "nothing was written"


def _fail_at_200(progress: Any) -> None:
    if progress.step == 200:
        raise RuntimeError("on purpose")


@pytest.mark.parametrize(("rerun", "again"), [("failed", []), ("diverged", ["lr"]), ("all", ["lr", "plain"])])
def test_what_is_over_runs_again_on_request(cell: Callable[..., RunConfig], rerun: str, again: list[str]) -> None:
    cells = {"plain": cell("max_steps=20"), "lr": cell("norm=none", "optimizer=sgd", "lr=1e30", "max_steps=20")}
    assert [execute(one).status for one in cells.values()] == ["complete", "diverged"]
    plan = make_plan(replace(one, config={**one.config, "rerun": rerun}) for one in cells.values())
    found = [name for name, item in zip(cells, plan.items, strict=True) if item.status == "again"]
    assert sorted(found) == again


def test_seed_by_seed_and_the_longest_first(cell: Callable[..., RunConfig]) -> None:
    words = [(f"seed={seed}", f"batch_size={size}", "max_samples=400") for seed in (1, 0) for size in (40, 4)]
    plan = make_plan(cell(*own) for own in words)
    order = [tuple(item.run_config.config[key] for key in ("seed", "batch_size")) for item in plan.todo]
    assert order == [(0, 4), (0, 40), (1, 4), (1, 40)]


def test_time_left_is_told_from_earlier_runs(cell: Callable[..., RunConfig]) -> None:
    timings, one = Timings(), cell("max_steps=100")
    assert make_plan([one]).seconds_left() is None
    summary = {"status": "complete", "steps": 50, "seconds": {"training": 1.0, "evaluating": 0.5, "measuring": 0.25}}
    timings.learn(one.choices, one.config, summary)
    assert timings.seconds(one.choices, one.config, 100) == pytest.approx(100 * 1.0 / 50 + 0.75)
    three = [one, cell("max_steps=100", "seed=1"), cell("max_steps=100", "lr=0.5")]
    plan = make_plan([replace(run_config, config={**run_config.config, "jobs": 2}) for run_config in three], timings)
    assert plan.seconds_left() == pytest.approx(3 * 2.75 / 2)
    assert plan.seconds_left({one.name}) == pytest.approx(2.75)  # no faster than its longest run
    other = cell("max_steps=100", "batch_size=16")
    assert timings.seconds(other.choices, other.config, 100) is None
    timings.learn(one.choices, one.config, {"status": "diverged", "steps": 1})  # tells nothing
    assert timings.seconds(one.choices, one.config, 100) == pytest.approx(2.75)


def test_shards_are_parts(cell: Callable[..., RunConfig]) -> None:
    cells = [cell(f"seed={seed}", f"norm={norm}") for seed in range(3) for norm in ("none", "batch", "layer")]
    parts = [shard(cells, f"{number}/4") for number in (1, 2, 3, 4)]
    assert sorted(len(part) for part in parts) == [2, 2, 2, 3]
    assert sorted(one.name for part in parts for one in part) == sorted(one.name for one in cells)
    backwards = [shard(cells[::-1], f"{number}/4") for number in (1, 2, 3, 4)]
    assert [{one.name for one in part} for part in parts] == [{one.name for one in part} for part in backwards]
    assert shard(cells, None) == cells


def test_results_of_another_version_are_refused(cell: Callable[..., RunConfig]) -> None:
    one = cell("max_steps=5")
    path = execute(one).folder / "summary.json"
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 1'))
    with pytest.raises(ConfigError, match="another version of normbench"):
        make_plan([one])
    path.write_text("{")
    with pytest.raises(ConfigError, match="can't be read"):
        make_plan([one])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["dataset=synthetic", *SMALL, "device=cpu", "max_steps=20", "norm=none,batch", "batch_size=1,8", "study=p"]
    assert main(["run", "-m", *words, "norm=none", "batch_size=8"]) == 0
    capsys.readouterr()
    assert main(["plan", *words, "jobs=1"]) == 0
    printed = capsys.readouterr().out
    for text in ("4 runs in results/p", "1 done", "2 new", "1 unsupported: BatchNorm needs",
                 "time left, 1 side by side: " ):  # fmt: skip
        assert text in printed
    assert main(["plan", "--json", *words]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [cell["status"] for cell in plan["cells"]] == ["new", "unsupported", "done", "new"]
    assert len(plan["order"]) == 2
    assert len(list(tmp_path.glob("results/p/*/config.yaml"))) == 1, "a plan writes nothing"
