"""Every study on disk: each of its cells can be composed, and one of them trained."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest

from normbench.config.compose import expand
from normbench.config.options import choices, config_dir
from normbench.experiment import compose, execute

EXPERIMENTS = sorted(choices("experiment"))
SMALL = ["dataset=synthetic", "dataset.examples=700", "dataset.validation=100"]
RUNS = re.compile(r"^# ([\d,]+) runs[,;]", re.MULTILINE)


@cache
def cells_of(name):
    """The study as it is planned."""
    return expand([f"experiment={name}"], lambda device: "cpu")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_is_one_of_a_study_of_its_name(name):
    found = cells_of(name)
    cells = found.run_configs
    assert found.is_sweep
    assert len(cells) > 1
    assert {cell.config["study"] for cell in cells} == {name.replace("/", "_")}
    for cell in (cells[0], cells[-1]):
        assert compose([*cell.words, "device=cpu"]).name == cell.name, "its words repeat it without the file"
    if told := RUNS.search((config_dir() / "experiment" / f"{name}.yaml").read_text()):
        assert int(told[1].replace(",", "")) == len(cells)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] * name.endswith("/full")) for name in EXPERIMENTS]
)
def test_one_cell_is_trained_for_three_steps(name, tmp_path, small_options):
    cells = cells_of(name).run_configs
    cell = min(cells, key=lambda c: (c.choices["norm"] != "batch", c.config["batch_size"] == 1, c.config["batch_size"]))
    own = ("dataset", "dataset.train_fraction", "max_samples", "max_steps", "perturb_step")
    words = [word for word in cell.words if word.partition("=")[0] not in own]
    if cell.choices["model"] != "mlp":
        sizes = small_options(cell.config["model"])
        words += [f"model.{key}={value}".replace(" ", "") for key, value in sizes.items()]
    words += [f"perturb_step={2 if cell.config['perturb_step'] else 'null'}", "max_steps=3", *SMALL]
    short = compose([*words, "device=cpu"])
    run = execute(replace(short, config={**short.config, "results_dir": str(tmp_path)}))
    assert run.status == "complete"
    assert run.summary["steps"] == 3
    assert set(run.instruments) == set(cell.config["instruments"]["measure"])
