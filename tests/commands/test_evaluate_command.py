"""`normbench evaluate`: its numbers against a plain computation, what it refuses, and that it changes nothing; with
corrupted test images, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import normbench
from normbench.cli import main
from normbench.commands.trained import load_trained
from normbench.data import Corrupted
from normbench.norms import exact_statistics, load_statistics, use_batch_statistics
from normbench.runs import Run

TINY = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "dataset.size=8", "device=cpu"]
TINY += ["batch_size=8", "max_steps=30", "instruments=none"]
pytestmark = pytest.mark.usefixtures("own_folder")


def run(*words: str) -> Path:
    return normbench.run([*TINY, *words, *([] if "model=cnn" in words else ["model.hidden=[12,10]"])]).folder


def files(folder: Path) -> dict[Path, Any]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_numbers_are_those_of_a_plain_computation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = run("norm=batch")
    before = files(tmp_path)
    found = said(capsys, folder, "batch_size=1,7")
    assert files(tmp_path) == before
    trained = load_trained(folder)
    model, test, train = trained.model, trained.dataset.test, trained.dataset.train
    images, labels = test.batch(torch.arange(len(test)))
    every = train.batch(torch.arange(len(train)))[0]
    rows = {(e["statistics"], e["batch_size"]): e for e in found["evaluations"]}
    kinds = ("ema", "averages", "precise")
    assert list(rows) == [(kind, n) for kind in (*kinds, "batch") for n in (1, 7) if (kind, n) != ("batch", 1)]
    assert found["training_images"] == found["exact_images"] == len(train) == 500
    summary = normbench.load(folder.parent).all_columns.iloc[0]
    for n in (1, 7):
        assert rows["ema", n]["accuracy"] == pytest.approx(summary.test_accuracy)
        assert rows["ema", n]["loss"] == pytest.approx(summary.test_loss, rel=1e-5)
    exact = exact_statistics(model, every.double().float())
    load_statistics(model, exact)
    with torch.no_grad():
        logits = model(images)
        assert rows["precise", 1]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
        assert rows["precise", 7]["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
        use_batch_statistics(model)
        whole = len(test) // 7 * 7
        logits = torch.cat([model(part) for part in images[:whole].split(7)])
    assert rows["batch", 7]["images"] == whole < len(test)
    assert rows["batch", 7]["loss"] == pytest.approx(F.cross_entropy(logits, labels[:whole]).item(), rel=1e-4)
    errors = {(e["norm"], e["statistics"]): e for e in found["errors"]}
    assert list(errors) == [(f"hidden{i}.norm", kind) for i in (1, 2) for kind in kinds]
    state = torch.load(folder / "model.pt")
    inputs = every.double().flatten(1) @ state["hidden1.linear.weight"].double().T
    mean, var = inputs.mean(0), inputs.var(0, correction=0)
    off = ((state["hidden1.norm.running_mean"] - mean) / (var + 1e-5).sqrt()).square().mean().sqrt().item()
    ratio = ((state["hidden1.norm.running_var"] + 1e-5) / (var + 1e-5)).mean().item()
    assert errors["hidden1.norm", "ema"]["mean_error"] == pytest.approx(off, rel=1e-4)
    assert errors["hidden1.norm", "ema"]["var_ratio"] == pytest.approx(ratio, rel=1e-4)
    for norm in ("hidden1.norm", "hidden2.norm"):
        assert errors[norm, "precise"]["mean_error"] < 1e-5
        assert errors[norm, "precise"]["var_ratio"] == pytest.approx(1, abs=1e-5)
    first, second = (errors[f"hidden{i}.norm", "averages"] for i in (1, 2))
    assert abs(first["var_ratio"] - 1) < 4 * first["noise"]
    assert second["var_ratio"] - 1 > 4 * second["noise"]  # biased: m/(m-1) is 1.14
    assert first["noise"] < 0.05


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("norm=batch")
    capsys.readouterr()
    assert main(["evaluate", "norm.statistics=precise,averages", "batch_size=1", str(folder), "images=80"]) == 0
    printed = capsys.readouterr().out
    for words in (
        folder.name,
        "precise",
        "averages",
        "accuracy %",
        "80 training images",
        "biased behind the first norm",
    ):
        assert words in printed
    assert "without" not in printed
    assert main(["evaluate", str(folder), "batch_size=1"]) == 0
    assert "without batch: it needs two values per unit" in capsys.readouterr().out


@pytest.mark.parametrize("norm", ["layer", "none", "weight"])
def test_a_scheme_without_statistics_is_evaluated_and_says_so(norm: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(f"norm={norm}")
    found = said(capsys, folder, "batch_size=1")
    [only] = found["evaluations"]
    assert (only["statistics"], found["errors"]) == ("none", [])
    summary = normbench.load(folder.parent).all_columns.iloc[0]
    assert only["accuracy"] == pytest.approx(summary.test_accuracy)
    assert f"norm={norm} keeps no statistics of batches" in found["not_possible"]["precise"]


def test_the_other_networks(capsys: pytest.CaptureFixture[str]) -> None:
    """Convolutions have many values of one image; a norm of the mean alone has no variance."""
    cnn = said(capsys, run("norm=batch", "model=cnn", "model.channels=[3,4]"), "batch_size=1")
    assert [e["statistics"] for e in cnn["evaluations"]] == ["ema", "averages", "precise", "batch"]
    mean_only = said(capsys, run("norm=weight_mean_only"))
    assert {e["var_ratio"] for e in mean_only["errors"]} == {None}


def test_another_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("norm=batch")
    same = said(capsys, folder, "dataset.label_noise=0.0", "norm.statistics=ema")
    assert same["evaluations"] == said(capsys, folder, "norm.statistics=ema")["evaluations"]
    unit = said(capsys, folder, "dataset=synthetic", "dataset.examples=700", "dataset.size=8", "norm.statistics=ema")
    assert unit["evaluations"] != same["evaluations"]


def test_bad_input(
    capsys: pytest.CaptureFixture[str], refused: Callable[[list[str], str], None], tmp_path: Path
) -> None:
    folder, layer = run("norm=batch"), run("norm=layer")
    unfinished = tmp_path / "results" / "scratch" / "unfinished"
    shutil.copytree(folder, unfinished)
    (unfinished / "summary.json").unlink()
    of = str(folder)
    capsys.readouterr()
    for words, message in [
        ([], "evaluate needs one run, results/<study>/<run>: got none."),
        (["nowhere"], "a run's folder is needed, results/<study>/<run>: nowhere is no folder."),
        ([str(unfinished)], "a run must be complete to have trained weights"),
        ([of, "norm.statistics=bogus"], "norm.statistics is one of ema, averages, precise, batch: got b"),
        ([of, "norm.statistics=batch", "batch_size=1"], "needs two values per unit: got a batch of 1."),
        ([str(layer), "norm.statistics=precise"], "norm=layer keeps no statistics of batches."),
        ([of, "batch_size=0"], "batch_size must be a whole number from 1 to"),
        ([of, "batch_size=x"], "batch_size must be a whole number from 1 to"),
        ([of, "images=7"], "images must be a whole number from 8 to 500, the training images: got 7."),
        ([of, "lr=3"], "the network is the run's: only norm.statistics, batch_size,"),
        ([of, "dataset.size=9"], "of the shape that the run was trained on, 1 x 8 x 8 in 10 classes: got s"),
        ([of, "dataset=bogus"], "dataset is one of cifar10, "),
        ([of, "dataset.sise=9"], "there is no option dataset.sise."),
        ([of, "corruption=fog"], "must be one of contrast, brightness, noise, blur, rotate, invert: got fog."),
        ([of, "corruption="], "must be one of contrast, brightness, noise, blur, rotate, invert: got ."),
        ([of, "corruption=noise", "corruption.severity=6"], "must be a whole number, 1 to 5: got 6."),
        ([of, "corruption=noise", "corruption.severity=high"], "1 to 5: got high."),
        ([of, "corruption=noise", "corruption.images=1"], "corruption.images must be a whole number from 2 to"),
        ([of, "corruption.severity=3"], "give corruption=noise, or another, too."),
        ([of, "corruption=noise", "norm.statistics=precise"], "norm.statistics and corruption can't be given together"),
        ([of, "--bogus"], "unrecognized arguments: --bogus. See normbench evaluate --help."),
    ]:  # fmt: skip
        refused(["evaluate", *words], message)


@pytest.mark.parametrize("kind", ["averages", "precise", "batch"])
def test_a_run_with_another_kind_has_the_same_weights(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain, other = (
        run("norm=batch", "model.dropout=0.2"),
        run("norm=batch", "model.dropout=0.2", f"norm.statistics={kind}"),
    )
    assert plain != other
    weights, same = (torch.load(folder / "model.pt") for folder in (plain, other))
    assert weights.keys() == same.keys()
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    runs = normbench.load(plain.parent).all_columns.set_index("run")
    told = said(capsys, plain, f"norm.statistics={kind}")["evaluations"][0]
    assert runs.loc[other.name].test_loss == pytest.approx(told["loss"], rel=1e-5)
    assert runs.loc[plain.name].test_loss != pytest.approx(told["loss"], rel=1e-3)
    if kind == "precise":  # what fold and explain work with
        trained, images = load_trained(plain), load_trained(plain).dataset.train.batch(torch.arange(500))[0]
        wanted = exact_statistics(trained.model, images)["hidden2.norm"].mean.float()
        torch.testing.assert_close(load_trained(other).model.hidden2.norm.running_mean, wanted, rtol=1e-4, atol=1e-5)
        assert main(["fold", str(other)]) == 0


def test_numbers_on_corrupted_images_are_those_of_the_test_set(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(
        "norm=batch", "instruments=quick", "instruments.measure={shift:{_target_:normbench.instruments.Shift}}"
    )
    found = said(capsys, folder, "corruption=noise,invert", "corruption.severity=2,5", "corruption.images=20")
    trained = load_trained(folder)
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
    assert found["internal_shift"] == Run(folder).summary["measured"]["shift"]
    assert found["internal_shift"]["hidden2"] > 0
    shifts = {(r["corruption"], r["severity"], r["images"], r["layer"]): r for r in found["train_test_shift"]}
    assert {layer for *_, layer in shifts} == {"hidden1", "hidden2", "output"}
    moved = [shifts[name, severity, None, "hidden2"]["w1_scaled_mean"] for name, severity in wanted[:3]]
    assert moved[0] < moved[1] < moved[2]


def test_the_two_shifts_are_told_apart_in_print(capsys: pytest.CaptureFixture[str]) -> None:
    layer = run("norm=layer")
    capsys.readouterr()
    assert main(["evaluate", str(layer), "corruption=blur"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "nothing re-estimated" in printed
    assert "train-test: blur 5" in printed
    assert "internal covariate shift, over training: not measured; the instrument shift supplies it" in printed


def test_exact_statistics_say_of_how_many_images_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run("norm=batch")
    monkeypatch.setattr("normbench.training.evaluation.images_in_one_pass", lambda model, image: 200)
    found = said(capsys, folder)
    assert (found["training_images"], found["exact_images"]) == (500, 200)
    assert main(["evaluate", str(folder)]) == 0
    assert "against those of 200 training images in float64" in capsys.readouterr().out
