"""A run in its middle, as an instrument meets it: a small network, an optimizer with its state, images, a probe."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import normbench.instruments
from normbench.instruments import Instrument, Probe, Row, Setting
from normbench.instruments.instrument import read
from normbench.noise import seed_noise
from normbench.norms import Recorded, blocks
from normbench.training.loop import Batch, Step, Update, steps
from normbench.training.optimizers import make_optimizer

CLASSES = 5
PLAIN = Update()
# Every instrument that an option or a study can ask for.
EVERY: list[type[Instrument]] = [
    found for found in vars(normbench.instruments).values()
    if isinstance(found, type) and issubclass(found, Instrument) and found is not Instrument
]  # fmt: skip
assert len(EVERY) >= 13

# What instruments compute depends on the shapes of tensors, on weights made of others, on noise, on time:
# all in these pairs. The law of `test_observing.py` goes through the others, too.
few_pairs = pytest.mark.parametrize(
    ("norm", "network"),
    [("none", "mlp"), ("weight", "mlp"), ("batch", "cnn"), ("noisy_batch", "cnn"), ("weight_mean_only", "rnn"),
     ("batch", "rnn")],
)  # fmt: skip


@dataclass
class Images:
    """A split: images [N, C, H, W] and labels, the same tensors each time."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, positions: Tensor, key: Any = None) -> Batch:
        return self.images[positions], self.labels[positions]


def made_up(n: int, seed: int = 0, shape: Any = (1, 8, 8), **options: Any) -> Images:
    """`n` images of normal values."""
    values = torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.arange(n) % CLASSES
    return Images(values.to(**{"dtype": torch.float32} | options), labels.to(options.get("device")))


class Shown(Recorded):
    """A layer that shows each unit's input times `gain` plus `bias`."""

    def __init__(self, gain: Any = 1.0, bias: Any = 0.0) -> None:
        super().__init__()
        self.gain, self.bias, self.unused = gain, bias, nn.Parameter(torch.zeros(()))  # a model has parameters

    def forward(self, x: Tensor) -> Tensor:
        self.show("linear", y := x * self.gain + self.bias)
        return y


@dataclass
class ShortRun:
    """`measure` gives the rows of an instrument after `index` updates, by default those that were done."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Step
    probe: Probe
    setting: Setting

    def measure(self, instrument: Instrument, index: int | None = None, *, fresh: bool = True) -> list[Row]:
        if fresh:
            instrument.prepare(self.setting)
        self.probe.forget()
        step = self.step if index is None else replace(self.step, index=index)
        rows = read(instrument.measure(step, self.model, self.probe))
        assert all({"layer", "tensor"} <= row.keys() <= {"layer", "tensor", *instrument.columns} for row in rows)
        return rows

    def stepped(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Deep copies that have taken the next step, the random numbers being those of now."""
        run = copy.deepcopy(self)
        with torch.random.fork_rng():
            run.take_step()
        return run.model, run.optimizer

    def take_step(self) -> None:
        assert self.step.batch is not None
        self.optimizer.zero_grad()
        self.setting.update.backward(self.model, self.step.batch)
        self.setting.update.apply(self.model, self.optimizer, self.step.index)


def short_run(
    model: nn.Module,
    optimizer: str = "adam",
    update: Update = PLAIN,
    *,
    batch_size: int = 8,
    updates: int | None = 2,
    shape: Any = (1, 8, 8),
    train: Any = 60,
    validation: Any = 40,
    snapshots: Iterable[int] = range(11),
    device: torch.device | str = "cpu",
    lr: float = 0.05,
    weight_decay: float = 0.0,
    **options: Any,
) -> ShortRun:
    """`model` after a few updates of `batch_size` images (times `update.accumulate`), in a run of 10.

    Args:
        updates: None: it is at its start, and no batch follows.
        train, validation: examples, or how many of `shape` are made up.
        options: of the probe, or else of the setting.
    """
    kind = {"dtype": next(model.parameters()).dtype, "device": device}
    train = made_up(train, 0, shape, **kind) if isinstance(train, int) else train
    validation = made_up(validation, 1, shape, **kind) if isinstance(validation, int) else validation
    made = make_optimizer(optimizer, model.to(device), lr=lr, weight_decay=weight_decay)
    seed_noise(model, 0)
    torch.manual_seed(0)
    step = Step(0, None, None)
    if updates is not None:
        parts = [made_up(batch_size * update.accumulate, 100 + i, shape, **kind) for i in range(updates + 1)]
        batches = [(part.images, part.labels) for part in parts]
        step = next(step for step in steps(model, batches, made, update=update) if step.index == updates)
    of_probe = {name: options.pop(name) for name in ("positions", "layers", "kinds") if name in options}
    setting = Setting(total=10, snapshots=frozenset(snapshots), batch_size=batch_size, train=train,
                      validation=validation, images=len(train), optimizer=made, update=update,
                      seconds=lambda: {"training": 2.0, "evaluating": 0.5, "measuring": 1.0})  # fmt: skip
    probe = Probe(model, *validation.batch(torch.arange(len(validation), device=device)), batch_size, **of_probe)
    return ShortRun(model, made, step, probe, replace(setting, **options))


def through_a_checkpoint(instrument: Instrument, fresh: Instrument) -> Instrument:
    """`fresh`, with the state of `instrument` as a checkpoint keeps it."""
    file = io.BytesIO()
    torch.save(instrument.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def everything(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """All of a model, an optimizer and torch that an instrument must leave alone; copied."""
    state: dict[str, Any] = {f"state {k}": v.clone() for k, v in model.state_dict().items()}
    for name, p in model.named_parameters():
        state[f"gradient {name}"] = None if p.grad is None else p.grad.clone()
        state[f"parameter {name}"] = p.requires_grad, p.data_ptr(), id(p)
    for name, module in model.named_modules():
        state[f"mode {name}"] = module.training, len(module._forward_pre_hooks), len(module._forward_hooks)
    state |= {f"observer {k}": block.observer for k, block in blocks(model)}
    state |= {"random numbers": torch.get_rng_state(), "gradients on": torch.is_grad_enabled()}
    if torch.cuda.is_available():
        state["random numbers of the GPU"] = torch.cuda.get_rng_state()
    if optimizer is not None:
        for i, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer {i} {k}": copy.deepcopy(v) for k, v in values.items()}
        for i, group in enumerate(optimizer.param_groups):
            state |= {f"group {i} {k}": v for k, v in group.items() if k != "params"}
    return state


def assert_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Equal to the bit, NaN included."""
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, Tensor):
            other = b[key]
            assert (value.shape, value.dtype, value.device) == (other.shape, other.dtype, other.device), key
            assert value.cpu().numpy().tobytes() == other.cpu().numpy().tobytes(), key
        else:
            assert value == b[key], key


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
