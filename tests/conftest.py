"""What all tests share: the device, and every scheme and model that there is a file of.

A test that takes `norm_name` or `model_name` runs for every YAML under `configs/norm` or `configs/model`: an addition
is tested without touching a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench import seeding
from normbench.cell import Cell, Parts
from normbench.config import build, compose
from normbench.listing import config_dir
from normbench.models import initialize
from normbench.norms import NormScheme, Unsupported

SHAPE, CLASSES = (1, 8, 8), 5  # of the images that small networks are made for
# Small values for the options that say how large a model is, and zeros for those that draw random numbers: whatever
# model has an option of such a name, and of such a type, gets them. A width is a number of units or a factor.
SIZES = {("hidden", list): [12, 10], ("channels", list): [4, 6], ("units", int): 7, ("depth", int): 8,
         ("width", int): 12, ("width", float): 1 / 4}  # fmt: skip
QUIET = {("initial_state_noise", float): 0.0, ("noise", float): 0.0, ("dropout", float): 0.0}
# The same for options of schemes: they fit all layers and batches here.
NORM_SIZES = {"groups": 1, "virtual": 3}

torch.set_num_threads(1)  # results depend on it (rounding), and so does speed at these sizes


def options_of(group: str) -> list[str]:
    """The options of a configuration group, as on the command line: the YAML files on disk."""
    folder = config_dir() / group
    found = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    assert found, f"no {group} in {folder}"
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for group in ("norm", "model"):
        if f"{group}_name" in metafunc.fixturenames:
            metafunc.parametrize(f"{group}_name", options_of(group))


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@cache  # composing takes a quarter of a second
def composed(*words: str) -> Cell:
    cell = compose(["dataset=synthetic", "device=cpu", *words])
    small = [f"norm.{key}={value}" for key, value in NORM_SIZES.items() if key in cell.config["norm"]]
    return compose(["dataset=synthetic", "device=cpu", *small, *words]) if small else cell


@cache
def parts(*words: str) -> Any:
    return build(composed(*words).config)


@pytest.fixture(scope="session")
def cell_of() -> Callable[..., Cell]:
    """`cell_of("norm=batch", "model=mlp")`: that run on made-up images; composed once."""
    return composed


def small_values(options: Mapping[str, Any], quiet: bool = False) -> dict[str, Any]:
    """What the options of a model become in a small one: those of SIZES, and with `quiet` those of QUIET."""
    usual = SIZES | (QUIET if quiet else {})
    return {key: value for (key, kind), value in usual.items() if type(options.get(key)) is kind}


@pytest.fixture(scope="session")
def small_options() -> Callable[..., dict[str, Any]]:
    """`small_options(config["model"]["build"])`: `small_values`, for tests."""
    return small_values


@pytest.fixture(scope="session")
def parts_of() -> Callable[..., Parts]:
    """`parts_of("batch", "rnn", "norm.eps=0.1", dropout=0.5)`: the parts of a small network, through the YAML files.

    Words are composed with the rest; keywords are options of the model. `quiet`: without noise and dropout.
    """

    def small(norm: str, model: str = "mlp", *words: str, quiet: bool = False, **options: Any) -> Parts:
        built = parts(f"norm={norm}", f"model={model}", *words)
        ours = small_values(built.model.keywords, quiet)
        return replace(built, model=partial(built.model, **ours | options))

    return small


@pytest.fixture(scope="session")
def scheme_of(parts_of: Callable[..., Parts]) -> Callable[..., NormScheme]:
    """`scheme_of("batch", "norm.eps=0.1")`: a scheme, through its YAML file."""
    return lambda norm, *words: parts_of(norm, "mlp", *words).scheme


def _runs_at_all(parts: Parts, shape: Any) -> None:
    """Raise Unsupported if this scheme can train this network at no batch size."""
    with torch.device("meta"):
        parts.model(parts.scheme, shape, CLASSES).train()(torch.empty(20, *shape))


@pytest.fixture(scope="session")
def network_of(parts_of: Callable[..., Parts]) -> Callable[..., nn.Module]:
    """`network_of("batch", "mlp")`: a small network in training mode, its weights drawn; otherwise as `parts_of`."""

    def network(
        norm: str, model: str, *words: str, shape: Any = SHAPE, seed: int = 0, init: str = "auto", **options: Any
    ) -> nn.Module:
        made_of = parts_of(norm, model, *words, **options)
        try:
            _runs_at_all(made_of, shape)
        except Unsupported as reason:
            pytest.skip(str(reason))
        built = made_of.model(made_of.scheme, shape, CLASSES).train()
        initialize(built, made_of.scheme, init, lambda name: seeding.generator(seed, "weights", name))
        return built

    return network


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., tuple[Tensor, Tensor]]:
    """`batch_of(4)`: four images of `SHAPE` and their labels, the same at each call."""

    def batch(n: int, shape: Any = SHAPE, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(seed)
        return torch.randn(n, *shape, generator=g, dtype=torch.float64).to(dtype), torch.arange(n) % CLASSES

    return batch
