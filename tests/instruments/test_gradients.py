"""The next step in advance, to the bit; the numbers of `gradients` against hooks, plain backward passes, real steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from short_run import ShortRun, assert_same, effective_weights, everything, few_pairs, plain_weights, short_run
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normbench.instruments import Gradients
from normbench.instruments.gradients import in_training, next_step, scale_invariance, weight_gradients
from normbench.instruments.parameters import weights, weights_of
from normbench.models import LSTMCell
from normbench.noise import next_draw, set_draw
from normbench.norms import BatchNorm, LayerNorm, NormScheme, RMSNorm, blocks
from normbench.training.loop import Update

ADAPTIVE = ("adam", "adamw", "rmsprop", *(["muon"] if hasattr(torch.optim, "Muon") else []))  # torch 2.9 and later

# ---- the next step


def in_advance(run: ShortRun) -> dict[str, Tensor]:
    assert run.step.batch is not None
    return next_step(run.model, run.optimizer, run.setting.update, run.step.batch, run.step.index).state_dict()


@pytest.mark.parametrize(("norm", "network", "optimizer", "updates"), [
    *(("batch", "mlp", optimizer, 2) for optimizer in ("sgd", "momentum", "nesterov", *ADAPTIVE)),
    ("weight", "cnn", "adam", 0), ("noisy_batch", "cnn", "sgd", 2), ("batch", "rnn", "momentum", 0),
    ("weight_mean_only", "rnn", "adamw", 2),
])  # fmt: skip
def test_it_is_the_next_step_to_the_bit(norm, network, optimizer, updates, network_of, device):
    """Schedule, clipping, accumulation, dropout, noise and weight decay are part of it."""
    update = Update(lr=lambda index: 0.1 / (index + 1), clip_norm=0.01, accumulate=2)
    model = network_of(norm, network, dropout=0.5)
    run = short_run(model, optimizer, update, updates=updates, device=device, weight_decay=0.01)
    before, ahead = everything(run.model, run.optimizer), in_advance(run)
    assert_same(before, everything(run.model, run.optimizer))
    run.take_step()
    assert_same(ahead, run.model.state_dict())
    assert not torch.equal(before["state output.linear.weight"], ahead["output.linear.weight"])


def test_passes_in_training_draw_the_same_masks(network_of, batch_of):
    for norm, name in (("noisy_batch", "cnn"), ("selu", "mlp"), ("batch", "rnn")):
        model, outputs = network_of(norm, name, dropout=0.5), []
        model.output.eval()
        torch.manual_seed(3)
        for _ in range(2):
            with in_training(model):
                outputs.append(model(batch_of(8)[0]).detach())
                assert [m.training for m in (model, model.output)] == [True, False]  # what someone froze stays frozen
        outputs.append(model(batch_of(8)[0]))  # the very next pass
        assert torch.equal(outputs[0], outputs[1])
        assert torch.equal(outputs[0], outputs[2])


@few_pairs
def test_gradients_are_of_the_weights_that_the_network_multiplies_by(norm, network, network_of):
    for accumulate in (1, 2):
        run = short_run(network_of(norm, network, dropout=0.5).double(), update=Update(accumulate=accumulate))
        seen = weight_gradients(run.model, weights_of(blocks(run.model)), run.setting.update, run.step.batch)
        plain = plain_weights(run.model)
        plain.zero_grad()
        run.setting.update.backward(plain, run.step.batch)
        wanted = effective_weights(plain)
        assert seen.keys() == wanted.keys()
        for key, weight in wanted.items():
            torch.testing.assert_close(seen[key], weight.grad, rtol=1e-9, atol=1e-12)


# ---- gradients


class Products(TorchFunctionMode):
    """Keeps all that F.linear and F.conv2d compute, and its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[int, list[Tensor]] = {}  # the weight's id -> products

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (F.linear, F.conv2d):
            result.retain_grad()
            self.of.setdefault(id(args[1]), []).append(result)
        return result


def naive_gradients(run: ShortRun) -> dict[tuple[str, str], float]:
    model, products = plain_weights(run.model), Products()
    model.zero_grad()
    n = run.setting.batch_size
    enough = len(run.setting.validation) >= n
    images, labels = (run.setting.validation if enough else run.setting.train).batch(torch.arange(n))
    set_draw(model, -1)
    with products:
        outputs = model(images)
    F.cross_entropy(outputs, labels).backward()
    found = {}
    for (layer, weight), w in effective_weights(model).items():
        found[layer, weight] = w.grad.norm()
        grads = torch.cat([product.grad.flatten() for product in products.of[id(w)]])
        found[layer, weight.removesuffix("w") + "linear"] = grads.norm()
    return {key: float(value) for key, value in found.items()}


@few_pairs
def test_gradients_are_those_of_a_backward_pass_and_update_ratio_of_the_real_step(norm, network, network_of):
    run = short_run(network_of(norm, network, dropout=0.25).double())
    rows, wanted = run.measure(Gradients()), naive_gradients(run)
    sums = {key for row in rows if (key := (row["layer"], row["tensor"])) not in wanted}
    assert all(layer.endswith(".sum") and tensor == "linear" for layer, tensor in sums)  # of residual branches
    got = {(row["layer"], row["tensor"]): row["gradient"] for row in rows}
    assert {key: got[key] for key in wanted} == pytest.approx(wanted, rel=1e-9)
    now, after = (effective_weights(plain_weights(m)) for m in (run.model, run.stepped()[0]))
    wanted = {key: (after[key] - w).norm().item() / w.norm().item() for key, w in now.items()}
    got = {(row["layer"], row["tensor"]): row["update_ratio"] for row in rows}
    assert {key: value for key, value in got.items() if value is not None} == pytest.approx(wanted, rel=1e-9)


def test_layers_come_in_the_order_of_definition(network_of):
    rows = short_run(network_of("batch", "mlp")).measure(Gradients())
    assert [(row["layer"], row["tensor"]) for row in rows] == [
        (layer, tensor) for layer in ("hidden1", "hidden2", "output") for tensor in ("w", "linear")
    ]
    rows = short_run(network_of("batch", "rnn")).measure(Gradients())
    cell = ["input.w", "hidden.w", "input.linear", "hidden.linear"]
    assert [row["tensor"] for row in rows] == [*cell, "w", "linear"]


def test_without_a_norm_both_products_of_a_cell_have_the_same_gradient(network_of):
    for cell in ("lstm", "tanh"):
        rows = short_run(network_of("none", "rnn", cell=cell).double()).measure(Gradients())
        gradients = {row["tensor"]: row["gradient"] for row in rows}
        assert gradients["input.linear"] == pytest.approx(gradients["hidden.linear"], rel=1e-12)


# ---- effective learning rate


def rows_of(weight: Tensor) -> float:
    return float(np.median(np.linalg.norm(weight.detach().flatten(1).numpy(), axis=1)))


@pytest.mark.parametrize(
    ("optimizer", "power", "factor"),
    [("sgd", 2, 1), ("momentum", 2, 10), ("nesterov", 2, 10), *((name, 1, 1) for name in ADAPTIVE)],
)
def test_effective_lr(optimizer, power, factor, network_of):
    for norm, update in (
        ("batch", Update()),
        *((n, Update(lr=lambda i: 0.1 / (i + 1))) for n in ("layer", "weight", "none")),
    ):
        run = short_run(network_of(norm, "mlp").double(), optimizer, update)
        run.optimizer.param_groups[0]["lr"] = 0.07  # of the weights, where there is no schedule
        for row in run.measure(Gradients()):
            linear = run.model.get_submodule(row["layer"]).linear
            if norm == "none" or row["layer"] == "output" or row["tensor"] == "linear":
                assert (row["invariant"], row["effective_lr"]) == ("", None)
                continue
            trained = linear.parametrizations.weight.original1 if norm == "weight" else linear.weight
            size = trained.norm().item() if norm == "layer" else rows_of(trained)
            assert row["invariant"] == ("matrix" if norm == "layer" else "row")
            lr = 0.07 if norm == "batch" else 0.1 / 3
            assert row["effective_lr"] == pytest.approx(factor * lr / size**power, rel=1e-9)


def test_effective_lr_says_how_fast_the_direction_turns(network_of):
    """SGD on a scale-invariant weight: c times the weight and c^2 times the lr turn it by the same angle."""
    turned = []
    for c in (1.0, 4.0):
        model = network_of("batch", "mlp", "norm.eps=1e-30").double()
        with torch.no_grad():
            model.hidden1.linear.weight.mul_(c)
        run = short_run(model, "sgd", updates=0, lr=0.01 * c**2)
        row = run.measure(Gradients())[0]
        turned.append((row["effective_lr"], row["update_ratio"]))
    assert turned[0] == pytest.approx(turned[1], rel=1e-9)


# ---- the run around it


def test_the_batch_is_of_the_runs_own_size_and_the_same_each_time(network_of, batch_of):
    run, instrument = short_run(network_of("batch", "mlp", dropout=0.5).double()), Gradients()
    first = run.measure(instrument)
    next_draw(run.model)  # other dropout masks for training
    run.step = replace(run.step, batch=batch_of(8, seed=9, dtype=torch.float64))
    again = run.measure(instrument)
    assert [row["gradient"] for row in first] == [row["gradient"] for row in again]
    assert [row["update_ratio"] for row in first] != [row["update_ratio"] for row in again]


def test_training_images_where_validation_has_too_few(network_of):
    run = short_run(network_of("ghost_batch", "mlp", "norm.virtual=8").double(), validation=5)
    got = {(row["layer"], row["tensor"]): row["gradient"] for row in run.measure(Gradients())}
    assert got == pytest.approx(naive_gradients(run))


def test_frozen_weights_have_no_row(network_of):
    run = short_run(network_of("weight", "mlp"))
    for parameter in run.model.hidden1.parameters():
        parameter.requires_grad_(False)
    seen = weight_gradients(run.model, weights_of(blocks(run.model)), run.setting.update, run.step.batch)
    assert list(seen) == [("hidden2", "w"), ("output", "w")]
    rows = [(row["layer"], row["tensor"]) for row in run.measure(Gradients())]
    assert rows == [("hidden2", "w"), ("hidden2", "linear"), ("output", "w"), ("output", "linear")]


class OwnCell(LSTMCell):
    """A cell whose `linear` is no sum that was made for the observer alone, but what the loss depends on."""

    def forward(self, x: Tensor, state: Any) -> Tensor:
        h = state[0]
        for from_input in F.linear(x, self.input.weight)[:, :, : self.units]:
            total = from_input + F.linear(h, self.hidden.weight[: self.units]) + self.bias[: self.units]
            self.show("linear", total)
            h = total.tanh()
        return h


def test_a_cell_of_somebodys_own(scheme_of, network_of):
    model = network_of("none", "rnn").double()
    model.cell = OwnCell(scheme_of("none"), 8, 7, 8).double()
    run = short_run(model)
    rows = {row["tensor"]: row["gradient"] for row in run.measure(Gradients()) if row["layer"] == "cell"}
    assert set(rows) == {"input.w", "hidden.w", "linear"}


# Of hidden layers. A scheme that is not in the table is one that was added: that it has an answer is enough.
INVARIANT = {
    "batch": "row", "ghost_batch": "row", "batch_renorm": "row", "noisy_batch": "row", "instance": "row",
    "variance_only": "row",
    "weight": "row", "weight_mean_only": "row", "weight_standardization": "row",
    "layer": "matrix", "layer2d": "matrix", "group": "matrix", "rms": "matrix",
    "none": "", "selu": "", "mean_only": "", "dynamic_tanh": "", "dynamic_erf": "",
}  # fmt: skip


def test_what_may_be_scaled_is_what_schemes_declare(norm_name, model_name, network_of):
    model = network_of(norm_name, model_name)
    found = {
        (layer, weight.name): scale_invariance(block, weight)
        for layer, block in blocks(model)
        for weight in weights(block)
    }
    hidden = {kind for (layer, _), kind in found.items() if layer != "output"}
    assert hidden <= {INVARIANT[norm_name]} if norm_name in INVARIANT else hidden <= {"", "row", "matrix"}
    assert found["output", "w"] == "" or model_name == "convpool_c"  # which normalises it, too


def test_a_norm_behind_the_activation_or_a_bias_in_front_of_it_leaves_nothing_to_scale():
    def kind(scheme: NormScheme) -> str:
        block = scheme.block(nn.Linear(8, 6), nn.ReLU)
        [weight] = weights(block)
        return scale_invariance(block, weight)

    assert kind(NormScheme(norm=BatchNorm)) == "row"
    assert kind(NormScheme(norm=BatchNorm, placement="after")) == ""
    assert kind(NormScheme(norm=lambda features: LayerNorm(features, affine=False))) == ""  # a bias is left
    assert kind(NormScheme(norm=RMSNorm)) == "matrix"
    assert kind(NormScheme(norm=RMSNorm, reparametrize=nn.utils.parametrizations.weight_norm)) == "row"
