"""Every number that `normbench explain` prints, calculated again in double precision from weights and images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view

EPS = 1e-5
Norm = Callable[[np.ndarray], np.ndarray]  # o [N, C, ...] -> z, statistics of the mini-batch at hand


def standard(o: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return (o - o.mean(axes, keepdims=True)) / np.sqrt(o.var(axes, keepdims=True) + EPS)


def over_batch(o: np.ndarray) -> np.ndarray:
    return standard(o, (0, *range(2, o.ndim)))


def over_example(o: np.ndarray) -> np.ndarray:
    return standard(o, tuple(range(1, o.ndim)))


def per_unit(state: dict[str, np.ndarray], name: str, z: np.ndarray) -> np.ndarray:
    shape = (-1, *[1] * (z.ndim - 2))
    return z * state[f"{name}.weight"].reshape(shape) + state[f"{name}.bias"].reshape(shape)


def convolution(state: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, state["conv1.linear.weight"])


def inputs_of(found: Any, layer: int, norm: Norm) -> np.ndarray:
    """o of a hidden layer of an MLP in training."""
    x = found.images[:4].reshape(4, -1)
    for i in range(1, layer + 1):
        o = x @ found.state[f"hidden{i}.linear.weight"].T
        x = np.maximum(per_unit(found.state, f"hidden{i}.norm", norm(o)), 0)
    return o


def gradients(found: Any, layer: str, axes: Callable[[int], tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Of a bias before the norm and of beta, for all units: a network of plain torch functions in double precision."""
    state = {k: torch.from_numpy(v) for k, v in found.state.items()}
    x, labels = torch.from_numpy(found.images[:4]), torch.from_numpy(found.labels[:4])
    beta = state[f"{layer}.norm.bias"].requires_grad_()
    before = torch.zeros_like(beta).requires_grad_()
    for name in sorted({k.split(".")[0] for k in state} - {"output"}):
        weight = state[f"{name}.linear.weight"]
        o = F.conv2d(x, weight, padding=1) if weight.dim() == 4 else x.flatten(1) @ weight.T
        view = (-1, 1, 1) if o.dim() == 4 else (-1,)
        o = o + before.view(view) if name == layer else o
        var, mean = torch.var_mean(o, axes(o.dim()), correction=0, keepdim=True)
        z = (o - mean) / (var + EPS).sqrt()
        x = (state[f"{name}.norm.weight"].view(view) * z + state[f"{name}.norm.bias"].view(view)).relu()
        x = F.max_pool2d(x, 2) if x.dim() == 4 else x
    logits = x.flatten(1) @ state["output.linear.weight"].T + state["output.linear.bias"]
    F.cross_entropy(logits, labels).backward()
    assert before.grad is not None
    assert beta.grad is not None
    return before.grad.numpy(), beta.grad.numpy()


def shown_of(found: Any) -> list[tuple[int, ...]]:
    """Which values a table shows, read from its first column: images and positions, or units of image 1."""
    step = next(step for step in found.said["steps"] if step["key"] == "values")
    unit = found.said["unit"]
    if step["columns"][0] == "unit":
        return [(0, int(row[0])) for row in step["rows"]]
    names = [[int(word.split()[-1]) - 1 for word in row[0].split(",")] for row in step["rows"]]
    return [(image, unit, *position) for image, *position in names]


def check_norm(
    found: Any, o: np.ndarray, norm: Norm, members: np.ndarray, y: Norm, middle: tuple[int, ...] = ()
) -> Any:
    """The steps of a norm that standardises.

    Args:
        o: what the norm gets. [N, C, ...]
        members: the values that share statistics with the one that is followed.
        y: the norm with gamma and beta.
    """
    shown = [(*index, *middle) if len(index) < o.ndim else index for index in shown_of(found)]

    def at(values: np.ndarray) -> np.ndarray:
        return np.array([values[index] for index in shown])

    mean, var, z = members.mean(), members.var(), (members - members.mean()) / np.sqrt(members.var() + EPS)
    found.is_("values", at(o))
    found.is_("statistics", [mean, var, math.sqrt(var + EPS)])
    found.is_("standardised", at(o), at(o) - mean, at(norm(o)))
    found.is_("spread", [z.mean(), z.std(), z.min(), z.max(), math.sqrt(members.size - 1)])
    unit = found.said["unit"]
    first = (0, unit, *(size // 2 for size in o.shape[2:])) if "unit" in columns(found, "values") else shown[0]
    one = np.zeros_like(o)
    one[:, unit] = 5
    noise = torch.randn(o[1:].shape, generator=torch.Generator().manual_seed(0)).double().numpy()
    changed = [o + one, o + 5, o * 10, np.concatenate([o[:1], noise])]
    found.is_("changes", [y(other)[first] - y(o)[first] for other in changed], tolerance=1e-4)
    return at


def columns(found: Any, key: str) -> list[str]:
    [step] = [step for step in found.said["steps"] if step["key"] == key]
    return step["columns"]


def check_inference(found: Any, o: float, gamma: float, beta: float, kept: list[float], new: list[list[float]]) -> None:
    """`kept`: running mean and variance before this batch; `new`: the batch's own, and the updated ones."""
    found.is_("running", kept, *new)
    mean, var = kept[0], kept[1] if len(kept) > 1 else 1 - EPS
    z = (o - mean) / math.sqrt(var + EPS)
    found.is_("inference", [o, *kept, z, gamma * z + beta])
    a = gamma / math.sqrt(var + EPS)
    b = beta - a * mean
    found.is_("folded", [a, b, a * o + b, gamma * z + beta, 0], tolerance=1e-6)


def updated(kept: list[float], members: np.ndarray) -> list[list[float]]:
    batch = [members.mean(), members.var(ddof=1)][: len(kept)]
    return [batch, [0.9 * old + 0.1 * value for old, value in zip(kept, batch, strict=True)]]


@pytest.mark.parametrize(("layer", "unit"), [(1, 7), (2, 9)])
def test_batch_norm_in_an_mlp(explained: Any, layer: int, unit: int) -> None:
    found = explained("batch", "mlp", "--layer", f"hidden{layer}", "--unit", str(unit))
    name, state = f"hidden{layer}.norm", found.state
    o = inputs_of(found, layer, over_batch)

    def y(x: np.ndarray) -> np.ndarray:
        return per_unit(state, name, over_batch(x))

    at = check_norm(found, o, over_batch, o[:, unit], y)
    gamma, beta = state[f"{name}.weight"][unit], state[f"{name}.bias"][unit]
    found.is_("scaled", at(over_batch(o)), [gamma] * 4, [beta] * 4, at(y(o)), np.maximum(at(y(o)), 0))
    before, behind = gradients(found, f"hidden{layer}", lambda dims: (0,))
    assert np.abs(before).max() < 1e-12
    found.is_("bias", [0, 0, behind[unit]], tolerance=1e-6)
    kept = [state[f"{name}.running_{what}"][unit] for what in ("mean", "var")]
    alone = found.images[:1].reshape(1, -1)
    for i in range(1, layer + 1):
        single = alone @ state[f"hidden{i}.linear.weight"].T
        mean, var = (state[f"hidden{i}.norm.running_{what}"] for what in ("mean", "var"))
        alone = np.maximum(per_unit(state, f"hidden{i}.norm", (single - mean) / np.sqrt(var + EPS)), 0)
    check_inference(found, single[0, unit], gamma, beta, kept, updated(kept, o[:, unit]))
    found.all_compared()


def test_a_batch_of_two_is_always_one(explained: Any) -> None:
    found = explained("batch", "mlp", "batch_size=2")
    [_, [_, var], _] = found.rows("statistics")
    for row in found.rows("standardised"):
        assert abs(row[3]) == pytest.approx(1 / math.sqrt(1 + EPS / var), abs=1e-5)
    assert found.rows("spread")[-1] == ["sqrt(m - 1)", 1]


@pytest.mark.parametrize("scheme", ["batch", "layer", "instance"])
def test_over_positions_of_a_cnn(explained: Any, scheme: str) -> None:
    """Members: a channel of all images; all channels of an image; a channel of an image."""
    found = explained(scheme, "cnn", "--unit", "2")
    state, unit, o = found.state, 2, convolution(found.state, found.images[:4])
    axes = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}[scheme]
    members = {"batch": o[:, unit], "layer": o[0], "instance": o[0, unit]}[scheme]

    def norm(x: np.ndarray) -> np.ndarray:
        return standard(x, axes)

    def y(x: np.ndarray) -> np.ndarray:
        return per_unit(state, "conv1.norm", norm(x)) if "conv1.norm.weight" in state else norm(x)

    at = check_norm(found, o, norm, members, y, middle=(14, 14))
    shown = [index[1] for index in shown_of(found)]
    gamma, beta = (state.get(f"conv1.norm.{name}", np.full(3, usual))[shown]
                   for name, usual in (("weight", 1.0), ("bias", 0.0)))  # fmt: skip
    found.is_("scaled", at(norm(o)), gamma, beta, at(y(o)), np.maximum(at(y(o)), 0))
    if scheme == "batch":
        assert "N = 4 and H = 28" not in found.said["steps"][0]["words"]
        assert "m = 3,136" in found.said["steps"][0]["words"]
        before, behind = gradients(found, "conv1", lambda dims: (0, 2, 3) if dims == 4 else (0,))
        found.is_("bias", [0, before.sum(), behind[unit]], tolerance=1e-6)
        kept = [state[f"conv1.norm.running_{what}"][unit] for what in ("mean", "var")]
        first = o[shown_of(found)[0]]
        check_inference(found, first, gamma[0], beta[0], kept, updated(kept, members))
        found.all_compared()
    else:
        assert found.compared | {"bias"} == {step["key"] for step in found.said["steps"]}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_batch_norm_in_an_lstm(explained: Any) -> None:
    """Statistics of one time step, with numbers of our own: an LSTM with batch norm at each step."""
    found = explained("batch", "rnn", "--unit", "8")
    state, unit, t = found.state, 8, 14
    assert found.said["time_step"] == t
    assert "time step 15 of 28" in found.said["where"]
    o = found.images[:4, 0, t] @ state["cell.input.weight"].T
    gamma = state["cell.input_norm.weight"]

    def y(x: np.ndarray) -> np.ndarray:
        return gamma * over_batch(x)

    at = check_norm(found, o, over_batch, o[:, unit], y)
    found.is_("scaled", at(over_batch(o)), [gamma[unit]] * 4, [0] * 4, at(y(o)))
    assert abs(found.rows("bias")[0][1]) < 1e-5
    kept = [state[f"cell.input_norm.running_{what}"][t, unit] for what in ("mean", "var")]
    check_inference(found, o[0, unit], gamma[unit], 0.0, kept, updated(kept, o[:, unit]))
    assert found.compared | {"bias"} == {step["key"] for step in found.said["steps"]}


def test_the_gradient_by_the_cells_bias(explained: Any) -> None:
    """A difference quotient of the loss of an LSTM written out in numpy."""
    found = explained("batch", "rnn", "--unit", "8")
    state, unit = found.state, 8

    def loss(amount: float) -> float:
        bias = state["cell.bias"].copy()
        bias[unit] += amount
        h = c = np.zeros((4, state["cell.hidden.weight"].shape[1]))
        for t in range(28):
            parts = {"input": found.images[:4, 0, t] @ state["cell.input.weight"].T,
                     "hidden": h @ state["cell.hidden.weight"].T}  # fmt: skip
            gates = bias + sum(state[f"cell.{name}_norm.weight"] * over_batch(o) for name, o in parts.items())
            i, f, g, out = np.split(gates, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(out) * np.tanh(state["cell.state_norm.weight"] * over_batch(c) + state["cell.state_norm.bias"])
        logits = h @ state["output.linear.weight"].T + state["output.linear.bias"]
        shifted = logits - logits.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return -logs[np.arange(4), found.labels[:4]].mean()

    quotient = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert found.rows("bias")[-1][1] == pytest.approx(quotient, abs=1e-5)


def test_layer_norm_in_an_mlp(explained: Any) -> None:
    found = explained("layer", "mlp", "--unit", "2")
    state, unit = found.state, 2
    o = inputs_of(found, 1, over_example)

    def y(x: np.ndarray) -> np.ndarray:
        return per_unit(state, "hidden1.norm", over_example(x))

    at = check_norm(found, o, over_example, o[0], y)
    shown = [index[1] for index in shown_of(found)]
    assert shown == list(range(2, 10))
    gamma, beta = (state[f"hidden1.norm.{name}"][shown] for name in ("weight", "bias"))
    found.is_("scaled", at(over_example(o)), gamma, beta, at(y(o)), np.maximum(at(y(o)), 0))
    before, behind = gradients(found, "hidden1", lambda dims: (1,))
    found.is_("bias", [before[unit], 0, behind[unit]], tolerance=2e-6)
    assert abs(before[unit]) > 1e-5, "a bias of one unit does something"
    found.all_compared()


def test_rms_norm_divides_and_does_not_centre(explained: Any) -> None:
    found = explained("rms", "mlp", "--unit", "2")
    o = found.images[0].ravel() @ found.state["hidden1.linear.weight"].T
    square = (o**2).mean()
    shown = [index[1] for index in shown_of(found)]
    found.is_("statistics", [square, math.sqrt(square + EPS)])
    found.is_("standardised", o[shown], (o / math.sqrt(square + EPS))[shown])
    assert {"bias", "spread"}.isdisjoint(step["key"] for step in found.said["steps"])


def test_variance_only_batch_norm_divides_and_does_not_centre(explained: Any) -> None:
    found = explained("variance_only", "mlp", "--unit", "2")
    o = found.images[:4].reshape(4, -1) @ found.state["hidden1.linear.weight"][2]
    z = o / math.sqrt(o.var() + EPS)
    gamma, beta, mean, var = (found.state[f"hidden1.norm.{name}"][2] for name in
                              ("weight", "bias", "running_mean", "running_var"))  # fmt: skip
    found.is_("values", o)
    found.is_("statistics", [o.mean(), o.var(), math.sqrt(o.var() + EPS)])
    found.is_("standardised", o, z)
    found.is_("scaled", z, [gamma] * 4, [beta] * 4, gamma * z + beta, np.maximum(gamma * z + beta, 0))
    assert found.rows("changes")[2][1] == pytest.approx(0, abs=1e-5), "ten times as large"
    assert found.rows("changes")[0][1] == pytest.approx(5 * gamma / math.sqrt(o.var() + EPS), rel=1e-4), "not centred"
    found.is_("running", [mean, var], *updated([mean, var], o))
    a = gamma / math.sqrt(var + EPS)
    found.is_("inference", [o[0], var, o[0] / math.sqrt(var + EPS), a * o[0] + beta])
    found.is_("folded", [a, beta, a * o[0] + beta, a * o[0] + beta, 0], tolerance=1e-6)
    assert found.compared | {"changes"} == {step["key"] for step in found.said["steps"]}


def test_a_norm_that_follows_no_formula_shows_what_comes_out(explained: Any) -> None:
    found = explained("dynamic_tanh", "mlp", "--unit", "2")
    assert [step["key"] for step in found.said["steps"]] == ["values", "scaled", "changes"]


def check_weight(found: Any, unit: int) -> np.ndarray:
    """Returns the unit's outputs."""
    name = "hidden1.linear.parametrizations.weight.original"
    g, v = found.state[f"{name}0"][unit, 0], found.state[f"{name}1"][unit]
    length = math.sqrt((v**2).sum())
    w = g * v / length
    found.is_("length", [g, length, g / length, abs(g)])
    shown = [int(row[0]) for row in found.rows("weights")]
    assert set(shown) == set(np.argsort(-np.abs(v))[:6])
    found.is_("weights", v[shown], w[shown])
    found.is_("direction", [0, 0], tolerance=1e-6)
    x = found.images[:4].reshape(4, -1)
    o = x @ w + (found.state["hidden1.linear.bias"][unit] if "hidden1.linear.bias" in found.state else 0)
    more = [] if "hidden1.norm.bias" in found.state else [np.maximum(o, 0)]
    found.is_("output", x @ w, o, *more)
    return o


def test_weight_norm(explained: Any) -> None:
    found = explained("weight", "mlp", "--unit", "5")
    check_weight(found, 5)
    found.all_compared()


def test_weight_norm_with_mean_only_batch_norm(explained: Any) -> None:
    found = explained("weight_mean_only", "mlp", "--unit", "5")
    state, unit = found.state, 5
    o = check_weight(found, unit)
    beta, kept = state["hidden1.norm.bias"][unit], [state["hidden1.norm.running_mean"][unit]]
    z = o - o.mean()
    found.is_("values", o)
    found.is_("statistics", [o.mean()])
    found.is_("standardised", o, z)
    found.is_("scaled", z, [1] * 4, [beta] * 4, z + beta, np.maximum(z + beta, 0))
    assert [row[1] for row in found.rows("changes")][:2] == pytest.approx([0, 0], abs=1e-5)
    assert found.rows("changes")[2][1] == pytest.approx(9 * z[0], abs=1e-4)
    assert abs(found.rows("bias")[0][1]) < 1e-6
    check_inference(found, o[0], 1.0, beta, kept, updated(kept, o))
    assert found.compared | {"bias", "changes"} == {step["key"] for step in found.said["steps"]}


def test_weight_standardization_centres_first(explained: Any) -> None:
    found = explained("weight_standardization", "mlp", "--unit", "5")
    name = "hidden1.linear.parametrizations.weight.original"
    g, v = found.state[f"{name}0"][5, 0] * 1.71286, found.state[f"{name}1"][5]
    length = np.linalg.norm(v - v.mean())
    found.is_("length", [g, length, g / length, abs(g)])
    found.is_("direction", [0, 0], tolerance=1e-6)


def test_selu(explained: Any) -> None:
    found = explained("selu", "mlp", "--unit", "1")
    scale, alpha = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, equation 14
    o = (
        found.images[:4].reshape(4, -1) @ found.state["hidden1.linear.weight"][1]
        + found.state["hidden1.linear.bias"][1]
    )
    found.is_("values", o, scale * np.where(o > 0, o, alpha * np.expm1(np.minimum(o, 0))))
    found.all_compared()
