"""Every figure of every fixture: it has data on all of its axes, says what it shows, and keeps the schemes' looks."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from normbench.analysis.groups import KNOWN, read
from normbench.plots import drawing, figures
from normbench.plots.drawing import finish, look, panels
from normbench.plots.figures import FIGURES, Spec, draw_all
from normbench.plots.palette import palette
from normbench.plots.view import View
from normbench.runs import Run, load
from tests.study_files import write_run

SUPPLIED_BY = {
    "batch_sizes": "batch size", "along_option": "nothing was varied", "learning_curves": "evaluations",
    "lr_sensitivity": "lr=", "lr_batch": "two learning rates", "forest": "complete run", "cost": "complete",
    "ribbons": "instrument activations", "shift": "instrument shift", "train_test_shift": "train_test_shift",
    "batch_noise": "batch_noise", "running_statistics": "statistics", "depth": "gradients", "landscape": "landscape",
    "time_steps": "time_steps",
}  # fmt: skip


def has_data(ax: Axes) -> bool:
    """Something besides lines and bands across the whole axes: points of a line, an area, squares or words."""
    own = [line for line in ax.lines if line.get_transform() != ax.get_xaxis_transform() or line.get_marker() in "x|"]
    points = [np.isfinite(np.asarray(line.get_xydata(), dtype=float)).all(axis=1).any() for line in own]
    squares = [patch for patch in ax.patches if patch.get_data_transform() == ax.transData]
    return any(points) or bool(ax.collections or squares or ax.texts)


def check(spec: Spec, view: View, canvas: Canvas, line: str, caption: str) -> None:
    shown = [ax for ax in canvas.axes if ax.get_visible()]
    assert shown
    assert all(map(has_data, shown)), f"{spec.name} has axes without data"
    assert "mlp, mnist, 1 epoch, adam" in line
    assert "n = " in line
    assert "lr" in line or spec.name in ("lr_sensitivity", "lr_batch")
    assert len(caption) > 40
    assert "  " not in caption
    assert "nan" not in caption.replace("finance", "")
    styles = palette(view.groups.schemes)
    for handle in (handle for legend in canvas.legends for handle in legend.legend_handles):
        if str(handle.get_label()) in styles:
            assert handle.get_color() == styles[str(handle.get_label())].color  # type: ignore[union-attr]
    for ax in shown:  # intervals and dots of errors in percent are possible ones
        if "error (%)" in ax.get_ylabel():
            values = [line.get_ydata() for line in ax.lines if line.get_transform() == ax.transData]
            known = np.concatenate([np.asarray(v, dtype=float) for v in values])
            assert np.nanmin(known) > 0
            assert np.nanmax(known) <= 100


@pytest.mark.parametrize("fixture", ["measured", "hostile", "torn", "messy"])
def test_every_figure_of_every_fixture(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_tables: list[tuple[str, str]] = []
    table = Run.table
    monkeypatch.setattr(Run, "table", lambda run, name: read_tables.append((run.name, name)) or table(run, name))
    view = View(read(load(request.getfixturevalue(fixture))))
    drawn = set()
    with look():
        for spec in FIGURES:
            if (found := spec.draw(view)) is not None:
                drawn.add(spec.name)
                check(spec, view, found.canvas, found.line, found.caption)
                numbers = re.search(r"\d", found.caption.partition(". ")[0])
                assert numbers or fixture == "torn", f"the caption of {spec.name} begins with what one sees"
                assert pickle.dumps(found.canvas), "a second process must be able to save it"
                drawing.complete(found.canvas, spec.title, False, found.line)
                if fixture == "hostile":
                    found.canvas.draw_without_rendering()  # names are laid out here
    expected = {"measured": {spec.name for spec in FIGURES} - {"along_option_2", "dose"},
                "messy": {"batch_sizes", "along_option", "learning_curves", "forest", "cost"}}  # fmt: skip
    assert drawn == expected.get(fixture, drawn)
    assert len(read_tables) == len(set(read_tables)), "a table was read twice"


def test_figures_are_saved_in_the_formats_asked_for_to_the_same_bytes(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tuple(spec for spec in FIGURES if spec.name in ("batch_sizes", "lr_batch"))
    monkeypatch.setattr(figures, "FIGURES", kept)
    made = draw_all(View(read(load(measured))), pdf=True)
    monkeypatch.setattr(figures, "MANY", 0)  # so that a second process saves them
    assert made == draw_all(View(read(load(measured))), pdf=True)
    monkeypatch.undo()
    monkeypatch.setattr(figures, "FIGURES", kept)
    assert not any(figure.pdf for figure in draw_all(View(read(load(measured)))))
    for figure in made:
        assert figure.svg.startswith(b"<svg")
        assert figure.png.startswith(b"\x89PNG")
        assert figure.pdf.startswith(b"%PDF")
        assert b"CreationDate" not in figure.pdf
        assert len(figure.svg) < 100_000


def test_a_figure_without_data_says_what_supplies_them(study: Path) -> None:
    write_run(study, norm="batch", status="interrupted", curve=())
    found = {figure.name: figure for figure in draw_all(View(read(load(study))))}
    assert not any(figure.svg + figure.png + figure.pdf for figure in found.values())
    assert found.keys() == SUPPLIED_BY.keys()
    for name, words in SUPPLIED_BY.items():
        assert found[name].caption.startswith("Not drawn: ")
        assert words in found[name].caption


def test_a_figure_that_fails_leaves_the_others(
    measured: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = (Spec("broken", "Broken", lambda view: 1 / 0), FIGURES[0])  # type: ignore[arg-type,return-value]
    monkeypatch.setattr(figures, "FIGURES", broken)
    first, second = draw_all(View(read(load(measured))))
    assert first.caption == "Could not be drawn: ZeroDivisionError: division by zero"
    assert "broken could not be drawn" in caplog.text
    assert second.svg


def test_a_figure_that_the_second_process_cannot_save_leaves_the_others(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untitled = replace(FIGURES[0], title=None)  # type: ignore[arg-type]
    monkeypatch.setattr(figures, "FIGURES", (untitled, FIGURES[0]))
    monkeypatch.setattr(figures, "MANY", 0)
    first, second = draw_all(View(read(load(measured))))
    assert first.caption.startswith("Could not be drawn: AttributeError")
    assert second.svg


def test_nothing_is_left_behind_in_matplotlib(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(figures, "FIGURES", FIGURES[:1])
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red"}):  # a user's own settings
        draw_all(View(read(load(measured))))
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_title_line_and_the_mark_of_synthetic_data_are_in_the_picture() -> None:
    with look():
        canvas, axes = panels(1, 2, 2, 2)
        axes[0][1].set_visible(False)
        figure = finish("name", "A title", "caption", canvas, synthetic=True, line="mlp, n = 3")
    assert [text.get_text() for text in canvas.texts] == ["A title", "mlp, n = 3", "synthetic data"]
    assert figure.svg


def test_an_svg_has_real_text_in_the_ink_of_its_page_and_no_background() -> None:
    words = ("12.345% <b>&amp; $x$ #000000", "rotate(-0 1.234)", "font-family: none; 97.253")
    with look():
        canvas, axes = panels(1, 1, 4, 3)
        axes[0][0].plot([1.23456, 2], [3, 4], color="#000000", marker="o", mfc="white")
        axes[0][0].set_xlabel(words[0])
        axes[0][0].set_title(words[1], color="#0072B2")
        figure = finish("name", words[2], "caption", canvas, synthetic=False)
    root = ElementTree.fromstring(figure.svg)
    assert root.get("fill") == "currentColor"
    texts = {"".join(element.itertext()): element for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert set(words) < set(texts), "changed on the way"
    assert "fill: #0072b2" in texts[words[1]].get("style", "")
    assert "fill" not in texts[words[0]].get("style", "")
    attributes = [value for element in root.iter() for value in element.attrib.values()]
    assert not any("#000000" in value for value in attributes)
    assert any("stroke: currentColor" in value for value in attributes)
    assert not any(
        "fill: #ffffff" in element.get("style", "") for element in root.iter("{http://www.w3.org/2000/svg}path")
    )


def test_a_legend_takes_no_room_from_the_panels() -> None:
    heights = []
    for schemes in (["none"], KNOWN):
        with look():
            canvas, axes = panels(1, 1, 5, 3)
            drawing.legend(canvas, palette(schemes))
            drawing.complete(canvas, "A title", False, "mlp, n = 3")
        heights.append(axes[0][0].get_position().height * canvas.get_figheight())
    assert heights[1] == pytest.approx(heights[0], rel=0.1)


@pytest.mark.parametrize(("low", "high"), [(4.0, 7.0), (0.9, 100.0), (0.001, 100.0), (5.0, 5.5), (1e-15, 1e3)])
def test_logarithmic_axes_have_readable_ticks(low: float, high: float) -> None:
    ticks = drawing.log_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(("values", "log"), [([1, 2, 3], False), ([1, 1, 400], True), ([], False), ([np.nan], False)])
def test_one_excursion_does_not_flatten_the_rest(values: list[float], log: bool) -> None:
    with look():
        _, axes = panels(1, 1, 2, 2)
        assert drawing.symlog_axis(axes[0][0], "y", values) is log
    assert axes[0][0].get_yscale() == ("symlog" if log else "linear")


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (9, (3, 3)), (20, (5, 4))])
def test_panels_fill_their_grid(count: int, shape: tuple[int, int]) -> None:
    assert drawing.grid(count) == shape
