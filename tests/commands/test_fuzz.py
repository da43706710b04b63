"""Command lines nobody would type, thousands of them: each does what it says, or is refused in a few lines and leaves
nothing behind."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from normbench import run
from normbench.cli import COMMANDS, main
from normbench.config.options import GROUPS, choices, group_options, top_level

pytestmark = pytest.mark.usefixtures("own_folder")
SECONDS = 20  # a command takes less, on a busy machine too
SMALL = ["dataset=synthetic", "instruments=none", "max_steps=2", "dataset.examples=60", "dataset.validation=10"]
SMALL += ["dataset.size=8", "model.hidden=[4]", "batch_size=4", "device=cpu"]
TRAINED = "kept/scratch/trained"  # a finished run in the folder of each case

KEYS = [*top_level(), *GROUPS, *(key for group in GROUPS for key in group_options(group) if group != "experiment")]
KEYS += ["norm._target_", "norm", "lr", "bogus", "norm.bogus", "hydra.mode", "hydra/launcher", "hydra.run.dir", "a.b.c"]
KEYS += ["instruments.measure", "instruments.measure.shift", "instruments.measure.fit.x", "corruption", "images", ""]
VALUES = ["1", "0", "-1", "2", "0.5", "1e9", "1e400", "nan", "inf", "true", "null", "", "x", "batch", "layer", "mlp"]
VALUES += ["[1,2]", "[]", "{}", "{a:1}", "[[", "}", "'", '"', "a b", "\x1b[31m", "\n", "ü", "\udcff", "${", "${seed}"]
VALUES += [
    "${oc.env:HOME}",
    "${oc.env:NOT_SET}",
    "1,2",
    "1,x",
    "none,batch",
    "range(0,3)",
    "range(0,1,0)",
    "range(1e9)",
]
VALUES += [
    "choice(1,2)",
    "interval(0,1)",
    "glob(*)",
    "shuffle(1,2)",
    "tag(a,1)",
    "../norm/batch",
    "/",
    "~/x",
    "~nobody",
]
VALUES += ["a" * 300, "9" * 40, "[{_target_: os.system}]", "\\", "\\'", "demo", "ema", "precise,batch", "sgd"]
NAMES = [name for group in ("norm", "model") for name in choices(group)]
FLAGS = [
    "-m",
    "--multirun",
    "--cfg",
    "job",
    "--config-dir",
    "--config-dir=kept",
    "--json",
    "--experimental-rerun",
    "-cd",
]
FLAGS += [
    "--layer",
    "--unit",
    "hidden1",
    "99",
    "--worksheet",
    "--margin",
    "--target",
    "--filter",
    "norm=batch",
    "--from",
]
FLAGS += ["--reference", "--data-dir", "--data-dir=empty", "--bogus", "-x", "--", "-", "--help", "--version", "-h"]
PLACES = [TRAINED, "kept/scratch", "kept", "file", "nowhere", ".", "", "/", "results", "~nobody/x", "\x1b", "a" * 300]

key, value = st.sampled_from(KEYS), st.sampled_from(VALUES + NAMES)
option = st.builds("{}{}={}".format, st.sampled_from(["", "", "", "", "", "", "+", "~", "++"]), key, value)
word = st.one_of(option, option, option, st.sampled_from(FLAGS), st.sampled_from(PLACES), st.text(max_size=8))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from([*COMMANDS, "run", "plan", "describe", "bogus", "-sc"]))
    words = draw(st.lists(word, max_size=4))
    if command == "explain" and draw(st.booleans()):
        words = ["--run", TRAINED, *words]
    elif command in ("run", "plan", "describe", "explain"):  # without, MNIST would be fetched
        words = [*SMALL, *(word for word in words if not word.startswith(("max_steps=", "max_samples=")))]
    elif command in ("evaluate", "fold"):
        words = [TRAINED, *words]
    if command in ("verify", "report"):  # what is right takes long, and has tests of its own
        words.append("--bogus")
    if command == "claims":
        words = [word for word in words if word != "--run"]
    return [command, *words]


@pytest.mark.parametrize("cases", [300, pytest.param(3000, marks=pytest.mark.full)])
def test_any_command_line(
    cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run([*SMALL, "norm=none", "results_dir=made"]).folder
    shutil.copytree(made, TRAINED)
    shutil.rmtree("made")
    Path("file").touch()
    monkeypatch.setattr("normbench.commands.explain.STEPS", 2)
    monkeypatch.setattr("normbench.commands.status.WAITING", 0)
    monkeypatch.setattr("normbench.commands.run._sweep", lambda run_configs, launcher=None: 0)  # planned, not trained
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    kept, wrong = files(tmp_path), list[str]()

    @seed(cases)
    @settings(max_examples=cases, deadline=None, database=None, phases=[Phase.generate])
    @given(command_lines())
    def check(words: list[str]) -> None:
        begin = time.monotonic()
        try:
            code = main(words)
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
        except BaseException as error:
            code = repr(error)
        printed, new = capsys.readouterr(), files(tmp_path) - kept
        places = {path.split("/")[0] for path in new}
        results = {"results", "empty", "lessons", "merged", *(word.removeprefix("results_dir=") for word in words)}
        rules = {
            f"exit code {code}": code in ((0, 1, 2) if words[0] == "doctor" else (0, 2)),
            "a traceback": "Traceback" not in printed.out + printed.err,
            "a long error": code == 0 or len(printed.err.splitlines()) <= 4,
            f"left {new} behind": code == 0 or not new,
            f"wrote {places}": places <= results,
            "took long": time.monotonic() - begin < SECONDS,
        }
        wrong.extend(f"{words}: {rule}: {printed.err}" for rule, holds in rules.items() if not holds)
        for place in places:
            shutil.rmtree(place) if Path(place).is_dir() else Path(place).unlink()

    check()
    assert not wrong, "\n".join(wrong)


def files(folder: Path) -> set[str]:
    """All files and folders below it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def unreachable(*args: object, **options: object) -> None:
    raise OSError("no route to host")
