"""What to use here: the sentence, its interval, its cost, and what can't be told apart. Numbers by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normbench.analysis.answer import answer, recommendations
from normbench.analysis.groups import Cells, read
from normbench.plots import along_option
from normbench.plots.drawing import look
from normbench.runs import load

Add = Callable[..., Path]
SEEDS = (0, 1, 2, 3)


def cells(study: Path) -> Cells:
    return read(load(study))


def test_the_best_on_validation_data_is_recommended_with_its_interval_and_cost(study: Path, add: Add) -> None:
    for seed in SEEDS:
        wobble = 0.001 * seed
        add(norm="none", seed=seed, accuracy=0.900 + wobble, summary={"seconds": {"training": 10.0}})
        add(norm="batch", seed=seed, accuracy=0.92005 + 0.5 * wobble, summary={"seconds": {"training": 20.0}})
        add(
            norm="layer",
            seed=seed,
            accuracy=0.919 + (0.003 if seed == 2 else 0.0),
            summary={"seconds": {"training": 12.0}},
        )
        add(norm="weight", seed=seed, accuracy=0.910 + wobble, summary={"seconds": {"training": 11.0}})
    [sentence] = recommendations(cells(study), "none", 0.005)
    assert sentence.startswith("Recommended here: batch, 92.08% test accuracy (95% interval ")
    assert "4 seeds), +1.93 points (+1." in sentence
    assert "against none, in 2.00 times its training time" in sentence
    assert sentence.endswith(
        "Not told apart from it: layer; the cheapest of these is layer, in 0.60 times the time of batch."
    )
    assert answer(cells(study))[0] == sentence


def test_each_scheme_is_judged_at_its_own_best_lr_and_not_where_runs_diverge(study: Path, add: Add) -> None:
    for seed in SEEDS:
        for lr, none, batch in ((0.1, 0.93, 0.90), (1.0, 0.20, 0.95)):
            add(norm="none", lr=lr, seed=seed, accuracy=none)
            add(norm="batch", lr=lr, seed=seed, accuracy=batch)
        add(norm="layer", lr=0.1, seed=seed, accuracy=0.91)
        add(norm="layer", lr=1.0, seed=seed, **({"status": "diverged"} if seed == 0 else {"accuracy": 0.99}))
    [sentence] = recommendations(cells(study), "none", 0.005)
    assert sentence.startswith("Recommended here: batch, 95.00%")
    assert "+2.00 points" in sentence


def test_of_two_schemes_or_many_settings_nothing_is_recommended(study: Path, add: Add) -> None:
    for norm in ("none", "batch"):
        add(norm=norm, accuracy=0.9)
    assert recommendations(cells(study), "none", 0.005) == []
    for size in (2, 4, 8):
        for norm in ("none", "batch", "layer"):
            add(norm=norm, batch_size=size, accuracy=0.9)
    assert recommendations(cells(study), "none", 0.005) == []


def test_the_lines_along_an_option_have_each_cell_at_its_own_best_lr(study: Path, add: Add) -> None:
    for dropout in (0.0, 0.5):
        for lr, accuracy in ((0.1, 0.9), (1.0, 0.8 + dropout / 4)):
            for norm in ("none", "batch"):
                add(norm=norm, lr=lr, accuracy=accuracy, options={"model.dropout": dropout})
    found = cells(study)
    [(rest, lines)] = along_option.lines_along(found, "model.dropout").items()
    assert rest == ()
    best = {value: cell.entries[0].settings["lr"] for value, cell in lines["batch"].items()}
    assert best == {0.0: 0.1, 0.5: 1.0}
    with look():
        [figure] = along_option.draw(found)
    assert figure.svg
    assert "each scheme at its own best lr" in figure.caption
    assert "from 4 runs" in figure.caption
