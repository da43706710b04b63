"""The layer explorer: what the page holds of the runs' tables, and what a browser shows of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from normbench.analysis.groups import read as read_groups
from normbench.plots import figures
from normbench.plots.view import View
from normbench.report import explorer as module
from normbench.report.build import build
from normbench.report.explorer import BEST, Explorer, explorer, share_of_zeros
from normbench.runs import load
from tests.report.chromium import BROWSER, Chromium
from tests.study_files import measure, write_run

Add = Callable[..., Path]
STEPS = (0, 1, 10, 100)
COLUMNS = [f"q{k:02}" for k in range(33)]
CHOSEN = [0, 1, 2, 3, 5, 8, 11, 13, 16, 19, 21, 24, 27, 29, 30, 31, 32]
BAND = [(-2.0, -1.0, 0.0, 1.0, 2.0)] * 4
SCHEMES = ("none", "batch", "<i>own</i>")


def write_distributions(run: Path, shift: float, seed: int = 0) -> Path:
    """Of hidden1 and output: quantiles that move by `shift` until the end; of the activation, those below 0 are 0."""
    draws, rows = np.random.default_rng(seed), []
    for i, step in enumerate(STEPS):
        for layer in ("hidden1", "output"):
            for tensor in ("linear", "activation"):
                for unit in ("", 0, 7):
                    values = np.sort(draws.normal(shift * i, 1 + i / 10, 1000))
                    values = values.clip(0) if tensor == "activation" else values
                    quantiles = np.quantile(values, np.linspace(0, 1, 33))
                    rows.append({"step": step, "layer": layer, "tensor": tensor, "bn_mode": "probe", "unit": unit,
                                 **dict(zip(COLUMNS, quantiles, strict=True))})  # fmt: skip
                rows.append(rows[-1] | {"bn_mode": "running", "q16": 99})
    return measure(run, "distributions", rows)


def write_study(study: Path) -> Path:
    layers = {f"{layer}/{tensor}": BAND for layer in ("hidden1", "output") for tensor in ("linear", "activation")}
    for size in (4, 64):
        for place, norm in enumerate(SCHEMES):
            accuracy = 0.9 - (0.1 * place if size == 64 else 0)
            run = write_run(study, norm=norm, batch_size=size, accuracy=accuracy, layers=layers)
            write_distributions(run, 0.5 * place + size / 100, seed=place + size)
    return study


def see(study: Path) -> Explorer | None:
    return explorer(View(read_groups(load(study))))


def table(study: Path, norm: str, batch_size: int = 64, **where: Any) -> pd.DataFrame:
    """The rows of distributions.csv of one run, by step."""
    run = next(study.glob(f"*{norm.replace('/', '_')}*batch_size{batch_size}"))
    found = pd.read_csv(run / "measured" / "distributions.csv")
    found = found[found["bn_mode"] == "probe"]
    for key, value in where.items():
        found = found[found[key].isna() if value is None else found[key] == value]
    return found.set_index("step")


def decode(text: str, snapshots: int, levels: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """[snapshots, levels] quantiles, [snapshots] shares of zeros."""
    data = base64.b64decode(text)
    scale = np.frombuffer(data, "<f4", snapshots)
    numbers = np.frombuffer(data, "<i2", offset=4 * snapshots).reshape(snapshots, levels + 1) / 32767
    return numbers[:, 1:] * scale[:, None], numbers[:, 0]


def test_the_page_holds_the_quantiles_of_the_tables(study: Path) -> None:
    found = see(write_study(study))
    assert found
    assert found.data["levels"] == [k / 32 for k in CHOSEN]
    assert found.options == {"batch size": ["4", "64"]}
    assert found.schemes == dict.fromkeys(SCHEMES, True)
    first = found.data["settings"][0]
    assert first["at"] == {"batch size": "64"}, "in which schemes differ most"
    assert first["line"] == "mlp, mnist, 1 epoch, adam, lr 0.001, batch size 64; n = 1 seed"
    run = found.data["runs"][first["runs"][1]]
    assert run["steps"] == list(STEPS)
    for unit, key in ((None, "hidden1|activation|"), (7, "hidden1|activation|7")):
        got, zeros = decode(run["series"][key], 4)
        csv = table(study, "batch", layer="hidden1", tensor="activation", unit=unit)[COLUMNS].to_numpy()
        assert np.abs(got - csv[:, CHOSEN]).max() <= csv.max() / 60_000
        assert zeros == pytest.approx((csv == 0).mean(axis=1), abs=1 / 32)
    assert found.units == 2
    assert not [key for key in run["series"] if re.match(r"output\|.*\|\d", key)], "units are of hidden layers"
    moved = np.frombuffer(base64.b64decode(run["moved"]["hidden1|linear"]), "<f4").reshape(4, 4)
    assert moved == pytest.approx(np.array([[0, 0.1, 0.2, 0.3], [0, 0.2, 0.4, 0.6], [0, 0.05, 0.1, 0.15], [0.02] * 4]))
    assert found.seen == (
        "From start to end, what enters the activation of hidden1 moves, in s.d. of a unit: none 0.3, batch 0.3, "
        "<i>own</i> 0.3; another choice of images moves it by 0.02."
    )
    assert "<" not in found.json
    assert len(found.json) < 6 * 12 * 4 * 1000


def test_share_of_zeros_is_in_the_middle_of_what_is_possible() -> None:
    levels = np.array([0, 0.25, 0.5, 0.75, 1])
    rows = np.array([[0, 0, 0, 1, 2], [-1, 0, 0, 1, 2], [-1, 0, 1, 2, 3], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
    assert share_of_zeros(rows, levels).tolist() == [0.625, 0.5, 0, 0, 1]


def test_where_only_percentiles_were_measured_and_some_numbers_are_missing(study: Path, add: Add) -> None:
    add(norm="none", layers={"hidden1/linear": BAND})
    path = add(
        norm="batch", layers={"hidden1/normalized": [*BAND[:2], (np.nan,) * 5, (np.inf,) * 5]}, status="diverged"
    )
    add(norm="layer")  # without a row
    assert path.exists()
    found = see(study)
    assert found
    assert found.data["levels"] == [0.01, 0.15, 0.5, 0.85, 0.99]
    assert list(found.schemes) == ["none", "batch"]
    assert any("five percentiles" in note for note in found.notes)
    batch = found.data["runs"][1]
    assert batch["diverged"]
    got, _ = decode(batch["series"]["hidden1|normalized|"], 4, 5)
    assert np.isnan(got).any(axis=1).tolist() == [False, False, True, True]
    assert got[:2] == pytest.approx(np.array(BAND[:2]), abs=1e-4)
    assert see(study) is not None
    for run in study.glob("*"):
        (run / "measured" / "activations.csv").write_text("step,layer\n")
    assert see(study) is None


def test_one_seed_at_the_best_lr_then_each_lr_as_many_as_have_room(
    study: Path, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = {"hidden1/linear": BAND}
    for size in (4, 64):
        for norm, best in (("none", 0.1), ("batch", 1.0)):
            for lr in (0.1, 1.0):
                for seed in (1, 2):
                    accuracy = 0.9 - 0.05 * (lr != best) - 0.2 * (size == 4 and norm == "batch")
                    add(norm=norm, lr=lr, batch_size=size, seed=seed, accuracy=accuracy, layers=layers)
    found = see(study)
    assert found
    at = [(s["at"]["batch size"], s["at"]["lr"]) for s in found.data["settings"]]
    assert at == [("4", BEST), ("64", BEST), ("4", "0.1"), ("4", "1"), ("64", "0.1"), ("64", "1")]
    runs = [found.data["runs"][k] for k in found.data["settings"][0]["runs"]]
    assert [(run["lr"], run["seed"]) for run in runs] == [("0.1", "1"), ("1", "1")]
    assert found.options == {"batch size": ["4", "64"], "lr": [BEST, "0.1", "1"]}
    assert len(found.data["runs"]) == 8, "a run is there once, however many settings show it"
    monkeypatch.setattr(module, "MOST", 1700)
    found = see(study)
    assert found
    assert len(found.data["settings"]) == 1
    assert found.notes[0] == "Of 6 settings, 1 are here: those in which schemes differ most."


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = write_study(tmp_path_factory.mktemp("results") / "first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FIGURES", tuple(spec for spec in figures.FIGURES if spec.name == "ribbons"))
        return build(study).page


def test_without_a_script_a_figure_stands_there(page: Path) -> None:
    text = page.read_text()
    section = text[text.index('<section id="explorer"') : text.index("</section>")]
    assert section.count('<div class="live" hidden>') == 2
    assert '<figure id="figure-ribbons" class="still' in section
    assert section.count("<svg fill=") == section.count('id="drawn-ribbons"') == 1
    assert text.count("figure-ribbons") == 1


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if not BROWSER:
        pytest.skip("no Chromium on this machine")
    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


def cell(browser: Chromium, scheme: str, column: int = 0) -> list[float]:
    """Median, its lower and upper neighbour, and the distance, as the table of numbers has them."""
    text = browser.ask(
        f"[...document.querySelectorAll('#explorer .numbers tbody tr')].find((row) => row.cells[0].textContent === "
        f"{scheme!r}).cells[{column + 1}].textContent"
    )
    return [float(number.replace("−", "-")) for number in re.findall(r"−?[\d.]+", text)]


def close(value: float) -> Any:
    return pytest.approx(value, rel=0.006, abs=1e-3)


def test_keys_move_the_slider_and_the_numbers_are_those_of_the_tables(page: Path, browser: Chromium) -> None:
    study = page.parent.parent
    browser.open(page)
    assert browser.ask("document.querySelector('#explorer .line').textContent").endswith("batch size 64; seed 0")
    seen: list[str] = []
    while "Training step" not in seen and len(seen) < 9:  # from the head of the page on
        browser.press("Tab")
        seen.append(browser.ask("document.activeElement.getAttribute('aria-label')"))
    assert seen[-2:] == ["Play", "Training step"]
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    slider = "document.querySelector('#explorer input[type=range]')"
    assert browser.ask(f"{slider}.getAttribute('aria-valuetext')") == "step 10, snapshot 3 of 4"
    csv = table(study, "batch", layer="hidden1", tensor="linear", unit=None)
    numbers = cell(browser, "batch")
    assert numbers[:3] == [close(csv.at[10, name]) for name in ("q16", "q05", "q27")]
    assert numbers[3] == close(0.2)
    browser.press("End")
    csv = table(study, "<i>own</i>", layer="hidden1", tensor="linear", unit=None)
    assert cell(browser, "<i>own</i>")[0] == close(csv.at[100, "q16"])
    browser.press("ArrowLeft")
    browser.press(" ")  # plays to the end and stops there
    assert browser.ask("document.querySelector('#explorer .play').getAttribute('aria-label')") == "Pause"
    browser.wait(f"{slider}.value === '3'")
    browser.wait("document.querySelector('#explorer .play').getAttribute('aria-label') === 'Play'")
    for name, value in (("[data-option]", "4"), ("[name=tensor]", "activation"), ("[name=unit]", "0")):
        select = f"document.querySelector('#explorer select{name}')"
        browser.ask(f"{select}.value = {value!r}, {select}.dispatchEvent(new Event('change'))")
    csv = table(study, "batch", 4, layer="hidden1", tensor="activation", unit=0)
    numbers = cell(browser, "batch")
    assert numbers[:3] == [close(csv.at[100, name]) for name in ("q16", "q05", "q27")]
    start, end = csv.loc[[0, 100], COLUMNS].to_numpy()
    fine = np.linspace(0, 1, 20_001)  # the values of a unit with straight lines between its quantiles
    start, end = (np.interp(fine, np.array(CHOSEN) / 32, values[CHOSEN]) for values in (start, end))
    distance = np.abs(end - start).mean() / np.sqrt((start.var() + end.var()) / 2)
    assert numbers[3] == close(distance), "of the unit, from its quantiles"
    assert browser.ask("document.querySelector('#explorer h3').textContent") == "hidden1, unit 0"
    assert browser.errors == []
    assert browser.requests == [page.as_uri()], "nothing else is fetched"


def test_the_pointer_reads_step_quantile_and_value(page: Path, browser: Chromium) -> None:
    browser.open(page, height=1400)
    frame = "((b) => [b.x, b.y, b.width, b.height])(document.querySelector('#explorer svg.{}').getBoundingClientRect())"
    tip = "[...document.querySelectorAll('#explorer .tip div')].map((line) => line.textContent)"
    x, y, width, height = browser.ask(frame.format("bands"))
    browser.point(x + width - 11, y + height / 2)
    step, quantile, value = browser.ask(tip)
    assert step == "step 100"
    scheme, level = quantile.split(": quantile ")
    csv = table(page.parent.parent, scheme, layer="hidden1", tensor="linear", unit=None)
    assert float(value.removeprefix("value ").replace("−", "-")) == close(
        csv.at[100, f"q{round(32 * float(level)):02}"]
    )
    browser.point(x + width - 11, y + height / 2, click=True)
    assert browser.ask("document.querySelector('#explorer output').textContent") == "step 100, snapshot 4 of 4"
    x, y, width, height = browser.ask(frame.format("density"))
    browser.point(x + width / 2, y + height / 2)
    lines = browser.ask(tip)
    at = float(lines[0].removeprefix("step 100, value ").replace("−", "-"))
    for line, scheme in zip(lines[1:], SCHEMES, strict=True):
        csv = table(page.parent.parent, scheme, layer="hidden1", tensor="linear", unit=None)
        below = 100 * np.interp(at, csv.loc[100, COLUMNS].to_numpy(dtype=float), np.linspace(0, 1, 33))
        assert float(line.removeprefix(f"{scheme}: ").removesuffix("% below")) == pytest.approx(below, abs=2)


def test_schemes_are_toggled_with_the_tables(page: Path, browser: Chromium) -> None:
    browser.open(page)
    state = """({
      drawn: every('#explorer [data-scheme]', (node) => node.style.display !== 'none' && node.dataset.scheme),
      ticked: every('#filters [data-key=scheme] input:checked', (box) => box.value),
      rows: every('tr[data-scheme]:not([hidden])', (row) => row.dataset.scheme),
      numbers: every('#explorer .numbers tbody th', (head) => head.textContent) })"""
    browser.ask("""globalThis.every = (selector, of) =>
      [...new Set([...document.querySelectorAll(selector)].map(of))].filter(Boolean)""")
    tick = "document.querySelector(`{} input[value='{}']`).click()"
    everything = browser.ask(state)
    assert everything["drawn"] == everything["numbers"] == list(SCHEMES)
    assert set(everything["rows"]) == set(SCHEMES)
    assert everything["ticked"] == []
    browser.ask(tick.format("#explorer", "batch"))
    seen = browser.ask(state)
    assert seen["drawn"] == seen["ticked"] == seen["numbers"] == ["none", "<i>own</i>"]
    assert set(seen["rows"]) == {"none", "<i>own</i>"}
    browser.ask(tick.format("#filters", "none"))
    seen = browser.ask(state)
    assert seen["drawn"] == seen["ticked"] == seen["rows"] == ["<i>own</i>"]
    browser.ask(tick.format("#explorer", "<i>own</i>"))  # none left: all, as in the filter
    assert browser.ask(state) == everything
    browser.ask(tick.format("#filters", "batch"))
    browser.ask("document.querySelector('#filters button[type=reset]').click()")
    browser.wait("document.querySelectorAll('#explorer [name=scheme]:checked').length === 3")
    assert browser.ask(state) == everything


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1200, "light")])
def test_it_fits_the_screen_and_rests_where_motion_is_unwanted(
    page: Path, browser: Chromium, width: int, scheme: str
) -> None:
    browser.open(page, width, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    box = browser.ask("((b) => [b.scrollWidth, b.clientWidth])(document.querySelector('#explorer .panels'))")
    assert (box[0] > box[1]) == (width == 400), "on a phone the columns scroll in their own box"
    black = browser.ask("getComputedStyle(document.querySelector('#explorer path[data-scheme=none]')).stroke")
    ink = browser.ask("getComputedStyle(document.body).color")
    assert black == ink
    browser.ask("document.querySelector('#explorer .play').click()")
    densities = "[...document.querySelectorAll('#explorer .hill')].map((path) => path.getAttribute('d')).join()"
    first = browser.ask(densities)
    assert browser.ask(densities) == first, "from one snapshot to the next, not in between"
    browser.wait("document.querySelector('#explorer input[type=range]').value === '3'")
    assert browser.ask(densities) != first
    assert browser.errors == []
