"""A run in its middle, as an instrument meets it: a small network, an optimizer with its state, a probe."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import looking
import torch
from looking import Images
from torch import nn
from torch.nn.utils import parametrize

from normbench.instruments import Instrument, Probe, Setting
from normbench.noise import seed_noise
from normbench.training.loop import Batch, Step, Update, steps
from normbench.training.optimizers import make_optimizer

PLAIN = Update()


@dataclass
class ShortRun:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    update: Update
    step: Step
    probe: Probe
    setting: Setting

    def measure(self, instrument: Instrument) -> list[dict[str, Any]]:
        instrument.prepare(self.setting)
        return self.again(instrument)

    def again(self, instrument: Instrument) -> list[dict[str, Any]]:
        self.probe.forget()
        return [dict(row) for row in instrument.measure(self.step, self.model, self.probe)]

    def stepped(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Deep copies that have taken the next step, the random numbers being those of now."""
        model, optimizer = copy.deepcopy((self.model, self.optimizer))
        with torch.random.fork_rng():
            optimizer.zero_grad()
            self.update.backward(model, self.step.batch)
            self.update.apply(model, optimizer, self.step.index)
        return model, optimizer


def short_run(
    model: nn.Module,
    batch_of: Any,
    optimizer: str = "adam",
    update: Update = PLAIN,
    *,
    batch_size: int = 8,
    updates: int = 2,
    lr: float = 0.05,
    device: torch.device | str = "cpu",
    **options: Any,
) -> ShortRun:
    """`model` after a few updates of `batch_size` images (times `update.accumulate`)."""
    dtype = next(model.parameters()).dtype

    def images(count: int, seed: int) -> Batch:
        x, y = batch_of(count, seed=seed, dtype=dtype)
        return x.to(device), y.to(device)

    made = make_optimizer(optimizer, model.to(device), lr=lr, **options)
    seed_noise(model, 0)
    batches = [images(batch_size * update.accumulate, seed) for seed in range(updates + 1)]
    torch.manual_seed(0)
    step = next(step for step in steps(model, batches, made, update=update) if step.index == updates)
    examples = Images(*images(40, 100))
    setting = Setting(total=10, snapshots=frozenset(range(11)), batch_size=batch_size, train=Images(*images(80, 101)),
                      validation=examples, images=40, optimizer=made, update=update,
                      seconds=lambda: {"training": 1.0})  # fmt: skip
    probe = Probe(model, examples.images, examples.labels, batch_size)
    return ShortRun(model, made, update, step, probe, setting)


def everything(run: ShortRun) -> dict[str, Any]:
    """All that looking must leave alone, copied."""
    model, optimizer = run.model, run.optimizer
    state = looking.everything(model)
    state |= {f"storage {k}": p.data_ptr() for k, p in model.named_parameters()}
    for i, values in optimizer.state_dict()["state"].items():
        state |= {f"optimizer {i} {k}": copy.deepcopy(v) for k, v in values.items()}
    for i, group in enumerate(optimizer.param_groups):
        state |= {f"group {i} {k}": v for k, v in group.items() if k != "params"}
        state[f"group {i}"] = [id(parameter) for parameter in group["params"]]
    return state


def plain_weights(model: nn.Module) -> nn.Module:
    """A copy whose weights are parameters themselves, w instead of g and v."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            # Not parametrize.remove_parametrizations: deep copies share a class, and it takes `weight` away from that.
            weight = nn.Parameter(module.weight.detach())
            del module.parametrizations
            module.__class__ = type(module).__mro__[1]
            module.register_parameter("weight", weight)
    return model


def effective_weights(model: nn.Module) -> dict[tuple[str, str], nn.Parameter]:
    """{(layer, "w" | "input.w" | "hidden.w"): w} of a model with plain weights, by the names of its parameters."""
    found = {}
    for name, parameter in model.named_parameters():
        for ending, weight in ((".linear.weight", "w"), (".input.weight", "input.w"), (".hidden.weight", "hidden.w")):
            if name.endswith(ending):
                found[name.removesuffix(ending), weight] = parameter
    return found
