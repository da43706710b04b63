"""`normbench evaluate RUN corruption=...`: the test set, beside what training moved; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import normbench
from normbench.cli import main
from normbench.commands.trained import load_trained
from normbench.data import Corrupted

TINY = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "dataset.size=8", "device=cpu"]
TINY += ["batch_size=8", "max_steps=30", "model.hidden=[12,10]"]
pytestmark = pytest.mark.usefixtures("own_folder")


def run(*words: str) -> normbench.Run:
    return normbench.run([*TINY, *words])


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_numbers_are_those_of_the_test_set(capsys: pytest.CaptureFixture[str]) -> None:
    made = run("norm=batch", "instruments.measure={shift:{_target_:normbench.instruments.Shift}}")
    found = said(capsys, made.folder, "corruption=noise,invert", "corruption.severity=2,5", "corruption.images=20")
    trained = load_trained(made.folder)
    test = trained.dataset.test
    assert found["test_images"] == len(test) - 20
    rows = {(e["corruption"], e["severity"], e["images"]): e for e in found["evaluations"]}
    wanted = [("none", 0), ("noise", 2), ("noise", 5), ("invert", 2), ("invert", 5)]
    assert list(rows) == [(*condition, n) for condition in wanted for n in (None, 20)]
    for name, severity in wanted:
        images, labels = Corrupted(test, name, severity).batch(torch.arange(len(test) - 20))
        with torch.no_grad():
            right = trained.model(images).argmax(1) == labels
        assert rows[name, severity, None]["accuracy"] == pytest.approx(right.float().mean().item())
    assert rows["invert", 5, 20]["statistics"] == "re-estimated"
    assert rows["invert", 5, 20]["loss"] != rows["invert", 5, None]["loss"]
    assert found["internal_shift"] == made.summary["measured"]["shift"]
    assert found["internal_shift"]["hidden2"] > 0
    shifts = {(r["corruption"], r["severity"], r["images"], r["layer"]): r for r in found["train_test_shift"]}
    assert {layer for *_, layer in shifts} == {"hidden1", "hidden2", "output"}
    moved = [shifts[name, severity, None, "hidden2"]["w1_scaled_mean"] for name, severity in wanted[:3]]
    assert moved[0] < moved[1] < moved[2]


def test_the_two_shifts_are_told_apart_in_print(capsys: pytest.CaptureFixture[str]) -> None:
    layer = run("norm=layer", "instruments=none").folder
    capsys.readouterr()
    assert main(["evaluate", str(layer), "corruption=blur"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "nothing re-estimated" in printed
    assert "train-test: blur 5" in printed
    assert "internal covariate shift, over training: not measured; the instrument shift supplies it" in printed


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    of = str(run("norm=batch", "instruments=none").folder)
    for words, message in [
        (["corruption=fog"], "corruption must be contrast, brightness, noise, blur, rotate or invert: got fog."),
        (["corruption="], "corruption must be contrast, brightness, noise, blur, rotate or invert: got ."),
        (["corruption=noise", "corruption.severity=6"], "corruption.severity must be a whole number, 1 to 5: got 6."),
        (["corruption=noise", "corruption.severity=high"], "1 to 5: got high."),
        (["corruption=noise", "corruption.images=1"], "corruption.images must be a whole number from 2 to"),
        (["corruption.severity=3"], "give corruption=noise, or another, too."),
        (["corruption=noise", "norm.statistics=precise"], "norm.statistics and corruption can't be given together"),
    ]:
        capsys.readouterr()
        assert main(["evaluate", of, *words]) == 2, words
        printed = capsys.readouterr()
        assert printed.out == ""
        assert message in printed.err, words
        assert len(printed.err.strip().splitlines()) == 1
