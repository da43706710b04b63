"""Cells composed from a shared base are those that Hydra composes, one by one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from normbench.config import app
from normbench.config.compose import compose
from normbench.errors import ConfigError

GRIDS = [
    ["norm=none,batch", "lr=1,0.01", "seed=0,1"],
    ["norm=batch", "norm.eps=1,0.5", "model.hidden=[9],[9,8]", "lr=0.1"],  # options that parts refer to
    ["dataset=synthetic", "dataset.seed=0,7", "seed=0,3", "dataset.noise=1,2"],
    ["model=mlp,rnn", "instruments=none,full", "max_steps=null,5"],
    ["momentum=0.5,0.9", "lr=${momentum},1"],
    ["instruments.snapshots=5,6", "~instruments.measure.shift"],
    ["model=rnn", "model.initial_state_noise=0", "lr=1,0.01"],  # a whole number for a float
    ["norm=group", "norm.groups=2,4", "study=a", "jobs=3", "rerun=all"],
]


def combinations(words: list[str]) -> list[list[str]]:
    def values(word: str) -> list[str]:
        key, equals, value = word.partition("=")
        lists = value.replace("],[", "];[").split(";") if value.startswith("[") else value.split(",")
        return [f"{key}{equals}{one}" for one in lists]

    return [list(chosen) for chosen in itertools.product(*(values(word) for word in words))]


@pytest.mark.parametrize("words", GRIDS, ids=" ".join)
def test_the_cells_of_a_grid_are_those_of_hydra(words: list[str]) -> None:
    cells, swept = app.cells("run", ["-m", *words])
    assert swept
    expected = [compose(chosen) for chosen in combinations(words)]
    assert [cell.name for cell in cells] == [cell.name for cell in expected]
    assert cells == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=0.1,x"], "lr"),
        (["batch_size=4,0.5"], "batch_size"),
        (["seed=0,-1"], "seed must be 0 or more"),
        (["norm.eps=0.1,true"], "norm.eps must be a number"),
        (["norm.epss=1,2"], "no option norm.epss"),
        (["shard=3/2"], "shard must be PART/PARTS"),
        (["shard=x"], "shard must be PART/PARTS"),
        (["cell_timeout=0"], "cell_timeout must be"),
        (["rerun=none"], "rerun must be one of"),
    ],
)
def test_a_wrong_value_in_the_middle_of_a_grid_is_told(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        app.cells("run", ["-m", "norm=batch", "max_steps=1,2", *words])


def test_an_experiment_file_is_a_grid(tmp_path: Path) -> None:
    cells, swept = app.cells("run", ["experiment=demo", "seed=5,6"])
    assert swept
    assert {cell.config["seed"] for cell in cells} == {5, 6}  # the axis on the line replaces that of the file
    assert len(cells) == 5 * 2 * 2


EXPERIMENT = """\
# @package _global_
# two grids
hydra:
  mode: MULTIRUN
  sweeper:
    params: {norm: "none,weight", lr: "0.1,1", seed: range(2)}
    also:
      - {norm: weight, norm.init_images: 500}
study: grids
"""


@pytest.mark.parametrize(
    ("words", "plain", "started"),
    [
        ([], 8, 4),
        (["norm=none"], 4, 0),  # the further grid is of weight alone
        (["norm=weight"], 4, 4),
        (["lr=3"], 4, 2),
        (["norm=none,weight", "norm.init_images=0,3"], 16, 0),
    ],
)
def test_an_experiment_may_have_further_grids(words: list[str], plain: int, started: int, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "grids.yaml").write_text(EXPERIMENT)
    cells, swept = app.cells("run", ["--config-dir", str(tmp_path), "experiment=grids", *words])
    assert swept
    images = [(cell.choices["norm"], cell.config["norm"]["init_images"]) for cell in cells]
    assert images.count(("weight", 500)) == started
    assert len(cells) == plain + started
    assert len({cell.name for cell in cells}) == len(cells)
