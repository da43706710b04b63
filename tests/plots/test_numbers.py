"""The numbers behind the figures, by hand: what is drawn where, of which runs and rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from normbench.plots import cost, dose, maps, ribbons, view
from normbench.plots.drawing import look, panels
from normbench.plots.facets import DODGE, entering, evenly, facets, layers_of, lines, places, points
from normbench.plots.forest import draw as draw_forest
from normbench.plots.palette import OTHERS, palette
from normbench.plots.results import close_to_best, curve, learning_curves
from normbench.plots.view import Drawn
from scripts.bn2015_fig1 import tracked_units
from tests.plots.conftest import view_of
from tests.study_files import measure, write_run

Add = Callable[..., Path]
Tidy = Callable[[str, Path], pd.DataFrame]
Draw = Callable[[str, Path], Drawn]
STYLE = palette(["none"])["none"]
BAND = [(-2.0, -1.0, 0.0, 1.0, 2.0), (-3.0, -1.5, 0.0, 1.5, 3.0), (-4.0, -2.0, 0.0, 2.0, 4.0)]


def drawn(draw: Any, data: list[dict[str, Any]], **options: Any) -> Axes:
    with look():
        _, axes = panels(1, 1, 2, 2)
        draw(axes[0][0], pd.DataFrame(data), STYLE, **options)
    return axes[0][0]


def test_points_have_their_seeds_mean_interval_and_marks() -> None:
    data = [{"run": i, "x": 0.0, "y": y, "status": "complete"} for i, y in enumerate((10.0, 20.0, 90.0))]
    data += [{"run": i, "x": 1.0, "y": y, "status": "complete"} for i, y in enumerate((10.0, 20.0))]
    data += [{"run": 9, "x": 1.0, "y": np.nan, "status": "diverged"}]
    dots, interval, means, cross = drawn(points, data, possible=(0.01, 100.0)).lines
    assert dots.get_ydata().tolist() == [10, 20, 90, 10, 20]
    assert interval.get_ydata()[:2].tolist() == [0.01, 100.0], "no further than an error can be"
    assert np.isnan(interval.get_ydata()[2:]).all(), "none from two seeds"
    assert means.get_ydata().tolist() == [40, 15]
    assert (means.get_linestyle(), cross.get_marker(), cross.get_xdata()) == ("-", "x", [1.0])
    means = drawn(points, data[:2], join=False).lines[-1]
    assert means.get_linestyle() == "None", "lines never join categories"
    *_, filled, hollow = drawn(points, [{**row, "hollow": row["x"] == 1} for row in data[:5]]).lines
    assert (hollow.get_xdata(), hollow.get_markerfacecolor()) == ([1.0], "white")
    assert len(filled.get_xdata()) == 2


def test_curves_are_averaged_where_all_runs_have_them() -> None:
    data = [{"run": run, "at": at, "x": at + run, "y": at * run} for run in (1, 3) for at in range(4 - run // 3)]
    thin, mean = drawn(lines, data).lines
    assert np.isnan(thin.get_xdata()).sum() == 2
    assert mean.get_xydata().tolist() == [[2, 0], [3, 2], [4, 4]]
    (end,) = (line for line in drawn(lines, [{**row, "status": "diverged"} for row in data[:4]]).lines
              if line.get_marker() == "x")  # fmt: skip
    assert end.get_xydata().tolist() == [[4, 3]]
    assert drawn(lines, [{**row, "low": 0, "high": 9} for row in data]).collections


def test_doses_are_joined_and_runs_that_never_get_there_stand_at_the_edge(study: Path, add: Add) -> None:
    """Updates: 10 + 10 (0.9 - 0.5) / (accuracy - 0.5) at the second evaluation; the larger of two shifts counts."""
    shifts = {None: 0.5, 0.5: 0.2, 1.0: 0.4, 2.0: 0.9}
    for (noise, moved), seed in itertools.product(shifts.items(), (0, 1)):
        options = {} if noise is None else {"norm.noise_mean": noise}
        last = 0.8 if noise == 2 else 0.9 if noise else 1.0
        path = add(norm="noisy_batch" if noise else "none", seed=seed, options=options, curve=(0.1, 0.5, last))
        row = {"step": 10, "tensor": "activation", "since": "start"}
        shift = {("a", "probe"): 0.1, ("a", "batch"): moved + seed / 10, ("b", "batch"): 7}
        measure(path, "shift", [row | {"layer": layer, "bn_mode": mode, "w1_scaled_mean": w}
                                for (layer, mode), w in shift.items()])  # fmt: skip
    drawn = dose.draw(view_of(study))
    assert drawn is not None
    lines = {line.get_label(): line.get_xydata() for line in drawn.canvas.axes[0].lines}
    assert lines["none"] == pytest.approx(np.array([[0.55, 18]]))
    assert lines["noisy_batch"] == pytest.approx(np.array([[0.25, 20], [0.45, 20]]))
    assert "noisy_batch 2: 0.95 s.d., never" in drawn.caption
    [hollow] = [
        line for line in drawn.canvas.axes[0].lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    ]
    assert hollow.get_xdata() == pytest.approx([0.95])


def test_panels_without_data_are_not_drawn_and_schemes_move_aside_a_little() -> None:
    data = pd.DataFrame(
        {"row": row, "column": column, "scheme": scheme, "run": scheme, "x": x, "y": 1.0}
        for row, column in (("a", "c"), ("a", "d"), ("b", "c"))
        for scheme in ("none", "batch", "layer")
        for x in (0.0, 1.0)
    )
    with look():
        canvas, axes = facets(data, points, palette(["none", "batch", "layer"]))
    assert set(axes) == {("a", "c"), ("a", "d"), ("b", "c")}
    assert [ax.get_visible() for ax in canvas.axes] == [True, True, True, False]
    aside = [float(line.get_xdata()[0]) for line in axes["a", "c"].lines]
    assert max(map(abs, aside)) <= DODGE == 0.06
    assert len(set(aside)) == 3


def test_places_of_values() -> None:
    assert places([4, 1, 2]) == ({1: 0, 2: 1, 4: 2}, True)
    assert places([0.5, 0, 0.25]) == ({0: 0, 0.25: 1, 0.5: 2}, True)
    assert places(["before", "after"]) == ({"after": 0, "before": 1}, False)
    found, join = places([None, 1.0])
    assert not join
    assert sorted(found.values()) == [0, 1]


def test_each_scheme_is_shown_at_its_own_best_lr_where_schemes_differ_most(study: Path, add: Add) -> None:
    for size, gap in ((4, 0.3), (64, 0.01)):
        for norm, best in (("none", 0.1), ("batch", 1.0)):
            for lr in (0.1, 1.0):
                accuracy = 0.9 - gap * (norm == "batch") - 0.05 * (lr != best)
                for seed in (0, 1):
                    path = add(norm=norm, lr=lr, batch_size=size, seed=seed, accuracy=accuracy)
                    measure(path, "units", [{"step": 0, "layer": "a", "tensor": "activation", "dead": 0.5}])
    seen = view_of(study)
    assert {(row.scheme, row.lr) for row in seen.best.itertuples()} == {("none", 0.1), ("batch", 1.0)}
    shown = seen.measured("units", "step", "dead")
    assert shown is not None
    assert set(shown.runs["batch_size"]) == {4}
    assert len(shown.table) == 4
    assert "differ most" in shown.words
    assert (
        seen.line(shown.runs) == "mlp, mnist, 1 epoch, adam, each scheme at its own best lr, batch size 4; n = 2 seeds"
    )
    kept, settings = seen.panels(seen.best, most=1)
    assert (set(kept["setting"]), settings) == ({"batch size 4"}, 2)
    assert view.has_columns(seen.members[shown.runs.index[0]], "units", ("dead",))
    assert not view.has_columns(seen.members[shown.runs.index[0]], "units", ("zeros",))


def test_the_setting_that_is_shown_is_an_end_of_what_was_varied(study: Path, add: Add) -> None:
    """Not the size 1, which `batch` has no result for, nor 8, where the schemes differ most, nor 64, with the best."""
    for size, gap in ((1, 0.0), (2, 0.2), (8, 0.4), (64, 0.01)):
        for norm in ("none", "batch"):
            status = "unsupported" if size == 1 and norm == "batch" else "complete"
            path = add(
                norm=norm, batch_size=size, status=status, accuracy=0.9 - gap * (norm == "batch"), max_samples=6400
            )
            measure(path, "units", [{"step": 0, "layer": "a", "tensor": "activation", "dead": 0.5}])
    seen = view_of(study)
    shown = seen.measured("units", "step", "dead")
    assert shown is not None
    assert seen.line(shown.runs) == "mlp, mnist, 6,400 images, adam, lr 0.001, batch size 2; n = 1 seed"


def test_of_many_schemes_the_reference_and_those_that_can_be_the_best_are_in_colour(study: Path, add: Add) -> None:
    for place, norm in enumerate(("none", "layer", "batch", "weight", "selu", "group", "rms", "mean_only", "instance")):
        for seed in range(4):
            best = norm in ("layer", "rms")
            add(norm=norm, seed=seed, accuracy=0.9 + seed / 1000 if best else 0.8 + place / 100 + seed / 900)
    seen = view_of(study)
    assert sorted(seen.colored) == ["layer", "none", "rms"]
    assert [name for name, style in seen.styles.items() if style.color != OTHERS] == ["none", "layer", "rms"]
    assert len(seen.few(seen.groups.schemes)) == view.SCHEMES
    assert {"none", "layer", "rms"} <= set(seen.few(seen.groups.schemes))
    with look():
        curves, costs = learning_curves(seen), cost.draw(seen)
    assert costs is not None
    assert [text.get_text() for text in costs.canvas.axes[0].get_xticklabels()] == list(seen.groups.schemes)
    assert curves is not None
    [legend] = curves.canvas.legends
    assert [text.get_text() for text in legend.get_texts()] == ["none", "layer", "rms", "6 others"]
    colors = [line.get_color() for line in curves.canvas.axes[0].lines]
    assert OTHERS not in colors[colors.index(seen.styles["none"].color) :], "grey lies below"


def test_errors_are_at_the_best_lr_of_each_value(study: Path, add: Add, tidy: Tidy) -> None:
    for dropout in (0.0, 0.5):
        for lr, accuracy in ((0.1, 0.9), (1.0, 0.8 + dropout / 4)):
            add(norm="none", lr=lr, accuracy=accuracy, options={"model.dropout": dropout})
    data = tidy("along_option", study)
    assert data[["x", "y", "lr"]].to_numpy().astype(float) == pytest.approx(np.array([[0, 10, 0.1], [1, 7.5, 1.0]]))
    data = pd.DataFrame({"column": "", "scheme": ["a", "a", "b", "b", "c"], "x": [0, 0, 0, 0, 0],
                         "y": [10.0, 11.0, 11.4, 11.6, np.nan]})  # fmt: skip
    assert close_to_best(data).tolist() == [True, True, True, True, False]


def test_a_curve_has_the_evaluations_that_gave_a_number(study: Path, add: Add) -> None:
    path = add(seed=1, curve=(0.1, 0.5, 0.9))
    text = (path / "epochs.csv").read_text()
    (path / "epochs.csv").write_text(text[:-20])  # a torn last row
    seen = view_of(study)
    found = curve(seen, path.name)
    assert found.to_numpy() == pytest.approx(np.array([[0, 0, 90], [1000, 1, 50]]))


def test_squares_of_the_map() -> None:
    def square(*statuses: str, chance: bool = False) -> tuple[float | None, str]:
        rows = [{"status": s, "test_accuracy": 0.9 if s == "complete" else None, "at_chance": chance} for s in statuses]
        return maps.square(pd.DataFrame(rows))

    assert square("complete")[1] == "10"
    assert square("complete", chance=True)[1] == "10 C"
    assert square("complete", "diverged")[1] == "10\n1/2"
    assert [square(status) for status in ("diverged", "unsupported", "failed")] == [
        (None, "D"),
        (None, "U"),
        (None, ""),
    ]


def test_differences_are_paired_and_their_interval_is_possible(study: Path, add: Add) -> None:
    for seed, none, batch in ((0, 0.98, 0.99), (1, 0.97, 0.999), (2, 0.999, 0.98), (3, 0.9, None)):
        add(norm="none", seed=seed, accuracy=none)
        add(norm="batch", seed=seed, **({"accuracy": batch} if batch else {"status": "diverged"}))
    seen = view_of(study)
    with look():
        found = draw_forest(seen)
        turned = draw_forest(view.View(seen.groups, ("batch", 1.0)))
    assert found is not None
    assert turned is not None
    _, dots, interval, mean = found.canvas.axes[0].lines
    assert dots.get_xdata().tolist() == pytest.approx([1, 2.9, -1.9, -80]), "a diverged run counts at chance"
    assert mean.get_xdata()[0] == pytest.approx(-19.5)
    other = 100 * np.mean([0.98, 0.97, 0.999, 0.9])
    assert interval.get_xdata()[1] <= 100 - other + 1e-9, "accuracy ends at 100%"
    assert not found.canvas.axes[0].texts, "all are in a pair"
    assert "minus that of none" in found.caption
    assert "±1 points" in turned.caption


def test_cost_by_hand(study: Path, add: Add) -> None:
    path = add(norm="none", accuracy=0.8)
    measure(path, "memory_time", [{"step": 0, "saved": 500}, {"step": 9, "saved": 2500}])
    seen = view_of(study)
    assert cost.kilobytes(seen.members[path.name]) == 2.5
    with look():
        found = cost.draw(seen)
    assert found is not None
    time, memory, error = found.canvas.axes
    assert time.lines[0].get_ydata().tolist() == [100], "10 s in 100 steps"
    assert memory.lines[0].get_ydata().tolist() == [2.5]
    assert error.lines[-1].get_xydata().tolist() == [[10, pytest.approx(20)]]
    add(norm="batch")  # without the instrument
    (path / "measured" / "memory_time.csv").unlink()
    with look():
        found = cost.draw(view_of(study))
    assert found is not None
    assert len(found.canvas.axes) == 2, "no axes for what nobody measured"
    assert "Memory was not measured" in found.caption


def test_layers_and_what_enters_an_activation() -> None:
    table = pd.DataFrame(
        [("r", layer, tensor) for layer, tensor in (("b", "linear"), ("b", "normalized"), ("a", "linear"))]
        + [("s", layer, "linear") for layer in ("b", "c", "a")],
        columns=["run", "layer", "tensor"],
    )
    assert layers_of(table) == ["b", "c", "a"], "in the order of the network that has the most"
    found = entering(table)
    assert [tuple(row) for row in found.to_numpy()] == [
        ("r", "b", "normalized"), ("r", "a", "linear"), ("s", "b", "linear"), ("s", "c", "linear"), ("s", "a", "linear")
    ]  # fmt: skip
    assert evenly(list("abcdefg"), 3) == ["a", "d", "g"]
    assert evenly(["a"], 5) == ["a"]


def test_the_shift_is_of_what_enters_activations(measured: Path, tidy: Tidy) -> None:
    data = tidy("shift", measured)
    assert set(data["since"]) == {"start"}
    none = data[(data["scheme"] == "none") & (data["run"].str.contains("seed0")) & (data["column"] == "second")]
    assert dict(zip(none["row"].str.split("\n").str[0], none["y"], strict=True)) == pytest.approx(
        {"distribution": 0.2, "each image": 0.4, "mean": 0.1}
    )


def test_gradients_of_a_cells_matrices_are_joined(study: Path, add: Add, tidy: Tidy) -> None:
    rows: list[dict[str, Any]] = [
        {"step": s, "layer": "cell", "tensor": t, "gradient": g, "update_ratio": u}
        for s, t, g, u in (
            (0, "input.w", 3, 0.1),
            (0, "hidden.w", 4, 0.3),
            (0, "input.linear", 9, ""),
            (5, "input.w", 6, ""),
            (5, "hidden.w", 8, ""),
        )
    ]
    path = measure(add(), "gradients", rows)
    units = [{"step": 0, "layer": "cell", "tensor": "activation", "dead": 0.25, "zeros": 0.5, "saturated": 0.1}]
    measure(path, "units", units)
    data = tidy("depth", study).set_index(["row", "column"])["y"]
    assert data["before the first update", "|gradient| of the weights"] == 5
    assert data["at the end", "|gradient| of the weights"] == 10
    assert data["at the end", "|update| / |weights|"] == pytest.approx(0.2), "the last step has no next update"
    assert data["at the end", "saturated values (share)"] == 0.1
    assert ("at the end", "values that are 0 (share)") not in data, "only where nothing can saturate"


def test_errors_of_running_statistics(study: Path, add: Add, tidy: Tidy) -> None:
    def row(layer: str, norm: str, kind: str, error: float, time: str = "", step: int = 9) -> dict[str, Any]:
        return {"step": step, "layer": layer, "norm": norm, "time": time, "statistics": kind, "mean_error": error,
                "var_error": 2 * error, "accuracy": ""}  # fmt: skip

    rows = [row("a", "norm", "ema", 0.1), row("a", "norm", "averages", 9), row("a", "norm", "ema", 9, step=0)]
    rows += [row("cell", "input_norm", "ema", 0.2), row("cell", "input_norm", "ema", 9, time="3")]
    rows += [{"step": 9, "statistics": kind, "accuracy": a} for kind, a in (("ema", 0.9), ("precise", 0.95))]
    measure(add(), "statistics", rows)
    data = tidy("running_statistics", study)
    assert list(zip(data["layer"], data["y"], strict=True)) == [
        ("a", 0.1), ("cell.input_norm", 0.2), ("a", 0.2), ("cell.input_norm", 0.4)
    ]  # fmt: skip
    data = tidy("inference_statistics", study)
    assert dict(zip(data["statistics"], data["y"], strict=True)) == pytest.approx({"ema": 10, "precise": 5})


def test_batch_noise_is_of_the_last_rows_of_the_norms_input(study: Path, add: Add, tidy: Tidy) -> None:
    for size in (4, 64):
        at = {"layer": "a", "tensor": "linear", "lower": "population"}
        rows = [{**at, "step": 5, "noise_mean": 9}, {**at, "step": 10, "noise_mean": size**-0.5},
                {**at, "step": 10, "tensor": "normalized", "noise_mean": 9}]  # fmt: skip
        measure(add(batch_size=size), "batch_noise", rows)
    data = tidy("batch_noise", study)
    assert data[["x", "y"]].to_numpy().astype(float) == pytest.approx(np.array([[2, 0.5], [6, 0.125]]))


def test_two_shifts_on_one_axis(study: Path, tidy: Tidy) -> None:
    from tests.study_files import measure_everything

    for seed in (0, 1):
        summary = {"measured": {"shift": {"second": 0.5 + seed}}}
        measure_everything(write_run(study, norm="batch", seed=seed, summary=summary), scale=1 + 2 * seed)
    data = tidy("train_test_shift", study)
    means = data.groupby(["column", "layer"], sort=False)["y"].mean()
    assert means["INTERNAL:\nover training", "second"] == pytest.approx(1.0)
    assert means["noise 5", "first"] == means["blur 5", "first"] == pytest.approx(2 * 5.1)
    assert means["other images,\nuncorrupted", "second"] == pytest.approx(0.2)
    assert list(dict.fromkeys(data["column"]))[:2] == ["INTERNAL:\nover training", "other images,\nuncorrupted"]
    data = tidy("train_test_accuracy", study)
    noise = data[data["column"] == "noise"].groupby(["row", "x"])["y"].mean()
    assert noise["accuracy (%),\nstatistics from training"].tolist() == pytest.approx([90, 60, 40])
    assert noise["accuracy (%),\nre-estimated"].tolist() == pytest.approx([96.4, 66.4, 46.4]), "with the most images"


def test_landscape_takes_positive_numbers_of_one_kind(study: Path, add: Add, tidy: Tidy) -> None:
    names = ("loss_min", "loss_max", "change_min", "change_max", "lr_smoothness")
    row = {"step": 0, "kind": "absolute", **dict.fromkeys(names, 1.0)}
    measure(add(), "landscape", [row, {**row, "kind": "relative", "loss_max": 9}, {**row, "step": 2, "change_min": 0}])
    data = tidy("landscape", study)
    change = data[data["row"] == "change of\nthe gradient"]
    assert change["x"].tolist() == [0, 2]
    assert change["low"].isna().tolist() == [False, True]
    assert data["y"].tolist() == [1] * 5


def test_along_the_sequence_at_the_end(study: Path, add: Add, tidy: Tidy) -> None:
    rows = [{"step": s, "layer": "cell", "tensor": "linear", "bn_mode": w, "time": t, "mean": 10 * s + t, "std": 1}
            for s in (0, 3) for w in ("probe", "running") for t in (4, 0)]  # fmt: skip
    measure(add(), "time_steps", rows)
    data = tidy("time_steps", study)
    assert data[data["row"] == "mean"][["x", "y"]].to_numpy().tolist() == [[0, 30], [4, 34]]


def ribbon_rows(excursions: list[float], tensor: str) -> str:
    """Unit j has medians 0 and excursions[j], and a band of width 4 around them; at steps 0 and 10."""
    return "".join(
        f"{step},,,,hidden1,{tensor},probe,{unit},9,0,1,0,-9,{far * (step > 0) - 2},{far * (step > 0)},"
        f"{far * (step > 0) + 2},9\n"
        for step in (0, 10)
        for unit, far in enumerate(excursions)
    )


def test_the_typical_unit_is_the_one_with_the_median_excursion(study: Path, add: Add) -> None:
    for norm, tensor, far in (("none", "linear", 1.0), ("batch", "normalized", 0.1)):
        with (add(norm=norm) / "measured" / "activations.csv").open("a") as file:
            file.write("0,,,,hidden1,linear,probe,,9,0,1,0,-9,-2,0,2,9\n")  # the whole layer
            file.write(ribbon_rows([far * k for k in (5, 1, 4, 2, 3)], tensor))
            file.write("0,,,,output,linear,probe,0,9,0,1,0,-9,-2,0,2,9\n")  # no hidden layer
            file.write("0,,,,hidden1,linear,running,,9,0,1,0,-9,-2,0,2,9\n")  # another way
    shown = ribbons._one_seed(view_of(study), "", "")
    assert shown is not None
    found = {scheme: tracked_units(table) for scheme, table in shown.table.groupby("scheme")}
    none, batch = found["none"], found["batch"]
    assert none is not None
    assert batch is not None
    assert (none.layer, none.tensor, batch.tensor, none.names) == ("hidden1", "linear", "normalized", [0, 1, 2, 3, 4])
    assert none.excursion == pytest.approx([5, 1, 4, 2, 3])
    assert none.relative == pytest.approx(np.array([5, 1, 4, 2, 3]) / 4)
    assert none.typical == batch.typical == 4


def test_ribbons_show_the_seed_that_most_schemes_share(study: Path, add: Add, draw: Draw) -> None:
    for norm, seeds in {"none": (0, 1), "batch": (1, 2), "layer": (2, 1), "selu": (3,)}.items():
        scale = 100.0 if norm == "selu" else 1.0
        for seed in seeds:
            bands: list[tuple[float, ...]] = [tuple(scale * x for x in row) for row in BAND]
            add(norm=norm, seed=seed, status="diverged" if norm == "layer" else "complete", layers={"a/linear": bands})
    found = draw("ribbons", study)
    assert "none seed 1, batch seed 1, layer seed 1, selu seed 3" in found.caption
    assert "Diverged: layer." in found.caption
    assert "is cut there, its range written" in found.caption
    assert [text.get_text() for ax in found.canvas.axes for text in ax.texts] == ["-400 to 400"]


def test_one_scheme_does_not_flatten_the_others() -> None:
    assert ribbons.reach_limit([2.0, 3.0, 4.0, 100.0]) == pytest.approx(1.05 * 5 * 3.5)
    assert ribbons.reach_limit([2.0, 3.0, 9.0]) == pytest.approx(1.05 * 9.0)  # within five times the median
    assert ribbons.reach_limit([0.0, 0.0, 2.0]) == pytest.approx(2.1)
    assert ribbons.reach_limit([0.0]) == ribbons.reach_limit([]) == 1.0
