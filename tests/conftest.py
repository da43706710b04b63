"""What all tests share: the device, and every scheme and model that there is a file of.

A test that takes `norm_name` or `model_name` runs for every YAML under `configs/norm` or `configs/model`: an addition
is tested without touching a test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from normbench import seeding
from normbench.cli import main
from normbench.config.options import config_dir
from normbench.config.run_config import RunConfig
from normbench.errors import Unsupported
from normbench.experiment import Parts, build, compose
from normbench.instruments import Probe
from normbench.models import initialize
from normbench.norms import NormScheme
from normbench.plots import figures, saver
from normbench.plots.drawing import Figure
from normbench.training.device import calculate_exactly

pytest_plugins = ["tests.study_files"]
SHAPE, CLASSES = (1, 8, 8), 5  # of the images that small networks are made for
# Small values for the options that say how large a model is, and zeros for those that draw random numbers: whatever
# model has an option of such a name, and of such a type, gets them. A width is a number of units, or a factor: then it
# becomes a quarter of its default.
SIZES = {("hidden", list): [12, 10], ("channels", list): [4, 6], ("units", int): 7, ("depth", int): 8,
         ("width", int): 12}  # fmt: skip
QUIET = {("initial_state_noise", float): 0.0, ("noise", float): 0.0, ("dropout", float): 0.0}
# The same for options of schemes: they fit all layers and batches here.
NORM_SIZES = {"groups": 1, "virtual": 3}

# A test of every scheme in every model goes through every scheme in the MLP, every model with none, batch and layer,
# and these pairs, which have code of their own; through the whole product with `pytest -m full`.
IN_EVERY_MODEL = ("none", "batch", "layer")
OF_THEIR_OWN = {
    "cnn": ("batch_renorm", "ghost_batch", "group", "instance", "layer2d", "noisy_batch", "weight_mean_only",
            "weight_standardization"),
    "rnn": ("ghost_batch", "group", "rms", "selu", "weight", "weight_mean_only"),
}  # fmt: skip

torch.set_num_threads(1)  # results depend on it (rounding), and so does speed at these sizes
calculate_exactly()  # as runs do


def options_of(group: str) -> list[str]:
    """The options of a configuration group, as on the command line: the YAML files on disk."""
    folder = config_dir() / group
    found = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    assert found, f"no {group} in {folder}"
    return found


def in_short(norm: str, model: str) -> bool:
    """Does this pair belong to the tests that are not `full`?"""
    return model == "mlp" or norm in IN_EVERY_MODEL or norm in OF_THEIR_OWN.get(model, ())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    norms, models = options_of("norm"), options_of("model")
    # Instruments know blocks and cells, no models: one of each kind. All models are run with all instruments
    # in test_loop.py.
    if "instruments" in metafunc.definition.path.parts:
        models = [name for name in models if name in ("mlp", "cnn", "rnn")]
    wanted = {"norm_name", "model_name"} & set(metafunc.fixturenames)
    if len(wanted) == 2:
        pairs = [
            pytest.param(norm, model, marks=[] if in_short(norm, model) else pytest.mark.full)
            for model in models
            for norm in norms
        ]
        metafunc.parametrize(("norm_name", "model_name"), pairs)
    elif wanted:
        metafunc.parametrize(*wanted, norms if wanted == {"norm_name"} else models)


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, but not made into files, which takes most of the time."""

    def finish(name: str, title: str, caption: str, *about: object) -> Figure:
        return Figure(name, title, caption, b"<svg></svg>", b"png", b"pdf" * (about[-1] is True))

    monkeypatch.setattr(saver, "finish", finish)


@pytest.fixture
def few(unsaved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the figures of error against an option."""
    monkeypatch.setattr(figures, "FIGURES", figures.FIGURES[:2])


@pytest.fixture(scope="session")
def case() -> Callable[..., AbstractContextManager[None]]:
    """`with case(batch_size=4)`: names the case, of several that one test goes through, in which something failed."""

    @contextmanager
    def named(**values: Any) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            error.add_note("in the case " + ", ".join(f"{key}={value}" for key, value in values.items()))
            raise

    return named


@cache  # composing takes a quarter of a second
def composed(*words: str) -> RunConfig:
    norm = next((word.removeprefix("norm=") for word in words if word.startswith("norm=")), "batch")
    known = yaml.safe_load((config_dir() / "norm" / f"{norm}.yaml").read_bytes())
    small = [f"norm.{key}={value}" for key, value in NORM_SIZES.items() if key in known]
    usual = {word.partition("=")[0]: word for word in ("dataset=synthetic", "device=cpu", *small)}
    return compose((usual | {word.partition("=")[0]: word for word in words}).values())


@cache
def parts(*words: str) -> Any:
    return build(composed(*words).config)


@pytest.fixture(scope="session")
def cell_of() -> Callable[..., RunConfig]:
    """`cell_of("norm=batch", "model=mlp")`: that run on made-up images; composed once."""
    return composed


@pytest.fixture
def cell_with(tmp_path: Path, cell_of: Callable[..., RunConfig]) -> Callable[..., Callable[..., RunConfig]]:
    """`cell_with("batch_size=8")("norm=none", jobs=1)`: that cell, in a folder of the test's own."""

    def cell_with(*usual: str) -> Callable[..., RunConfig]:
        def cell(*words: str, **config: Any) -> RunConfig:
            made = cell_of(*usual, *words)
            return replace(made, config={**made.config, "results_dir": str(tmp_path / "results"), **config})

        return cell

    return cell_with


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder is one of the test's own, without data sets; Python's path is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "no-data"))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], str], None]:
    """`refused(["fold", "nowhere"], "is no folder")`: bad input has exit code 2, a line or two with these words on
    standard error, and nothing on standard output.
    """

    def check(words: list[str], message: str) -> None:
        assert main(words) == 2, words
        printed = capsys.readouterr()
        assert printed.out == "", words
        assert message in printed.err, words
        assert printed.err.startswith("normbench: error: ")
        assert len(printed.err.strip().splitlines()) <= 2

    return check


def small_values(options: Mapping[str, Any], quiet: bool = False) -> dict[str, Any]:
    """What the options of a model become in a small one: those of SIZES, and with `quiet` those of QUIET."""
    usual = SIZES | (QUIET if quiet else {})
    small = {key: value for (key, kind), value in usual.items() if type(options.get(key)) is kind}
    if isinstance(width := options.get("width"), float):  # a factor: of channels, say
        small = {key: value for key, value in small.items() if key != "channels"} | {"width": width / 4}
    return small


@pytest.fixture(scope="session")
def small_options() -> Callable[..., dict[str, Any]]:
    """`small_options(config["model"])`: `small_values`, for tests."""
    return small_values


@pytest.fixture(scope="session")
def parts_of() -> Callable[..., Parts]:
    """`parts_of("batch", "rnn", "norm.eps=0.1", dropout=0.5)`: the parts of a small network, through the YAML files.

    Words are options of the scheme; keywords are options of the model. `quiet`: without noise and dropout.
    """

    def small(norm: str, model: str = "mlp", *words: str, quiet: bool = False, **options: Any) -> Parts:
        # Neither file knows of the other: 16 + 7 compositions instead of 16 x 7.
        built, build_model = parts(f"norm={norm}", *words), parts(f"model={model}").model
        ours = small_values(build_model.keywords, quiet)
        return replace(built, model=partial(build_model, **ours | options))

    return small


@pytest.fixture(scope="session")
def scheme_of(parts_of: Callable[..., Parts]) -> Callable[..., NormScheme]:
    """`scheme_of("batch", "norm.eps=0.1")`: a scheme, through its YAML file."""
    return lambda norm, *words: parts_of(norm, "mlp", *words).scheme


def _refusal(parts: Parts, shape: Any) -> str | None:
    """Why this scheme can train this network at no batch size, if it can't."""
    try:
        with torch.random.fork_rng(devices=[]):
            parts.model(parts.scheme, shape, CLASSES).train()(torch.zeros(20, *shape))
    except Unsupported as reason:
        return str(reason)
    return None


@pytest.fixture(scope="session")
def network_of(parts_of: Callable[..., Parts]) -> Callable[..., nn.Module]:
    """`network_of("batch", "mlp")`: a small network in training mode, its weights drawn; otherwise as `parts_of`.

    One that can't be trained at any batch size skips the test, or with `skip=False` raises Unsupported.
    """
    refusals: dict[str, str | None] = {}

    def network(
        norm: str, model: str, *words: str, shape: Any = SHAPE, seed: int = 0, init: str = "auto", skip: bool = True,
        **options: Any,
    ) -> nn.Module:  # fmt: skip
        made_of, key = parts_of(norm, model, *words, **options), repr((norm, model, words, shape, options))
        if key not in refusals:
            refusals[key] = _refusal(made_of, shape)
        if (reason := refusals[key]) is not None:
            if not skip:
                raise Unsupported(reason)
            pytest.skip(reason)
        built = made_of.model(made_of.scheme, shape, CLASSES).train()
        initialize(built, made_of.scheme, init, lambda name: seeding.generator(seed, "weights", name))
        return built

    return network


@pytest.fixture(scope="session")
def tensors_of() -> Callable[..., dict[tuple[str, str], Tensor]]:
    """`tensors_of(model, images, bn_mode="probe")`: what instruments see of it, all positions: {key: [N, C, P]}."""

    def seen(model: nn.Module, images: Tensor, bn_mode: str = "probe", batch_size: int = 10**9) -> Any:
        labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
        return Probe(model, images, labels, batch_size, positions=10**9).tensors(bn_mode)

    return seen


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., tuple[Tensor, Tensor]]:
    """`batch_of(4)`: four images of `SHAPE` and their labels, the same at each call."""

    def batch(n: int, shape: Any = SHAPE, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(seed)
        return torch.randn(n, *shape, generator=g, dtype=torch.float64).to(dtype), torch.arange(n) % CLASSES

    return batch
