"""Rounds of a sweep: which runs follow from which results. Results are made up, but for one sweep that is run."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import normbench
from normbench.cli import main
from normbench.commands import console
from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError
from normbench.experiment import expand, record
from normbench.runs import RunFolder, Study, is_finished
from normbench.sweep.plan import shard
from normbench.sweep.rounds import FURTHER_RATES, Round, rounds
from normbench.sweep.timing import Timings

pytestmark = pytest.mark.usefixtures("own_folder", "few")
WORDS = ["-m", "dataset=synthetic", "instruments=none", "max_steps=4", "seed=0,1,2", "study=r", "device=cpu"]
GRID = [*WORDS, "norm=none,batch", "lr=0.1,0.3", "hydra.sweeper.extend=[lr]"]


def finish(run_config: RunConfig, accuracy: float | None) -> None:
    """Give a run a result, None: it diverged."""
    with RunFolder(run_config.folder, identity=run_config.identity) as folder:
        folder.start(record(run_config))
        numbers = {
            "test_accuracy": accuracy,
            "validation_accuracy": accuracy,
            "at_chance": False,
            "steps": 4,
            "samples": 256,
        }
        folder.finish({"status": "complete" if accuracy else "diverged", "dataset": {"classes": 10}, **numbers})


def best_at(lr: float) -> Callable[[RunConfig], float]:
    def accuracy(run_config: RunConfig) -> float:
        return 0.9 - 0.1 * abs(math.log10(run_config.config["lr"] / lr)) + 0.001 * run_config.config["seed"]

    return accuracy


def rounds_of(words: list[str]) -> Iterator[Round]:
    sweep = expand(words)
    return rounds(sweep, shard(sweep.run_configs, sweep.run_configs[0].config["shard"]))


def run_all(words: list[str], accuracy: Callable[[RunConfig], float | None]) -> list[list[RunConfig]]:
    """The rounds of a sweep whose runs end like this."""
    found = []
    for one in rounds_of(words):
        for run_config in one.run_configs:
            if not is_finished(run_config.folder, run_config.identity):
                finish(run_config, accuracy(run_config))
        found.append(one.run_configs)
    return found


def rates(run_configs: list[RunConfig]) -> list[float]:
    return sorted({one.config["lr"] for one in run_configs})


@pytest.mark.parametrize(
    ("best", "further"),
    [(0.1, [[0.03]]), (0.3, [[1.0]]), (3.0, [[1.0], [3.0], [10.0]]), (0.01, [[0.03], [0.01], [0.003]])],
)
def test_a_sweep_goes_on_until_the_best_lr_lies_inside(best: float, further: list[list[float]]) -> None:
    grid, *others = run_all(GRID, best_at(best))
    assert len(grid) == 12
    assert [rates(one) for one in others] == further
    assert all(len(one) == 6 for one in others), "each scheme and seed"
    assert [rates(one) for one in run_all(GRID, best_at(best))] == [rates(grid), *further], "the same when repeated"


def test_each_scheme_goes_its_own_way_and_no_further_than_four_rates_on_a_side() -> None:
    def accuracy(run_config: RunConfig) -> float | None:
        where = {"none": 0.17, "batch": 1e6}[run_config.choices["norm"]]  # between the two lrs, and never reached
        return best_at(where)(run_config) if run_config.config["lr"] < 1e4 else None

    others = [one for found in run_all([*GRID, "lr=0.1,0.2,0.3"], accuracy)[1:] for one in found]
    assert {one.choices["norm"] for one in others} == {"batch"}
    assert len(rates(others)) == FURTHER_RATES


def test_a_rate_at_which_runs_diverge_is_the_end() -> None:
    found = run_all(GRID, lambda one: None if one.config["lr"] > 0.5 else one.config["lr"])
    assert [rates(one) for one in found[1:]] == [[1.0]]


def test_no_round_follows_from_runs_without_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    [grid] = [one.run_configs for one in rounds_of(GRID)]
    for run_config in grid[1:]:
        finish(run_config, best_at(3.0)(run_config))
    assert len(list(rounds_of(GRID))) == 1
    assert main(["plan", *GRID[1:]]) == 0
    assert capsys.readouterr().out.startswith("at least 12 runs")
    finish(grid[0], best_at(3.0)(grid[0]))
    assert len(list(rounds_of(GRID))) == 2
    run_all(GRID, best_at(3.0))
    assert main(["plan", *GRID[1:]]) == 0
    assert capsys.readouterr().out.startswith("30 runs")
    words = [*GRID, "shard=1/2"]
    assert [one.is_last for one in rounds_of(words)] == [True]
    assert main(["plan", *GRID[1:], "shard=13/13"]) == 2
    assert "this shard holds no run" in capsys.readouterr().err


def test_fresh_seeds_for_what_may_be_the_best_and_for_the_reference() -> None:
    means = {"none": 0.5, "batch": 0.8, "layer": 0.8, "weight": 0.6}

    def accuracy(run_config: RunConfig) -> float:
        jitter = 0.01 * ((7 * run_config.config["seed"] + len(run_config.choices["norm"])) % 5)
        return best_at(0.3)(run_config) + means[run_config.choices["norm"]] - 0.9 + jitter

    words = [*WORDS, "norm=none,batch,layer,weight", "lr=0.1,0.3,1", "hydra.sweeper.confirm=range(100,104)"]
    _, confirmed = run_all(words, accuracy)
    assert {(one.choices["norm"], one.config["lr"]) for one in confirmed} == {
        ("none", 0.3), ("batch", 0.3), ("layer", 0.3)
    }  # fmt: skip
    assert {one.config["seed"] for one in confirmed} == {100, 101, 102, 103}
    assert len(confirmed) == 12
    assert len(run_all([*words, "hydra.sweeper.confirm=null"], accuracy)) == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hydra.sweeper.confirm=2,3", "seeds that choose can't confirm: seed=2"),
        ("hydra.sweeper.extend=[batch_size]", r"hydra.sweeper.extend is \[lr\] or null: got \[batch_size\]"),
        ("hydra.sweeper.extend=lr", "hydra.sweeper.extend"),
    ],
)
def test_what_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand([*GRID, word])


def test_a_sweep_confirms_inside_what_it_has_tried_and_goes_on_where_it_was(
    own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*GRID, "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "model.hidden=[8]"]
    words += ["hydra.sweeper.confirm=7,8", "optimizer=sgd", "max_steps=40", "norm=none", "seed=0,1"]
    assert main(["run", *words]) == 0
    runs = Study(own_folder / "results/r").runs
    [confirmed] = set(runs.loc[runs["seed"] == 7, "lr"])
    tried = sorted(runs["lr"].unique())
    assert tried[0] < confirmed < tried[-1] or len(tried) >= FURTHER_RATES
    lost = runs.index[runs["lr"] == confirmed][0]  # the last round follows from it
    shutil.rmtree(own_folder / "results/r" / lost)
    capsys.readouterr()
    assert main(["run", *words]) == 0
    assert f"{len(runs)} runs: 1 ran, {len(runs) - 1} were finished before" in capsys.readouterr().out
    assert set(Study(own_folder / "results/r").runs.index) == set(runs.index)
    assert main(["plan", "--json", *words[1:]]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["is_all"]
    assert {one["status"] for one in plan["cells"]} == {"done"}


def test_more_than_max_runs_are_trained_if_somebody_agrees(
    refused: Callable[[list[str], str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["run", *WORDS, "norm=none", "max_runs=2"]
    refused(words, "more than max_runs=2 runs: 3 are to be trained. To train them, add max_runs=3.")
    with pytest.raises(ConfigError, match="add max_runs=3"):
        normbench.sweep(words[2:])
    assert not list(tmp_path.iterdir()), "nothing is written"

    asked, answers = [], iter(("", "n", "yes"))

    def answer(prompt: str = "") -> str:
        asked.append(terminal.file.getvalue().splitlines()[-1])  # type: ignore[attr-defined]
        return next(answers, None) or _end()

    terminal = console.SafeConsole(file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "err", terminal)
    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(Timings, "seconds", lambda *about: 3600.0)
    assert main([*words, "jobs=1"]) == 2
    assert main([*words, "jobs=1"]) == 2
    assert not (tmp_path / "results").exists()
    assert main([*words, "jobs=1"]) == 0
    assert asked[0].endswith("3 runs, about 3 h 00 min: go on? [y/N] ")
    assert main([*words, "seed=range(5)"]) == 0, "two are to be trained: what is finished is not asked about"
    assert len(asked) == 3
    assert main([*words, "seed=range(8)", "max_runs=null"]) == 0


def _end() -> str:
    raise EOFError
