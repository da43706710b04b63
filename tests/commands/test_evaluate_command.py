"""`normbench evaluate`: its numbers against a plain computation, what it refuses, and that it changes nothing; with
corrupted test images, too."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import normbench
from normbench.cli import main
from normbench.commands.trained import load_trained
from normbench.data import Corrupted
from normbench.errors import Stopped, UserError
from normbench.experiment import compose, execute
from normbench.norms import exact_statistics, load_statistics, use_batch_statistics
from normbench.runs import Run
from normbench.training.evaluation import calibration_error

TINY = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "dataset.size=8", "device=cpu"]
TINY += ["batch_size=8", "max_steps=30", "instruments=none", "evaluations=1"]
pytestmark = pytest.mark.usefixtures("own_folder")
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """`run("norm=batch")`: the folder of that run, trained once for all tests here."""
    results = tmp_path_factory.mktemp("results")

    def train(*words: str) -> Path:
        small = [] if "model=cnn" in words else ["model.hidden=[12,10]"]
        return normbench.run([*TINY, *words, *small, f"results_dir={results}"]).folder

    return train


def files(folder: Path) -> dict[Path, Any]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    capsys.readouterr()
    assert main(["evaluate", *map(str, words)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_numbers_are_those_of_a_plain_computation(capsys: pytest.CaptureFixture[str], run: Train) -> None:
    folder = run("norm=batch")
    before = files(folder)
    found = said(capsys, folder, "batch_size=1,7")
    assert files(folder) == before
    trained = load_trained(folder)
    model, test, train = trained.model, trained.dataset.test, trained.dataset.train
    images, labels = test.batch(torch.arange(len(test)))
    every = train.batch(torch.arange(len(train)))[0]
    rows = {(e["statistics"], e["batch_size"]): e for e in found["evaluations"]}
    kinds = ("ema", "averages", "precise")
    assert list(rows) == [
        (kind, n) for kind in (*kinds, "evalnorm", "batch") for n in (1, 7) if (kind, n) != ("batch", 1)
    ]
    assert found["training_images"] == found["exact_images"] == len(train) == 500
    summary = Run(folder).summary
    for n in (1, 7):
        assert rows["ema", n]["accuracy"] == pytest.approx(summary["test_accuracy"])
        assert rows["ema", n]["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
    exact = exact_statistics(model, every.double().float())
    load_statistics(model, exact)
    with torch.no_grad():
        logits = model(images)
        assert rows["precise", 1]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
        assert rows["precise", 7]["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
        assert rows["precise", 1]["ece"] == pytest.approx(calibration_error(logits, labels), abs=1e-4)
        use_batch_statistics(model)
        parts = [*images[:140].split(7), images[140:]]  # 150 images are 20 batches of 7 and one of 10
        logits = torch.cat([model(part) for part in parts])
    assert rows["batch", 7]["images"] == len(test) == 150, "all of them"
    assert rows["batch", 7]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
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


def test_the_calibration_error_is_that_of_guo_et_al() -> None:
    def error(*images: tuple[float, bool]) -> float:
        """Of images with this confidence in class 0 of three, by whether that is their label."""
        p = torch.tensor([[confidence, *2 * [(1 - confidence) / 2]] for confidence, _ in images], dtype=torch.float64)
        return calibration_error(p.log() + 7, torch.tensor([0 if right else 1 for _, right in images]))

    nine, six = [(0.9, i < 7) for i in range(10)], [(0.61, i < 8) for i in range(10)]
    assert error(*nine) == pytest.approx(0.9 - 0.7)
    assert error(*nine, *six) == pytest.approx((2 + 1.9) / 20), "bins apart: both count"
    assert error((0.61, True), (0.65, False)) == pytest.approx((0.61 + 0.65 - 1) / 2), (
        "one bin, 0.6 to 0.667: they cancel"
    )
    assert error((0.66, True), (0.67, False)) == pytest.approx((0.34 + 0.67) / 2), "two bins"
    assert error(*[(0.8, i < 4) for i in range(5)]) == pytest.approx(0)
    assert error((1.0, True)) == 0
    assert math.isnan(calibration_error(torch.tensor([[math.nan, 0.0], [1.0, 0.0]]), torch.tensor([0, 0])))


def test_what_is_printed(capsys: pytest.CaptureFixture[str], run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run("norm=batch")
    text = printed(capsys, "norm.statistics=precise,averages", "batch_size=1", folder, "images=80")
    for words in (
        folder.name,
        "precise",
        "accuracy %",
        "ECE %",
        "of 80 training images",
        "biased behind the first norm",
    ):
        assert words in text
    assert "without" not in text
    monkeypatch.setattr("normbench.training.evaluation.images_in_one_pass", lambda model, image: 200)
    text = printed(capsys, folder, "batch_size=1")
    assert "without batch: it needs two values per unit" in text
    assert "against those of 200 training images in float64" in text, "fewer, where not all go through at once"


def test_other_schemes_and_networks(capsys: pytest.CaptureFixture[str], run: Train) -> None:
    layer = run("norm=layer")
    found = said(capsys, layer, "batch_size=1")
    [only] = found["evaluations"]
    assert (only["statistics"], found["errors"]) == ("none", [])
    assert only["accuracy"] == pytest.approx(Run(layer).summary["test_accuracy"])
    assert "norm=layer keeps no statistics of batches" in found["not_possible"]["precise"]
    cnn = said(capsys, run("norm=batch", "model=cnn", "model.channels=[3,4]", "max_steps=5"), "batch_size=1")
    kinds = [e["statistics"] for e in cnn["evaluations"]]
    assert kinds == ["ema", "averages", "precise", "evalnorm", "batch"], "a convolution has many values of one image"
    renorm = said(capsys, run("norm=batch_renorm", "max_steps=5"), "batch_size=2")["not_possible"]
    assert renorm == {"evalnorm": "norm=batch_renorm does not train with the statistics of each mini-batch alone."}
    mean_only = said(capsys, run("norm=weight_mean_only", "max_steps=5"))
    assert {e["var_ratio"] for e in mean_only["errors"]} == {None}, "a norm of the mean alone has no variance"


def test_only_what_is_named_changes(capsys: pytest.CaptureFixture[str], run: Train) -> None:
    folder = run("norm=batch")
    [whole] = said(capsys, folder, "norm.statistics=ema")["evaluations"]

    def evaluated(*words: str) -> dict[str, Any]:
        return said(capsys, folder, "norm.statistics=ema", *words)["evaluations"][0]

    assert evaluated("dataset.label_noise=0.0") == evaluated("dataset.validation=200") == whole
    assert evaluated("dataset=synthetic", "dataset.examples=600", "dataset.size=8", "dataset.validation=60") == whole
    assert evaluated("dataset=synthetic", "dataset.examples=700", "dataset.size=8") != whole
    assert evaluated("dataset.scale=unit")["loss"] != whole["loss"]


def test_the_training_images_are_those_that_the_run_drew(capsys: pytest.CaptureFixture[str], run: Train) -> None:
    """Its seed is in its config.yaml: the subset, by which test images are standardised, and the wrong labels."""
    words = ["norm=batch", "dataset.train_fraction=0.3", "dataset.label_noise=0.2", "norm.statistics=averages"]
    folder, other = (run(*words, f"seed={seed}") for seed in (3, 4))
    [found] = said(capsys, folder, "norm.statistics=averages")["evaluations"]
    assert found["loss"] == pytest.approx(Run(folder).summary["test_loss"], rel=1e-6)
    one, two = (load_trained(each).dataset for each in (folder, other))
    assert sorted(one.train.index) != sorted(two.train.index)
    assert one.test.shift != two.test.shift
    wrong = [data.train.labels != load_trained(run("norm=batch")).dataset.train.labels for data in (one, two)]
    assert [each.sum() for each in wrong] == [30, 30]
    assert not torch.equal(*wrong)


def image_tree(root: Path, images: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...]) -> list[str]:
    """Files of these grey images, each class half for training; the words that name them as a data set."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / ("train", "test")[i % 2] / classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    return ["dataset=folder", f"dataset.path={root}"]


@pytest.mark.parametrize("whiten", ["none", "zca"])
def test_another_data_set_is_standardised_by_the_runs_own(
    capsys: pytest.CaptureFixture[str], run: Train, tmp_path: Path, whiten: str
) -> None:
    """Darker images are darker for the network, too: their own mean and deviation would hide it."""
    folder = run("norm=batch", f"dataset.whiten={whiten}", f"data_dir={tmp_path}")
    trained = load_trained(folder)
    test = trained.dataset.test
    dark = (test.images.float() * 0.3).to(torch.uint8)
    words = image_tree(tmp_path / "dark", dark, test.labels, trained.dataset.classes)
    [found] = said(capsys, folder, *words, "norm.statistics=ema")["evaluations"]
    half = slice(1, None, 2)
    with torch.no_grad():
        loss = F.cross_entropy(trained.model(test.scaled(dark[half])), test.labels[half]).item()
    assert found["images"] == len(dark) // 2
    assert found["loss"] == pytest.approx(loss, rel=1e-4)


def test_other_classes_are_refused(
    refused: Callable[[list[str], str], None], capsys: pytest.CaptureFixture[str], run: Train, tmp_path: Path
) -> None:
    folder = run("norm=batch")
    assert Run(folder).record["classes"] == [f"pattern {k}" for k in range(10)]
    test = load_trained(folder).dataset.test
    others = tuple(f"digit {k}" for k in range(10))
    words = image_tree(tmp_path / "digits", test.images, test.labels, others)
    capsys.readouterr()
    message = "must have the classes that the run was trained on: in folder, pattern 0 is digit 0, "
    refused(["evaluate", str(folder), *words], message)


def test_images_that_change_behind_a_run_are_noticed(
    refused: Callable[[list[str], str], None], capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (120, 1, 8, 8), dtype=np.uint8))
    image_tree(tmp_path / "mine", images, torch.arange(120) // 2 % 3, ("a", "b", "c"))
    words = ["dataset=folder", "dataset.path=mine", "dataset.validation=12", "model.hidden=[6]", "max_steps=3",
             "batch_size=8", "evaluations=1", "instruments=none", "device=cpu"]  # fmt: skip
    folder, interrupted = normbench.run([*words, "norm=batch"]).folder, compose([*words, "norm=none"])
    with pytest.raises(Stopped):
        execute(interrupted, stop=lambda: True)
    seen = [Run(one).record["data_checksum"] for one in (folder, interrupted.folder)]
    assert Run(folder).config["dataset"]["path"] == str(tmp_path / "mine")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert normbench.run([*words, "norm=batch", "dataset.path=../mine", f"results_dir={tmp_path / 'results'}"]).folder \
        == folder, "a relative path is where it leads, not how it is written"  # fmt: skip
    monkeypatch.chdir(tmp_path)
    changed = next((tmp_path / "mine/train/a").iterdir())
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(changed)
    capsys.readouterr()
    for command in (["run"], ["run", "-m"], ["plan", "-m"]):
        refused([*command, *words, "norm=batch"], f"the images have changed since {folder.name} was trained")
    for command in (["evaluate", str(folder)], ["fold", str(folder)], ["explain", "--run", str(folder)]):
        refused(command, f"the images have changed since {folder.name} was trained")
    with pytest.raises(UserError, match="the images have changed since"):
        normbench.run([*words, "norm=batch"])
    execute(interrupted)
    assert "checkpoint is of other data" in caplog.text
    assert seen[0] == seen[1] != Run(interrupted.folder).record["data_checksum"], "it has started over"
    shutil.rmtree(tmp_path / "mine")
    assert main(["run", *words, "norm=batch"]) == 0, "a run that is over needs no images"


def test_bad_input(refused: Callable[[list[str], str], None], capsys: pytest.CaptureFixture[str], run: Train) -> None:
    folder, layer = run("norm=batch"), run("norm=layer")
    unfinished = folder.parent / "unfinished"
    shutil.copytree(folder, unfinished)
    (unfinished / "summary.json").unlink()
    of = str(folder)
    capsys.readouterr()
    for words, message in [
        ([], "evaluate needs one run, results/<study>/<run>: got none."),
        (["nowhere"], "a run's folder is needed, results/<study>/<run>: nowhere is no folder."),
        ([str(unfinished)], "a run must be complete to have trained weights"),
        ([of, "norm.statistics=bogus"], "norm.statistics is one of ema, averages, precise, evalnorm, batch: got b"),
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


@pytest.mark.parametrize("kind", ["precise", "evalnorm", "batch"])
def test_a_run_with_another_kind_has_the_same_weights(
    kind: str, capsys: pytest.CaptureFixture[str], run: Train
) -> None:
    plain = run("norm=batch", "model.dropout=0.2")
    other = run("norm=batch", "model.dropout=0.2", f"norm.statistics={kind}")
    assert plain != other
    weights, same = (torch.load(folder / "model.pt") for folder in (plain, other))
    assert weights.keys() == same.keys()
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    told = said(capsys, plain, f"norm.statistics={kind}")["evaluations"][0]
    assert told["images"] == 150
    assert Run(other).summary["test_loss"] == pytest.approx(told["loss"], rel=1e-5)
    assert Run(plain).summary["test_loss"] != pytest.approx(told["loss"], rel=1e-3)
    if kind == "precise":  # what fold and explain work with
        trained, images = load_trained(plain), load_trained(plain).dataset.train.batch(torch.arange(500))[0]
        wanted = exact_statistics(trained.model, images)["hidden2.norm"].mean.float()
        torch.testing.assert_close(load_trained(other).model.hidden2.norm.running_mean, wanted, rtol=1e-4, atol=1e-5)
    assert load_trained(other).model.hidden2.norm.own_share == (1 / 8 if kind == "evalnorm" else None)


def test_numbers_on_corrupted_images_are_those_of_the_test_set(capsys: pytest.CaptureFixture[str], run: Train) -> None:
    folder = run("norm=batch", "instruments=quick")
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
    text = printed(capsys, run("norm=layer"), "corruption=blur")
    assert "nothing re-estimated" in text
    assert "train-test: blur 5" in text
    assert "internal covariate shift, over training: not measured; the instrument shift supplies it" in text
