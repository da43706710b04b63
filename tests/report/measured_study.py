"""Tables of instruments, written by hand: what `conftest.write_run` has no rows for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


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
                    add("shift", **at, tensor="linear", way="probe", since=since, w1_scaled_mean=0.2 * scale,
                        moved_scaled_mean=0.4, drift_scaled_mean=0.1)  # fmt: skip
            for lower in ("population", "training"):
                add("batch_noise", **at, tensor="linear", lower=lower, noise_mean=0.5, step_drift=0.05 * i)
            add("statistics", **at, norm="norm", time="", statistics="ema", mean_error=0.1 * i, var_error=0.2)
            counts = {f"h{k:02}": 1 if k == 32 else 0 for k in range(64)}
            add("distributions", **at, tensor="linear", way="probe", unit="", low=-scale, high=scale, **counts)
            for unit in ("", *range(5)):
                add("activations", **at, tensor="linear", way="probe", unit=unit, p01=-2, p15=-1, p50=0, p85=1, p99=2)
            for time in (0, 1, 2):
                add("time_steps", **at, tensor="linear", way="probe", time=time, mean=time, std=scale)
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
