from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from normbench.analysis.groups import read
from normbench.plots import batch_sizes, drawing, learning_curves, ribbons
from normbench.plots.drawing import Figure
from normbench.plots.figures import FIGURES, draw_all
from normbench.plots.palette import palette
from normbench.runs import load

Add = Callable[..., Path]
BAND = [(-2.0, -1.0, 0.0, 1.0, 2.0), (-3.0, -1.5, 0.0, 1.5, 3.0), (-4.0, -2.0, 0.0, 2.0, 4.0)]


def draw(study: Path) -> dict[str, Figure]:
    figures = draw_all(read(load(study)))
    assert not [figure.caption for figure in figures if "could not be drawn" in figure.caption.lower()]
    return {figure.name: figure for figure in figures}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but turning a figure into bytes, which takes half a second."""
    for module in FIGURES:
        monkeypatch.setattr(
            module, "finish", lambda name, title, caption, canvas, synthetic: Figure(name, title, caption, b"x")
        )


def has_color(figure: Figure, scheme: str, schemes: tuple[str, ...]) -> bool:
    """Whether the picture has at least 20 points in the scheme's own colour."""
    pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).astype(int)
    color = palette(schemes)[scheme].color.lstrip("#")
    wanted = [int(color[i : i + 2], 16) for i in (0, 2, 4)]
    return int((np.abs(pixels - wanted).max(axis=2) < 25).sum()) >= 20


@pytest.fixture
def full(study: Path, add: Add) -> Path:
    for norm in ("batch", "layer"):
        for batch_size in (4, 64):
            for seed in (0, 1):
                accuracy = 0.9 + seed / 100
                layers = {"hidden1/linear": BAND, "hidden2/linear": BAND, "hidden1/activation": BAND}
                if norm == "batch":
                    layers["hidden1/normalized"] = BAND
                add(norm=norm, batch_size=batch_size, seed=seed, accuracy=accuracy, layers=layers)
    return study


def test_all_figures_are_drawn_in_their_schemes_colours(full: Path) -> None:
    figures = draw(full)
    assert [name for name in figures if name != "ribbons_unit"] == [module.NAME for module in FIGURES]
    for name in ("learning_curves", "batch_sizes", "cost"):
        assert all(has_color(figures[name], scheme, ("batch", "layer")) for scheme in ("batch", "layer"))
        assert not has_color(figures[name], "weight", ("weight",))
    assert "8 complete runs" in figures["learning_curves"].caption
    assert "from 8 runs" in figures["batch_sizes"].caption
    caption = figures["ribbons"].caption
    assert "mlp, batch size 4, seed 0" in caption
    assert "linear, the output of the linear layer: layer, hidden2" in caption  # scheme layer; and hidden2 of batch
    assert "not the running ones" in caption


def test_a_figure_without_data_says_what_supplies_them(study: Path, add: Add) -> None:
    add(norm="none", curve=(0.1,))
    figures = draw(study)
    assert [name for name, figure in figures.items() if figure.svg] == ["cost"]
    assert "evaluations" in figures["learning_curves"].caption
    assert "same batch size" in figures["batch_sizes"].caption
    assert "instrument activations supplies" in figures["ribbons"].caption


@pytest.mark.usefixtures("undrawn")
def test_a_figure_that_fails_leaves_the_others(
    full: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batch_sizes, "draw", lambda groups: 1 / 0)
    figures = {figure.name: figure for figure in draw_all(read(load(full)))}
    sizes = figures.pop("batch_sizes")
    assert figures["learning_curves"].svg
    assert figures["ribbons"].svg
    assert sizes.caption == "Could not be drawn: ZeroDivisionError: division by zero"
    assert "batch_sizes could not be drawn" in caplog.text


def test_nothing_is_left_behind_in_matplotlib(full: Path) -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red"}):  # a user's own settings
        draw(full)
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.usefixtures("undrawn")
def test_diverged_and_unsupported_cells_are_said(study: Path, add: Add) -> None:
    for batch_size in (2, 4):
        add(norm="none", batch_size=batch_size)
    add(norm="batch", batch_size=4)
    assert "upper edge" not in draw(study)["batch_sizes"].caption
    add(norm="batch", batch_size=2, status="unsupported")
    figures = draw(study)
    assert "Marks on the upper edge" in figures["batch_sizes"].caption
    assert "cross" not in figures["learning_curves"].caption
    add(norm="selu", batch_size=2, status="diverged", curve=(0.1, 0.5, 0.2))
    assert "1 run that diverged" in draw(study)["learning_curves"].caption


def test_a_diverged_run_is_drawn(study: Path, add: Add) -> None:
    add(norm="selu", status="diverged", curve=(0.1, 0.5, 0.2))
    assert has_color(draw(study)["learning_curves"], "selu", ("selu",))


def test_a_missing_seed_does_not_bend_the_mean(study: Path, add: Add) -> None:
    """One of two seeds has fewer evaluations: the mean ends with it."""
    add(seed=0, curve=(0.1, 0.5, 0.9))
    path = add(seed=1, curve=(0.1, 0.5, 0.9))
    text = (path / "epochs.csv").read_text().splitlines(keepends=True)
    (path / "epochs.csv").write_text("".join(text[:-1]) + text[-1][:5])  # a torn last row
    groups = read(load(study))
    curves = {run: learning_curves._curve(run) for run in groups.members}
    assert sorted(len(curve) for curve in curves.values()) == [2, 3]
    with drawing.look():
        _, axes = drawing.panels(1, 1, 3, 3)
        cell = groups.settings[()]["batch"]
        learning_curves._draw_group(axes[0][0], cell, curves, palette(["batch"])["batch"], "samples")
    np.testing.assert_allclose(axes[0][0].lines[-1].get_xydata(), [[0, 90], [1000, 50]])


@pytest.mark.usefixtures("undrawn")
def test_zero_error_has_a_place_on_a_logarithmic_axis(study: Path, add: Add) -> None:
    add(curve=(0.1, 0.98, 1.0))
    assert "Errors of zero are drawn as 1." in draw(study)["learning_curves"].caption


def test_one_scheme_does_not_flatten_the_others() -> None:
    assert ribbons._limit([2.0, 3.0, 4.0, 100.0]) == pytest.approx(1.05 * 5 * 3.5)
    assert ribbons._limit([2.0, 3.0, 9.0]) == pytest.approx(1.05 * 9.0)  # within five times the median
    assert ribbons._limit([0.0, 0.0, 2.0]) == pytest.approx(2.1)
    assert ribbons._limit([0.0]) == ribbons._limit([]) == 1.0


@pytest.mark.usefixtures("undrawn")
def test_a_cut_ribbon_says_how_far_it_reaches(study: Path, add: Add) -> None:
    for norm in ("batch", "layer", "none"):
        scale = 100.0 if norm == "none" else 1.0
        add(norm=norm, layers={"hidden1/linear": [tuple(scale * x for x in row) for row in BAND]})
    assert "is cut there, its range written" in draw(study)["ribbons"].caption


def test_ribbons_read_what_is_there(study: Path, add: Add) -> None:
    """Infinite values become gaps, `linear` stands in where there is no `normalized`, `activation` is not drawn."""
    broken = [BAND[0], (-np.inf, -1.0, 0.0, 1.0, np.inf)]
    add(norm="none", layers={"b/linear": broken, "a/activation": BAND, "a/linear": BAND})
    (run,) = read(load(study)).members
    found = ribbons._ribbons(run)
    assert list(found) == ["b", "a"]  # in network order, not by name
    assert found["b"].tensor == "linear"
    assert found["b"].steps.tolist() == [0, 1]
    np.testing.assert_array_equal(found["b"].values, [BAND[0], (np.nan, -1, 0, 1, np.nan)])
    assert found["b"].reach == 2.0
    assert draw(study)["ribbons"].svg


@pytest.mark.usefixtures("undrawn")
def test_other_ways_single_units_and_missing_columns_do_no_harm(study: Path, add: Add) -> None:
    path = add(norm="none", layers={"a/linear": BAND})
    file = path / "measured" / "activations.csv"
    table = file.read_text()
    file.write_text(table + "5,,,,a,linear,running,,,,,,9,9,9,9,9\n5,,,,a,linear,probe,3,,,,,9,9,9,9,9\n")
    (run,) = read(load(study)).members
    assert ribbons._ribbons(run)["a"].reach == 4.0
    file.write_text(re.sub("p01|p99", "other", table))
    assert not draw(study)["ribbons"].svg


@pytest.mark.usefixtures("undrawn")
def test_one_ribbon_figure_per_model(study: Path, add: Add) -> None:
    for model in ("mlp", "rnn"):
        for norm in ("none", "batch", "layer"):
            add(norm=norm, model=model, layers={"cell/linear": BAND})
    assert [name for name in draw(study) if name.startswith("ribbons") and not name.endswith("unit")] == [
        "ribbons_mlp",
        "ribbons_rnn",
    ]


@pytest.mark.usefixtures("undrawn")
def test_the_seed_that_most_schemes_share(study: Path, add: Add) -> None:
    for norm, seeds in {"none": (0, 1), "batch": (1, 2), "layer": (2, 1), "selu": (3,)}.items():
        for seed in seeds:
            add(norm=norm, seed=seed, layers={"a/linear": BAND})
    caption = draw(study)["ribbons"].caption
    assert "none seed 1, batch seed 1, layer seed 1, selu seed 3" in caption


@pytest.mark.usefixtures("undrawn")
def test_many_settings_are_cut_and_said(study: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_curves, "PANELS", 2)
    for lr in (0.1, 0.2, 0.3):
        add(lr=lr)
    assert "Only 2 of 3 settings are drawn" in draw(study)["learning_curves"].caption


@pytest.mark.parametrize(("low", "high"), [(4.0, 7.0), (0.9, 100.0), (0.001, 100.0), (5.0, 5.5)])
def test_logarithmic_axes_have_readable_ticks(low: float, high: float) -> None:
    ticks = drawing.log_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (9, (3, 3)), (20, (5, 4))])
def test_panels_fill_their_grid(count: int, shape: tuple[int, int]) -> None:
    assert drawing.grid(count) == shape


@pytest.mark.usefixtures("undrawn")
def test_a_single_snapshot_is_enough(study: Path, add: Add) -> None:
    add(norm="none", layers={"a/linear": BAND[:1]})
    assert draw(study)["ribbons"].svg
