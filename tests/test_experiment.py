"""A run from start to summary: determinism, budgets, divergence, and continuing after a stop or a kill."""

from __future__ import annotations

import itertools
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

from normbench.config.options import choices
from normbench.config.run_config import RunConfig
from normbench.data import Dataset
from normbench.errors import ConfigError, Stopped, Unsupported
from normbench.experiment import at_chance, execute, new_model, prepare_run, train
from normbench.runs import Run
from normbench.sweep.plan import make_plan
from normbench.training.evaluation import evaluate_with_kind

TIMES = ("train_seconds", "training_ms", "evaluating_ms", "measuring_ms")
SMALL = ["dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8"]
FEW = ["instruments.snapshots=4", "instruments.probe=32", "evaluations=3", "checkpoint_seconds=0"]
# Pairs that are killed in the short tests: one model of each kind of layer.
KILLED = [("mlp", "batch"), ("mlp", "weight_mean_only"), ("cnn", "batch"), ("rnn", "batch")]


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
        return [f"model={model}", *(f"model.{key}={value}".replace(" ", "") for key, value in options.items())]

    return words


def files(run: Run) -> dict[str, Any]:
    """All that a run leaves, without times: equal runs have equal files."""
    weights = torch.load(run.folder / "model.pt", weights_only=True)
    summary = {k: v for k, v in run.summary.items() if k not in ("seconds", "measuring_seconds", "seal")}
    tables = {"steps": run.steps, "epochs": run.epochs} | {name: run.measured(name) for name in run.instruments}
    tables = {name: table.drop(columns=[*TIMES], errors="ignore") for name, table in tables.items()}
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


def test_a_run_that_was_stopped_twice_equals_an_undisturbed_one_to_the_last_bit(
    small: Callable[..., RunConfig],
    size_words: Callable[[str], list[str]],
    model_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = [*size_words(model_name), *FEW, "norm=batch", "max_steps=12", "model.dropout=0.2", "seed=3"]
    words += ["dataset.train_fraction=0.5", "dataset.label_noise=0.2"]
    words += ["instruments=standard" if model_name == "mlp" else "instruments=quick"]
    words += ["amp=bf16"] if model_name in ("cnn", "rnn") else []
    words += ["optimizer=muon"] if model_name in ("mlp", "rnn") and hasattr(torch.optim, "Muon") else []
    whole, cell = execute(small(*words, to="a")), small(*words, to="b")
    for stop_at in (3, 8):
        asked = itertools.count(0 if stop_at == 3 else 4)
        with pytest.raises(Stopped, match=f"stopped at step {stop_at} of 12"):
            execute(cell, stop=lambda asked=asked, at=stop_at: next(asked) == at)
        assert Run(cell.folder).status == "interrupted"
    with caplog.at_level("INFO", logger="normbench"):
        assert_same(execute(cell), whole)
    assert "continues at step 8 of 12" in caplog.text


@pytest.mark.parametrize(
    ("network", "norm"),
    [
        pytest.param(name, norm, marks=[] if (name, norm) in KILLED else pytest.mark.full)
        for name in sorted(choices("model"))
        for norm in ("batch", "weight_mean_only")
    ],
)
def test_a_killed_run_continues_as_if_nothing_had_happened(
    small: Callable[..., RunConfig],
    size_words: Callable[[str], list[str]],
    network: str,
    norm: str,
) -> None:
    """SIGKILL at a random moment, more than once; weights, tables and summary are those of an undisturbed run."""
    steps = {"mlp": 400}.get(network, 60)
    words = [*size_words(network), *FEW, f"norm={norm}", f"max_steps={steps}", f"log_every={steps // 20}"]
    words += ["model.dropout=0.1", "instruments=standard" if network == "rnn" else "instruments=quick"]
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


def test_the_subset_and_the_wrong_labels_are_drawn_by_the_seed_and_the_same_for_every_scheme(
    small: Callable[..., RunConfig],
) -> None:
    def data_of(*words: str) -> Dataset:
        return prepare_run(small("max_steps=9", "instruments=none", *words)).dataset

    def draw(*words: str) -> tuple[list[int], list[int]]:
        train = data_of("dataset.train_fraction=0.3", "dataset.label_noise=0.2", *words).train
        wrong = train.batch(torch.arange(len(train)))[1] != data_of().train.labels[train.index]
        assert wrong.sum() == 30
        return train.index.tolist(), train.index[wrong].tolist()

    # a plan of many seeds prepares one of them
    seeds = [small("max_steps=9", "instruments=none", "dataset.train_fraction=0.3", f"seed={s}") for s in range(3)]
    assert {item.steps for item in make_plan(seeds).items} == {9}
    first, again, third = (draw("norm=none", f"seed={seed}") for seed in (0, 0, 2))
    assert first == again
    assert first == draw("norm=batch", "seed=0")
    assert all(len(set(a) & set(b)) < 0.6 * len(a) for a, b in zip(first, third, strict=True))
    assert third == draw("seed=0", "dataset.draw_seed=2") == draw("seed=1", "dataset.draw_seed=2")
    held_out = {tuple(data_of(f"seed={s}", "dataset.train_fraction=0.3").validation.index.tolist()) for s in range(3)}
    assert len(held_out) == 1
    # nothing is drawn of all images with their own labels
    assert data_of("seed=0") is data_of("seed=5") is data_of("seed=5", "dataset.draw_seed=7")


def test_weights_start_from_images_drawn_by_the_seed(small: Callable[..., RunConfig]) -> None:
    """Else the seeds would share one draw of the data, which no interval over them covers."""
    seen: list[torch.Tensor] = []

    def started(norm: str, seed: int) -> torch.Tensor:
        ready = prepare_run(small(f"norm={norm}", "norm.init_images=50", f"seed={seed}", "max_steps=1"))
        scheme = replace(ready.parts.scheme, data_dependent_init=lambda model, images: seen.append(images))
        train(replace(ready, parts=replace(ready.parts, scheme=scheme)))
        return seen[-1]

    assert torch.equal(started("weight", 0), started("weight_mean_only", 0))
    assert not torch.equal(started("weight", 0), started("weight", 1))


def test_what_a_run_writes(small: Callable[..., RunConfig]) -> None:
    cell = small("epochs=2", "evaluations=4", "norm=none", "instruments.snapshots=5", "instruments.probe=32")
    run = execute(cell)
    per_epoch = run.summary["dataset"]["train"] // 8
    assert run.summary["steps"] == 2 * per_epoch
    assert list(run.epochs["step"]) == [round(i * 2 * per_epoch / 4) for i in range(5)]
    assert list(run.steps["step"]) == list(range(1, 2 * per_epoch + 1))
    assert run.steps["epoch"].iloc[-1] == 2
    assert run.measured("activations")["step"].iloc[[0, -1]].tolist() == [0, 2 * per_epoch]
    assert sum(run.summary["measuring_seconds"].values()) == pytest.approx(run.summary["seconds"]["measuring"], rel=0.1)
    assert run.summary["validation_accuracy"] == run.epochs["validation_accuracy"].iloc[-1]  # fewer than curve_images
    total = run.summary["seconds"]["total"]
    assert total == pytest.approx(sum(v for k, v in run.summary["seconds"].items() if k != "total"))
    assert not (run.folder / "checkpoint").exists()
    assert {"python", "torch", "normbench"} <= run.record["versions"].keys()
    assert run.record["identity"] == run.summary["identity"] == cell.identity
    before = {p.name: p.stat().st_mtime_ns for p in run.folder.iterdir()}
    execute(cell)  # it is over, and stays as it is
    assert {p.name: p.stat().st_mtime_ns for p in run.folder.iterdir()} == before


@pytest.mark.parametrize("kind", ["ema", "precise", "batch"])
def test_the_curve_is_of_the_first_validation_images_and_the_summary_of_all(
    small: Callable[..., RunConfig], kind: str
) -> None:
    """In their stratified order, so that all classes are in it."""
    words = ["max_steps=20", "evaluations=2", "norm=batch", "instruments=none", f"norm.statistics={kind}"]
    few, every = (execute(small(*words, f"curve_images={count}")) for count in (40, "null"))
    whole = few.summary["validation_loss"]
    assert whole == every.summary["validation_loss"] == every.epochs["validation_loss"].iloc[-1]
    assert whole != few.epochs["validation_loss"].iloc[-1]
    ready = prepare_run(small(*words))
    model = new_model(ready.run_config.config, ready.parts, ready.dataset)
    model.load_state_dict(torch.load(few.folder / "model.pt", weights_only=True))
    validation = ready.dataset.validation
    first = replace(validation, index=validation.index[:40])
    few_of_each, all_of_each = (split.labels[split.index].bincount() for split in (first, validation))
    assert (few_of_each - 0.4 * all_of_each).abs().max() < 1
    found = evaluate_with_kind(model, kind, ready.dataset.train, first, 8, 0)
    assert found == tuple(few.epochs[["validation_loss", "validation_accuracy"]].iloc[-1])


def test_at_most_a_thousand_rows_of_means(small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    fine = execute(small("max_steps=99", "model.hidden=[4]", "instruments=none", "norm=none"))
    monkeypatch.setattr("normbench.training.callbacks.ROWS", 100)
    run = execute(small("max_steps=210", "model.hidden=[4]", "instruments=none", "norm=none"))
    assert (len(fine.steps), len(run.steps)) == (99, 70)
    # the same run while both go on: a row of the long one is the mean of three of the short one
    means = fine.steps["loss"].to_numpy().reshape(33, 3).mean(1)
    assert run.steps["loss"].to_numpy()[:33] == pytest.approx(means, rel=1e-5)


def test_a_diverged_run_is_a_result(small: Callable[..., RunConfig]) -> None:
    diverging = ["norm=none", "optimizer=sgd", "lr=1e30", "instruments=none"]
    run = execute(small(*diverging, "max_steps=200", "log_every=10"))
    assert run.status == "diverged"
    step = run.summary["diverged_step"]
    assert 1 <= step <= 10
    assert run.steps["step"].iloc[-1] == step
    assert run.steps["loss"].iloc[:-1].notna().all()
    # The loss of the only update was finite, and what it left isn't.
    last = execute(small(*diverging, "max_steps=1"))
    assert (last.status, last.summary["diverged_step"], last.summary["steps"]) == ("diverged", 1, 1)
    for one in (run, last):
        assert [one.summary[key] for key in ("test_loss", "test_accuracy", "at_chance")] == [None] * 3


@pytest.mark.parametrize("broken", ["weights", "validation", "test"])
def test_a_run_that_ends_in_numbers_that_are_not_finite_has_diverged(
    small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    splits = iter(["curve", "curve", "validation", "test"])

    def evaluate(model: Any, *about: Any) -> tuple[float, float]:
        split = next(splits)
        if split == "test" and broken == "weights":  # of a unit that no image reaches: the losses are finite
            next(model.parameters()).data[0, 0] = torch.inf
        return (torch.nan if split == broken else 0.1), 0.9

    monkeypatch.setattr("normbench.experiment.run.evaluate_with_kind", evaluate)
    run = execute(small("max_steps=2", "evaluations=1", "norm=none", "instruments=none"))
    assert (run.status, run.summary["diverged_step"], run.summary["test_accuracy"]) == ("diverged", 2, None)


def test_a_run_that_learns_nothing_is_at_chance(small: Callable[..., RunConfig]) -> None:
    assert execute(small("lr=1e-12", "max_steps=3", "norm=none", "instruments=none")).summary["at_chance"]
    assert not execute(small("epochs=4", "norm=batch", "instruments=none")).summary["at_chance"]


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
    with pytest.raises(ConfigError, match=r"model.hidden must be of sizes from 1 to 1,000,000: got \[0\]"):
        execute(small("model.hidden=[0]"))
    with pytest.raises(ConfigError, match=r"must be of hidden1, hidden2, .*: got hid\?9"):
        execute(small("max_steps=5", "instruments.layers=[hidden1,hid?9]"))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_training_is_kept_with_its_traceback(
    small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = small("max_steps=5", "instruments=none")
    with monkeypatch.context() as patch:
        patch.setattr("normbench.experiment.run.evaluate_with_kind", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execute(cell)
    assert Run(cell.folder).status == "failed"
    assert "division by zero" in json.loads((cell.folder / "error.json").read_text())["traceback"]
    assert execute(cell).status == "complete"
    assert not (cell.folder / "error.json").exists()


@pytest.mark.parametrize(("norm", "size", "alone"), [("batch", 1, True), ("batch", 2, False), ("layer", 1, False)])
def test_batch_norm_on_one_image_at_a_time_is_said(
    small: Callable[..., RunConfig], norm: str, size: int, alone: bool
) -> None:
    words = ["model=cnn", "model.channels=[4]", f"norm={norm}", f"batch_size={size}", "max_steps=3", "instruments=none"]
    assert ("each image is normalised alone" in execute(small(*words)).summary.get("remark", "")) == alone


def test_a_run_ends_when_its_seconds_of_training_are_over(
    small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock is a tenth of a second later, whatever is done meanwhile: all counts as training."""
    moment = itertools.count()
    monkeypatch.setattr("normbench.training.callbacks.time.perf_counter", lambda: next(moment) / 10)
    cell = small(
        "norm=batch", "max_steps=100000", "max_seconds=60", "evaluations=4", "instruments=standard", "log_every=7"
    )
    reports: list[Any] = []
    run = execute(cell, reports.append)
    steps, seconds = run.summary["steps"], run.summary["seconds"]["training"]
    assert 60 <= seconds < 63
    assert run.summary["status"] == "complete"
    assert "remark" not in run.summary
    assert run.steps["step"].iloc[-1] == run.epochs["step"].iloc[-1] == steps
    points = run.epochs["train_seconds"].to_list()
    assert [round(point / 15) for point in points] == [0, 1, 2, 3, 4], "at equal shares of the seconds"
    for name in ("shift", "statistics", "batch_noise"):  # the last is measured at the end alone
        assert run.measured(name)["step"].iloc[-1] == steps, name
    assert reports[-1].step == reports[-1].total == steps
    assert max(report.total for report in reports[5:]) < 100 + steps, "what is left is told by the pace so far"

    stopped = small("norm=batch", "max_steps=100000", "max_seconds=60", "log_every=7", to="b")
    calls = itertools.count()
    with pytest.raises(Stopped):
        execute(stopped, stop=lambda: next(calls) == steps // 2)
    again = execute(stopped)
    assert 60 <= again.summary["seconds"]["training"] < 63, "with the seconds before the checkpoint"
    assert again.summary["steps"] < 1.2 * steps

    short = execute(small("norm=batch", "max_steps=5", "max_seconds=1000", to="c"))
    assert short.summary["steps"] == 5
    assert "before max_seconds was reached" in short.summary["remark"]
    assert short.epochs["step"].to_list() == [0, 5]


def test_a_budget_of_seconds_needs_a_constant_lr_and_no_stack(small: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match="max_seconds needs schedule=constant"):
        small("max_seconds=9", "schedule=cosine")
    ready = prepare_run(small("max_seconds=9", "max_steps=5", "execute=stacked"))
    assert (ready.fits, ready.why_alone) == (0, "max_seconds is of a run's own training")
