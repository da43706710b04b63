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
from normbench.sweep.plan import jobs_of, make_plan, shard
from normbench.sweep.timing import Timings


def test_every_status(run_config: Callable[..., RunConfig]) -> None:
    runs = {
        "done": run_config("max_steps=5"),
        "resumes": run_config("max_steps=400", checkpoint_seconds=0.0),
        "new": run_config("max_steps=7"),
        "again": run_config("max_steps=8"),
        "running": run_config("max_steps=9"),
        "unsupported": run_config("max_steps=10", "batch_size=1"),
    }

    def fail_at_200(progress: Any) -> None:
        if progress.step == 200:
            raise RuntimeError("on purpose")

    execute(runs["done"])
    with pytest.raises(RuntimeError, match="on purpose"):
        execute(runs["resumes"], fail_at_200)
    (runs["resumes"].folder / "error.json").unlink()
    record_failure(runs["again"], "it broke")
    with RunFolder(runs["running"].folder) as folder:
        folder.start({"config": {}})
        plan = make_plan(runs.values())
    assert {item.status: item.run_config for item in plan.items} == runs
    left = {item.status: (item.steps, item.steps_behind) for item in plan.items}
    assert left["resumes"] == (400, 200)
    assert left["new"] == (7, 0)
    assert plan.having("unsupported")[0].reason.startswith("BatchNorm needs two values")
    assert {item.status for item in plan.todo} == {"resumes", "new", "again", "running"}
    written = {path.name for path in runs["new"].folder.parent.iterdir()}
    assert written == {runs[status].name for status in ("done", "resumes", "again", "running")}


@pytest.mark.parametrize(("rerun", "again"), [("failed", []), ("diverged", ["lr"]), ("all", ["lr", "plain"])])
def test_what_is_over_runs_again_on_request(run_config: Callable[..., RunConfig], rerun: str, again: list[str]) -> None:
    diverging = run_config("norm=none", "optimizer=sgd", "lr=1e30", "max_steps=20")
    runs = {"plain": run_config("max_steps=20"), "lr": diverging}
    assert [execute(one).status for one in runs.values()] == ["complete", "diverged"]
    plan = make_plan(replace(one, config={**one.config, "rerun": rerun}) for one in runs.values())
    found = [name for name, item in zip(runs, plan.items, strict=True) if item.status == "again"]
    assert sorted(found) == again


def test_seed_by_seed_and_the_longest_first(run_config: Callable[..., RunConfig]) -> None:
    words = [(f"seed={seed}", f"batch_size={size}", "max_samples=400") for seed in (1, 0) for size in (40, 4)]
    plan = make_plan(run_config(*own) for own in words)
    order = [tuple(item.run_config.config[key] for key in ("seed", "batch_size")) for item in plan.todo]
    assert order == [(0, 4), (0, 40), (1, 4), (1, 40)]


def test_time_left_is_told_from_earlier_runs(run_config: Callable[..., RunConfig]) -> None:
    timings, one = Timings(), run_config("max_steps=100")
    assert make_plan([one]).seconds_left() is None
    summary = {"status": "complete", "steps": 50, "seconds": {"training": 1.0, "evaluating": 0.5, "measuring": 0.25}}
    timings.learn(one.choices, one.config, summary)
    assert timings.seconds(one.choices, one.config, 100) == pytest.approx(100 * 1.0 / 50 + 0.75)
    three = [run_config("max_steps=100", word, jobs=2) for word in ("seed=0", "seed=1", "lr=0.5")]
    plan = make_plan(three, timings)
    assert plan.seconds_left() == pytest.approx(3 * 2.75 / 2)
    assert plan.seconds_left({one.name}) == pytest.approx(2.75)  # no faster than its longest run
    other = run_config("max_steps=100", "batch_size=16")
    assert timings.seconds(other.choices, other.config, 100) is None
    timings.learn(one.choices, one.config, {"status": "diverged", "steps": 1})  # tells nothing
    assert timings.seconds(one.choices, one.config, 100) == pytest.approx(2.75)


@pytest.mark.parametrize(
    ("cores", "options", "jobs"),
    [(16, {}, 16), (16, {"threads": 4}, 4), (16, {"device": "cuda"}, 4), (2, {"device": "cuda"}, 2),
     (1, {"threads": 4}, 1), (2, {"jobs": 7}, 7)],
)  # fmt: skip
def test_jobs_are_as_many_as_cores_and_few_on_a_gpu(
    cores: int, options: Any, jobs: int, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    assert jobs_of(run_config(**{"jobs": "auto", **options})) == jobs


def test_a_run_is_told_from_the_others_by_every_option_that_varies(run_config: Callable[..., RunConfig]) -> None:
    words = [("norm=none",), ("norm=batch", "lr=0.5"), ("norm=group", "norm.groups=2", "seed=1")]
    plan = make_plan(run_config(*own) for own in words)
    assert [plan.own_words(item.run_config) for item in plan.items] == [
        "norm=none lr=0.001 seed=0", "norm=batch lr=0.5 seed=0", "norm=group lr=0.001 norm.groups=2 seed=1"
    ]  # fmt: skip


def test_shards_are_parts(run_config: Callable[..., RunConfig]) -> None:
    runs = [run_config(f"seed={seed}", f"norm={norm}") for seed in range(3) for norm in ("none", "batch", "layer")]
    parts = [shard(runs, f"{number}/4") for number in (1, 2, 3, 4)]
    assert sorted(len(part) for part in parts) == [2, 2, 2, 3]
    assert sorted(one.name for part in parts for one in part) == sorted(one.name for one in runs)
    backwards = [shard(runs[::-1], f"{number}/4") for number in (1, 2, 3, 4)]
    assert [{one.name for one in part} for part in parts] == [{one.name for one in part} for part in backwards]
    assert shard(runs, None) == runs


def test_results_of_another_version_are_refused_and_damage_concerns_one_run(
    run_config: Callable[..., RunConfig],
) -> None:
    one, other = run_config("max_steps=5"), run_config("max_steps=6")
    path = execute(one).folder / "summary.json"
    execute(other)
    path.write_text("{")
    items = make_plan([one, other]).items
    assert [item.status for item in items] == ["again", "done"]
    assert "summary.json is cut off or damaged" in items[0].reason
    path.write_text('{"status": "complete", "schema_version": 1}')
    with pytest.raises(ConfigError, match="another version of normbench"):
        make_plan([one])


def test_the_command(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "device=cpu", "max_steps=20"]
    words += ["instruments=none", "norm=none,batch", "batch_size=1,8", "study=p"]
    assert main(["run", "-m", *words, "norm=none", "batch_size=8"]) == 0
    capsys.readouterr()
    assert main(["plan", *words, "jobs=1"]) == 0
    printed = capsys.readouterr().out
    for text in ("4 runs in results/p", "1 done", "2 new", "time left, 1 side by side: ",
                 "1 run is unsupported (norm=batch batch_size=1): BatchNorm needs"):  # fmt: skip
        assert text in printed
    assert main(["plan", "--json", *words]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in plan["cells"]] == ["new", "done", "unsupported", "new"]
    assert len(plan["order"]) == 2
    assert len(list(own_folder.glob("results/p/*/config.yaml"))) == 1, "a plan writes nothing"
