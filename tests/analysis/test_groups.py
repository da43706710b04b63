"""Which runs make a group, and what a study's groups share and differ in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from normbench.analysis.groups import label, read, show
from normbench.analysis.notes import interval_covers
from normbench.runs import SCHEMA_VERSION, load

Add = Callable[..., Path]


def test_seeds_share_a_cell_and_settings_split_them(study: Path, add: Add) -> None:
    for batch_size in (64, 4):
        for seed in (0, 1):
            add(norm="none", batch_size=batch_size, seed=seed)
            add(norm="batch", batch_size=batch_size, seed=seed)
    groups = read(load(study))
    assert groups.varying == ("batch_size",)
    assert list(groups.settings) == [(("batch_size", 4),), (("batch_size", 64),)]  # by size, not by spelling
    assert [list(schemes) for schemes in groups.settings.values()] == [["none", "batch"]] * 2
    assert all([e.seed for e in c.members] == [0, 1] for s in groups.settings.values() for c in s.values())
    assert groups.constant["model"] == "mlp"
    assert groups.constant["lr"] == 0.001
    assert not {"seed", "study", "norm", "batch_size", "max_steps"} & set(groups.constant)


def test_an_interval_covers_what_every_run_draws_by_its_seed(study: Path, add: Add) -> None:
    subset = {"dataset.train_fraction": 0.02}
    add(norm="none", options=subset)
    covers = "new seeds, each with its own training subset, on this test set, not a new test set"
    assert interval_covers(read(load(study)).members) == covers
    add(norm="none", options=subset | {"dataset.label_noise": 0.4})
    covers = "new seeds, each with its own training subset and wrong labels, on this validation set, not a new valid"
    assert interval_covers(read(load(study)).members, "validation set").startswith(covers)
    add(norm="batch", options=subset | {"dataset.draw_seed": 7})
    for runs in (read(load(study)).members, []):
        assert interval_covers(runs) == "new seeds on this test set, not new images"


def test_options_of_a_norm_name_the_scheme(study: Path, add: Add) -> None:
    add(norm="group", options={"norm.groups": 2})
    add(norm="group", options={"norm.groups": 4})
    add(norm="batch", options={"norm.eps": 1e-5})  # the only one of its kind: no need to say it
    groups = read(load(study))
    assert groups.schemes == ("batch", "group groups=2", "group groups=4")
    assert list(groups.settings) == [()]


def test_options_of_different_models_are_no_settings_of_their_own(study: Path, add: Add) -> None:
    add(model="mlp", options={"model.hidden": [100]})
    add(model="cnn", options={"model.channels": [32]})
    assert read(load(study)).varying == ("model",)
    add(model="mlp", options={"model.hidden": [300]})
    assert read(load(study)).varying == ("model", "model.hidden")


def test_what_a_study_shares_names_no_class_and_what_instruments_do_is_no_setting(study: Path, add: Add) -> None:
    for width in (100, 300):
        parts = [{"_target_": "x", "n": width}]
        add(options={"model.hidden": [width], "model._target_": "normbench.models.MLP", "instruments.list": parts})
    groups = read(load(study))
    assert groups.varying == ("model.hidden",)
    assert "model._target_" not in groups.constant
    add(options={"model.hidden": [300], "model._target_": "mine.MLP"})  # another class: never merged
    assert read(load(study)).varying == ("model.hidden", "model._target_")


def test_lr_that_goes_with_the_scheme_keeps_schemes_apart(study: Path, add: Add) -> None:
    add(norm="none", lr=0.1)
    add(norm="batch", lr=1.0)
    assert [list(schemes) for schemes in read(load(study)).settings.values()] == [["none"], ["batch"]]


def test_different_data_are_never_in_one_group(study: Path, add: Add) -> None:
    add(norm="none", checksum="a" * 64)
    add(norm="batch", checksum="b" * 64)
    add(norm="layer", status="interrupted")  # has not said which
    groups = read(load(study))
    assert groups.varying == ("dataset.checksum",)
    assert [dict(setting)["dataset.checksum"] for setting in groups.settings] == ["a" * 12, "b" * 12, "unknown"]


def test_a_copied_folder_is_no_second_seed(study: Path, add: Add) -> None:
    path = add(norm="none", seed=0)
    shutil.copytree(path, study / "a-copy")
    groups = read(load(study))
    assert [len(cell.members) for cell in groups.settings[()].values()] == [1]
    assert groups.repeated == (path.name,)  # the first by name is kept


def test_foreign_folders_are_named_and_passed_over(study: Path, add: Add) -> None:
    add(norm="none")
    for name, text in {"x": "a: 1", "y": "[1, 2", "z": ""}.items():
        (study / name).mkdir()
        (study / name / "config.yaml").write_text(text)
    old = add(norm="batch")
    record = yaml.safe_load((old / "config.yaml").read_text()) | {"schema_version": 0}
    (old / "config.yaml").write_text(yaml.safe_dump(record))
    broken = add(norm="layer")
    (broken / "summary.json").write_text('{"status": "comp')
    groups = read(load(study))
    assert groups.schemes == ("none",)
    assert set(groups.unreadable) == {"x", "y", "z", old.name, broken.name}
    assert f"schema_version is 0, this normbench reads {SCHEMA_VERSION}" in groups.unreadable[old.name]


def test_a_study_of_foreign_folders_alone_holds_no_runs(study: Path) -> None:
    (study / "x").mkdir()
    (study / "x" / "config.yaml").write_text("a: 1")
    with pytest.raises(FileNotFoundError, match="no run that can be read"):
        read(load(study))


def test_words() -> None:
    assert label((("model", "mlp"), ("batch_size", 4), ("model.hidden", "[9]"))) == "mlp, batch size 4, hidden [9]"
    assert label((("batch_size", 4), ("max_steps", None))) == "batch size 4"
    assert label((("max_steps", None),)) == "max steps null"
    assert label(()) == "all runs"
    assert [show(v) for v in (None, True, 0.001, 1.0, 3, "x")] == ["null", "true", "0.001", "1", "3", "x"]
