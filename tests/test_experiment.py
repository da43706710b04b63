"""A run from start to summary: determinism, budgets, divergence, and continuing after a kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats

from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError, Unsupported
from normbench.experiment import at_chance, execute
from normbench.runs import Run

TIMES = ("training_ms", "evaluating_ms", "measuring_ms")  # of memory_time
SMALL = ["dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8"]


@pytest.fixture
def small(tmp_path: Path, cell_of: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    """`small("norm=batch", "max_steps=9")`: that cell on little data, in a folder of the test's own."""

    def small(*words: str, to: str = "a") -> RunConfig:
        cell = cell_of(*SMALL, *words)
        return replace(cell, config={**cell.config, "results_dir": str(tmp_path / to)})

    return small


@pytest.fixture
def size_words(
    cell_of: Callable[..., RunConfig], small_options: Callable[..., dict[str, Any]]
) -> Callable[..., list[str]]:
    """`size_words("vgg11")`: the words that make this model a small one."""

    def words(model: str) -> list[str]:
        options = small_options(cell_of(f"model={model}").config["model"])
        return [f"model.{key}={value}".replace(" ", "") for key, value in options.items()]

    return words


def files(run: Run) -> dict[str, Any]:
    """All that a run leaves, without times: equal runs have equal files."""
    weights = torch.load(run.folder / "model.pt", weights_only=True)
    summary = {k: v for k, v in run.summary.items() if k not in ("seconds", "measuring_seconds", "seal")}
    tables = {"steps": run.steps, "epochs": run.epochs} | {name: run.measured(name) for name in run.instruments}
    times = ["train_seconds", *TIMES]
    tables = {name: table.drop(columns=times, errors="ignore") for name, table in tables.items()}
    return {"weights": weights, "summary": summary, **tables}


def assert_same(one: Run, other: Run) -> None:
    a, b = files(one), files(other)
    assert a["summary"] == b["summary"]
    assert a.keys() == b.keys()
    for name in a.keys() - {"summary", "weights"}:
        assert a[name].equals(b[name]), name
    assert a["weights"].keys() == b["weights"].keys()
    for name, value in a["weights"].items():
        assert torch.equal(value, b["weights"][name]), name


def test_the_same_run_twice_is_the_same_to_the_last_bit(
    small: Callable[..., RunConfig], size_words: Callable[[str], list[str]], model_name: str
) -> None:
    words = (f"model={model_name}", *size_words(model_name), "norm=batch", "max_steps=12", "model.dropout=0.2")
    assert_same(execute(small(*words, to="a")), execute(small(*words, to="b")))


def test_a_finished_run_is_not_trained_again(small: Callable[..., RunConfig]) -> None:
    run = execute(small("max_steps=5"))
    before = {p.name: p.stat().st_mtime_ns for p in run.folder.iterdir() if p.name != ".lock"}
    execute(small("max_steps=5"))
    assert {p.name: p.stat().st_mtime_ns for p in run.folder.iterdir() if p.name != ".lock"} == before


def test_what_a_run_writes(small: Callable[..., RunConfig]) -> None:
    run = execute(small("epochs=2", "evaluations=4", "norm=none"))
    per_epoch = run.summary["dataset"]["train"] // 8
    assert run.summary["steps"] == 2 * per_epoch
    assert list(run.epochs["step"]) == [round(i * 2 * per_epoch / 4) for i in range(5)]
    assert list(run.steps["step"]) == list(range(1, 2 * per_epoch + 1))
    assert run.steps["epoch"].iloc[-1] == 2
    assert run.measured("activations")["step"].iloc[0] == 0
    assert run.measured("activations")["step"].iloc[-1] == 2 * per_epoch
    assert sum(run.summary["measuring_seconds"].values()) == pytest.approx(run.summary["seconds"]["measuring"], rel=0.1)
    assert run.summary["validation_accuracy"] == run.epochs["validation_accuracy"].iloc[-1]
    total = run.summary["seconds"]["total"]
    assert total == pytest.approx(sum(v for k, v in run.summary["seconds"].items() if k != "total"))
    assert not (run.folder / "checkpoint").exists()
    assert {"python", "torch", "normbench"} <= run.record["versions"].keys()


def test_at_most_a_thousand_rows_of_means(small: Callable[..., RunConfig]) -> None:
    run = execute(small("max_steps=2100", "model.hidden=[4]", "instruments=none", "norm=none"))
    assert len(run.steps) == 700
    fine = execute(small("max_steps=999", "model.hidden=[4]", "instruments=none", "norm=none"))
    # the same run while both go on: a row of the long one is the mean of three of the short one
    means = fine.steps["loss"].to_numpy()[: 3 * 300].reshape(300, 3).mean(1)
    assert run.steps["loss"].to_numpy()[:300] == pytest.approx(means, rel=1e-5)


def test_a_diverged_run_is_a_result(small: Callable[..., RunConfig]) -> None:
    run = execute(small("norm=none", "optimizer=sgd", "lr=1e30", "max_steps=200", "log_every=10"))
    assert run.status == "diverged"
    assert run.summary["test_accuracy"] is None
    step = run.summary["diverged_step"]
    assert 1 <= step <= 10
    assert run.steps["step"].iloc[-1] == step
    assert run.steps["loss"].iloc[:-1].notna().all()
    assert json.loads((run.folder / "summary.json").read_text())["status"] == "diverged"


def test_a_run_that_learns_nothing_is_at_chance(small: Callable[..., RunConfig]) -> None:
    assert execute(small("lr=1e-12", "max_steps=3", "norm=none")).summary["at_chance"]
    assert not execute(small("epochs=4", "norm=batch")).summary["at_chance"]


def test_at_chance_is_by_the_exact_binomial_tail_and_a_few_images_cannot_tell() -> None:
    def on(n: int, classes: int) -> Callable[[float], bool | None]:
        test = SimpleNamespace(labels=torch.arange(n) % classes, index=torch.arange(n))
        return lambda accuracy: at_chance(accuracy, SimpleNamespace(test=test))  # type: ignore[arg-type]

    assert on(8, 8)(1.0) is False  # all of eight images right are no luck
    assert on(8, 2)(1.0) is None  # of two classes they may be
    assert (on(8, 8)(0.0), on(8, 8)(0.5)) == (True, True)
    likely = [right for right in range(1001) if stats.binom.sf(right - 1, 1000, 0.1) > 0.00135]
    found = [right for right in range(1001) if on(1000, 10)(right / 1000)]
    assert found == likely


def test_bad_input_writes_nothing(small: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size must be at most the"):
        execute(small("batch_size=100000"))
    with pytest.raises(Unsupported, match="BatchNorm needs two values per feature"):
        execute(small("norm=batch", "batch_size=1"))
    with pytest.raises(ConfigError, match=r"model.init must be one of auto"):
        execute(small("model.init=hee"))
    with pytest.raises(ConfigError, match=r"model.hidden must be 1 or more: got \[0\]"):
        execute(small("model.hidden=[0]"))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_training_is_kept_with_its_traceback(
    small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = small("max_steps=5")
    with monkeypatch.context() as patch:
        patch.setattr("normbench.experiment.evaluate_with_kind", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execute(cell)
    assert Run(cell.folder).status == "failed"
    assert "division by zero" in json.loads((cell.folder / "error.json").read_text())["traceback"]
    assert execute(cell).status == "complete"
    assert not (cell.folder / "error.json").exists()


@pytest.mark.parametrize("norm", ["batch", "weight_mean_only"])
def test_a_killed_run_continues_as_if_nothing_had_happened(
    small: Callable[..., RunConfig], size_words: Callable[[str], list[str]], model_name: str, norm: str
) -> None:
    """SIGKILL at a random moment, more than once; weights, tables and summary are those of an undisturbed run."""
    steps = {"mlp": 600}.get(model_name, 150)
    words = [f"model={model_name}", *size_words(model_name), f"norm={norm}", f"max_steps={steps}"]
    words += [f"log_every={steps // 15}", "checkpoint_seconds=0", "model.dropout=0.1", "instruments.snapshots=8"]
    words += ["evaluations=4"]
    undisturbed, cell = execute(small(*words, to="a")), small(*words, to="b")
    context = multiprocessing.get_context("forkserver")
    # What looking at a network on torch's meta device imports, too: 1.5 s that every process would pay.
    context.set_forkserver_preload(["normbench.experiment", "torch._dynamo"])
    for _ in range(2):
        seen = _saved(cell)
        worker = context.Process(target=execute, args=(cell,))
        worker.start()
        while _saved(cell) == seen and worker.is_alive():
            time.sleep(0.002)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL, "it ended before it could be killed: give it more steps"
        assert Run(cell.folder).status == "interrupted"
    assert_same(execute(cell), undisturbed)


def _saved(cell: RunConfig) -> int:
    try:
        return (cell.folder / "checkpoint").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("damage", ["checkpoint cut in half", "checkpoint flipped", "table cut", "table gone"])
def test_damage_makes_the_run_start_over_and_say_so(
    small: Callable[..., RunConfig], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("max_steps=60", "log_every=10", "checkpoint_seconds=0")
    undisturbed, cell = execute(small(*words, to="a")), small(*words, to="b")
    stopped = _Stop(at=40)
    with pytest.raises(KeyboardInterrupt):
        execute(cell, stopped)
    checkpoint, table = cell.folder / "checkpoint", cell.folder / "steps.csv"
    data = bytearray(checkpoint.read_bytes())
    if damage == "checkpoint cut in half":
        checkpoint.write_bytes(data[: len(data) // 2])
    elif damage == "checkpoint flipped":
        data[len(data) // 2] ^= 1
        checkpoint.write_bytes(data)
    elif damage == "table cut":
        table.write_bytes(table.read_bytes()[:30])
    else:
        table.unlink()
    with caplog.at_level("INFO", logger="normbench"):
        assert_same(execute(cell), undisturbed)
    assert "starts over" in caplog.text


def test_an_interrupted_run_continues_and_says_where(
    small: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture
) -> None:
    cell = small("max_steps=60", "log_every=10", "checkpoint_seconds=0")
    with pytest.raises(KeyboardInterrupt):
        execute(cell, _Stop(at=40))
    with caplog.at_level("INFO", logger="normbench"):
        execute(cell)
    assert "continues at step 30 of 60" in caplog.text


class _Stop:
    """Ctrl-C at a given step, just before its checkpoint."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, progress: Any) -> None:
        if progress.step == self.at:
            raise KeyboardInterrupt


def test_a_layer_that_is_not_there_is_told_before_the_run(small: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match=r"must be of hidden1, hidden2, .*: got hid\?9"):
        execute(small("max_steps=5", "instruments.layers=[hidden1,hid?9]"))
    assert not small("max_steps=5", "instruments.layers=[hidden1,hid?9]").folder.exists()


@pytest.mark.parametrize(("norm", "size", "alone"), [("batch", 1, True), ("batch", 2, False), ("layer", 1, False)])
def test_batch_norm_on_one_image_at_a_time_is_said(
    small: Callable[..., RunConfig], norm: str, size: int, alone: bool
) -> None:
    run = execute(small("model=cnn", "model.channels=[4]", f"norm={norm}", f"batch_size={size}", "max_steps=3"))
    assert ("each image is normalised alone" in run.summary.get("remark", "")) == alone
