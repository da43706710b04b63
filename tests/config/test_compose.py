"""From words to run configs: grids, identity, names, and that single values are what Hydra would have made of them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from normbench.config.compose import Expanded, expand
from normbench.config.options import choices, config_dir
from normbench.errors import ConfigError
from normbench.experiment import compose

GRIDS = [
    ["norm=none,batch", "lr=1,0.01", "seed=0,1"],
    ["norm=batch", "norm.eps=1,0.5", "model.hidden=[9],[9,8]", "lr=0.1"],
    ["dataset=synthetic", "dataset.seed=0,7", "seed=0,3", "dataset.noise=1,2"],
    ["model=mlp,rnn", "instruments=none,full", "max_steps=null,5"],
    ["momentum=0.5,0.9", "lr=${momentum},1"],
    ["instruments.snapshots=5,6", "~instruments.measure.shift"],
    ["model=rnn", "model.initial_state_noise=0", "lr=1,0.01"],  # a whole number for a float
    ["norm=group", "norm.groups=2,4", "study=a", "jobs=3", "rerun=all"],
]


def swept(*words: str) -> Expanded:
    return expand(words, lambda name: "cpu", launchers=True)


def combinations(words: list[str]) -> list[list[str]]:
    def values(word: str) -> list[str]:
        key, equals, value = word.partition("=")
        lists = value.replace("],[", "];[").split(";") if value.startswith("[") else value.split(",")
        return [f"{key}{equals}{one}" for one in lists]

    return [list(chosen) for chosen in itertools.product(*(values(word) for word in words))]


@pytest.mark.parametrize("words", GRIDS, ids=" ".join)
def test_the_runs_of_a_grid_are_those_of_its_combinations(words: list[str]) -> None:
    found = swept("-m", *words)
    study = f"study={found.run_configs[0].config['study']}"
    expected = [compose([*chosen, "device=cpu", study]) for chosen in combinations(words)]
    assert found.is_sweep
    assert found.launcher is None
    assert [made.name for made in found.run_configs] == [made.name for made in expected]
    assert found.run_configs == expected


def study_of(words: str) -> str:
    [study] = {one.folder.parent.name for one in swept(*words.split()).run_configs}
    return study


def test_a_sweep_without_a_study_has_one_of_its_own() -> None:
    """Whatever the order of its words, and with whichever seeds and values of what varies."""
    study = "norm+batch_size-synthetic-max_steps_5"
    same = ["norm=none,batch batch_size=4,64", "batch_size=2,4 seed=0,1,2 jobs=2 norm=layer,none,batch",
            "norm=none,batch batch_size=4,8 seed=7 lr=0.001", "norm=batch,none batch_size=64,4 device=cpu"]  # fmt: skip
    for words in same:
        assert study_of(f"-m {words} max_steps=5 dataset=synthetic") == study
        assert study_of(f"-m dataset=synthetic max_steps=5 {words}") == study
    others = ["norm=none,batch batch_size=4,64", "norm=none,batch lr=0.1,1", "norm=batch batch_size=4,64", "seed=0,1",
              "norm=none,batch model.hidden=[300,300]", "norm=none,batch ~instruments.measure.units",
              f"norm=none,batch batch_size=4,64 dataset=folder dataset.path=/a/{'b' * 90}"]  # fmt: skip
    names = [study_of(f"-m {words}") for words in others]
    assert len({*names, study}) == len(names) + 1
    assert all(re.fullmatch(r"\w[\w.+-]{0,59}", name, re.ASCII) for name in names), names
    assert study_of("-m seed=3") == study_of("-m seed=0,1") == "batch"
    for words in ("norm=none", "-m norm=none", "-m norm=none,batch study=scratch"):
        assert study_of(words) == "scratch"
    assert study_of("experiment=demo seed=0,1") == "demo"


def test_further_runs_and_launchers_find_the_study_of_a_sweep() -> None:
    found = swept("-m", "norm=none,batch", "lr=0.1,1", "hydra.sweeper.extend=[lr]", "instruments=none")
    assert found.further
    for folder, words in found.further.words.items():
        assert compose([*words, "device=cpu"]).folder == folder


@pytest.mark.parametrize("words", GRIDS[:4], ids=" ".join)
def test_a_run_is_what_hydra_composes(words: list[str]) -> None:
    """Values that are put in their places here are those that Hydra would have put there."""
    for chosen in combinations(words)[:3]:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            theirs = OmegaConf.to_container(hydra.compose("config", overrides=[*chosen, "device=cpu"]), resolve=True)
        assert compose([*chosen, "device=cpu"]).config == theirs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=0.1,x"], "lr must be a positive number: got x"),
        (["batch_size=4,0.5"], "batch_size must be a whole number, 1 or more: got 0.5"),
        (["seed=0,-1"], "seed must be 0 or more"),
        (["norm.eps=0.1,true"], "norm.eps must be a positive number: got true"),
        (["norm.epss=1,2"], "no option norm.epss"),
        (["shard=3/2"], "shard must be PART/PARTS"),
        (["shard=x"], "shard must be PART/PARTS"),
        (["cell_timeout=0"], "cell_timeout must be"),
        (["max_seconds=0"], "max_seconds must be a positive number of seconds, or null: got 0."),
        (["max_seconds=9", "schedule=linear"], "max_seconds needs schedule=constant, as the number of updates is not"),
        (["max_runs=0"], "max_runs must be 1 or more, or null: got 0."),
        (["rerun=none"], "rerun must be one of"),
        (["lr=interval(0.1,1)"], "a grid needs values that can be listed"),
    ],
)
def test_a_wrong_value_in_the_middle_of_a_grid_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        swept("-m", "norm=batch", "max_steps=1,2", *words)


def test_two_thousand_runs_are_composed_with_a_composition_for_each_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    count, original = [0], hydra.compose

    def counting(*args: object, **options: object) -> object:
        count[0] += 1
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("hydra.compose", counting)
    found = swept("-m", "norm=none,batch", "batch_size=4,8", "lr=0.1,1,10,100,1000", "seed=range(100)")
    assert len({made.name for made in found.run_configs}) == 2000
    assert count[0] <= 4


def test_an_experiment_file_is_a_grid() -> None:
    found = swept("experiment=demo", "seed=5,6")
    assert found.is_sweep
    assert {made.config["seed"] for made in found.run_configs} == {5, 6}  # this axis replaces that of the file
    assert len(found.run_configs) == 5 * 5 * 2


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


@pytest.fixture
def grids(tmp_path: Path) -> list[str]:
    """Words for an experiment of the user's own, with a further grid."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "grids.yaml").write_text(EXPERIMENT)
    return ["--config-dir", str(tmp_path), "experiment=grids"]


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
def test_an_experiment_may_have_further_grids(words: list[str], plain: int, started: int, grids: list[str]) -> None:
    found = swept(*grids, *words)
    images = [(made.choices["norm"], made.config["norm"]["init_images"]) for made in found.run_configs]
    assert images.count(("weight", 500)) == started
    assert len(found.run_configs) == plain + started == len({made.name for made in found.run_configs})


def test_what_a_launcher_of_hydras_needs(grids: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [*grids, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=7"]
    found = swept(*words)
    assert found.launcher is not None
    assert found.launcher.arguments is None
    assert found.launcher.config.hydra.launcher.timeout_min == 7
    assert [compose([*grids[:2], *job, "device=cpu"]) for job in found.launcher.words.values()] == found.run_configs
    with pytest.raises(ConfigError, match="hydra/launcher is for normbench run -m alone"):
        expand(words, lambda name: "cpu")


def test_another_sweeper_decides_itself_and_knows_no_further_grids(grids: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    found = swept("-m", "hydra/sweeper=optuna", "lr=interval(0.1,1)", "norm=batch")
    assert found.launcher is not None
    assert found.launcher.arguments == ["lr=interval(0.1,1)", "norm=batch"]
    assert found.run_configs == []
    with pytest.raises(ConfigError, match=r"^further grids .* leave out hydra/sweeper\.$"):
        swept(*grids, "hydra/sweeper=optuna")


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
        ["~instruments.measure.shift"], ["+instruments.measure.fit={}"],
        ["max_steps=859"], ["max_samples=55000"], ["dataset.scale=unit"], ["instruments.snapshots=5"],
        ["evaluations=5"], ["log_every=10"], ["model.hidden=[100,100,100,100]"], ["momentum=0.8"],
    ]  # fmt: skip
    folders = {compose(words).folder for words in asked}
    assert len(folders) == len(asked) - 1  # norm=batch and model=mlp are both the default run


def test_identity_is_of_values_and_not_of_how_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for seed in ("1", "2"):
        monkeypatch.setenv("SEED", seed)
        made.append(compose(["seed=${oc.env:SEED}", "lr=${momentum}"]))
    assert made[0].name == compose(["seed=1", "lr=0.9"]).name != made[1].name
    assert made[1].config["seed"] == 2
    assert made[1].words == ["norm=batch", "lr=0.9", "seed=2"]  # they repeat it, wherever SEED may not be set
    assert made[1].written == {"seed": "${oc.env:SEED}", "lr": "${momentum}"}


def test_folder_names_are_plain_and_end_in_a_hash() -> None:
    name = compose(["model.hidden=[300,300]", "lr=0.01", "batch_size=4"]).name
    assert re.fullmatch(r"batch-mlp-mnist-batch_size4-lr0\.01-hidden_300_300_?-[0-9a-f]{8}", name), name
    long = compose([f"model.hidden=[{','.join(['100'] * 90)}]"]).name
    assert len(long) <= 105


@pytest.mark.parametrize(
    "asked",
    [
        ["model=rnn", "model.units=50", "lr=0.01"], ["norm=layer", "max_samples=1000", "seed=3"], [],
        ["dataset=folder", "dataset.path='/my images/\"new\"'"], ["dataset=folder", "dataset.path='null'"],
        ["dataset=folder", "dataset.path='~/x, y'"], ["instruments.layers=[hidden1,'conv*']"],
        ["+instruments.measure.fit={}"], ["~instruments.measure.batch_noise"], ["results_dir='a, b'", "study='.5'"],
        ["+instruments.measure.shift.sample=3"], ["dataset=folder", 'dataset.path="/back\\slash\\\\"'],
    ],
)  # fmt: skip
def test_the_words_of_a_run_make_the_run(asked: list[str]) -> None:
    made = compose(asked)
    assert compose(made.words).identity == made.identity


def test_the_job_is_shown_on_request() -> None:
    shown = expand(["norm=layer", "--cfg", "job"], lambda name: "cpu").printed or ""
    assert OmegaConf.to_container(OmegaConf.create(shown)) == compose(["norm=layer", "device=cpu"]).config
