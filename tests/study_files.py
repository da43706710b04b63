"""Studies written through `RunFolder`, so that what is read here is what a training writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from normbench.runs import SCHEMA_VERSION, RunFolder

ACTIVATIONS = ("bn_mode", "unit", "count", "mean", "std", "skew", "p01", "p15", "p50", "p85", "p99")
SHIFT = ("bn_mode", "since", "w1_scaled_mean", "moved_scaled_mean", "drift_scaled_mean")
CONFIG = {"optimizer": "adam", "lr": 0.001, "weight_decay": 0.0, "batch_size": 64, "epochs": 1.0, "max_steps": None}
CHECKSUM = "c0ffee" + "0" * 58


def write_run(
    study: Path,
    norm: str = "batch",
    model: str = "mlp",
    dataset: str = "mnist",
    status: str = "complete",
    accuracy: float = 0.9,
    curve: tuple[float, ...] = (0.1, 0.8, 0.9),
    layers: dict[str, list[tuple[float, ...]]] | None = None,
    checksum: str = CHECKSUM,
    summary: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """One run's folder.

    Args:
        status: complete | diverged | unsupported | failed | interrupted.
        curve: validation accuracy at equally spaced evaluations, 1,000 images apart.
        layers: "layer/tensor" -> percentiles 1, 15, 50, 85, 99 at steps 0, 1, 10, 100 ...
        summary: replaces numbers of the summary.
        options: options inside the groups, "norm.groups" -> 2.
        config: settings at top level, such as `batch_size` and `seed`.
    """
    choices = {"norm": norm, "model": model, "dataset": dataset, "instruments": "standard"}
    groups: dict[str, Any] = {group: {"name": choice} for group, choice in choices.items()}
    for key, value in (options or {}).items():
        group, _, option = key.partition(".")
        groups[group][option] = value
    values = {**CONFIG, "seed": 0, "study": study.name, **config}
    overrides = [f"norm={norm}", f"model={model}"] + [f"{k}={v}" for k, v in {**config, **(options or {})}.items()]
    words = [model, norm, dataset, *(f"{k}{v}" for k, v in {**config, **(options or {})}.items())]
    path = study / "-".join(words).replace("/", "_")
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": path.name,
        "choices": choices,
        "config": {**groups, **values},
        "versions": {"normbench": "0.1.0", "python": "3.12.1", "torch": "2.6.0"},
        "git_commit": "abc1234",
        "machine": {"system": "Linux", "cpus": 2},
        "overrides": overrides,
    }
    with RunFolder(
        path, {"activations": ACTIVATIONS, "shift": SHIFT, "batch_noise": ("lower", "noise_mean")}
    ) as folder:
        folder.start(record)
        if status == "unsupported":
            folder.finish({"status": status, "reason": "BatchNorm needs two values per feature to train."})
            _remove_seal(path / "summary.json")
            return path
        for index, value in enumerate(curve):
            position = {"step": 10 * index, "samples": 1000 * index, "epoch": index / 50, "train_seconds": float(index)}
            folder.epochs.append([position | {"validation_loss": 1 - value, "validation_accuracy": value}])
            folder.steps.append([position | {"loss": 1 - value}])
        for name, snapshots in (layers or {}).items():
            layer, _, tensor = name.partition("/")
            for index, percentiles in enumerate(snapshots):
                step = 10 ** (index - 1) if index else 0
                row = {"step": step, "layer": layer, "tensor": tensor, "bn_mode": "probe", "count": 100}
                values = dict(zip(ACTIVATIONS[6:], percentiles, strict=True))
                units = [row | values | {"unit": unit, "p50": unit * index} for unit in range(5)]
                folder.measured["activations"].append([row | values, *units])
                shift = {key: row[key] for key in ("step", "layer", "tensor", "bn_mode")}
                for since, numbers in (("start", (0.1 * index, 0.2 * index, 0.05 * index)), ("halves", (0.02,))):
                    named = dict(zip(SHIFT[2:], numbers, strict=False))
                    folder.measured["shift"].append([shift | {"since": since} | named])
            for lower in ("population", "training"):
                noise = {"step": 10, "layer": layer, "tensor": tensor, "lower": lower, "noise_mean": 0.1}
                folder.measured["batch_noise"].append([noise])
        if status == "failed":
            folder.fail("out of memory", "Traceback ...")
        if status in ("complete", "diverged"):
            diverged = status == "diverged"
            numbers = {
                "status": status,
                "steps": 100,
                "samples": 6400,
                "epoch": 1.0,
                "diverged_step": 350 if diverged else None,
                "train_loss": None if diverged else 1 - accuracy,
                "validation_loss": None if diverged else 0.3,
                "validation_accuracy": None if diverged else accuracy - 0.01,
                "test_loss": None if diverged else 0.3,
                "test_accuracy": None if diverged else accuracy,
                "at_chance": False,
                "parameters": 89610,
                "dataset": {
                    "name": dataset,
                    "checksum": checksum,
                    "train": 55000,
                    "validation": 5000,
                    "test": 10000,
                    "classes": 10,
                    "synthetic": dataset == "synthetic",
                },
                "seconds": {"training": 10.0, "evaluating": 1.0, "measuring": 2.0, "total": 13.0},
                "measured": {"shift": {"hidden1": 0.5}},
            }
            folder.finish(numbers | (summary or {}))
            _remove_seal(path / "summary.json")
    return path


def _remove_seal(path: Path) -> None:
    """Tests add tables to what was written, and change it: as in runs of before the seal, nothing is compared."""
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "seal"}))


@pytest.fixture(scope="session")
def writer() -> Callable[..., Path]:
    return write_run


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """An empty study."""
    path = tmp_path / "results" / "first"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def hostile_study(study: Path, tmp_path: Path) -> Path:
    """A study from a stranger: escapes for the terminal in all that is text, words that would execute if pasted."""
    bomb = {"_target_": "builtins.open", "file": str(tmp_path / "boom"), "mode": "w"}
    write_run(study, norm="\x1b[31mred\x1b[0m\u202e")
    write_run(study, norm="layer", options={"model.build": bomb, "norm._target_": "os.system"}, seed=1)
    write_run(study, norm="none", status="failed", seed=2)
    for run in study.iterdir():
        record = yaml.safe_load((run / "config.yaml").read_text())
        record["overrides"] = ["norm=none", "--config-dir=/evil", "hydra.searchpath=[/evil]", "norm._target_=os.system"]
        (run / "config.yaml").write_text(yaml.safe_dump(record))
    (run / "error.json").write_text('{"error": "\\u001b]0;title\\u0007 \\u001b[2J", "traceback": "\\u001b[2J"}')
    return study


@pytest.fixture
def add(study: Path) -> Callable[..., Path]:
    """`add(norm="batch", seed=1, accuracy=0.9)` writes one run into `study`."""
    return lambda **settings: write_run(study, **settings)


Row = dict[str, Any]  # of an instrument's table


def measure(run: Path, instrument: str, rows: Sequence[Row]) -> Path:
    """Write measured/<instrument>.csv of a run; columns that a row does not name are empty, as in real tables."""
    columns = list(dict.fromkeys(["step", "layer", "tensor", *(name for row in rows for name in row)]))
    lines = [",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]
    (run / "measured").mkdir(exist_ok=True)
    (run / "measured" / f"{instrument}.csv").write_text("\n".join(lines) + "\n")
    return run


def measure_everything(run: Path, scale: float = 1.0, layers: Sequence[str] = ("first", "second")) -> Path:
    """Rows of every instrument that a figure reads, at steps 0 and 10; `scale` makes runs differ."""
    table: dict[str, list[Row]] = {}

    def add(instrument: str, **row: Any) -> None:
        table.setdefault(instrument, []).append(row)

    for step in (0, 10):
        for i, layer in enumerate(layers, 1):
            at = {"step": step, "layer": layer}
            add("gradients", **at, tensor="w", gradient=scale * i, update_ratio=0.01 * i if step == 0 else "")
            add("gradients", **at, tensor="linear", gradient=99)
            add("units", **at, tensor="activation", zeros=0.5, dead=0.1 * i, saturated="")
            add("gradient_shift", **at, tensor="w", relative=0.5 * scale)
            for since in ("start", "path", "halves"):
                if step or since == "halves":
                    add("shift", **at, tensor="linear", bn_mode="probe", since=since, w1_scaled_mean=0.2 * scale,
                        moved_scaled_mean=0.4, drift_scaled_mean=0.1)  # fmt: skip
            for lower in ("population", "training"):
                add("batch_noise", **at, tensor="linear", lower=lower, noise_mean=0.5, step_drift=0.05 * i)
            add("statistics", **at, norm="norm", time="", statistics="ema", mean_error=0.1 * i, var_error=0.2)
            counts = {f"h{k:02}": 1 if k == 32 else 0 for k in range(64)}
            add("distributions", **at, tensor="linear", bn_mode="probe", unit="", low=-scale, high=scale, **counts)
            for unit in ("", *range(5)):
                add(
                    "activations",
                    **at,
                    tensor="linear",
                    bn_mode="probe",
                    unit=unit,
                    p01=-2,
                    p15=-1,
                    p50=0,
                    p85=1,
                    p99=2,
                )
            for time in (0, 1, 2):
                add("time_steps", **at, tensor="linear", bn_mode="probe", time=time, mean=time, std=scale)
        for kind in ("ema", "averages", "precise", "batch"):
            add("statistics", step=step, statistics=kind, accuracy=0.9)
        add("memory_time", step=step, saved=1000 * scale)
        for kind in ("absolute", "relative"):
            add("landscape", step=step, kind=kind, loss_min=0.5, loss_max=1, change_min=0.1, change_max=2 * scale,
                lr_smoothness=scale)  # fmt: skip
    for corruption, severity in (("none", 0), ("noise", 3), ("noise", 5), ("blur", 3), ("blur", 5)):
        for n in (4, 64, ""):
            at = {"step": 10, "corruption": corruption, "severity": severity, "images": n,
                  "statistics": "re-estimated" if n else "training"}  # fmt: skip
            add("train_test_shift", **at, layer="", tensor="", accuracy=0.9 - 0.1 * severity + 0.001 * (n or 0))
            for i, layer in enumerate(layers, 1):
                add("train_test_shift", **at, layer=layer, tensor="linear", w1_scaled_mean=99)
                add("train_test_shift", **at, layer=layer, tensor="input",
                    w1_scaled_mean=99 if n else scale * (0.1 + severity / i))  # fmt: skip
    for instrument, rows in table.items():
        measure(run, instrument, rows)
    return run
