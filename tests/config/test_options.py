"""The options: each has a type and a range, is read by something, and says what it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from normbench.config import compose as compose_module
from normbench.config.compose import COMMON
from normbench.config.options import GROUPS, choices, complete, config_dir, top_level, usual_choices
from normbench.config.run_config import RunConfig, leaves
from normbench.config.schema import OPTIONS, accepted
from normbench.data.augment import AUGMENTATIONS
from normbench.data.dataset import SCALES, WHITENINGS
from normbench.errors import ConfigError
from normbench.experiment import build, compose
from normbench.models.init import INITS
from normbench.models.options import ACTIVATIONS
from normbench.models.rnn import CELLS, SEQUENCES
from normbench.training.optimizers import LR_SCALINGS, OPTIMIZERS, SCHEDULES

CellOf = Callable[..., RunConfig]


def test_the_defaults_that_the_documentation_promises(cell_of: CellOf) -> None:
    config = compose([]).config
    expected = {"optimizer": "adam", "lr": 0.001, "batch_size": 64, "epochs": 1, "seed": 0, "weight_decay": 0.0}
    assert {key: config[key] for key in expected} == expected
    assert compose([]).choices == {"norm": "batch", "model": "mlp", "dataset": "mnist", "instruments": "standard"}
    assert config["model"]["hidden"] == [100, 100, 100]
    assert (config["model"]["activation"], config["model"]["init"], config["model"]["dropout"]) == ("relu", "auto", 0)
    assert (config["study"], config["threads"], config["dataset"]["validation"]) == ("scratch", 1, 5000)


def test_options_reach_the_parts() -> None:
    parts = build(compose(["norm=batch", "norm.eps=0.5", "model.hidden=[7]", "instruments=full"]).config)
    assert parts.scheme.norm is not None
    assert parts.scheme.norm(3).eps == 0.5
    assert parts.model.keywords["hidden"] == [7]  # type: ignore[attr-defined]
    [distributions] = [one for one in parts.instruments if one.name == "distributions"]
    assert list(distributions.bn_modes) == ["probe", "batch", "running"]  # type: ignore[attr-defined]


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
    made = compose_module.build(config)[group]
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
        (["norm.momentum=abc"], "norm.momentum must be a number, above 0 and at most 1, or null: got abc"),
        (["norm.affine=3"], "norm.affine must be true or false: got 3"),
        (["instruments.probe=x"], "instruments.probe must be a whole number, 2 or more: got x"),
        (["instruments.snapshots=1"], "instruments.snapshots must be 2 or more: got 1"),
        (["instruments.schedule=linear"], "instruments.schedule must be one of log, every: got linear"),
        (["instruments.tensors=[gates]"], "instruments.tensors must be a list of linear, normalized, activation"),
        (["instruments.layers=hidden1"], r"instruments.layers must be a list of names .*: got hidden1"),
        (["save_model=yes"], "save_model must be true or false: got yes"),
        (["model.dropout=1"], "model.dropout must be at least 0 and below 1: got 1"),
        (["model.hidden=[3,0]"], r"model.hidden must be of sizes from 1 to 1,000,000: got \[3,0\]"),
        (["dataset.train_fraction=2"], "dataset.train_fraction must be above 0 and at most 1: got 2"),
        (["instruments.measure=null"], "instruments.measure is a group of options, not one"),
        (["+foo=1"], "options can be changed, not added or deleted: got \\+foo=1"),
        (["~lr"], "options can be changed, not added or deleted: got ~lr"),
    ],
)
def test_values_that_make_no_sense_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(words)


def test_every_option_of_the_top_level_has_a_type_and_a_range() -> None:
    assert set(top_level()) == {key for key in OPTIONS if "." not in key}


@pytest.mark.parametrize("group", ["", *usual_choices()])
def test_every_default_is_one_that_is_accepted(group: str) -> None:
    for name in choices(group) if group else [""]:
        config = compose([f"{group}={name}", "device=cpu"] if group else ["device=cpu"]).config
        for key, value in leaves(config):
            if key.startswith(f"{group}.") if group else "." not in key:
                assert accepted(key, value, value) == value, (name, key)


def test_an_option_of_a_users_own_accepts_values_of_its_defaults_type() -> None:
    assert accepted("norm.floor", 1, 0.5) == 1.0
    assert accepted("model.width", [5, 6], [3, 4]) == [5, 6]  # not the width of our models, though of that name
    with pytest.raises(ConfigError, match=r"norm.floor must be a number such as 0.5: got x\."):
        accepted("norm.floor", "x", 0.5)


def test_the_choices_are_those_that_the_library_knows() -> None:
    known = {
        "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "lr_scaling": LR_SCALINGS, "dataset.scale": SCALES,
        "dataset.augment": AUGMENTATIONS, "dataset.whiten": WHITENINGS, "model.cell": CELLS,
        "model.sequence": SEQUENCES,        "model.init": ["auto", *INITS], "model.activation": ACTIVATIONS,
    }  # fmt: skip
    for key, names in known.items():
        assert set(OPTIONS[key].choices) == set(names), key


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("normbench run norm=", ["norm=batch", "norm=layer"]),
        ("normbench run norm=batch,lay", ["norm=batch,layer", "norm=batch,layer2d"]),
        ("normbench run experiment=depth", ["experiment=depth", "experiment=depth/full"]),
        ("normbench run norm=batch mod", ["model="]),
        ("normbench run model=cnn model.c", ["model.channels="]),
        ("normbench run batch_s", ["batch_size="]),
        ("normbench run optimizer=ada", ["optimizer=adam", "optimizer=adamw"]),
        ("normbench run save_model=t", ["save_model=true"]),
        ("normbench run --config-dir mine norm=my", ["norm=mydogs"]),
        ("normbench run --config-dir mine norm=mydogs norm.b", ["norm.bark="]),
        ("normbench run data_dir=./mi", ["data_dir=./mine/"]),
    ],
)
def test_completion(line: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    (tmp_path / "mine" / "norm" / "mydogs.yaml").write_text("# a scheme\n_target_: x.y\nname: mydogs\nbark: 1\n")
    found = complete(line)
    assert set(expected) <= set(found)
    assert len(found) <= len(expected) or line.endswith("=")
