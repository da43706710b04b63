"""Optimizers, learning-rate schedules, and which parameters decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop")


def make_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    decay_norm_parameters: bool = False,
) -> torch.optim.Optimizer:
    """The optimizer called `name` (one of OPTIMIZERS).

    Weight decay acts on the weights of linear layers, convolutions and cells alone (for weight normalisation: on v),
    not on biases, gamma, beta and g, unless `decay_norm_parameters`.

    Args:
        momentum: of `momentum` and `nesterov`; plain `sgd` has none, `adam` and `adamw` have their own (0.9, 0.999),
            `rmsprop` averages squares over 0.99.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}: got {name}.")
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for path, parameter in model.named_parameters():
        is_weight = parameter.dim() > 1 and path.split(".")[-1] != "original0"  # original0 is g, of shape [C', 1, ...]
        (decayed if is_weight or decay_norm_parameters else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # fused: one kernel for all parameters. A step of the default MLP takes half the time on a CPU, and 1/10 on a GPU.
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr)
    momentum = 0.0 if name == "sgd" else momentum
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=name == "nesterov", fused=True)


SCHEDULES = ("constant", "linear", "cosine", "step", "warmup_cosine", "exponential_up")


def schedule(
    name: str, *, warmup: float = 0.1, steps_at: tuple[float, ...] = (0.5, 0.75), growth: float = 1e4
) -> Callable[[float], float]:
    """How the learning rate changes: share of the run done (0 to 1) -> factor.

        constant        1
        linear          from 1 to 0
        cosine          (1 + cos(pi s)) / 2
        step            x 0.1 at each of `steps_at`
        warmup_cosine   from 0 to 1 during the first `warmup` of the run, then cosine
        exponential_up  growth^s: the stress test that finds the largest learning rate a network tolerates

    Source: Loshchilov & Hutter 2016, arXiv:1608.03983 (cosine); Goyal et al. 2017, arXiv:1706.02677 (warm-up);
    Page 2019, "How to train your ResNet" (exponential growth).
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}: got {name}.")

    def cosine(s: float) -> float:
        return (1 + math.cos(math.pi * s)) / 2

    return {
        "constant": lambda s: 1.0,
        "linear": lambda s: 1 - s,
        "cosine": cosine,
        "step": lambda s: 0.1 ** sum(s >= place for place in steps_at),
        "warmup_cosine": lambda s: s / warmup if s < warmup else cosine((s - warmup) / (1 - warmup)),
        "exponential_up": lambda s: growth**s,
    }[name]


LR_SCALINGS = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}


def first_lr(config: Mapping[str, Any]) -> float:
    """lr x (images per update / reference_batch_size) ^ (0, 1 or 1/2): larger batches, larger steps.

    Source: Goyal et al. 2017, arXiv:1706.02677 (linear); Krizhevsky 2014, arXiv:1404.5997 (square root).
    """
    ratio = config["batch_size"] * config["accumulate"] / config["reference_batch_size"]
    return config["lr"] * ratio ** LR_SCALINGS[config["lr_scaling"]]


def lr_by_step(config: Mapping[str, Any], total: int) -> Callable[[int], float] | None:
    """Updates done -> learning rate of the next, by the run's schedule over `total` updates; None if it is constant."""
    if config["schedule"] == "constant":
        return None
    options = {"warmup": config["warmup"], "steps_at": tuple(config["steps_at"]), "growth": config["growth"]}
    first, factor = first_lr(config), schedule(config["schedule"], **options)
    return lambda index: first * factor(index / total)
