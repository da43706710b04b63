"""The loop, the batches, evaluation and the optimizers against their definitions; observed runs against unobserved."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normbench import seeding
from normbench.config.options import choices
from normbench.errors import Unsupported
from normbench.experiment import prepare_run, train
from normbench.training.loop import Batch, evaluate, mini_batches, steps
from normbench.training.optimizers import make_optimizer


class Examples:
    """Images that carry their own position."""

    def __init__(self, n: int) -> None:
        self.images = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, positions: Tensor) -> Batch:
        return self.images[positions], positions


def order(epoch: int, n: int = 10) -> Tensor:
    return seeding.order(0, epoch, n)


# ---- steps


def test_pauses_before_each_update_and_after_the_last(network_of, batch_of):
    model = network_of("none", "mlp")
    batches = [batch_of(4, seed=seed) for seed in range(3)]
    reference, optimizer = copy.deepcopy(model), make_optimizer("sgd", model, lr=0.1)
    seen, losses = [], []
    for step in steps(model, iter(batches), optimizer):
        seen.append((step.index, step.batch, step.loss))
        # Exactly `index` updates were done, with the loss of the last one.
        for mine, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(mine, other)
        if step.batch is not None:
            x, y = step.batch
            loss = F.cross_entropy(reference(x), y)
            gradients = torch.autograd.grad(loss, list(reference.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient
            losses.append(loss.detach())
    assert [index for index, _, _ in seen] == [0, 1, 2, 3]
    assert [batch for _, batch, _ in seen] == [*batches, None]
    assert seen[0][2] is None
    for (_, _, loss), wanted in zip(seen[1:], losses, strict=True):
        assert not loss.requires_grad
        torch.testing.assert_close(loss, wanted)


def test_counts_on_from_where_it_starts(network_of, batch_of):
    model = network_of("none", "mlp")
    optimizer = make_optimizer("sgd", model, lr=0.1)
    assert [s.index for s in steps(model, iter([batch_of(4)] * 2), optimizer, start=7)] == [7, 8, 9]
    (only,) = steps(model, iter([]), optimizer, start=7)
    assert (only.index, only.batch, only.loss) == (7, None, None)


def test_trains_in_training_mode(network_of, batch_of):
    model = network_of("batch", "mlp").eval()
    for step in steps(model, iter([batch_of(4)] * 3), make_optimizer("sgd", model, lr=0.1)):
        assert model.training
        assert model.hidden1.norm.num_batches_tracked == step.index


# ---- mini-batches


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 40), epochs=st.integers(1, 4))
def test_each_epoch_goes_once_through_all_whole_batches(n, batch_size, epochs):
    per_epoch = n // batch_size
    if per_epoch == 0:
        return
    found = [
        x.flatten().long()
        for x, _ in mini_batches(Examples(n), batch_size, lambda e: order(e, n), 0, epochs * per_epoch)
    ]
    assert len(found) == epochs * per_epoch
    assert {len(batch) for batch in found} == {batch_size}
    for epoch in range(epochs):
        mine = torch.cat(found[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert torch.equal(mine, order(epoch, n)[: per_epoch * batch_size])
        assert mine.unique().numel() == mine.numel()


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 12), total=st.integers(0, 12), batch_size=st.integers(1, 10))
def test_resuming_anywhere_goes_on_with_the_same_batches(start, total, batch_size):
    def batches(first: int) -> list[list[int]]:
        found = mini_batches(Examples(10), batch_size, order, first, total)
        return [x.flatten().long().tolist() for x, _ in found]

    assert batches(start) == batches(0)[start:]


def test_labels_stay_with_their_images():
    for x, y in mini_batches(Examples(10), 3, order, 0, 9):
        assert torch.equal(x.flatten().long(), y)


# ---- evaluation


@pytest.mark.parametrize("batch_size", [1, 7, 50, 500])
@pytest.mark.parametrize("training", [True, False])
def test_evaluation_is_the_mean_over_all_examples(batch_size, training, network_of, batch_of):
    model = network_of("batch", "mlp", dropout=0.5)
    images, labels = batch_of(50)
    model(images)
    model.train(training)

    class Split:
        def __len__(self) -> int:
            return 50

        def batch(self, positions: Tensor) -> Batch:
            return images[positions], labels[positions]

    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    loss, accuracy = evaluate(model, Split(), batch_size)
    assert model.training == training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    losses, right = [], 0
    with torch.no_grad():
        for x, y in zip(images, labels, strict=True):
            logits = model.eval()(x[None])[0].double()
            losses.append((logits.exp().sum().log() - logits[y]).item())
            right += int(logits.argmax() == y)
    assert loss == pytest.approx(sum(losses) / 50, rel=1e-5)
    assert accuracy == right / 50
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- what decays


def test_weight_decay_reaches_weights_alone(norm_name, model_name, network_of):
    model = network_of(norm_name, model_name, normalize_output=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)  # so that none is 0, which decay would leave at 0
            parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    make_optimizer("sgd", model, lr=0.1, weight_decay=0.5).step()
    decayed = set()
    for name, parameter in model.named_parameters():
        if torch.equal(parameter, before[name]):
            continue
        torch.testing.assert_close(parameter.detach(), 0.95 * before[name])
        decayed.add(name)
    # A linear layer's or a cell's weight, or its v: original1.
    weights = {
        name
        for name in before
        if name.endswith(("linear.weight", "cell.input.weight", "cell.hidden.weight", "weight.original1"))
    }
    assert decayed == weights
    assert weights


# ---- observed and unobserved runs

STEPS = 12
PAIRS = [
    pytest.param(norm, model, marks=[] if model == "mlp" or norm == "batch" else pytest.mark.full)
    for model in choices("model")
    for norm in choices("norm")
]


@pytest.fixture(scope="module")
def trained(cell_of: Any, small_options: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`trained("batch", "mlp", "standard")`: the final weights of a small whole run, files and all."""

    def run(norm: str, model: str, instruments: str) -> dict[str, Tensor]:
        config = copy.deepcopy(cell_of(f"model={model}").config)
        options = config["model"]
        options.update(small_options(options) | ({"dropout": 0.25} if "dropout" in options else {}))
        config |= {
            "norm": cell_of(f"norm={norm}").config["norm"],
            "dataset": cell_of("dataset.size=8", "dataset.examples=200", "dataset.validation=50").config["dataset"],
            "instruments": cell_of(f"instruments={instruments}").config["instruments"] | {"snapshots": 3, "probe": 16},
            "max_steps": STEPS, "batch_size": 8, "evaluations": 2, "log_every": 4, "checkpoint_seconds": 0.0,
            "results_dir": str(tmp_path_factory.mktemp("results")), "amp": "bf16" if model == "cnn" else "none",
        }  # fmt: skip
        try:
            run = train(prepare_run(replace(cell_of(f"model={model}"), config=config)))
        except Unsupported as reason:
            pytest.skip(str(reason))
        return torch.load(run.folder / "model.pt", weights_only=True)

    return run


@pytest.mark.parametrize(("norm", "model"), PAIRS)
def test_weights_are_bit_identical_with_all_instruments_and_with_none(norm, model, trained):
    observed, alone = trained(norm, model, "full"), trained(norm, model, "none")
    assert observed.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.equal(observed[name], value), name
    assert all(value.isfinite().all() for value in alone.values())
    # Statistics advance once per step, and not in evaluation.
    counts = [value for name, value in alone.items() if "num_batches" in name]
    assert all((count == STEPS).all() for count in counts)
    assert counts or norm not in ("batch", "weight_mean_only")


def test_an_instrument_that_touches_would_be_noticed(trained, monkeypatch):
    from normbench.instruments import Activations

    measure = Activations.measure

    def clumsy(self: Any, step: Any, model: nn.Module, probe: Any) -> Any:
        model(probe.images)  # moves running statistics and draws random numbers
        return measure(self, step, model, probe)

    monkeypatch.setattr(Activations, "measure", clumsy)
    touched, alone = trained("batch", "mlp", "quick"), trained("batch", "mlp", "none")
    assert any(not torch.equal(touched[name], value) for name, value in alone.items())
