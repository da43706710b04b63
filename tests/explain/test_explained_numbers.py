"""Every number that `normbench explain` prints, calculated again in double precision from weights and images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view

EPS = 1e-5


def standard(o: np.ndarray, axes: tuple[int, ...] = (0,)) -> np.ndarray:
    return (o - o.mean(axes, keepdims=True)) / np.sqrt(o.var(axes, keepdims=True) + EPS)


def hidden(state: dict[str, np.ndarray], images: np.ndarray, layer: int, training: bool) -> tuple[np.ndarray, ...]:
    """o, z, y of a layer of an MLP with batch norm."""
    x = images.reshape(len(images), -1)
    for i in range(1, layer + 1):
        name = f"hidden{i}"
        o = x @ state[f"{name}.linear.weight"].T
        mean, var = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
        z = standard(o) if training else (o - mean) / np.sqrt(var + EPS)
        y = state[f"{name}.norm.weight"] * z + state[f"{name}.norm.bias"]
        x = np.maximum(y, 0)
    return o, z, y


def gradients(found: Any, layer: str, place: str) -> tuple[float, float]:
    """Of a bias before the norm and of beta, through a network of plain torch functions in double precision."""
    state = {k: torch.from_numpy(v) for k, v in found.state.items()}
    x, labels = torch.from_numpy(found.images[:4]), torch.from_numpy(found.labels[:4])
    before = torch.zeros(len(state[f"{layer}.norm.bias"]), dtype=torch.float64, requires_grad=True)
    beta = state[f"{layer}.norm.bias"].requires_grad_()
    for name in sorted({k.split(".")[0] for k in state} - {"output"}):
        weight = state[f"{name}.linear.weight"]
        o = F.conv2d(x, weight, padding=1) if weight.dim() == 4 else x.flatten(1) @ weight.T
        view = (-1, 1, 1) if o.dim() == 4 else (-1,)
        if name == layer:
            o = o + before.view(view)
        axes = (0, 2, 3) if o.dim() == 4 else (0,)
        var, mean = torch.var_mean(o, axes, correction=0, keepdim=True)
        z = (o - mean) / (var + EPS).sqrt()
        x = (state[f"{name}.norm.weight"].view(view) * z + state[f"{name}.norm.bias"].view(view)).relu()
        x = F.max_pool2d(x, 2) if x.dim() == 4 else x
    logits = x.flatten(1) @ state["output.linear.weight"].T + state["output.linear.bias"]
    F.cross_entropy(logits, labels).backward()
    u = found.said["unit"]
    assert before.grad is not None
    assert beta.grad is not None
    return before.grad[u].item(), beta.grad[u].item()


def check_batch(found: Any, o: np.ndarray, shown: Any, gamma: float, beta: float, running: Any, momentum: float) -> Any:
    """The steps that all networks share. `o`: the unit's values, flat. Returns z of the values shown."""
    m, mean, var = o.size, o.mean(), o.var()
    z = (o - mean) / np.sqrt(var + EPS)
    found.is_("values", o[shown])
    found.is_("statistics", [mean, var, math.sqrt(var + EPS)])
    found.is_("standardised", o[shown], (o - mean)[shown], z[shown])
    found.is_("spread", [z.mean(), z.std(), z.min(), z.max()])
    found.is_("adding_five", o[shown], o[shown] + 5, z[shown], z[shown])
    new = [(1 - momentum) * old + momentum * batch for old, batch in zip(running, (mean, o.var(ddof=1)), strict=True)]
    found.is_("running", running, [mean, var * m / (m - 1)], new)
    return z[shown]


@pytest.mark.parametrize(("layer", "unit"), [(1, 0), (1, 7), (2, 9)])
def test_batch_norm_in_an_mlp(explained: Any, layer: int, unit: int) -> None:
    found = explained("batch", "mlp", "--layer", f"hidden{layer}", "--unit", str(unit))
    name, state = f"hidden{layer}.norm", found.state
    gamma, beta = state[f"{name}.weight"][unit], state[f"{name}.bias"][unit]
    running = state[f"{name}.running_mean"][unit], state[f"{name}.running_var"][unit]
    o, z, y = hidden(state, found.images[:4], layer, training=True)
    check_batch(found, o[:, unit], slice(None), gamma, beta, running, 0.1)
    found.is_("scaled", z[:, unit], y[:, unit], np.maximum(y[:, unit], 0))
    before, behind = gradients(found, f"hidden{layer}", "mlp")
    assert abs(before) < 1e-12
    found.is_("bias", [0, behind], tolerance=1e-6)
    _, free, _ = hidden(state, found.images, layer, training=False)
    largest = [np.abs(standard(o[:2])).max(), np.abs(z).max(), np.abs(free).max()]
    found.is_("bound", None, None, largest)
    assert [row[2] for row in found.rows("bound")] == [1, math.sqrt(3), "none"]
    assert largest[0] <= 1
    assert largest[1] <= math.sqrt(3) < 1.7321
    o, z, y = (values[0, unit] for values in hidden(state, found.images[:1], layer, training=False))
    found.is_("inference", [o, *running, z, y])
    a = gamma / math.sqrt(running[1] + EPS)
    b = beta - a * running[0]
    found.is_("folded", [a, b, a * o + b, y, 0], tolerance=1e-6)
    assert a * o + b == pytest.approx(y, abs=1e-12)
    found.all_compared()


def test_a_batch_of_two_is_always_one(explained: Any) -> None:
    found = explained("batch", "mlp", "batch_size=2")
    [_, [_, var], _] = found.rows("statistics")
    for row in found.rows("standardised"):
        assert abs(row[3]) == pytest.approx(1 / math.sqrt(1 + EPS / var), abs=1e-5)
    assert [row[0] for row in found.rows("bound")] == ["training, 2 images", "inference, 256 images one by one"]


def convolution(state: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, state["conv1.linear.weight"])


def test_batch_norm_in_a_cnn(explained: Any) -> None:
    found = explained("batch", "cnn", "--unit", "2")
    state, u = found.state, 2
    gamma, beta = state["conv1.norm.weight"][u], state["conv1.norm.bias"][u]
    running = state["conv1.norm.running_mean"][u], state["conv1.norm.running_var"][u]
    o = convolution(state, found.images[:4])
    places = [tuple(int(word.split()[-1]) - 1 for word in row[0].split(",")) for row in found.rows("values")]
    assert len(set(places)) == 8
    assert "N x H x W = 4 x 28 x 28 = 3,136" in found.said["steps"][0]["words"]
    shown = np.ravel_multi_index(np.transpose(places), o[:, 0].shape)
    z = check_batch(found, o[:, u].ravel(), shown, gamma, beta, running, 0.1)
    found.is_("scaled", z, gamma * z + beta, np.maximum(gamma * z + beta, 0))
    found.is_("bias", [0, gradients(found, "conv1", "cnn")[1]], tolerance=1e-6)
    z_all = standard(o, (0, 2, 3))
    many = convolution(state, found.images)
    mean, var = (state[f"conv1.norm.running_{what}"][:, None, None] for what in ("mean", "var"))
    free = (many - mean) / np.sqrt(var + EPS)
    largest = [np.abs(standard(o[:2], (0, 2, 3))).max(), np.abs(z_all).max(), np.abs(free).max()]
    found.is_("bound", None, None, largest, tolerance=1e-4)
    assert [row[2] for row in found.rows("bound")][:2] == [math.sqrt(1567), math.sqrt(3135)]
    first = o[places[0][0], u, places[0][1], places[0][2]]
    a = gamma / math.sqrt(running[1] + EPS)
    b = beta - a * running[0]
    found.is_("inference", [first, *running, (first - running[0]) / math.sqrt(running[1] + EPS), a * first + b])
    found.is_("folded", [a, b, a * first + b, a * first + b, 0], tolerance=1e-6)
    found.all_compared()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(state: dict[str, np.ndarray], images: np.ndarray, until: int, training: bool) -> tuple[np.ndarray, ...]:
    """W_x x, n(W_x x), gates and h at step `until` of an LSTM with batch norm at each step."""
    h = c = np.zeros((len(images), state["cell.hidden.weight"].shape[1]))

    def norm(name: str, x: np.ndarray, t: int) -> np.ndarray:
        mean, var = state[f"cell.{name}_norm.running_mean"][t], state[f"cell.{name}_norm.running_var"][t]
        z = standard(x) if training else (x - mean) / np.sqrt(var + EPS)
        return state[f"cell.{name}_norm.weight"] * z + state.get(f"cell.{name}_norm.bias", 0.0)

    for t in range(until + 1):
        o = images[:, 0, t] @ state["cell.input.weight"].T
        y = norm("input", o, t)
        gates = y + norm("hidden", h @ state["cell.hidden.weight"].T, t) + state["cell.bias"]
        i, f, g, out = np.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(out) * np.tanh(norm("state", c, t))
    return o, y, gates, h


def test_batch_norm_in_an_lstm(explained: Any) -> None:
    found = explained("batch", "rnn", "--unit", "8")
    state, u, t = found.state, 8, 14
    assert found.said["time_step"] == t
    assert "time step 15 of 28" in found.said["where"]
    assert "(forget gate)" in found.said["where"]
    o, y, gates, h = lstm(state, found.images[:4], t, training=True)
    gamma = state["cell.input_norm.weight"][u]
    running = state["cell.input_norm.running_mean"][t, u], state["cell.input_norm.running_var"][t, u]
    z = check_batch(found, o[:, u], slice(None), gamma, 0.0, running, 0.1)
    found.is_("scaled", z, y[:, u])
    rest = (gates - y)[:, u] - state["cell.bias"][u]
    found.is_("gate", y[:, u], rest, gates[:, u], h[:, u - 6], tolerance=1e-4)
    before, behind = (row[1] for row in found.rows("bias"))
    assert abs(before) < 1e-5 * max(1, abs(behind))
    model = lstm_in_double(found)
    found.is_("bias", [0, model], tolerance=1e-5)
    many, *_ = lstm(state, found.images, t, training=False)
    free = (many - state["cell.input_norm.running_mean"][t]) / np.sqrt(state["cell.input_norm.running_var"][t] + EPS)
    found.is_("bound", None, None, [np.abs(standard(o[:2])).max(), np.abs(standard(o)).max(), np.abs(free).max()])
    a = gamma / math.sqrt(running[1] + EPS)
    b = -a * running[0]
    found.is_("inference", [o[0, u], *running, (o[0, u] - running[0]) / math.sqrt(running[1] + EPS), a * o[0, u] + b])
    found.is_("folded", [a, b, a * o[0, u] + b, a * o[0, u] + b, 0], tolerance=1e-6)
    found.all_compared()


def lstm_in_double(found: Any) -> float:
    """The gradient by the cell's bias: a difference quotient of the loss of our own formulas."""
    state, u = dict(found.state), found.said["unit"]

    def loss(amount: float) -> float:
        bias = state["cell.bias"].copy()
        bias[u] += amount
        *_, h = lstm({**state, "cell.bias": bias}, found.images[:4], 27, training=True)
        logits = h @ state["output.linear.weight"].T + state["output.linear.bias"]
        shifted = logits - logits.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return -logs[np.arange(4), found.labels[:4]].mean()

    return (loss(1e-5) - loss(-1e-5)) / 2e-5


def test_layer_norm(explained: Any) -> None:
    found = explained("layer", "mlp", "--unit", "2")
    state, u = found.state, 2
    weight, gamma, beta = (state[f"hidden1.{name}"] for name in ("linear.weight", "norm.weight", "norm.bias"))
    o = found.images[0].ravel() @ weight.T
    z = (o - o.mean()) / np.sqrt(o.var() + EPS)
    shown = [int(row[0]) for row in found.rows("values")]
    assert shown == list(range(2, 10))
    y = gamma * z + beta
    found.is_("values", o[shown])
    found.is_("statistics", [o.mean(), o.var(), math.sqrt(o.var() + EPS)])
    found.is_("standardised", o[shown], (o - o.mean())[shown], z[shown])
    found.is_("scaled", z[shown], gamma[shown], beta[shown], y[shown], np.maximum(y, 0)[shown])
    found.is_("others", [y[u]] * 3, [0, 0, 0])
    before, behind = layer_gradients(found)
    found.is_("bias", [0, before[u], 0, behind[u]], tolerance=2e-6)
    assert abs(before[u]) > 1e-5, "a bias of one unit does something"
    found.all_compared()


def layer_gradients(found: Any) -> tuple[np.ndarray, np.ndarray]:
    state = {k: torch.from_numpy(v) for k, v in found.state.items()}
    x = torch.from_numpy(found.images[:4]).flatten(1)
    before = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    beta = state["hidden1.norm.bias"].requires_grad_()
    for name in ("hidden1", "hidden2"):
        o = x @ state[f"{name}.linear.weight"].T + (before if name == "hidden1" else 0)
        var, mean = torch.var_mean(o, 1, correction=0, keepdim=True)
        x = ((o - mean) / (var + EPS).sqrt() * state[f"{name}.norm.weight"] + state[f"{name}.norm.bias"]).relu()
    logits = x @ state["output.linear.weight"].T + state["output.linear.bias"]
    F.cross_entropy(logits, torch.from_numpy(found.labels[:4])).backward()
    assert before.grad is not None
    assert beta.grad is not None
    return before.grad.numpy(), beta.grad.numpy()


def check_weight(found: Any, u: int) -> np.ndarray:
    """Returns the unit's outputs."""
    name = "hidden1.linear.parametrizations.weight.original"
    g, v = found.state[f"{name}0"][u, 0], found.state[f"{name}1"][u]
    length = math.sqrt((v**2).sum())
    w = g * v / length
    found.is_("length", [g, length, g / length, abs(g)])
    shown = [int(row[0]) for row in found.rows("weights")]
    assert set(shown) == set(np.argsort(-np.abs(v))[:6])
    found.is_("weights", v[shown], w[shown])
    found.is_("direction", [0, 0], tolerance=1e-6)
    x = found.images[:4].reshape(4, -1)
    o = x @ w + (found.state["hidden1.linear.bias"][u] if "hidden1.linear.bias" in found.state else 0)
    more = [] if "hidden1.norm.bias" in found.state else [np.maximum(o, 0)]
    found.is_("output", x @ v, x @ w, o, *more)
    return o


def test_weight_norm(explained: Any) -> None:
    found = explained("weight", "mlp", "--unit", "5")
    check_weight(found, 5)
    found.all_compared()


def test_weight_norm_with_mean_only_batch_norm(explained: Any) -> None:
    found = explained("weight_mean_only", "mlp", "--unit", "5")
    state, u = found.state, 5
    o = check_weight(found, u)
    beta, running = state["hidden1.norm.bias"][u], state["hidden1.norm.running_mean"][u]
    y = o - o.mean() + beta
    found.is_("values", o)
    found.is_("centred", o, [o.mean()] * 4, y, np.maximum(y, 0))
    found.is_("adding_five", o, o + 5, y, y)
    found.is_("running", [running], [o.mean()], [0.9 * running + 0.1 * o.mean()])
    found.is_("inference", [o[0], running, o[0] - running + beta])
    found.is_("folded", [beta - running, o[0] + beta - running, o[0] + beta - running, 0], tolerance=1e-6)
    found.is_("bias", [0, mean_only_gradient(found)], tolerance=1e-6)
    found.all_compared()


def mean_only_gradient(found: Any) -> float:
    state = {k: torch.from_numpy(v) for k, v in found.state.items()}
    x, beta = torch.from_numpy(found.images[:4]).flatten(1), state["hidden1.norm.bias"].requires_grad_()
    for name in ("hidden1", "hidden2"):
        g, v = (state[f"{name}.linear.parametrizations.weight.original{i}"] for i in (0, 1))
        o = x @ (g * v / v.norm(dim=1, keepdim=True)).T
        x = (o - o.mean(0) + state[f"{name}.norm.bias"]).relu()
    logits = x @ state["output.linear.weight"].T + state["output.linear.bias"]
    F.cross_entropy(logits, torch.from_numpy(found.labels[:4])).backward()
    assert beta.grad is not None
    return beta.grad[found.said["unit"]].item()


def test_selu(explained: Any) -> None:
    found = explained("selu", "mlp", "--unit", "1")
    scale, alpha = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, equation 14

    def selu(o: np.ndarray) -> np.ndarray:
        return scale * np.where(o > 0, o, alpha * np.expm1(np.minimum(o, 0)))

    def moments(var: float) -> tuple[float, float]:
        x, weight = np.polynomial.legendre.leggauss(200)  # from 0 to 12 standard deviations, on either side of the bend
        z = np.concatenate([-6 * (x + 1), 6 * (x + 1)])
        weight = np.tile(6 * weight, 2) * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        y = selu(math.sqrt(var) * z)
        return float(weight @ y), float(weight @ y**2 - (weight @ y) ** 2)

    x = found.images[:4].reshape(4, -1)
    o = x @ found.state["hidden1.linear.weight"][1] + found.state["hidden1.linear.bias"][1]
    found.is_("values", o)
    found.is_("constants", [scale, alpha, -scale * alpha])
    found.is_("activated", o, selu(o))
    starts = [float(row[0]) for row in found.rows("fixed_point")]
    deep = starts
    for _ in range(10):
        deep = [moments(var)[1] for var in deep]
    found.is_("fixed_point", [moments(s)[0] for s in starts], [moments(s)[1] for s in starts], deep)
    assert moments(1.0) == pytest.approx((0, 1), abs=1e-9)
    x, expected = found.images.reshape(256, -1), []
    for name in ("hidden1", "hidden2"):
        o = x @ found.state[f"{name}.linear.weight"].T + found.state[f"{name}.linear.bias"]
        x = selu(o)
        expected.append([o.mean(), o.var(), x.mean(), x.var()])
    found.is_("layers", *np.transpose(expected))
    found.all_compared()
