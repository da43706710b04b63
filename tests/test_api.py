"""normbench as users of Python meet it: what they may ask for, what they see, and that all of theirs is left alone."""

from __future__ import annotations

import doctest
import html
import json
import logging
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import hydra
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra

import normbench
from normbench import api
from normbench.cli import main
from normbench.commands import console
from normbench.plots import figures
from normbench.training import device

pytestmark = pytest.mark.usefixtures("own_folder")
SMALL = ["dataset=synthetic", "dataset.examples=60", "dataset.validation=10", "dataset.size=8", "device=cpu"]
TF32 = {"allow_tf32": True, "fp32_precision": "tf32"}
SMALL += ["batch_size=6", "model.hidden=[4]", "max_steps=3", "instruments=none"]
NAMES = ["Run", "Study", "UserError", "explain", "load", "run", "sweep"]
DATA = {"examples": 60, "validation": 10, "size": 8}
TINY: dict[str, Any] = {"dataset": "synthetic", "device": "cpu", "batch_size": 6, "max_steps": 3, "jobs": 1}
TINY |= {f"dataset.{key}": value for key, value in DATA.items()}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has few figures, which take the longest."""
    kept = ("batch_sizes", "lr_sensitivity", "ribbons")
    monkeypatch.setattr(figures, "FIGURES", [spec for spec in figures.FIGURES if spec.name in kept])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def study(folder: Path) -> normbench.Study:
    options = {"instruments": "quick", "instruments.snapshots": 3, "model.hidden": [[6, 5]], "results_dir": folder}
    return normbench.sweep(TINY, norm=["none", "batch"], batch_size=(4, 6), seed=range(2), study="s", **options)


@pytest.mark.parametrize(("options", "typed"), [
    ({"norm": "batch", "lr": 1e-3, "norm.eps": 1e-05}, "norm=batch lr=0.001 norm.eps=1e-05"),
    ({"save_model": False, "clip_norm": None, "model": {"dropout": 0.1, "hidden": (3, 4)}},
     "save_model=false clip_norm=null model.dropout=0.1 model.hidden=[3,4]"),
    ({"lr": np.float32(0.5), "seed": np.arange(3)[2], "+instruments.measure.units": {}},
     "lr=0.5 seed=2 +instruments.measure.units={}"),
    ({"dataset.path": Path("my, own/images")}, 'dataset.path="my, own/images"'),
    ({"question": 'a,b=1 "c" $d {e} \\'}, 'question="a,b=1 \\"c\\" $d {e} \\\\"'),
    ({"question": "4"}, 'question="4"'),
])  # fmt: skip
def test_values_of_python_are_words_of_the_command_line(options: dict[str, Any], typed: str) -> None:
    assert " ".join(api._typed("", options)) == typed
    assert api._typed(["a=1"], options)[1:] == api._typed(options, {})


def test_lists_are_swept_over_and_lists_of_lists_are_values() -> None:
    options = {"norm": ("none", "rms"), "seed": range(3), "lr": np.logspace(-2, 0, 3), "model.hidden": [[3], [4, 5]]}
    words = ["norm=none,rms", "seed=0,1,2", "lr=0.01,0.1,1", "model.hidden=[3],[4,5]"]
    assert api._typed("", options, swept=True) == words
    assert api._typed("", {"batch_size": 4, "model.hidden": [[3]]}, swept=True) == ["batch_size=4", "model.hidden=[3]"]


def test_importing_takes_no_time_and_two_names_are_functions_also_beside_their_packages() -> None:
    code = """if True:
        import random, sys
        before = random.getstate()
        import normbench
        from normbench import *
        heavy = {"torch", "pandas", "matplotlib", "hydra"} & {*sys.modules}
        import normbench.sweep.plan, normbench.explain
        from normbench.sweep import pool
        assert not heavy, heavy
        normbench.load  # imports rich, which draws a number
        assert random.getstate() == before
        print(*[getattr(normbench, name).__module__ for name in dir() if name in normbench.__all__])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"normbench.{'errors' if name == 'UserError' else 'api'}" for name in NAMES]


@pytest.mark.usefixtures("few")
def test_the_examples_are_true() -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    [tiny] = re.findall(r"`tiny` is ({.*})", api.__doc__ or "")
    found = doctest.testmod(api, optionflags=flags, extraglobs={"tiny": json.loads(tiny)})
    assert found.attempted > 15
    assert not found.failed


def test_one_run_however_it_is_asked_for() -> None:
    words = ["norm=layer", "norm.eps=0.001", *SMALL]
    found = [
        normbench.run(words),
        normbench.run(" ".join(words)),
        normbench.run(SMALL, norm="layer", **{"norm.eps": 1e-3}),
        normbench.run(
            {**TINY, "norm.eps": 1e-3}, norm="layer", batch_size=6, model={"hidden": [4]}, instruments="none"
        ),
    ]
    assert len({run.folder for run in found}) == 1
    summary = found[0].folder / "summary.json"
    before = summary.stat().st_mtime_ns
    normbench.run(words, rerun="diverged")
    assert summary.stat().st_mtime_ns == before, "it was finished"
    normbench.run(words, rerun="all")
    assert summary.stat().st_mtime_ns != before


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Tests in the background of a shell, which ignore SIGINT there, heed it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_writes_a_checkpoint_and_repeating_goes_on() -> None:
    words = [*SMALL, "max_steps=200", "log_every=10"]
    with pytest.raises(KeyboardInterrupt):
        normbench.run(words, on_progress=lambda progress: os.kill(os.getpid(), signal.SIGINT))
    [run] = normbench.load("results/scratch")
    assert run.status == "interrupted"
    assert (run.folder / "checkpoint").exists()
    assert normbench.run(words).status == "complete"


def test_a_study_has_runs_and_shows_what_they_are(study: normbench.Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(study) == len(list(study)) == 8
    assert {type(run) for run in study} == {normbench.Run}
    assert {(run.choices["norm"], run.config["batch_size"], run.seed) for run in study} == {
        (norm, size, seed) for norm in ("none", "batch") for size in (4, 6) for seed in (0, 1)
    }
    assert list(study.runs)[:5] == ["run", "norm", "batch_size", "seed", "status"]
    lines = repr(study).splitlines()
    assert lines[0].endswith("/s: 8 runs: 2 schemes, 2 settings, 2 seeds. 8 complete.")
    assert lines[1] == "norm: none, batch; batch_size: 4, 6; seed: 0, 1"
    means = 100 * study.runs.groupby(["norm", "batch_size"])["test_accuracy"].mean()
    assert lines[-1].split()[0] == "batch"
    assert lines[-1].split()[1] == f"{means['batch', 4]:.1f}"
    assert re.search(rf"<td[^>]*>batch</td><td>{means['batch', 4]:.1f}.*</td></tr>", study._repr_html_())
    [run] = [run for run in study if run.words[:1] == ["norm=none"] and run.seed == 1 and run.config["batch_size"] == 4]
    accuracy = f"{run.summary['test_accuracy']:.2%}"
    assert repr(run).startswith("<Run norm=none ")
    assert repr(run).endswith(f" seed=1: complete, test accuracy {accuracy}>")
    assert accuracy in run._repr_html_()
    assert capsys.readouterr() == ("", ""), "nothing is printed where there is no terminal"


def test_what_instruments_have_measured_by_name(study: normbench.Study) -> None:
    table = study.measured("shift")
    assert list(table)[:4] == ["run", "norm", "batch_size", "seed"]
    assert len(table) == sum(len(run.measured("shift")) for run in study)
    for of in (study, next(iter(study))):
        with pytest.raises(normbench.UserError, match="gradients was not measured: there is activations, "):
            of.measured("gradients")


@pytest.mark.usefixtures("few")
def test_comparisons_are_those_of_the_report(study: normbench.Study) -> None:
    page = study.report()
    assert page.read_text().startswith("<!doctype html>")
    table = pd.read_csv(page.parent / "tables" / "comparisons.csv")
    found = study.compare(reference="none")
    assert found["scheme"].tolist() == ["batch", "batch"]
    assert found["difference"].tolist() == table["difference"].tolist()
    assert found["verdict"].tolist() == table["verdict"].tolist()
    assert study.compare("batch")["difference"].tolist() == [-difference for difference in found["difference"]]
    with pytest.raises(normbench.UserError, match="Take one of: none, batch"):
        study.compare(reference="bogus")


def test_figures_are_of_matplotlib_and_those_of_the_report(study: normbench.Study) -> None:
    figure = study.plot("batch_size")
    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure.caption.startswith("The schemes differ most at batch size ")
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure = study.plot("layers", tensor="linear", layer="hidden2")
    assert figure.get_supylabel() == "linear"
    assert [ax.get_ylabel() for ax in figure.axes] == ["none", "batch"]
    assert [ax.get_title() for ax in figure.axes] == ["hidden2", ""]
    found = study.measured("activations").query(
        "norm == 'batch' and tensor == 'linear' and layer == 'hidden2' and bn_mode == 'probe' and unit != unit"
    )
    ours = figure.axes[1].lines[-1].get_ydata()
    assert any(list(part["p50"]) == list(ours) for _, part in found.groupby("run"))
    for message, words in {
        "a figure is one of batch_sizes, along_option": ("bogus",),
        "tensor is one of linear, activation, normalized: got": ("layers", "bogus"),
        "layer is one of hidden1, hidden2, output: got": ("layers", "", "hidden3"),
        "lr can't be drawn: all runs of a setting have the same": ("lr",),
        "tensor and layer choose": ("forest", "linear"),
    }.items():
        with pytest.raises(normbench.UserError, match=message):
            study.plot(*words)


def test_the_explorer_of_the_page_stands_in_a_frame(study: normbench.Study) -> None:
    page = study.explorer()
    [frame] = re.findall('<iframe sandbox="allow-scripts" [^>]* srcdoc="([^"]*)"></iframe>', page._repr_html_())
    assert html.unescape(frame) == page.html
    assert len(repr(page)) < 200
    [data] = re.findall('id="explorer-data">(.*?)</script>', page.html)
    assert [scheme["name"] for scheme in json.loads(data)["schemes"]] == ["none", "batch"]
    assert len(json.loads(data)["settings"]) == 2
    with pytest.raises(normbench.UserError, match="no run has measured its layers"):
        normbench.Study(normbench.run(SMALL).folder.parent).explorer()


def test_an_explanation_shows_its_calculation() -> None:
    found = normbench.explain(TINY, norm="batch", batch_size=5, model={"hidden": [4]}, layer="hidden1", unit=2)
    mean = next(row for step in found.steps for row in step.rows if row[0] == "mean")
    assert f"{mean[1]:.4f}" in repr(found)
    assert "unit 2 (of 0 to 3); a mini-batch of 5" in repr(found)
    assert found._repr_html_().count("<table>") == len(found.steps)
    assert f"<h4>1. {found.steps[0].title}</h4>" in found._repr_html_()
    assert f"{mean[1]:.4f}" in found._repr_html_()
    with pytest.raises(normbench.UserError, match="layer"):
        normbench.explain(TINY, norm="batch", layer="bogus")


def test_a_run_that_fails_is_in_the_study_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    study = normbench.sweep(TINY, norm=["none", "batch"], batch_size=1, max_steps=10**6, cell_timeout=0.1)
    assert sorted(study.runs["status"]) == ["failed", "unsupported"]
    assert "failed: it took longer than cell_timeout=0.1 seconds" in caplog.text
    assert "1 unsupported" in repr(study)
    assert {"failed", "unsupported"} <= {word.strip(":>") for run in study for word in repr(run).split()}
    (next(iter(study)).folder / "config.yaml").write_text("")
    again = normbench.load(study.folder)
    assert len(again) == len(list(again)) == 1
    assert "1 folder can't be read" in repr(again)


def test_a_script_that_sweeps_does_not_begin_again_in_its_processes(tmp_path: Path, monkeypatch: Any) -> None:
    script, main_module = tmp_path / "script.py", ModuleType("__main__")
    script.write_text("import pathlib; pathlib.Path('begun').touch()")
    main_module.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main_module)
    assert len(normbench.sweep(TINY, seed=[5, 6], instruments="none")) == 2
    assert not (tmp_path / "begun").exists()
    assert sys.modules["__main__"] is main_module


@pytest.mark.usefixtures("few")
def test_what_is_the_callers_is_left_alone(tmp_path: Path, study: normbench.Study) -> None:
    def state() -> dict[str, Any]:
        logs = [logging.getLogger(name) for name in ("", "normbench", "matplotlib", "hydra")]
        return {
            "numbers": (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()),  # noqa: NPY002
            "threads": (torch.get_num_threads(), threading.active_count()),
            "torch": [value for *_, value in device._settings()],
            "matplotlib": (matplotlib.get_backend(), dict(matplotlib.rcParams)),
            "logs": [(log.level, list(log.handlers), log.propagate, log.disabled) for log in logs],
            "hydra": (GlobalHydra.instance().hydra, hydra.compose("config")),
            "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
            "environment": dict(os.environ),
        }

    (tmp_path / "config.yaml").write_text("theirs: 1\n")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    torch.set_num_threads(2)
    matplotlib.use("svg")
    try:
        with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"), matplotlib.rc_context({"font.size": 33}):
            before = state()
            normbench.sweep(TINY, seed=[7, 8], model={"dropout": 0.5}, instruments="none", threads=1)
            normbench.explain(TINY, norm="batch")
            for name in ("batch_size", "layers"):
                study.plot(name)._repr_png_()
            study.report(), repr(study), study.explorer(), study.compare()
            assert state() == before
    finally:
        del os.environ["MPLBACKEND"]
        torch.set_num_threads(1)


def test_sweeps_in_two_threads_come_one_after_the_other() -> None:
    def sweep(norm: str) -> normbench.Study:
        return normbench.sweep(TINY, norm=norm, seed=[0, 1], study=norm, instruments="none")

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(sweep, ("none", "batch")))
    assert [study.runs["norm"].tolist() for study in found] == [["none"] * 2, ["batch"] * 2]


def test_bars_in_a_notebook_are_one_output_that_is_empty_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, shown = ModuleType("IPython.display"), Mock()
    notebook.display = shown  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setattr(console, "err", console.SafeConsole(stderr=True, force_jupyter=True))
    monkeypatch.setattr(console, "SECONDS_BETWEEN_BARS", 0.0)
    seen: list[str] = []

    def update(what: Any, raw: bool = False) -> None:
        seen.append(str(what if raw else what._repr_mimebundle_([], [])["text/plain"]))

    shown.return_value.update = update
    normbench.sweep(TINY, seed=[0, 1], instruments="none")
    assert shown.call_count == 1
    assert "runs" in seen[0]
    assert "0/2" in seen[0]
    assert seen[-1] == "{'text/plain': ''}"


def test_a_run_leaves_the_callers_random_numbers_threads_and_precision_alone() -> None:
    def values() -> list[Any]:
        return [value for _, _, value in device._settings()]

    def draws() -> list[float]:
        return [torch.rand(1).item(), random.random(), float(np.random.rand())]  # noqa: NPY002

    threads, settings = torch.get_num_threads(), device._settings()
    torch.set_num_threads(2)
    torch.backends.cudnn.benchmark = True
    device._set((module, key, TF32[key]) for module, key, _ in settings if key in TF32)
    theirs = values()
    try:
        expected = []
        for train in (False, True):
            torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
            before = draws()
            if train:
                normbench.run([*SMALL, "threads=1"])
            expected.append(before + draws())
        assert expected[0] == expected[1]
        assert torch.get_num_threads() == 2
        assert values() == theirs
        device.calculate_exactly()
        assert values() == [device.EXACT[key] for _, key, _ in settings]
        assert not torch.backends.cudnn.allow_tf32  # torch's own code may ask by the older name
    finally:
        torch.set_num_threads(threads)
        device._set(settings)


def test_runs_in_two_threads_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    words = [[*SMALL, f"norm={norm}", "model.dropout=0.5"] for norm in ("none", "batch", "layer", "weight")]
    alone = [normbench.run([*of_one, "results_dir=alone"]).summary["test_loss"] for of_one in words]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda of_one: normbench.run([*of_one, "results_dir=together"]).summary, words))
    assert [summary["test_loss"] for summary in found] == alone


def test_it_works_inside_anothers_hydra_application(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("theirs: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert normbench.run([*SMALL, "seed=4"]).config["seed"] == 4
        assert hydra.compose("config") == {"theirs": 1}


def test_what_is_wrong_is_an_error_of_ours() -> None:
    for words in (["norm=bogus"], ["lr=["], ["batch_size=1"], ["dataset.path=x"], ["lr=0.1,1"], ["--bogus"], ["=="]):
        with pytest.raises(normbench.UserError):
            normbench.run([*SMALL, *words])
    for train in (normbench.run, normbench.sweep, normbench.explain):
        for options in ({"norm": "bogus"}, {"lr": object()}, {"seed": {1, 2}}, {"bogus": 1}):
            with pytest.raises(normbench.UserError):
                train(SMALL, **options)
        for words, message in (("--cfg job", "--cfg prints a configuration"), ("norm='batch", "quotes go in pairs")):
            with pytest.raises(normbench.UserError, match=message):
                train(words)
    with pytest.raises(normbench.UserError, match="there is nothing to sweep over: got seed=\\[\\]"):
        normbench.sweep(SMALL, seed=[])
    with pytest.raises(normbench.UserError, match="holds no runs"):
        normbench.load("nowhere")
    folder = normbench.run(SMALL).folder
    (folder / "summary.json").unlink()
    with FileLock(folder / ".lock"), pytest.raises(normbench.UserError, match="is being written by another process"):
        normbench.run(SMALL)


def test_an_expression_is_recorded_with_what_it_came_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for task in ("1", "2"):
        monkeypatch.setenv("TASK", task)
        found.append(normbench.run([*SMALL, "seed=${oc.env:TASK}", "norm=${oc.env:NORM,none}"]))
    assert [run.config["seed"] for run in found] == [1, 2]
    record = yaml.safe_load((found[1].folder / "config.yaml").read_text())
    assert record["written"] == {"seed": "${oc.env:TASK}"}
    assert record["choices"]["norm"] == "none"
    monkeypatch.delenv("TASK")
    assert normbench.run(shlex.split(record["command"])[2:]).folder == found[1].folder
    assert main(shlex.split(record["command"])[1:]) == 0
