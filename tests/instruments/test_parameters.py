"""The numbers of `parameters` against numpy, by the names in the state dict."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from short_run import assert_same, everything, short_run
from torch import Tensor, nn

from normbench.instruments import Parameters
from normbench.norms import NormScheme, blocks

# How a name in the state dict reads in the table, below the block's name. The first that fits counts.
NAMES = [
    (r"parametrizations\.weight\.original0", "g"),
    (r"parametrizations\.weight\.original1", "v"),
    (r"(.*_norm)\.(?:norm\.)?weight", r"\1.gamma"),
    (r"(.*_norm)\.(?:norm\.)?bias", r"\1.beta"),
    (r"(.*_norm)\.(?:norm\.)?(alpha|shift|running_mean|running_var)", r"\1.\2"),
    (r"norm\.weight", "gamma"),
    (r"norm\.bias", "beta"),
    (r"norm\.(alpha|shift|mean_logits|var_logits|running_mean|running_var)", r"\1"),
    (r"(?:linear\.)?(.*)", r"\1"),
]


def name_of(key: str) -> str:
    key = re.sub(r"^linear\.", "", key)
    for pattern, name in NAMES:
        for prefix in ("", r"(?P<place>input\.|hidden\.)"):
            if found := re.fullmatch(prefix + pattern, key):
                place = found.groupdict().get("place") or ""
                return place + (re.sub(pattern, name, key.removeprefix(place)))
    raise AssertionError(key)


def naive(model: nn.Module) -> dict[tuple[str, str], np.ndarray]:
    """Values per unit, from the state dict."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for layer, block in blocks(model):
        for key, tensor in block.state_dict().items():
            if "sum_" in key or "num_batches" in key:
                continue
            value, name = tensor.detach().double().numpy(), name_of(key)
            name = name.removesuffix("weight") + "w" if name.endswith("weight") else name
            matrix = name.rpartition(".")[2] in ("w", "v")
            found[layer, name] = np.sqrt((value.reshape(len(value), -1) ** 2).sum(1)) if matrix else value.ravel()
        mixes = "norm.var_logits" in block.state_dict()
        parts = ["instance", "layer", "batch"][mixes and block.linear.weight.dim() == 2 :]  # dense: no instance
        for name in ("mean", "var") if mixes else ():
            e = np.exp(found[layer, f"{name}_logits"][-len(parts) :])
            found |= {
                (layer, f"{name}_{part}"): share for part, share in zip(parts, (e / e.sum())[:, None], strict=True)
            }
        for place in ("linear", "input", "hidden"):  # re-parametrised: w is not in the state dict
            module: Any = getattr(block, place, None)
            if hasattr(module, "parametrizations"):
                w = module.weight.detach().double().flatten(1).norm(dim=1).numpy()
                found[layer, "w" if place == "linear" else f"{place}.w"] = w
    return found


def assert_as_naive(rows: list[dict[str, Any]], wanted: dict[tuple[str, str], np.ndarray]) -> None:
    assert {(row["layer"], row["tensor"]) for row in rows} == wanted.keys()
    assert len(rows) == len(wanted)
    for row in rows:
        values = wanted[row["layer"], row["tensor"]]
        assert set(row) == {"layer", "tensor", *Parameters.columns}
        numbers = [row[name] for name in ("mean", "min", "q25", "median", "q75", "max")]
        expected = [values.mean(), *np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
        assert numbers == pytest.approx(expected, rel=1e-5, abs=1e-7), (row["layer"], row["tensor"])
        assert row["count"] == values.size


def test_numbers_are_those_of_numpy(norm_name, model_name, network_of, device):
    run = short_run(network_of(norm_name, model_name), device=device)
    assert_as_naive(run.measure(Parameters()), naive(run.model.cpu()))


@pytest.mark.parametrize(
    ("norm", "model", "layer", "names"),
    [
        ("batch", "mlp", "hidden1", "w gamma beta running_mean running_var"),
        ("batch", "mlp", "output", "w bias"),
        ("weight_standardization", "cnn", "conv2", "w g v bias"),
        ("dynamic_tanh", "mlp", "hidden1", "w bias alpha gamma beta"),
        ("dynamic_erf", "mlp", "hidden1", "w bias alpha gamma beta shift"),
        ("weight", "rnn", "cell", "input.w input.g input.v hidden.w hidden.g hidden.v bias"),
        (
            "batch", "rnn", "cell",
            "input.w hidden.w bias input_norm.gamma input_norm.running_mean input_norm.running_var hidden_norm.gamma "
            "hidden_norm.running_mean hidden_norm.running_var state_norm.gamma state_norm.beta state_norm.running_mean "
            "state_norm.running_var",
        ),
    ],
)  # fmt: skip
def test_names(norm, model, layer, names, network_of):
    rows = short_run(network_of(norm, model)).measure(Parameters())
    assert sorted(row["tensor"] for row in rows if row["layer"] == layer) == sorted(names.split())


class Power(nn.Module):
    """Somebody's own norm, with parameters of any shape and inside another module."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.exponent = nn.Parameter(torch.ones(1, features)), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.sign() * x.abs() ** self.exponent


def test_a_norm_of_somebodys_own():
    scheme = NormScheme(norm=lambda features: nn.Sequential(Power(features), nn.BatchNorm1d(features)))
    model = nn.Sequential(nn.Flatten(), scheme.block(nn.Linear(64, 6), nn.PReLU), scheme.block(nn.Linear(6, 5)))
    rows = short_run(model).measure(Parameters())
    norm = ["0.exponent", "0.gamma", "1.beta", "1.gamma", "1.running_mean", "1.running_var"]
    assert sorted(row["tensor"] for row in rows if row["layer"] == "1") == sorted(
        [*norm, "w", "bias", "activation.weight"]
    )


def test_weights_that_are_normalised_by_their_largest_singular_value():
    scheme = NormScheme(reparametrize=nn.utils.parametrizations.spectral_norm)
    model = nn.Sequential(nn.Flatten(), scheme.block(nn.Linear(64, 6), nn.ReLU), scheme.block(nn.Linear(6, 5)))
    run = short_run(model)
    before = everything(run.model)
    rows = {(row["layer"], row["tensor"]): row for row in run.measure(Parameters())}
    assert_same(before, everything(run.model))  # reading such a weight in training changes its buffers
    linear = model.eval()[1].linear
    for name, weight in (("w", linear.weight), ("v", linear.parametrizations.weight.original)):
        assert rows["1", name]["mean"] == pytest.approx(weight.detach().norm(dim=1).mean().item(), rel=1e-5)


def test_a_diverged_network_gives_nan(network_of):
    run = short_run(network_of("batch", "mlp"))
    with torch.no_grad():
        run.model.hidden1.linear.weight[3, 2] = math.nan
        run.model.hidden1.norm.weight[0] = math.inf
    rows = {(row["layer"], row["tensor"]): row for row in run.measure(Parameters())}
    assert all(math.isnan(rows["hidden1", "w"][name]) for name in Parameters.columns[1:])
    assert rows["hidden1", "gamma"]["max"] == math.inf
    assert math.isfinite(rows["hidden1", "gamma"]["median"])
    assert math.isfinite(rows["hidden2", "w"]["mean"])
