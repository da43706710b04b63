"""The commands that repeat a study: the same runs, none missing, none twice, in few lines."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from pathlib import Path

from normbench.analysis.groups import read
from normbench.analysis.reproduce import commands
from normbench.runs import load

Add = Callable[..., Path]


def expanded(lines: list[str]) -> list[frozenset[str]]:
    """Each run that the commands make, as its words."""
    found = []
    for line in lines:
        words = [word.partition("=")[::2] for word in shlex.split(line)[2:] if word != "-m"]
        found += [
            frozenset(run) for run in itertools.product(*([f"{k}={v}" for v in vs.split(",")] for k, vs in words))
        ]
    return found


def test_a_crossing_is_one_command(study: Path, add: Add) -> None:
    for norm in ("none", "batch"):
        for batch_size in (128, 4):
            for seed in (0, 1):
                add(norm=norm, batch_size=batch_size, **({"seed": seed} if seed else {}))  # a default is left out
    [line] = commands(read(load(study)))
    assert line == "normbench run -m norm=none,batch model=mlp batch_size=4,128 study=first seed=0,1"


def test_a_ragged_study_is_a_few_commands_for_exactly_its_runs(study: Path, add: Add) -> None:
    asked = []
    for norm, seeds in {"none": 5, "batch": 5, "layer": 3}.items():
        for batch_size, seed in itertools.product((4, 64), range(seeds)):
            add(norm=norm, batch_size=batch_size, seed=seed)
            asked.append({f"norm={norm}", "model=mlp", f"batch_size={batch_size}", f"seed={seed}", "study=first"})
    lines = commands(read(load(study)))
    assert len(lines) == 2
    made = expanded(lines)
    assert len(made) == len(asked)
    assert set(made) == set(map(frozenset, asked))


def test_one_run_is_no_sweep_and_names_are_quoted(study: Path, add: Add) -> None:
    add(norm="<b>x y", batch_size=4)
    [line] = commands(read(load(study)))
    assert shlex.split(line) == ["normbench", "run", "norm=<b>x y", "model=mlp", "batch_size=4", "study=first"]


def test_options_that_only_some_runs_have_stay_with_them(study: Path, add: Add) -> None:
    for groups in (2, 4):
        add(norm="group", options={"norm.groups": groups})
    add(norm="none")
    made = expanded(commands(read(load(study))))
    assert sorted("".join(sorted(word for word in run if "groups" in word)) for run in made) == [
        "",
        "norm.groups=2",
        "norm.groups=4",
    ]
