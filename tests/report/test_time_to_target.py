from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from normbench.analysis.groups import read
from normbench.analysis.targets import median, time_table
from normbench.runs import load

Add = Callable[..., Path]


def test_runs_that_never_get_there_count(study: Path, add: Add) -> None:
    """An evaluation every 10 updates, 1,000 images and second of training."""
    add(norm="none", seed=0, curve=(0.1, 0.95, 0.99))
    add(norm="none", seed=1, curve=(0.1, 0.90, 0.96))
    add(norm="none", seed=2, curve=(0.1, 0.96, 0.94))  # reached is reached
    add(norm="batch", seed=0, curve=(0.1, 0.2, 0.3, 0.97))
    add(norm="batch", seed=1, curve=(0.1, 0.2, 0.3, 0.4), status="diverged")
    add(norm="batch", seed=2, status="failed")
    add(norm="layer", seed=0, status="unsupported")
    table = time_table(read(load(study)), (0.95, 0.98))
    rows = {(row["scheme"], row["target"]): row for row in table.rows}
    none = rows["none", 0.95]
    assert (none["n"], none["reached"], none["steps"], none["samples"], none["seconds"]) == (3, 3, 10, 1000, 1)
    late = rows["none", 0.98]
    assert (late["reached_text"], late["steps"], late["steps_of_reached"]) == ("1/3", math.inf, 20)
    batch = rows["batch", 0.95]
    assert (batch["reached_text"], batch["seconds"], batch["seconds_of_reached"]) == ("1/2", math.inf, 3)
    assert batch["remarks"] == "1 diverged, 1 failed"
    layer = rows["layer", 0.95]
    assert (layer["n"], layer["steps"], layer["remarks"]) == (0, None, "1 unsupported")
    assert [table.texts(row)[-4] for row in (none, late, layer)] == ["10", "not reached", "–"]


def test_median_with_the_late() -> None:
    times = [{"steps": 10.0}, None, {"steps": 30.0}]
    assert median(times, "steps") == 30
    assert median([*times, None], "steps") == math.inf
    assert median([], "steps") is None


def test_a_line_that_is_no_number_is_no_evaluation(study: Path, add: Add) -> None:
    path = add(curve=(0.1, 0.96, 0.97))
    table = path / "epochs.csv"
    table.write_text(table.read_text().replace("0.96", "0.9x"))
    assert [row["steps"] for row in time_table(read(load(study)), (0.95,)).rows] == [20]


def test_a_run_without_evaluations_reaches_nothing(study: Path, add: Add) -> None:
    add(curve=())
    assert [row["reached"] for row in time_table(read(load(study)), (0.95,)).rows] == [0]
