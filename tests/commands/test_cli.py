"""The command line, as a user meets it: what it prints, how it ends, what it leaves."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench import load
from normbench.cli import COMMANDS, main
from normbench.config.options import GROUPS, choices, top_level

pytestmark = pytest.mark.usefixtures("own_folder", "few")
DATA = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "dataset.size=8", "device=cpu"]
TINY = [*DATA, "model.hidden=[8,8]", "batch_size=8"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["norm=bogus"], "norm is one of batch, "),
        (["bacth_size=4"], "there is no option bacth_size. Did you mean batch_size? See normbench run --help."),
        (["norm.epss=1"], "there is no option norm.epss. Did you mean norm.eps? See normbench run --help."),
        (["norm=batch_renorm", "norm.statistics=evalnorm"], "evalnorm needs a norm that normalises each mini-batch by"),
        (["norm=layer", "norm.statistics=ema"], "this norm has no option norm.statistics; another has."),
        (["model.hiden=[3]"], "there is no option model.hiden. Did you mean model.hidden? See normbench run --help."),
        (["batch_size=abc"], "batch_size must be a whole number, 1 or more: got abc."),
        (["batch_size"], "options are written key=value: got batch_size. See normbench run --help."),
        (["--batch-size", "4"], "options are written key=value: got --batch-size. Did you mean batch_size=...?"),
        (["batch_size=4,32"], "lists several values. To sweep over them: normbench run -m batch_size=4,32"),
        (["dataset=folder", "dataset.path=~/x"], """~/x can't be read. Brackets and quotes go in pairs; other signs"""
         """ need quotes: 'dataset.path="~/x"'"""),
        (["norm=null"], "norm is one of batch, "), (["norm=3"], "got 3."), (["norm=[none,batch]"], "got [none,batch]."),
        (["model=../norm/batch"], "model is one of cnn, "), (["norm@model=batch"], "not added or deleted"),
        (["experiment=null"], "experiment is one of"), (["experiment=demo,compare"], "a command makes one study"),
        (["~instruments.measure"], "not added or deleted"), (["~instruments.measure.batch_noise.when"], "not added"),
        (["+instruments.measure.nonsense={}"], "there is no instrument nonsense"), (["lr={a:1}"], "lr takes one value"),
        (["lr=range(0,1,0)"], "a range must end"), (["-m", "seed=shuffle(range(0,1e9))"], "a range must end"),
        (["-m", "lr=range(0,9000)", "seed=range(0,9)"], "a sweep has at most 20,000 runs: got 81,000."),
        (["study=" + "a" * 300], "study must be a plain folder name"), (["results_dir=" + "a/" + "b" * 300], "folder"),
        (["hydra/sweeper=optuna"], "Install it: pip install 'normbench[optuna]'"),
        (["hydra.output_subdir=x"], "of Hydra's options"), (["hydra/job_logging=default"], "of Hydra's options"),
        (["--experimental-rerun", "x"], "got --experimental-rerun"), (["-cn", "x"], "got -cn"), (["--cfg"], "--cfg"),
        (["seed=${oc.env:NOT_SET}"], "Environment variable 'NOT_SET' not found"), (["lr=tag(a,1)"], "can't be read"),
        (["norm._target_=os.system"], "_target_ belongs in a file"), (["device=meta"], "device must be"),
        (["model.hidden=[{_target_:os.system}]"], "_target_ belongs in a file"),
        (["+instruments.measure.fit._target_=os.system"], "_target_ belongs in a file"),
        (["--config-dir", "broken", "norm=broken"], "expected ',' or ']', but got"),
        (["norm.name='\x1b[31mred'", "norm=nope"], "norm is one of"),
        (["model.hidden=[3"], "model.hidden=[3 can't be read. Brackets and quotes go in pairs"),
        (["dataset=folder"], "dataset=folder needs a folder of images. Type dataset.path=FOLDER"),
        (["dataset=folder", "dataset.path=file"], "file/train (Not a directory). Type dataset.path=FOLDER"),
        ([*TINY, "norm=group", "norm.groups=7"], "norm.groups must divide the features of each normalised layer: got"),
        ([*TINY, "norm=ghost_batch", "norm.virtual=9"], "norm.virtual must be at most the batch of 8: got 9."),
        (["experiment=bogus"], "experiment is one of"),
        (["--config-dir", "nope"], "not found"),
        (["-m", "norm=none,bogus"], "norm is one of batch, "),
        (["-m", "lr=0.1,-1"], "lr must be a positive number: got -1."),
        ([*DATA, "batch_size=100000"], "batch_size must be at most the"),
        ([*DATA, "batch_size=1", "norm=batch"], "BatchNorm needs two values per feature to train: got a batch of 1."),
        ([*DATA, "batch_size=1", "norm=weight_mean_only"], "Mean-only batch norm needs two values per feature"),
        ([*DATA, "-m", "norm=none,batch", "batch_size=8,100000"], "(in norm=none dataset=synthetic"),
        ([*TINY, "results_dir=file/inside"], "can't be written: Not a directory. Choose another"),
        ([*TINY, "-m", "results_dir=file/inside", "seed=0,1"], "can't be written: Not a directory. Choose another"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_or_two_clear_lines(
    words: list[str], message: str, refused: Callable[[list[str], str], None], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken" / "norm").mkdir(parents=True)
    (tmp_path / "broken" / "norm" / "broken.yaml").write_text("a: [1\nb: }{\n")
    refused(["run", *words], message)
    if not any(word.startswith(("-m", "results_dir")) for word in words):  # describe writes nothing, run by run
        refused(["describe", *words], message)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "file"], "nothing is written"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bogus"], "there is no command bogus. See normbench --help."),
        (["status", "--bogus"], "unrecognized arguments: --bogus. See normbench status --help."),
        (["list", "norms"], "argument group: invalid choice: 'norms' (choose from"),
        (["fold"], "the following arguments are required: RUN. See normbench fold --help."),
        (["report", "nowhere"], "nowhere is no folder"),
        (["report"], "there are no studies in results/."),
        (["data", "--from", "x"], "--from needs the name of the data set"),
        (["data", "bogus"], "bogus"),
        (["status", "a" * 300], "no file can have so long a name: aaa"),
        (["describe", "--config-dir", "a" * 300], "no file can have so long a name: aaa"),
        (["demo", "norm=bogus"], "norm is one of batch, "),
        (["demo", "experiment=compare"], "For another one: normbench run experiment=compare"),
    ],
)
def test_other_commands_word_their_errors_too(
    words: list[str], message: str, refused: Callable[[list[str], str], None]
) -> None:
    refused(words, message)


def test_no_network_and_no_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    assert main(["run", "dataset=cifar10"]) == 2
    assert "normbench data cifar10 --from" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_flipped_byte_in_the_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0" * 100)
    assert main(["run", "data_dir=data"]) == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_an_unexpected_error_is_one_line_and_a_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("normbench.commands.list.choices", lambda group: 1 / 0)
    assert main(["list"]) == 1
    error = capsys.readouterr().err
    [path] = re.findall(r"^normbench: ZeroDivisionError: division by zero \(traceback: (\S+)\)\n$", error)
    assert "1 / 0" in Path(path).read_text()
    Path(path).unlink()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_a_single_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", *TINY, "max_steps=20", "norm=batch"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for text in ("batch · mlp · synthetic", "optimizer=adam, lr=0.001, batch_size=8, max_steps=20", "test accuracy",
                 "of synthetic data", "hidden2", "output", "folder: results/scratch/batch-mlp-synthetic"):  # fmt: skip
        assert text in printed
    command = next(line for line in printed.splitlines() if line.startswith("to compare: normbench run -m "))
    other = shlex.split(command.removeprefix("to compare: normbench "))
    assert main(other) == 0  # the command that it names works, and then the two are compared
    capsys.readouterr()
    assert main(words) == 0
    again = capsys.readouterr().out
    assert "This run was finished before" in again
    assert re.search(r"^validation accuracy  \S+%  [▁▂▃▄▅▆▇█]{11}  while training$", again, re.MULTILINE)
    assert re.search(r"^with another scheme  norm=none: \S+%, norm=layer: \S+%$", again, re.MULTILINE)
    assert set(load("results/scratch").runs["norm"]) == {"none", "batch", "layer"}


def test_a_sweep_skips_what_is_finished_marks_what_cannot_run_and_reports(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "-m", *DATA, "max_steps=12", "norm=none,batch", "batch_size=1,8", "study=s", "instruments=none"]
    assert main([*words, "seed=0,1"]) == 0
    printed = capsys.readouterr()
    assert "8 runs in results/s with dataset=synthetic" in printed.out
    assert "8 runs: 6 ran, 2 are unsupported" in printed.out
    reason = "[2/8] 2 runs are unsupported (norm=batch batch_size=1): BatchNorm needs two values per feature"
    assert printed.err.count("BatchNorm needs") == printed.err.count(reason) == 1, "said once"
    assert re.search(r"^          batch size  batch size *\n +1 +8 *\nnone +\S+ ± |^none +", printed.out, re.MULTILINE)
    assert "report: results/s/report/report.html" in printed.out
    runs = load("results/s").runs
    assert runs.groupby(["norm", "batch_size"])["status"].unique().map(list).to_dict() == {
        ("batch", 1): ["unsupported"], ("batch", 8): ["complete"], ("none", 1): ["complete"], ("none", 8): ["complete"]
    }  # fmt: skip
    assert main([*words, "seed=0,1,2"]) == 0
    assert "12 runs: 3 ran, 8 were finished before, 1 is unsupported" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["list"], ["list", "norm"], ["--version"], ["--completion", "bash"]]
)
def test_these_answer_without_heavy_imports(words: list[str]) -> None:
    code = (
        "import sys\nfrom normbench.cli import main\n"
        "try: code = main(sys.argv[1:])\nexcept SystemExit as stop: code = stop.code\n"
        "heavy = {'torch', 'pandas', 'hydra', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"usage: normbench {command}" in capsys.readouterr().out


def test_help_names_every_option_and_the_list_every_choice(capsys: pytest.CaptureFixture[str]) -> None:

    with pytest.raises(SystemExit, match="0"):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for key in top_level():
        assert f"{key}:" in text or f"{key}=" in text, key
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for group in GROUPS:
        for name in choices(group):
            assert f"{group}={name} " in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("normbench ", {"run", "list", "report", "data"}),
        ("normbench run norm=", {"norm=batch", "norm=layer", "norm=none"}),
        ("normbench run norm=batch mod", {"model="}),
        ("normbench run batch_s", {"batch_size="}),
    ],
)
def test_tab_completion(line: str, expected: set[str]) -> None:
    env = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "-m", "normbench", "-sc", "query=bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert expected <= set(done.stdout.split())


def test_the_bash_completion_script_in_bash(tmp_path: Path) -> None:
    shim = tmp_path / "normbench"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m normbench "$@"\n')
    shim.chmod(0o755)
    code = (
        f'PATH="{tmp_path}:$PATH"; eval "$(normbench --completion bash)"; '
        'COMP_LINE="normbench run norm=weight_m"; COMP_POINT=${#COMP_LINE}; _normbench; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["weight_mean_only"], done.stderr
