"""Networks train in a stack as they do alone: losses, weights, buffers and the optimizers' state, in float64."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from normbench import seeding
from normbench.data.dataset import Split
from normbench.errors import Unsupported
from normbench.noise import key_of, next_draw, seed_noise
from normbench.norms.weight import _weight_norm
from normbench.training.loop import Update, evaluate, mini_batches, steps
from normbench.training.optimizers import OPTIMIZERS, make_optimizer
from normbench.training.stack import Member, Stack, StackedModel, why_not_stacked

K, N, UPDATES = 3, 6, 4
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
RECURRENT = ("none", "batch", "layer", "rms", "group", "ghost_batch", "weight", "weight_mean_only", "selu")
RECURRENT += ("variance_only", "dynamic_erf")


# of the mean over all positions, where the norm before it leaves the channels last: layer2d in resnet and convpool_c
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop .*as_strided_")


@pytest.fixture(autouse=True)
def warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What vmap does network by network is a warning, and an error here: none of our modules is that slow."""
    monkeypatch.setattr("normbench.training.stack.vmap", torch.func.vmap)


@pytest.fixture(autouse=True)
def weight_norm_in_float64(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """torch's kernel on CUDA takes its square roots in float32, of float64, too: wrong in the 8th digit."""
    if device.type == "cuda":
        monkeypatch.setattr(parametrizations._WeightNorm, "forward", lambda self, g, v: _weight_norm(g, v))


class Doubles(Split):
    """Images in float64."""

    def scaled(self, images: Tensor) -> Tensor:
        return super().scaled(images).double()


def made_up(seed: int = 0, **fields: Any) -> Split:
    """20 images of 5 classes: three batches of N in an epoch."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 8, 8), generator=g, dtype=torch.uint8)
    index = torch.randperm(40, generator=torch.Generator().manual_seed(seed))[:20]
    scale = torch.full((1, 1, 1), 0.01)
    return Doubles(images, torch.randint(5, (40,), generator=g), index, 100 * torch.ones(1, 1, 1), scale, **fields)


def member(
    model: nn.Module, seed: int, optimizer: str = "sgd", examples: Split | None = None, **options: Any
) -> Member:
    """`options`: of the optimizer or of the update, by name."""
    of_update = {name: options.pop(name) for name in ("lr_by_step", "clip_norm", "accumulate") if name in options}
    update = Update(of_update.pop("lr_by_step", None), **of_update)
    seed_noise(model, seeding.derive(seed, "noise"))
    device = next(model.parameters()).device
    examples = on(device, examples or made_up())
    key = None if examples.augment is None else lambda index: key_of(seed, index, "augment", device)
    made = make_optimizer(optimizer, model, **{"lr": 0.05, **options})
    order = lambda epoch: seeding.order(seed, epoch, len(examples)).to(device)  # noqa: E731
    return Member(model, made, update, examples, order, key)


def on(device: torch.device, split: Split) -> Split:
    """`split` with all its tensors on this device."""
    own = {field.name: getattr(split, field.name) for field in fields(split)}
    return replace(split, **{name: value.to(device) for name, value in own.items() if isinstance(value, Tensor)})


@pytest.fixture
def members_of(network_of: Any, device: torch.device) -> Callable[..., list[Member]]:
    """`members_of("batch", "mlp")`: K of their own weights and noise; keywords in lists differ between them.

    On CUDA the updates of a stack are a graph, and alone they are computed one operation after the other.
    """

    def made(norm: str, model: str, *words: str, of_model: Any = None, **options: Any) -> list[Member]:
        try:
            models = [network_of(norm, model, *words, seed=s, skip=False, **of_model or {}) for s in range(K)]
        except Unsupported as reason:
            pytest.skip(str(reason))
        own = [{name: v[k] if isinstance(v, list) else v for name, v in options.items()} for k in range(K)]
        return [
            member(network.to(device).double(), seed, **one)
            for seed, (network, one) in enumerate(zip(models, own, strict=True))
        ]

    return made


def alone(member: Member, updates: int, start: int = 0) -> list[Tensor]:
    """Train it as `loop.steps` does, and return the losses."""
    size = N * member.update.accumulate
    batches = mini_batches(member.examples, size, member.order, start, start + updates, member.key)
    return [s.loss for s in steps(member.model, batches, member.optimizer, start, member.update) if s.loss is not None]


def assert_same(one: Member, other: Member) -> None:
    for (name, a), (_, b) in zip(one.model.named_parameters(), other.model.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, **EXACT, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}")
    for (name, a), (_, b) in zip(one.model.named_buffers(), other.model.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, **EXACT, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}")
    states = (one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"])
    for i, state in states[0].items():
        for key, value in state.items():
            if (kept := states[1].get(i, {}).get(key)) is not None:  # none is kept for a momentum of 0
                torch.testing.assert_close(
                    value.cpu(), kept.cpu(), **EXACT, equal_nan=True
                )  # RMSprop counts on the CPU


def check(members: list[Member], updates: int = UPDATES) -> Tensor:
    """Train `members` in a stack and copies of them alone. Returns the losses [updates, K]."""
    copies = [deepcopy(one) for one in members]
    stack = Stack(members, N, 0)
    before = {name: buffer.clone() for name, buffer in stack.buffers.items()}
    losses = torch.cat([stack.advance(1), stack.advance(updates - 1)])
    expected = torch.stack([torch.stack(alone(one, updates)) for one in copies], 1)
    torch.testing.assert_close(losses, expected, **EXACT, equal_nan=True)
    for one, other in zip(members, copies, strict=True):
        assert_same(one, other)
    moving = {name for name in before if name.endswith(("running_mean", "running_var", "noise_draw"))}
    assert not [name for name in moving if torch.equal(before[name], stack.buffers[name])]
    splits = [replace(one.examples, augment=None) for one in members]
    expected = [evaluate(one.model, split) for one, split in zip(copies, splits, strict=True)]
    torch.testing.assert_close(torch.tensor(stack.evaluate(splits)), torch.tensor(expected), **EXACT, equal_nan=True)
    return losses


def test_every_scheme_and_every_model(norm_name: str, model_name: str, members_of: Any) -> None:
    updates = 2 if model_name == "mlp_deep" else UPDATES  # rounding grows with depth
    check(members_of(norm_name, model_name, of_model={"dropout": 0.3}), updates)


@pytest.mark.parametrize(
    ("norm", "cell"),
    [*((norm, "lstm") for norm in RECURRENT), *product(("batch", "layer", "weight_mean_only"), ("gru", "tanh"))],
)
def test_recurrent_cells_with_noise(norm: str, cell: str, members_of: Any) -> None:
    options = {"cell": cell, "dropout": 0.3, "initial_state_noise": 0.3}
    check(members_of(norm, "rnn", of_model=options), updates=2)


@pytest.mark.parametrize(("norm", "word"), [("batch", "momentum=null"), ("ghost_batch", "update_per=ghost_batch")])
def test_other_averages(norm: str, word: str, members_of: Any) -> None:
    check(members_of(norm, "mlp", f"norm.{word}", of_model={"dropout": 0.3}))


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "muon"])
def test_members_with_numbers_of_their_own(optimizer: str, members_of: Any) -> None:
    """After 20 updates, with a schedule; the optimizers' states too."""
    rates, least = [0.01, 0.02, 0.05], 0.3 if optimizer == "nesterov" else 0.0
    own = {"lr": rates, "weight_decay": [0.0, 0.1, 0.2], "momentum": [0.5, 0.9, least]}
    schedules = [lambda index, lr=lr: lr * (1 - index / 40) for lr in rates]
    for more in ({}, {"lr_by_step": schedules}):
        check(members_of("batch", "mlp", optimizer=optimizer, **own, **more), updates=20)


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0.5}, {"accumulate": 3}, {"accumulate": 3, "clip_norm": 0.5, "optimizer": "adam"}]
)
def test_clipped_and_accumulated_gradients(options: dict[str, Any], members_of: Any) -> None:
    check(members_of("noisy_batch", "mlp", of_model={"dropout": 0.3}, **options))


@pytest.mark.parametrize("augment", [None, (4, True), (2, False)])
def test_data_of_their_own(augment: Any, members_of: Any) -> None:
    """Another subset, other labels and another scale, as they are drawn by the seed; augmentation by its own key."""
    splits = []
    for seed in range(K):
        split = made_up(seed, augment=augment)
        labels = (split.labels + (torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.3)) % 5
        splits.append(replace(split, labels=labels, shift=split.shift + seed, scale=split.scale * (1 + seed)))
    members = members_of("batch", "mlp", examples=splits)
    check(members, updates=5)
    whitened = [replace(s, whitening=torch.eye(64).roll(i, 0), shift=torch.rand(1, 8, 8)) for i, s in enumerate(splits)]
    check(members_of("none", "cnn", examples=whitened))


def test_a_member_that_diverges_leaves_the_others_alone(members_of: Any) -> None:
    losses = check(members_of("batch", "mlp", lr=[0.1, 1e200, 0.1]), updates=6)
    assert losses.isfinite().all(0).tolist() == [True, False, True]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_network_goes_on_alone_and_in_a_stack_again(optimizer: str, members_of: Any) -> None:
    """Through the state of a checkpoint, at places within an epoch."""
    members = members_of("noisy_batch", "mlp", optimizer=optimizer, weight_decay=0.1)
    whole = deepcopy(members)
    for one in whole:
        alone(one, 11)

    for updates, start, stacked in ((2, 0, False), (2, 2, True), (3, 4, False), (4, 7, True)):
        members = [replace(one, **_copied(one)) for one in members]
        if stacked:
            Stack(members, N, start).advance(updates)
        else:
            for one in members:
                alone(one, updates, start)
    for one, other in zip(members, whole, strict=True):
        assert_same(one, other)


def _copied(one: Member) -> dict[str, Any]:
    """Another network and optimizer, given the state of these."""
    model, made = deepcopy((one.model, one.optimizer))
    model.load_state_dict(one.model.state_dict())
    made.load_state_dict(deepcopy(one.optimizer.state_dict()))
    return {"model": model, "optimizer": made}


def test_networks_hold_views(members_of: Any) -> None:
    members = members_of("batch", "mlp", optimizer="adam")
    before = [deepcopy(one.model.state_dict()) for one in members]
    stack = Stack(members, N, 0)
    for k, one in enumerate(members):
        assert all(torch.equal(v, before[k][name]) for name, v in one.model.state_dict().items())
        for name, parameter in one.model.named_parameters():
            assert parameter.data_ptr() == stack.parameters[name][k].data_ptr()
    x, y = stack.batch()
    for k, one in enumerate(members):  # the batch that comes next
        positions = one.order(0)[:N]
        assert all(torch.equal(a, b[k]) for a, b in zip(one.examples.batch(positions), (x, y), strict=True))
    members[1].model.load_state_dict(before[0])
    assert all(torch.equal(value[1], before[0][name]) for name, value in stack.parameters.items())


@pytest.mark.parametrize("optimizer", ["momentum", "rmsprop"])
def test_updates_before_the_graph_is_captured_leave_no_trace(optimizer: str, members_of: Any) -> None:
    """Also where they go beyond the end of an epoch; the graph works on the tensors of then."""
    augmented = made_up(augment=(2, False))
    options = {"examples": augmented, "optimizer": optimizer, "of_model": {"dropout": 0.3}}
    members, undisturbed = (members_of("noisy_batch", "mlp", **options) for _ in range(2))
    stack = Stack(members, N, 0)
    stack.advance(2)
    held = [stack.place, stack.row, *stack.optimizer.tensors, *stack.parameters.values(), *stack.buffers.values()]
    places = [tensor.data_ptr() for tensor in held]
    with stack.unchanged():
        for _ in range(5):
            stack._computed()
    stack.advance(5)
    assert places == [tensor.data_ptr() for tensor in held]
    for one, other in zip(members, undisturbed, strict=True):
        alone(other, 7)
        assert_same(one, other)


class Draws(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(5)


class Looks(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if x.sum() > 0 else 1)


class Loses(nn.Linear):
    """Its count goes to a view of new zeros, where vmap loses it."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = x.new_zeros(2, 3).unbind()
        nn.functional.batch_norm(x, mean, var, training=True, momentum=1.0)
        self.seen.copy_(mean)
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(nn.Linear, None), (Draws, "random"), (Looks, "data-dependent"), (Loses, "its numbers are others than alone")],
)
def test_what_cannot_be_stacked_is_noticed(kind: Any, reason: str | None) -> None:
    models = [kind(3, 5) for _ in range(2)]
    said = why_not_stacked(models, torch.randn(2, 4, 3), torch.randint(5, (2, 4)))
    assert said == reason or (reason is not None and said is not None and reason in said)


def test_noise_differs_between_members_and_updates(members_of: Any, device: torch.device) -> None:
    members = members_of("none", "mlp", of_model={"dropout": 0.5})
    for one in members[1:]:
        one.model.load_state_dict(members[0].model.state_dict())
    stacked = StackedModel([one.model for one in members])
    x = torch.rand(1, N, 1, 8, 8, dtype=torch.float64, device=device).expand(K, -1, -1, -1, -1)
    y = torch.zeros(K, N, device=device).long()
    losses = []
    for _ in range(2):
        for one in members:
            next_draw(one.model)
        losses += stacked.losses(x, y).tolist()
    assert len(set(losses)) == 2 * K


def test_more_than_two_epochs(members_of: Any) -> None:
    for optimizer in ("momentum", "adam"):
        check(members_of("noisy_batch", "cnn", optimizer=optimizer), updates=7)
