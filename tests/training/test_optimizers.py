"""Optimizers, schedules and scaling against their definitions; accumulation and clipping against the plain step."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normbench.experiment import compose
from normbench.training.loop import Update, steps
from normbench.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    first_lr,
    lr_by_step,
    make_optimizer,
    schedule,
    update_parameters,
)

MUON = hasattr(torch.optim, "Muon")  # torch 2.9 and later
HERE = [name for name in OPTIMIZERS if MUON or name != "muon"]


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("constant", {0: 1, 0.3: 1, 1: 1}),
        ("linear", {0: 1, 0.25: 0.75, 1: 0}),
        ("cosine", {0: 1, 0.5: 0.5, 1: 0}),
        ("step", {0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 1: 0.01}),
        ("warmup_cosine", {0: 0, 0.05: 0.5, 0.1: 1, 0.55: 0.5, 1: 0}),
        ("exponential_up", {0: 1, 0.25: 10, 0.5: 100, 1: 10_000}),
    ],
)
def test_schedules_at_points_worked_by_hand(name: str, points: dict[float, float]) -> None:
    factor = schedule(name)
    for share, expected in points.items():
        assert factor(share) == pytest.approx(expected, abs=1e-12)


def test_every_schedule_is_tested_above() -> None:
    assert set(SCHEDULES) == {"constant", "linear", "cosine", "step", "warmup_cosine", "exponential_up"}
    with pytest.raises(ValueError, match="schedule must be one of constant"):
        schedule("cosin")


def test_lr_scaling() -> None:
    def lr(*words: str) -> float:
        return first_lr(compose(["dataset=synthetic", "lr=0.1", *words]).config)

    assert lr("batch_size=256") == pytest.approx(0.1)
    assert lr("batch_size=256", "lr_scaling=linear") == pytest.approx(0.4)
    assert lr("batch_size=256", "lr_scaling=sqrt") == pytest.approx(0.2)
    assert lr("batch_size=64", "accumulate=4", "lr_scaling=linear") == pytest.approx(0.4)
    assert lr("batch_size=64", "lr_scaling=linear", "reference_batch_size=32") == pytest.approx(0.2)


def test_the_schedule_is_what_the_optimizer_gets(batch_of: Callable[..., Any], network_of: Callable[..., Any]) -> None:
    model = network_of("none", "mlp")
    config = compose(["dataset=synthetic", "schedule=linear", "lr=0.1"]).config
    optimizer, seen = make_optimizer("sgd", model, lr=0.1), []
    for step in steps(model, iter([batch_of(4)] * 4), optimizer, update=Update(lr=lr_by_step(config, 4))):
        if step.index:
            seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert lr_by_step(compose(["dataset=synthetic"]).config, 4) is None


@pytest.mark.parametrize("name", HERE)
def test_two_steps_of_every_optimizer_beside_torchs_own(name: str) -> None:
    """Against the unfused, ungrouped optimizer of torch.optim, in float64; all parameters decay."""
    decay: Any = {"lr": 0.1, "weight_decay": 0.2}
    plain: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": lambda p: torch.optim.SGD(p, **decay),
        "momentum": lambda p: torch.optim.SGD(p, **decay, momentum=0.7),
        "nesterov": lambda p: torch.optim.SGD(p, **decay, momentum=0.7, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, **decay),
        "adamw": lambda p: torch.optim.AdamW(p, **decay),
        "rmsprop": lambda p: torch.optim.RMSprop(p, **decay),
        "muon": lambda p: torch.optim.Muon([next(p)], **decay, adjust_lr_fn="match_rms_adamw"),
    }
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double()
    other, x = copy.deepcopy(one), torch.randn(7, 5).double()
    a = make_optimizer(name, one, **decay, momentum=0.7, decay_norm_parameters=True)
    parameters = other.parameters()
    optimizers = [plain[name](parameters), *([plain["adamw"](parameters)] if name == "muon" else [])]
    for _ in range(3):
        for model in (one, other):
            model.zero_grad()
            model(x).square().sum().backward()
        update_parameters(a)
        for optimizer in optimizers:
            optimizer.step()
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not MUON, reason="torch has no Muon")
def test_muon_is_for_hidden_matrices(network_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for norm, name, options in (("weight", "mlp", {}), ("layer", "rnn", {"cell": "gru"})):
        model = network_of(norm, name, **options)
        muon, *rest = make_optimizer("muon", model, lr=0.1, weight_decay=0.2).param_groups
        paths = {parameter: path for path, parameter in model.named_parameters()}
        found[name] = [paths[parameter] for parameter in muon["params"]]
        assert [len(group["params"]) > 0 for group in rest] == [True, True]
        assert sum(len(group["params"]) for group in (muon, *rest)) == len(paths)
        assert [group["weight_decay"] for group in (muon, *rest)] == [0.2, 0.2, 0.0]
    v = "linear.parametrizations.weight.original1"
    assert found == {"mlp": [f"hidden1.{v}", f"hidden2.{v}"], "rnn": ["cell.input.weight", "cell.hidden.weight"]}
    with pytest.raises(ValueError, match="needs a weight matrix in a hidden layer"):
        make_optimizer("muon", network_of("batch", "cnn"), lr=0.1)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"optimizer=muon needs torch 2.9 or later: got 2"):
        make_optimizer("muon", network_of("batch", "mlp"), lr=0.1)


@pytest.mark.parametrize("name", HERE)
def test_our_way_to_its_kernels_gives_torchs_own_bits(
    name: str, network_of: Callable[..., Any], batch_of: Callable[..., Any], device: torch.device
) -> None:
    models = [network_of("batch", "mlp").to(device) for _ in range(2)]
    ours, theirs = (make_optimizer(name, model, lr=0.1, weight_decay=0.01) for model in models)
    x, y = (part.to(device) for part in batch_of(8))
    frozen = [next(model.parameters()).requires_grad_(False) for model in models]
    for i in range(4):
        if i == 2:  # a parameter that trains later than others, and a state that was saved and loaded
            for parameter in frozen if name not in ("momentum", "nesterov") else ():  # torch itself can't
                parameter.requires_grad_(True)
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
        for model in models:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
        update_parameters(ours)
        theirs.step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
        mine, its = ours.state[one], theirs.state[other]
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[key], its[key]) and mine[key].device == its[key].device for key in its)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "muon"])  # it leaves kernels to AdamW
def test_a_loaded_state_is_laid_out_as_the_parameters_are(name: str) -> None:
    """In a stack weights and state lie in memory in the order [C', C, H, W]; alone, on a CPU, C is last."""
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 5, 5)
    one, other = (make_optimizer(name, model, lr=0.1) for model in (plain, last))
    for loaded in (False, True):
        if loaded:
            other.load_state_dict(copy.deepcopy(one.state_dict()))
        for model, optimizer in ((plain, one), (last, other)):
            model.zero_grad()
            model(x).square().sum().backward()
            update_parameters(optimizer)
    torch.testing.assert_close(plain.weight, last.weight, rtol=1e-4, atol=1e-5)
    assert last.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_run_of_a_sweep_does_not_import_torchs_compiler() -> None:
    """It takes 2 s, and the first optimizer of a process used to do it."""
    words = ["dataset=synthetic", "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "device=cpu",
             "max_steps=4", "model=cnn", "model.channels=[4]", "checkpoint_seconds=0", "log_every=1"]  # fmt: skip
    code = f"""
import sys, tempfile
from normbench.experiment import compose, execute
with tempfile.TemporaryDirectory() as folder:
    for norm, optimizer in (("batch", "adam"), ("weight", "momentum"), ("layer", "rmsprop")):
        run_config = compose([*{words}, f"norm={{norm}}", f"optimizer={{optimizer}}", f"results_dir={{folder}}"])
        execute(run_config, checked=True)
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_norm_parameters_decay_only_if_asked(network_of: Callable[..., Any]) -> None:
    for asked in (False, True):
        model = network_of("batch", "mlp")
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        make_optimizer("sgd", model, lr=0.1, weight_decay=0.5, decay_norm_parameters=asked).step()
        for name, p in model.named_parameters():
            decays = asked or p.dim() > 1
            torch.testing.assert_close(p.detach(), before[name] * (0.95 if decays else 1.0))


def test_accumulated_parts_are_the_whole_batch_where_no_norm_sees_it(
    batch_of: Callable[..., Any], network_of: Callable[..., Any]
) -> None:
    """Without batch statistics, four parts of 2 give the gradient of one batch of 8; with them they must not."""
    for norm, same in (("none", True), ("layer", True), ("batch", False)):
        models = [network_of(norm, "mlp").double() for _ in range(2)]
        x, y = batch_of(8, dtype=torch.float64)
        losses = []
        for model, parts in zip(models, (1, 4), strict=True):
            *_, last = steps(model, [(x, y)], make_optimizer("sgd", model, lr=0.1), update=Update(accumulate=parts))
            losses.append(last.loss)
        a, b = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12) == same
        assert torch.allclose(*losses, rtol=1e-10) == same


def test_with_accumulation_the_norm_sees_a_part(batch_of: Callable[..., Any], network_of: Callable[..., Any]) -> None:
    model = network_of("batch", "mlp")
    list(steps(model, iter([batch_of(8)]), make_optimizer("sgd", model, lr=0.1), update=Update(accumulate=4)))
    assert model.hidden1.norm.num_batches_tracked == 4


def test_clipping_shortens_only_what_is_longer(batch_of: Callable[..., Any], network_of: Callable[..., Any]) -> None:
    x, y = batch_of(8)
    model = network_of("none", "mlp")
    F.cross_entropy(model(x), y).backward()
    length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    for limit in (length / 3, length * 3):
        model = network_of("none", "mlp")
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        list(steps(model, iter([(x, y)]), make_optimizer("sgd", model, lr=1.0), update=Update(clip_norm=limit)))
        moved = (torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm().item()
        assert moved == pytest.approx(min(length, limit), rel=1e-3)
