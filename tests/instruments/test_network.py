"""Loss and accuracy in inference, by a loop of the test's own; bytes that training keeps; FLOPs and milliseconds."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from short_run import short_run, through_a_checkpoint
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normbench.instruments import Fit, MemoryTime
from normbench.training.memory import saved_for_backward, size

# ---- fit


def test_loss_and_accuracy_are_those_of_inference(norm_name, network_of):
    run = short_run(network_of(norm_name, "mlp", dropout=0.5), train=700, validation=30)
    [row] = run.measure(Fit(), 3)
    copy = deepcopy(run.model).double().eval()
    for name in ("train", "validation"):
        images = getattr(run.setting, name)
        with torch.no_grad():
            logits = copy(images.images.double())
        assert row[f"{name}_loss"] == pytest.approx(F.cross_entropy(logits, images.labels).item(), rel=1e-5)
        assert row[f"{name}_accuracy"] == (logits.argmax(1) == images.labels).double().mean().item()
    assert row["images"] == 700


# ---- memory and time

WIDTHS = 12, 10  # of the small MLP; its images have 64 values
# Of the loss: the log probabilities of 5 classes (4 bytes each) and the label (8 bytes) of an image; the total weight.
LOSS, TOTAL_WEIGHT = 5 * 4 + 8, 4
COUNTED = "saved", "saved_per_image", "saved_constant"


def look(model: nn.Module, batch_size: int, index: int = 0) -> dict:
    (row,) = short_run(model, updates=None, batch_size=batch_size).measure(MemoryTime(), index)
    return row


@pytest.mark.parametrize(
    ("norm", "per_image", "constant"),
    [
        # the image and each ReLU's output, which is the next layer's input
        ("none", 64 + sum(WIDTHS), 0),
        # besides, each norm's input, and its mean and 1 / std
        ("batch", 64 + 2 * sum(WIDTHS), 2 * sum(WIDTHS)),
        ("layer", 64 + 2 * sum(WIDTHS) + 2 * len(WIDTHS), 0),
        # a mean is subtracted: its backward pass needs nothing
        ("mean_only", 64 + sum(WIDTHS), 0),
    ],
)
@pytest.mark.parametrize("batch_size", [2, 33])
def test_bytes_saved(norm, per_image, constant, batch_size, network_of):
    row = look(network_of(norm, "mlp"), batch_size)
    assert (row["saved_per_image"], row["saved_constant"]) == (4 * per_image + LOSS, 4 * constant + TOTAL_WEIGHT)
    assert row["saved"] == (4 * per_image + LOSS) * batch_size + 4 * constant + TOTAL_WEIGHT


@pytest.mark.parametrize(("norm", "model"), [("none", "mlp"), ("weight", "mlp"), ("batch", "cnn"), ("layer", "rnn")])
def test_flops_are_those_that_torch_counts(norm, model, network_of, batch_of):
    network = network_of(norm, model)
    row = look(network, 6)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(network(batch_of(6)[0]), batch_of(6)[1]).backward()
    assert row["flops"] == counter.get_total_flops() > 0
    assert row["flops_per_image"] * 6 == row["flops"]
    if model == "mlp":  # two for each weight and image forward, and for the gradients of weights and of inputs
        first, *others = (64 * WIDTHS[0], WIDTHS[0] * WIDTHS[1], WIDTHS[1] * 5)
        assert row["flops_per_image"] == 2 * (2 * first + 3 * sum(others)), "nobody asks for the image's gradient"


def test_counting_flops_imports_no_compiler():
    code = (
        "import sys, torch\nfrom normbench.training.memory import flops\n"
        "print(flops(torch.nn.Linear(3, 2), torch.ones(4, 3), torch.zeros(4).long()), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{2 * 2 * 4 * 6} False\n"


def test_weight_norm_keeps_a_constant(network_of):
    # w = g v / |v| is made anew in each step, whatever the batch
    weights = 64 * WIDTHS[0] + WIDTHS[0] * WIDTHS[1]
    row = look(network_of("weight", "mlp"), 8)
    assert row["saved_per_image"] == 4 * (64 + sum(WIDTHS)) + LOSS
    assert 4 * WIDTHS[0] * WIDTHS[1] <= row["saved_constant"] <= 4 * (weights + 2 * sum(WIDTHS))


@pytest.mark.parametrize(
    ("norm", "model"), [("none", "mlp"), ("batch", "cnn"), ("ghost_batch", "mlp"), ("layer", "rnn")]
)
def test_saved_is_linear_in_the_batch(norm, model, network_of):
    network = network_of(norm, model)
    small, large = look(network, 8), look(network, 32)
    if "ghost" not in norm:  # ghost batches keep their own statistics
        assert small["saved_per_image"] == large["saved_per_image"]
        assert small["saved_constant"] == large["saved_constant"]
    blank = network.to("meta")
    images, labels = torch.empty(32, 1, 8, 8, device="meta"), torch.zeros(32, device="meta", dtype=torch.long)
    assert saved_for_backward(blank, images, labels) == large["saved"]


def test_a_storage_counts_once_and_parameters_do_not():
    linear = nn.Linear(6, 6)
    x = torch.randn(4, 6)
    assert saved_for_backward(linear, x) == x.nbytes

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return linear(x) + linear(x[:2].repeat(2, 1)) + linear(x.flip(0).view(4, 6)) + linear(x.view(4, 6))

    model = Twice()
    model.linear = linear
    assert saved_for_backward(model, x) == 3 * x.nbytes
    assert size(linear.parameters()) == 4 * (36 + 6)


def test_bytes_of_parameters_and_buffers(network_of):
    row = look(network_of("batch", "mlp"), 8)
    weights, norms = 64 * 12 + 12 * 10 + 10 * 5 + 5, 2 * (12 + 10)  # gamma and beta, and no bias before them
    assert row["parameters"] == 4 * (weights + norms)
    assert row["buffers"] == 2 * 4 * (12 + 10) + 2 * 8  # averages of mean and variance, and a count, of two norms
    assert row["peak"] == ""


def test_milliseconds_are_those_of_an_update_and_bytes_are_counted_once(network_of):
    run, instrument = short_run(network_of("batch", "mlp"), updates=None), MemoryTime()
    (first,) = run.measure(instrument, 0)
    resumed = through_a_checkpoint(instrument, MemoryTime())
    run.model.register_forward_pre_hook(lambda *_: pytest.fail("the model was run"))
    times = [f"{what}_ms" for what in ("training", "evaluating", "measuring")]
    assert [first[name] for name in times] == ["", "", ""]
    for one in (instrument, resumed):
        (later,) = run.measure(one, 4)
        assert {name: later[name] for name in COUNTED} == {name: first[name] for name in COUNTED}
        assert [later[name] for name in times] == [500, 125, 250]


def test_what_was_counted_is_let_go():
    """A graph that holds what it has computed is never freed: a worker took 60 MB more with each run of a CNN."""
    model, outputs = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid()), []
    model.register_forward_hook(lambda module, images, output: outputs.append(weakref.ref(output)))
    saved_for_backward(model, torch.randn(5, 3), torch.zeros(5, dtype=torch.long))
    gc.collect()
    assert [output() for output in outputs] == [None]
