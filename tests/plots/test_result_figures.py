"""Figures made of summaries: learning rates, maps, paired differences, cost. Their numbers, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.groups import Groups, read
from normbench.plots import cost, forest, lr_batch, lr_sensitivity
from normbench.plots.drawing import look
from normbench.plots.errors import errors, lines_of
from normbench.runs import load
from tests.study_files import measure

Add = Callable[..., Path]


def groups(study: Path) -> Groups:
    return read(load(study))


def test_the_band_is_of_the_best_of_all_schemes(study: Path, add: Add) -> None:
    for lr, none, batch in ((0.01, 0.900, 0.880), (0.1, 0.905, 0.896), (1.0, 0.5, 0.904)):
        for seed in (0, 1):
            add(norm="none", lr=lr, seed=seed, accuracy=none)
            add(norm="batch", lr=lr, seed=seed, accuracy=batch)
    add(norm="layer", lr=0.1, seed=0, accuracy=0.9)
    add(norm="layer", lr=0.1, seed=1, status="diverged")  # one seed short: its mean says nothing of the other
    (line,) = lines_of(groups(study), "lr").values()
    found = lr_sensitivity.stable(line)
    assert {s: [f"{lr:g}" for lr in lrs] for s, lrs in found.items()} == {
        "none": ["0.01", "0.1"], "batch": ["0.1", "1"], "layer": []
    }  # fmt: skip
    with look():
        (figure,) = lr_sensitivity.draw(groups(study))
    assert "from 13 runs" in figure.caption
    assert "Marks on the upper edge" in figure.caption


def test_a_line_has_its_means_seeds_and_marks(study: Path, add: Add) -> None:
    from normbench.plots.drawing import panels
    from normbench.plots.errors import draw_line
    from normbench.plots.palette import palette

    for seed, accuracy in ((0, 0.9), (1, 0.8)):
        add(norm="none", lr=0.1, seed=seed, accuracy=accuracy)
    add(norm="none", lr=1.0, status="diverged")
    (line,) = lines_of(groups(study), "lr").values()
    assert errors(line["none"][0.1], "validation") == pytest.approx([11, 21])
    with look():
        _, axes = panels(1, 1, 2, 2)
        gone = draw_line(axes[0][0], line["none"], palette(["none"])["none"], 1.0, (1.0, 100.0))
    assert gone == {"diverged"}
    dots, interval, mean, cross = axes[0][0].lines
    assert dots.get_ydata() == pytest.approx([10, 20])
    assert interval.get_ydata()[0] == 0.5  # cut at half of the lower limit
    assert (cross.get_xdata(), mean.get_xdata()) == ([1.0], [0.1])
    assert mean.get_ydata() == pytest.approx([15])


def test_squares_of_the_map(study: Path, add: Add) -> None:
    def square(**kind: object) -> lr_batch.Square:
        folder = study / str(len(list(study.parent.rglob("config.yaml"))))
        folder.mkdir()
        for seed in (0, 1):
            status = kind.get("status", "complete") if seed else "complete" if kind.get("half") else kind.get("status")
            write(folder, seed=seed, status=status or "complete", summary=kind.get("summary"))
        (cell,) = read(load(folder)).settings[()].values()
        return lr_batch.square(cell)

    from tests.study_files import write_run as write

    assert square().text == "10"
    assert square(status="diverged") == lr_batch.Square(None, "D")
    assert square(status="unsupported").text == "U"
    assert square(status="failed").text == ""
    assert square(status="diverged", half=True).text == "10\n1/2"
    assert square(summary={"at_chance": True, "test_accuracy": 0.1}).text == "90 C"


def test_differences_are_paired_by_seed(study: Path, add: Add) -> None:
    for seed, none, batch in ((0, 0.90, 0.92), (1, 0.80, 0.83), (2, 0.70, None), (3, None, 0.9)):
        for norm, accuracy in (("none", none), ("batch", batch)):
            if accuracy:
                add(norm=norm, seed=seed, accuracy=accuracy)
    add(norm="batch", seed=2, status="diverged")
    by_scheme = groups(study).settings[()]
    assert forest.paired(by_scheme["batch"], by_scheme["none"]) == pytest.approx([2, 3])
    with look():
        (figure,) = forest.draw(groups(study))
        (turned,) = forest.draw(groups(study), reference="batch", margin=1)
    assert "minus that of none" in figure.caption
    assert "from 2 pairs" in figure.caption
    assert "minus that of batch" in turned.caption
    assert "±1 points" in turned.caption


def test_without_the_reference_the_first_scheme_stands_in(study: Path, add: Add) -> None:
    for norm in ("batch", "layer"):
        add(norm=norm)
    with look():
        assert "minus that of batch" in forest.draw(groups(study))[0].caption


def test_cost_by_hand(study: Path, add: Add) -> None:
    path = add(norm="none", lr=0.1, accuracy=0.8)
    better = add(norm="none", lr=1.0, accuracy=0.9)
    measure(path, "memory_time", [{"step": 0, "saved": 500}, {"step": 9, "saved": 2500}])
    found = groups(study)
    group = [by_scheme["none"] for by_scheme in found.settings.values()]
    assert cost.milliseconds(found.members[0]) == pytest.approx(100)  # 10 s in 100 steps
    assert cost.kilobytes(group) == 2.5
    assert cost.best_group(group).members[0].name == better.name
    assert cost.kilobytes(group[1:]) == 0
    with look():
        (figure,) = cost.draw(found)
    assert "From 2 complete runs" in figure.caption
    assert math.isclose(errors(cost.best_group(group))[0], 10)
