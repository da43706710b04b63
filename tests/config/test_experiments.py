"""Every study on disk: each of its cells can be composed, and one of them trained."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from normbench.config.compose import expand
from normbench.config.options import choices, config_dir
from normbench.experiment import compose, execute

EXPERIMENTS = sorted(choices("experiment"))
SMALL = ["dataset=synthetic", "dataset.examples=700", "dataset.validation=100"]
RUNS = re.compile(r"^# ([\d,]+) runs[,;]", re.MULTILINE)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_is_one_of_a_study_of_its_name_and_one_is_trained(name, tmp_path, small_options):
    found = expand([f"experiment={name}"], lambda device: "cpu")
    cells = found.run_configs
    assert found.is_sweep
    assert 1 < len(cells) <= cells[0].config["max_runs"], "a study that is shipped runs without a question"
    assert {cell.config["study"] for cell in cells} == {name.replace("/", "_")}
    for cell in (cells[0], cells[-1]):
        assert compose([*cell.words, "device=cpu"]).name == cell.name, "its words repeat it without the file"
    if runs := RUNS.search((config_dir() / "experiment" / f"{name}.yaml").read_text()):
        assert int(runs[1].replace(",", "")) == len(cells)
    if not name.endswith("/full"):
        train_one(cells, tmp_path, small_options)


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.endswith("/full")])
def test_one_cell_of_the_whole_study_is_trained(name, tmp_path, small_options):
    train_one(expand([f"experiment={name}"], lambda device: "cpu").run_configs, tmp_path, small_options)


def train_one(cells, tmp_path, small_options):
    """Three steps of a small network of the study."""
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
