"""Whole runs in a stack, files and all, beside the same runs alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from normbench.config.run_config import RunConfig
from normbench.data.dataset import Split
from normbench.errors import Stopped
from normbench.experiment import execute, execute_stacked, new_model, prepare_run
from normbench.instruments import BN_MODES, Probe
from normbench.runs import Run, RunFolder
from normbench.training.callbacks import LearningCurve
from normbench.training.stack import Stack

MUON = hasattr(torch.optim, "Muon")  # torch 2.9 and later
SMALL = ["dataset.size=8", "dataset.examples=300", "dataset.validation=60", "batch_size=8", "model.hidden=[6,5]"]
SMALL += ["max_steps=24", "evaluations=3", "log_every=5", "checkpoint_seconds=0"]
FEW = ["instruments.snapshots=4", "instruments.probe=32"]
MOST = ("instruments=full", "~instruments.measure.statistics")  # which works in float32
TIMES = ("train_seconds", "training_ms", "evaluating_ms", "measuring_ms")
OTHERS = ("seconds", "measuring_seconds", "seal", "dataset")


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs compute in float64."""
    scaled = Split.scaled
    monkeypatch.setattr(Split, "scaled", lambda *about: scaled(*about).double())
    monkeypatch.setattr("normbench.experiment.run.new_model", lambda *about: new_model(*about).double())


@pytest.fixture
def runs_of(tmp_path: Path, cell_of: Callable[..., RunConfig]) -> Callable[..., list[RunConfig]]:
    """`runs_of("a", "norm=batch", lr=[0.1, 0.2])`: a run per seed with these words, in a folder of results "a"."""

    def made(to: str, *words: str, count: int = 3, **own: Sequence[Any]) -> list[RunConfig]:
        one = cell_of(*SMALL, *([] if "instruments=none" in words else FEW), *words)
        return [
            replace(one, name=f"run{k}", config={**one.config, "seed": k, "results_dir": str(tmp_path / to),
                                                 **{name: values[k] for name, values in own.items()}})
            for k in range(count)
        ]  # fmt: skip

    return made


def stacked(run_configs: Sequence[RunConfig], stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Train them in a stack. Returns what became of each, by name."""
    ended: dict[str, Any] = {}
    execute_stacked(run_configs, lambda one, error: ended.update({one.name: error}), stop)
    assert ended.keys() == {one.name for one in run_configs}
    return ended


def assert_same(one: Run, other: Run, **tolerance: float) -> None:
    tolerance = tolerance or {"rtol": 1e-6, "atol": 1e-9}  # tables have 7 digits
    assert one.summary.keys() == other.summary.keys()
    plain = [{k: v for k, v in run.summary.items() if k not in OTHERS} for run in (one, other)]
    numbers = [pd.json_normalize(summary) for summary in plain]
    pd.testing.assert_frame_equal(*numbers, check_dtype=False, **tolerance)
    for name in ("steps", "epochs", *one.instruments):
        tables = [getattr(run, name) if name in ("steps", "epochs") else run.measured(name) for run in (one, other)]
        tables = [table.drop(columns=[*TIMES, "step_bytes", "peak_bytes"], errors="ignore") for table in tables]
        if one.status == "diverged":  # what it overflows to is as it comes: infinite, NaN, 0
            tables = [table[table["loss"].notna()] if name == "steps" else table[:1] for table in tables]
        pd.testing.assert_frame_equal(*tables, check_dtype=False, obj=name, **tolerance)
    if one.status == "complete":
        weights = [torch.load(run.folder / "model.pt", weights_only=True) for run in (one, other)]
        torch.testing.assert_close(*weights, **tolerance)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    "words",
    [
        ["norm=batch", *MOST, "model.dropout=0.2", "dataset.augment=translate", "optimizer=adam"],
        ["norm=weight", "instruments=quick", "accumulate=2", "clip_norm=0.5", "optimizer=nesterov", "schedule=cosine"],
        ["norm=batch", "instruments=none", "norm.statistics=precise", "perturb_step=7", "weight_decay=0.1"],
    ],
)
def test_runs_in_a_stack_write_what_they_write_alone(words: list[str], runs_of: Callable[..., list[RunConfig]]) -> None:
    """Each seed with its own subset and wrong labels, each with its own lr; one diverges."""
    words = [*words, "dataset.train_fraction=0.7", "dataset.label_noise=0.2"]
    own: dict[str, Any] = {"lr": [0.01, 1e200, 0.02], "momentum": [0.9, 0.5, 0.0 if "optimizer=adam" in words else 0.3]}
    together, apart = runs_of("a", *words, **own), runs_of("b", *words, **own)
    assert stacked(together) == dict.fromkeys(["run0", "run1", "run2"])
    for one, other in zip(together, apart, strict=True):
        alone, run = execute(other), Run(one.folder)
        assert_same(run, alone)
        assert run.record["executed"] == {"device": "cpu", "stack": 3}
        assert alone.record["executed"]["stack"] is None
        assert run.summary["seconds"]["training"] > 0
        assert run.steps["train_seconds"].is_monotonic_increasing
    assert [Run(one.folder).status for one in together] == ["complete", "diverged", "complete"]


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_instruments_of_a_stack_share_a_pass(
    norm: str, runs_of: Callable[..., list[RunConfig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each snapshot one pass through all networks for each bn_mode, however many there are."""
    passes, record = [], Probe.record

    def counted(probe: Probe, bn_mode: str, images: Tensor) -> Any:
        passes.append(bn_mode)
        return record(probe, bn_mode, images)

    monkeypatch.setattr(Probe, "record", counted)
    runs = runs_of("a", f"norm={norm}", "instruments=quick", "lr=0.01")
    assert stacked(runs) == dict.fromkeys(["run0", "run1", "run2"])
    snapshots = Run(runs[0].folder).measured("activations")["step"].nunique()
    assert Counter(passes) == dict.fromkeys(BN_MODES if norm == "batch" else BN_MODES[:1], snapshots)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_run_goes_on_alone_and_in_a_stack_again(optimizer: str, runs_of: Callable[..., list[RunConfig]]) -> None:
    words = ["norm=batch", *MOST, "model.dropout=0.2", f"optimizer={optimizer}", "lr=0.01"]
    apart, moving = runs_of("a", *words), runs_of("b", *words)
    asked = itertools.count()
    stops = stacked(moving, stop=lambda: next(asked) >= 3 * 3)  # after 8 updates: each of the runs is asked
    assert all(isinstance(error, Stopped) for error in stops.values())
    asked = itertools.count()
    for one in moving[:2]:
        with pytest.raises(Stopped):
            execute(one, stop=lambda: next(asked) % 9 == 8)
    steps = [Run(one.folder).steps["step"].max() for one in moving]
    assert steps[0] == steps[1] > steps[2] > 0
    assert stacked(moving) == dict.fromkeys(["run0", "run1", "run2"])  # in two stacks
    for one, other in zip(moving, apart, strict=True):
        assert_same(Run(one.folder), execute(other))


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("amp=bf16", "rounds otherwise"),
        pytest.param("optimizer=muon", "as a whole", marks=pytest.mark.skipif(not MUON, reason="torch has no Muon")),
    ],
)
def test_what_is_not_stacked(word: str, why: str, runs_of: Callable[..., list[RunConfig]]) -> None:
    ready = prepare_run(runs_of("a", word, "execute=stacked")[0])
    assert (ready.fits, why in ready.why_alone) == (0, True)


def test_weights_are_bit_identical_with_instruments_and_without(runs_of: Callable[..., list[RunConfig]]) -> None:
    words = ["norm=noisy_batch", "model.dropout=0.2"]
    observed, alone = (runs_of(name, *words, f"instruments={name}") for name in ("full", "none"))
    for runs in (observed, alone):
        stacked(runs)
    for one, other in zip(observed, alone, strict=True):
        weights = [torch.load(run.folder / "model.pt", weights_only=True) for run in (one, other)]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_goes_wrong_in_one_run_leaves_the_others_alone(
    runs_of: Callable[..., list[RunConfig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, after = runs_of("a", "norm=batch", "instruments=none", count=4), LearningCurve.after
    execute(runs[2])

    def breaks(self: LearningCurve, step: Any) -> None:
        if step.index == 8 and self.log.folder.path.name == "run1":
            raise ZeroDivisionError("it broke")
        after(self, step)

    monkeypatch.setattr(LearningCurve, "after", breaks)
    with RunFolder(runs[3].folder):  # another process is at it
        ended = stacked(runs)
    assert [type(ended[one.name]).__name__ for one in runs] == ["NoneType", "ZeroDivisionError", "NoneType", "Locked"]
    assert [Run(one.folder).status for one in runs[:3]] == ["complete", "failed", "complete"]
    assert "it broke" in str(Run(runs[1].folder).error)
    monkeypatch.setattr(LearningCurve, "after", after)
    assert stacked(runs) == dict.fromkeys(ended)


@pytest.mark.parametrize(("error", "stacks"), [(torch.OutOfMemoryError, [5, 2, 3, 1, 2]), (RuntimeError, [5])])
def test_a_stack_that_does_not_fit_is_halved_and_one_that_cannot_be_is_trained_one_by_one(
    error: type[Exception],
    stacks: list[int],
    runs_of: Callable[..., list[RunConfig]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs, tried, advance = runs_of("a", "norm=none", "instruments=none", count=5), [], Stack.advance

    def too_large(self: Stack, updates: int) -> torch.Tensor:
        if self.index == 0:
            tried.append(len(self.members))
        if len(self.members) > 2:
            raise error("no")
        return advance(self, updates)

    monkeypatch.setattr(Stack, "advance", too_large)
    assert stacked(runs) == dict.fromkeys(f"run{k}" for k in range(5))
    assert tried == stacks
    assert ("5 runs can't be stacked" in caplog.text) == (error is RuntimeError)
    assert [Run(one.folder).status for one in runs] == ["complete"] * 5
