"""Every command that an output shows can be pasted into a shell, whatever is in its values."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from normbench import load
from normbench.analysis import reproduce
from normbench.cli import main


def commands(text: str) -> list[str]:
    """Those without a placeholder for the reader, such as RUN."""
    found = re.findall(r"normbench (?:run|evaluate|fold|plan|report|explain|data)\b[^\n`]*", text)
    return [one for one in dict.fromkeys(found) if not re.search(r"\b(?:RUN|PATH|DIR|KEY|VALUE|--help)\b", one)]


def test_commands_that_are_shown_can_be_pasted(
    own_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normbench.commands.run._report", lambda run_config, code: code)
    images = own_folder / 'a, b\'s {c} "e" [f=g]'
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for name in ("x", "y"):
            (images / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(images / part / name / f"{index}.png")
    escaped = str(images).replace('"', '\\"')
    words = ["dataset=folder", f'dataset.path="{escaped}"', "dataset.validation=4", "batch_size=4", "max_steps=2"]
    words += ["device=cpu", "model.hidden=[4,4]", "instruments=quick", "~instruments.measure.units"]
    words += ["results_dir='my, results'"]
    assert main(["run", *words, "+instruments.measure.fit={}", "study=s"]) == 0
    [run] = load("my, results/s")
    assert run.config["dataset"]["path"] == str(images)
    assert "units" not in run.config["instruments"]["measure"]
    shown = [capsys.readouterr().out, yaml.safe_load((run.folder / "config.yaml").read_text())["command"]]
    assert main(["run", *words, "lr=0.1,0.2"]) == 2
    shown.append(capsys.readouterr().err)
    assert main(["evaluate", str(run.folder), "dataset.scale=unit"]) == 0  # composed of the run's words
    shown.append(reproduce.command(run))  # what reports show
    pasted = list(dict.fromkeys(command for text in shown for command in commands(text)))
    assert len(pasted) >= 3, pasted
    for command in pasted:
        assert main(shlex.split(command.removesuffix("."))[1:]) == 0, command
    names = {run.name for study in own_folder.glob("*results/*") for run in load(study)}
    assert len(names) == 5, json.dumps(sorted(names), indent=1)  # of three schemes, and of three learning rates
