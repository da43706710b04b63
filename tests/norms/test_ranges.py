"""Every option of schemes and models has a range, and what is out of it is refused in one line."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import yaml

from normbench.config.options import config_dir
from normbench.config.schema import OPTIONS, accepted
from normbench.errors import ConfigError

FILES = sorted(path for group in ("norm", "model") for path in (config_dir() / group).glob("*.yaml"))
DEFAULTS: dict[str, Any] = {}  # of each option, in one of the files that have it
for file in FILES:
    found = {f"{file.parent.name}.{key}": value for key, value in yaml.safe_load(file.read_text()).items()}
    DEFAULTS |= {key: value for key, value in found.items() if not key.endswith("._target_")}

# {option: what is refused}; of every number NaN and infinity, too.
REFUSED: dict[str, list[Any]] = {
    "norm.name": ["", "a\x1b[2J"],
    "norm.eps": [-1e-5, 0],
    "norm.momentum": [0, -0.1, 2],
    "norm.affine": ["yes", 1],
    "norm.per_step": [0],
    "norm.gamma": ["x", True],
    "norm.statistics": ["running"],
    "norm.placement": ["behind"],
    "norm.init_images": [-1, 1, 2.5],
    "norm.virtual": [0, 1.5],
    "norm.update_per": ["epoch"],
    "norm.groups": [0, -4],
    "norm.channels_per_group": [0, 2.5],
    "norm.r_max": [0.5],
    "norm.d_max": [-1],
    "norm.warmup_steps": [-1, 0.5],
    "norm.noise_mean": [-0.1],
    "norm.noise_scale": [0.9],
    "norm.noise_spread": [-0.1],
    "norm.alpha": [0, -1],
    "norm.gain": [0, -1],
    "model.name": ["\n"],
    "model.activation": ["bogus"],
    "model.dropout": [1, -0.1],
    "model.init": ["zeros", "He", ""],
    "model.init_std": [0, -0.5],
    "model.init_scale": [0, -0.5],
    "model.hidden": [[0], [3, -1], [2.5], [10**20], [10**9], 5, None],
    "model.channels": [[0], ["a"]],
    "model.pooled": [[0]],
    "model.width": [0, -1, 1e30],
    "model.depth": [0, 2.5, 10**6],
    "model.units": [0, 10**9],
    "model.cell": ["lstmm"],
    "model.sequence": ["columns"],
    "model.pool": [0],
    "model.permutation_seed": [-1, 10**23],
    "model.initial_state_noise": [-1],
    "model.noise": [-1],
    "model.normalize_output": ["yes"],
}


def test_every_option_has_a_range_and_a_case_here() -> None:
    assert set(DEFAULTS) == set(REFUSED) == {key for key in OPTIONS if key.startswith(("norm.", "model."))}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_out_of_range_is_refused_in_one_line(key: str) -> None:
    values = REFUSED[key] + ([math.nan, math.inf, -1e300, 1e300] if OPTIONS[key].kind is float else [])
    for value in values:
        with pytest.raises(ConfigError) as refusal:
            accepted(key, value, DEFAULTS[key])
        assert re.search(rf"{key} must be .*: got .*\.$", str(refusal.value))
        assert str(refusal.value).isprintable(), "one line, without control characters"


@pytest.mark.parametrize(
    ("key", "value"),
    [("norm.momentum", None), ("norm.momentum", 1), ("norm.init_images", 0), ("norm.gamma", 0),
     ("norm.channels_per_group", None), ("model.dropout", 0), ("model.hidden", []), ("model.channels", [])],
)  # fmt: skip
def test_what_is_at_the_edge_of_a_range_is_accepted(key: str, value: Any) -> None:
    assert accepted(key, value, DEFAULTS[key]) == value
