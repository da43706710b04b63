"""A user's own scheme, model and data set, from files beside them: as the README says, and wrong in various ways."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from normbench import load
from normbench.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text() + (ROOT / "configs" / "README.md").read_text()
TINY = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "device=cpu", "batch_size=8"]
TINY += ["max_steps=9"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], None]:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_the_readmes_own_scheme_runs_as_written(write: Callable[[str, str], None]) -> None:
    blocks = readme_files(write, "my_norms.py", "my_configs/norm/mine.yaml")
    assert sum(len(text.splitlines()) + 1 for text in blocks) <= 20
    [command] = re.findall(r"^normbench run --config-dir .* norm=mine .*$", README, re.MULTILINE)
    words = [*shlex.split(command)[1:], "dataset.size=8", "max_steps=5", "device=cpu"]
    assert main(words) == 0
    [run] = load("results/scratch")
    assert run.choices["norm"] == "mine"
    assert run.config["norm"]["floor"] == 1e-5
    largest = run.measured("activations").query("tensor == 'normalized' and layer == 'conv1'")["p99"].abs()
    assert (largest <= 1).all()
    assert main([*words, "norm.floor=0.1", "study=other"]) == 0


def test_the_readmes_own_instrument_runs_as_written(write: Callable[[str, str], None]) -> None:
    code, _ = readme_files(write, "my_instruments.py", "my_configs/instruments/mine.yaml")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10
    [command] = re.findall(r"^normbench run --config-dir .* instruments=mine .*$", README, re.MULTILINE)
    assert main([*shlex.split(command)[1:], "dataset.size=8", "max_steps=5", "device=cpu", "norm=none"]) == 0
    [run] = load("results/scratch")
    assert {"silent", "shift"} <= set(run.instruments)
    shares = run.measured("silent")
    assert set(shares.layer) == {"hidden1", "hidden2", "hidden3"}
    assert shares.share.between(0.2, 0.8).all()


def readme_files(write: Callable[[str, str], None], *names: str) -> list[str]:
    """Write these files of the README, each of which begins with its name; returns the rest of their texts."""
    found = {name: text for _, name, text in re.findall(r"```(\w+)\n# (my_\S+)\n(.*?)```", README, re.DOTALL)}
    for name in names:
        write(name, f"# {name}\n{found[name]}")
    return [found[name] for name in names]


def test_an_own_model(write: Callable[[str, str], None]) -> None:
    write("my_models.py", (
        "from torch import nn\n"
        "def two_layers(scheme, shape, classes, width):\n"
        "    pixels = shape[0] * shape[1] * shape[2]\n"
        "    first = scheme.block(nn.Linear(pixels, width), nn.Tanh)\n"
        "    return nn.Sequential(nn.Flatten(), first, scheme.block(nn.Linear(width, classes), normalize=False))\n"
    ))  # fmt: skip
    write("my_configs/model/mine.yaml", (
        "# two layers\n_target_: my_models.two_layers\nname: mine\nwidth: 30  # units\ninit: auto\n"
    ))  # fmt: skip
    for norm in ("batch", "selu"):
        assert main(["run", "--config-dir", "my_configs", *TINY, "model=mine", f"norm={norm}"]) == 0
    assert set(load("results/scratch").all_columns["model.width"]) == {30}


def test_an_own_data_set(write: Callable[[str, str], None]) -> None:
    write("my_data.py", (
        "import numpy as np\n"
        "from normbench.data import canonical\n"
        "def stripes(data_dir):\n"
        "    images = np.zeros((400, 1, 6, 6), np.uint8)\n"
        "    images[::2, :, ::2] = 255; images[1::2, :, :, ::2] = 255\n"
        "    images[:, 0, 5, 5] = np.arange(400) % 256; images[:, 0, 4, 5] = np.arange(400) // 256\n"
        "    labels = np.arange(400) % 2\n"
        "    train, test = (images[:300], labels[:300]), (images[300:], labels[300:])\n"
        "    return canonical('stripes', ('rows', 'columns'), train, test)\n"
    ))  # fmt: skip
    write("my_configs/dataset/stripes.yaml", (
        "# rows or columns\n_target_: my_data.stripes\nname: stripes\nvalidation: 50\nsplit_seed: 0\n"
        "train_fraction: 1.0\nscale: standard\n"
    ))  # fmt: skip
    words = ["--config-dir", "my_configs", "dataset=stripes", "batch_size=10", "epochs=4", "device=cpu"]
    assert main(["run", *words, "norm=layer"]) == 0
    [run] = load("results/scratch")
    assert run.summary["test_accuracy"] == 1.0
    assert run.summary["dataset"]["test"] == 100


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def __init__(self, features): super().__init__()\n    def forward(self, x): return x[:, 1:]",
         r"norm=mine: a norm must keep the shape of its input: in hidden1, \[8, 100\] became \[8, 99\]"),
        ("def __init__(self): super().__init__()\n    def forward(self, x): return x",
         "takes 1 positional argument but 2 were given"),
        ("def __init__(self, features): super().__init__()", "missing the required"),
        ("import nothing_of_this_name", "my_broken"),
    ],
)  # fmt: skip
def test_a_wrong_norm_gets_a_clear_error(
    code: str, message: str, write: Callable[[str, str], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write("my_broken.py", f"import torch\nclass Broken(torch.nn.Module):\n    {code}\n")
    write("my_configs/norm/mine.yaml", "# broken\n_target_: my_broken.Broken\nname: mine\n")
    assert main(["run", "--config-dir", "my_configs", *TINY, "norm=mine"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) <= 2
    assert not (tmp_path / "results").exists()


def test_a_network_too_large_for_the_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normbench.experiment.prepare.free_memory", lambda device: 100_000)
    assert main(["run", *TINY]) == 2
    assert "one batch must fit into memory: it needs" in capsys.readouterr().err
