import inspect
import re
from pathlib import Path

import hydra.utils
import pytest
from omegaconf import OmegaConf

from normbench.data import Source, prepare

FOLDER = Path(__file__).parents[2] / "configs" / "dataset"
FILES = sorted(FOLDER.rglob("*.yaml"))
OPTIONS = {"name", *inspect.signature(prepare).parameters} - {"source", "device", "data_dir"}


def test_there_are_some():
    assert {"mnist", "fashion_mnist", "cifar10", "cifar100", "folder", "synthetic"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_says_what_it_is(path):
    first, *lines = path.read_text().splitlines()
    assert re.match(r"# \S.{20,}", first)
    top = [line for line in lines if re.match(r"\w+:", line) and not line.startswith(("name:", "_target_:"))]
    assert all("  # " in line for line in top), "every key carries unit and meaning in a trailing comment"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_source_is_a_callable_of_the_data_folder(path):
    config = OmegaConf.create({"dataset": OmegaConf.load(path)}).dataset
    assert config.name == path.stem
    assert set(config) >= OPTIONS | {"_target_"}
    (first, *rest) = inspect.signature(hydra.utils.get_method(config["_target_"])).parameters
    assert first == "data_dir"
    # what else the file offers is an option of the source, and none is forgotten
    assert set(config) - OPTIONS - {"_target_"} == set(rest)


def test_synthetic_options_reach_the_source(tmp_path):
    config = OmegaConf.create({"dataset": OmegaConf.load(FOLDER / "synthetic.yaml")}).dataset
    config.examples, config.size = 100, 16
    own = {key: value for key, value in config.items() if key not in OPTIONS}
    source: Source = hydra.utils.instantiate(own, _partial_=True)(tmp_path)
    assert source.train_images.shape == (100, 1, 16, 16)
    data = prepare(source, **{key: config[key] for key in OPTIONS - {"validation"}}, validation=20)
    assert data.train.batch(data.train.index[:0])[0].shape == (0, 1, 16, 16)
