"""From words to cells: identity, folder names, types."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from normbench.config import compose as compose_module
from normbench.config.compose import COMMON, compose
from normbench.config.options import GROUPS, choices, config_dir
from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError
from normbench.experiment import build

CellOf = Callable[..., RunConfig]


def test_the_defaults_that_the_documentation_promises(cell_of: CellOf) -> None:
    config = compose([]).config
    expected = {"optimizer": "adam", "lr": 0.001, "batch_size": 64, "epochs": 1, "seed": 0, "weight_decay": 0.0}
    assert {key: config[key] for key in expected} == expected
    assert compose([]).choices == {"norm": "batch", "model": "mlp", "dataset": "mnist", "instruments": "standard"}
    assert config["model"]["hidden"] == [100, 100, 100]
    assert (config["model"]["activation"], config["model"]["init"], config["model"]["dropout"]) == ("relu", "auto", 0)
    assert (config["study"], config["threads"], config["dataset"]["validation"]) == ("scratch", 1, 5000)


def test_a_run_has_one_name_however_it_is_asked_for() -> None:
    names = {
        compose(words).name
        for words in (
            ["norm=batch", "batch_size=4"],
            ["batch_size=4"],
            ["batch_size=4", "lr=0.001", "norm.eps=1e-5"],  # values that are the defaults anyway
            ["batch_size=4", "study=other", "jobs=3", "save_model=false", "checkpoint_seconds=1"],
        )
    }
    assert len(names) == 1


def test_two_configurations_never_share_a_folder() -> None:
    asked = [
        *([f"norm={name}"] for name in choices("norm")),
        *([f"model={name}"] for name in choices("model")),
        ["dataset=synthetic"], ["instruments=none"], ["lr=0.01"], ["batch_size=4"], ["seed=1"], ["threads=2"],
        ["optimizer=sgd"], ["norm.eps=0.01"], ["model.hidden=[100,100]"], ["epochs=2"],
        ["max_steps=859"], ["max_samples=55000"], ["dataset.scale=unit"], ["instruments.snapshots=5"],
        ["evaluations=5"], ["log_every=10"], ["model.hidden=[100,100,100,100]"], ["momentum=0.8"],
    ]  # fmt: skip
    cells = {compose(words).folder for words in asked}
    assert len(cells) == len(asked) - 1  # norm=batch and model=mlp are both the default cell


def test_folder_names_are_plain_and_end_in_a_hash() -> None:
    name = compose(["model.hidden=[300,300]", "lr=0.01", "batch_size=4"]).name
    assert re.fullmatch(r"batch-mlp-mnist-batch_size4-lr0\.01-hidden_300_300_?-[0-9a-f]{8}", name), name
    long = compose([f"model.hidden=[{','.join(['100'] * 90)}]"]).name
    assert len(long) <= 105


def test_the_words_of_a_cell_make_the_cell() -> None:
    for asked in (["model=rnn", "model.units=50", "lr=0.01"], ["norm=layer", "max_samples=1000", "seed=3"], []):
        cell = compose(asked)
        assert compose(cell.words).identity == cell.identity


def test_options_reach_the_parts() -> None:
    parts = build(compose(["norm=batch", "norm.eps=0.5", "model.hidden=[7]", "instruments.units=3"]).config)
    assert parts.scheme.norm is not None
    assert parts.scheme.norm(3).eps == 0.5
    assert parts.model.keywords["hidden"] == [7]  # type: ignore[attr-defined]
    assert parts.instruments[0].units == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_file_says_what_it_is(group: str) -> None:
    assert choices(group)
    for name, text in choices(group).items():
        assert len(text) > 20, f"{group}={name} has no description in its first comment line"


@pytest.mark.parametrize("path", sorted(p for group in COMMON for p in (config_dir() / group).glob("*.yaml")), ids=str)
def test_every_option_is_read_by_the_library_or_given_to_the_target(path: Path) -> None:
    """An option that nothing reads would be accepted and do nothing."""
    group, options = path.parent.name, yaml.safe_load(path.read_text())
    assert "${" not in path.read_text()
    config = {**compose([]).config, group: options}
    made = getattr(compose_module.build(config), group)
    assert set(made.keywords) == set(options) - COMMON[group] - {"_target_"}


@pytest.mark.parametrize("name", sorted(choices("norm")))
def test_a_scheme_is_a_file_of_at_most_a_dozen_lines_named_as_it_is(name: str) -> None:
    text = (config_dir() / "norm" / f"{name}.yaml").read_text()
    assert yaml.safe_load(text)["name"] == name
    assert len(text.splitlines()) <= 12
    assert name == "none" or re.search(r"\b(19|20)\d\d\b", text.splitlines()[0]), "cite the paper, with its year"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=-1"], "lr must be a positive number: got -1"),
        (["lr=nan"], "lr must be a positive number: got nan"),
        (["lr=inf"], "lr must be a positive number: got inf"),
        (["batch_size=0"], "batch_size must be 1 or more: got 0"),
        (["epochs=0"], "epochs must be a positive number"),
        (["max_steps=5", "max_samples=100"], "Give one of them"),
        (["max_samples=10"], "max_samples must be at least the images of one update: got 10"),
        (["optimizer=adamm"], "optimizer must be one of sgd, .*: got adamm"),
        (["schedule=cosin"], "schedule must be one of constant, .*: got cosin"),
        (["warmup=1"], "warmup must be between 0 and 1"),
        (["steps_at=[0.5,2]"], "steps_at must be a list of shares of the run"),
        (["clip_norm=0"], "clip_norm must be a positive number, or null: got 0"),
        (["accumulate=0"], "accumulate must be 1 or more: got 0"),
        (["lr_scaling=log"], "lr_scaling must be one of none, linear, sqrt: got log"),
        (["study=../elsewhere"], "plain folder name"),
        (["device=nowhere"], "device must be one that this machine has: got nowhere"),
        (["model.hidden=5"], r"model.hidden must be a list such as \[100,100,100\]: got 5"),
        (["model.hidden=[a]"], "each of model.hidden must be a whole number such as 100: got a"),
        (["norm.momentum=abc"], "norm.momentum must be a number such as 0.1: got abc"),
        (["norm.affine=3"], "norm.affine must be true or false: got 3"),
        (["instruments.probe=x"], "instruments.probe must be a whole number, 2 or more: got x"),
        (["instruments.snapshots=1"], "instruments.snapshots must be a whole number, 2 or more: got 1"),
        (["instruments.schedule=linear"], "instruments.schedule must be one of log, every: got linear"),
        (["instruments.tensors=[gates]"], "instruments.tensors must be a list of linear, normalized, activation"),
        (["instruments.layers=hidden1"], r"instruments.layers must be a list of names .*: got hidden1"),
        (["+foo=1"], "options can be changed, not added or deleted: foo"),
        (["~lr"], "options can be changed, not added or deleted: lr"),
    ],
)
def test_values_that_make_no_sense_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(words)
