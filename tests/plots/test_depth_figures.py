"""Figures by layer: gradients and silent units, statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from normbench.analysis.groups import read
from normbench.plots import by_layer, depth, running_statistics
from normbench.plots.drawing import look, panels
from normbench.plots.palette import palette
from normbench.runs import Run, load
from tests.study_files import Row, measure

Add = Callable[..., Path]


def run(study: Path, add: Add, instrument: str, rows: list[Row]) -> Run:
    measure(add(), instrument, rows)
    return read(load(study)).members[0]


def test_gradients_of_a_cells_matrices_are_joined(study: Path, add: Add) -> None:
    rows = [{"step": s, "layer": "cell", "tensor": t, "gradient": g, "update_ratio": u}
            for s, t, g, u in ((0, "input.w", 3, 0.1), (0, "hidden.w", 4, 0.3), (0, "input.linear", 9, ""),
                               (5, "input.w", 6, ""), (5, "hidden.w", 8, ""))]  # fmt: skip
    found = run(study, add, "gradients", rows)
    assert depth.gradient(found, "first").to_dict() == {"cell": 5}
    assert depth.gradient(found, "last").to_dict() == {"cell": 10}
    assert depth.update(found, "last").to_dict() == {"cell": pytest.approx(0.2)}  # the last step has no next update


def test_saturated_only_where_something_can_saturate(study: Path, add: Add) -> None:
    rows = [{"step": 0, "layer": "a", "tensor": "activation", "dead": 0.25, "zeros": 0.5, "saturated": ""}]
    found = run(study, add, "units", rows)
    assert depth._shares({"batch": [found]}) == ["dead", "zero"]
    assert depth.share("dead")(found, "last").to_dict() == {"a": 0.25}
    assert depth.share("zero")(found, "last").to_dict() == {"a": 0.5}


def test_errors_of_running_statistics(study: Path, add: Add) -> None:
    def row(layer: str, norm: str, kind: str, error: float, time: str = "", step: int = 9) -> Row:
        return {"step": step, "layer": layer, "norm": norm, "time": time, "statistics": kind, "mean_error": error,
                "var_error": 2 * error, "accuracy": ""}  # fmt: skip

    rows = [row("a", "norm", "ema", 0.1), row("a", "norm", "averages", 9), row("a", "norm", "ema", 9, step=0)]
    rows += [row("cell", "input_norm", "ema", 0.2), row("cell", "input_norm", "ema", 9, time="3")]
    rows += [{"step": 9, "statistics": kind, "accuracy": a} for kind, a in (("ema", 0.9), ("precise", 0.95))]
    found = run(study, add, "statistics", rows)
    assert running_statistics.norm_errors(found, "mean_error").to_dict() == {"a": 0.1, "cell.input_norm": 0.2}
    assert running_statistics.norm_errors(found, "var_error").to_dict() == {"a": 0.2, "cell.input_norm": 0.4}
    assert running_statistics.by_kind(found).to_dict() == pytest.approx({"ema": 10, "precise": 5})


def test_a_line_by_layer_leaves_gaps_and_shows_seeds() -> None:
    runs = [pd.Series({"a": 1.0, "b": 2.0, "c": 3.0}), pd.Series({"a": 3.0, "c": np.nan})]
    with look():
        _, axes = panels(1, 1, 2, 2)
        by_layer.draw_by_layer(axes[0][0], ["a", "b", "c"], runs, palette(["none"])["none"])
    *dots, mean = axes[0][0].lines
    assert dots[0].get_ydata()[[0, 1, 3]].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(mean.get_xydata(), [[0, 2]])  # only layer a is known of both


def test_layers_in_order_and_evenly() -> None:
    assert by_layer.in_order([["a", "c"], ["a", "b", "c"], ["d"]]) == ["a", "b", "c", "d"]
    assert by_layer.evenly(list("abcdefg"), 3) == ["a", "d", "g"]
    assert by_layer.evenly(["a"], 5) == ["a"]


def test_the_mean_over_seeds_is_at_the_steps_that_all_have() -> None:
    found = by_layer.mean_over_seeds([pd.Series({0: 0.0, 1: 0.1, 10: 0.2}), pd.Series({0: 1.0, 1: 1.1})])
    assert found.to_dict() == pytest.approx({0: 0.5, 1: 0.6})
