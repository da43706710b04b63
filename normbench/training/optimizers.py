"""Optimizers, learning-rate schedules, and which parameters decay."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer, RMSprop
from torch.optim.rmsprop import rmsprop

# At the first call of these, torch imports its compiler (2.6 s), from which they are hidden. A run compiles nothing.
for method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
    own = inspect.unwrap(method)
    setattr(own, "__dynamo_disable", own)  # where torch keeps the hidden function after the first call

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "muon")


class MuonAndAdamW(Optimizer):
    """Groups of parameters with Muon's options, and others with AdamW's. Source: Jordan et al. 2024, "Muon"."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        update_parameters(self)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """What Muon trains: the weight matrices of linear layers and cells, but for the last one, which is the output's.

    Raises: ValueError where there are none, and where torch has no Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optimizer=muon needs torch 2.9 or later: got {torch.__version__}. Use optimizer=adamw.")
    found = [parameter for path, parameter in model.named_parameters() if _is_weight(path, parameter)]
    if not (matrices := [parameter for parameter in found if parameter.dim() == 2][:-1]):
        raise ValueError("optimizer=muon needs a weight matrix in a hidden layer: got none. Use optimizer=adamw.")
    return matrices


def _is_weight(path: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() > 1 and path.split(".")[-1] != "original0"  # original0 is g, of shape [C', 1, ...]


def make_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    decay_norm_parameters: bool = False,
) -> Optimizer:
    """The optimizer called `name` (one of OPTIMIZERS).

    Weight decay acts on the weights of linear layers, convolutions and cells alone (for weight normalisation: on v),
    not on biases, gamma, beta and g, unless `decay_norm_parameters`.

    Args:
        momentum: of `momentum` and `nesterov`; plain `sgd` has none, `adam` and `adamw` have their own (0.9, 0.999),
            `rmsprop` averages squares over 0.99, `muon` has 0.95 (Nesterov's).

    `muon` is for `hidden_matrices`; the other parameters go to AdamW, at the same lr. Muon multiplies it by 0.2 times
    the root of a matrix's longer side: its updates are then as large as AdamW's (Liu et al. 2025, arXiv:2502.16982).
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}: got {name}.")
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for path, parameter in model.named_parameters():
        (decayed if _is_weight(path, parameter) or decay_norm_parameters else others).append(parameter)
    matrices = hidden_matrices(model) if name == "muon" else []
    decayed = [parameter for parameter in decayed if not any(parameter is matrix for matrix in matrices)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # fused: one kernel for all parameters. A step of the default MLP takes half the time on a CPU, and 1/10 on a GPU.
    if name == "adam":
        return Adam(groups, lr=lr, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    if name == "muon":
        muon = torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        return MuonAndAdamW([*muon.param_groups, *torch.optim.AdamW(groups, lr=lr, fused=True).param_groups])
    if name == "rmsprop":
        return RMSprop(groups, lr=lr)
    momentum = 0.0 if name == "sgd" else momentum
    return SGD(groups, lr=lr, momentum=momentum, nesterov=name == "nesterov", fused=True)


@torch.no_grad()
def update_parameters(optimizer: Optimizer) -> None:
    """`optimizer.step()` of one that `make_optimizer` made, to the bit: the same kernels and the same state.

    Without what torch does for its compiler and its profiler, which takes as long as the kernels: 0.17 of 0.33 ms for
    the default MLP.
    """
    for group in optimizer.param_groups:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters]
        if not parameters:
            continue
        options: dict[str, Any] = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        if isinstance(optimizer, SGD):
            buffers = _state(optimizer, parameters, "momentum_buffer") if group["momentum"] else []
            options |= {"momentum": group["momentum"], "nesterov": group["nesterov"], "dampening": 0.0}
            torch._fused_sgd_(parameters, gradients, buffers, **options, maximize=False, is_first_step=False)
            continue
        if "ns_steps" in group:
            from torch.optim._muon import muon  # torch 2.9 and later

            buffers = _state(optimizer, parameters, "momentum_buffer")
            names = ("momentum", "nesterov", "ns_coefficients", "ns_steps", "eps", "adjust_lr_fn")
            options |= {name: group[name] for name in names}
            muon(parameters, gradients, buffers, **options, has_complex=False)
            continue
        steps = _state(optimizer, parameters, "step")
        if isinstance(optimizer, RMSprop):
            squares = _state(optimizer, parameters, "square_avg")
            options |= {"alpha": group["alpha"], "eps": group["eps"], "momentum": 0.0, "centered": False}
            rmsprop(parameters, gradients, squares, [], [], steps, **options)
            continue
        torch._foreach_add_(steps, 1)
        means, squares = (_state(optimizer, parameters, name) for name in ("exp_avg", "exp_avg_sq"))
        (options["beta1"], options["beta2"]), options["eps"] = group["betas"], group["eps"]
        fused = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        fused(parameters, gradients, means, squares, [], steps, **options, amsgrad=False, maximize=False)


def _state(optimizer: Optimizer, parameters: list[nn.Parameter], name: str) -> list[Tensor]:
    """What the optimizer keeps of each parameter under this name; 0 at first.

    It lies in memory as the parameter does, even if a run saved it that was trained in another way: the kernels take
    that for granted, and mix up the numbers where it is not so.
    """
    for parameter in parameters:
        state = optimizer.state[parameter]
        if name not in state:
            device = "cpu" if isinstance(optimizer, RMSprop) else parameter.device  # of a number of steps
            state[name] = torch.zeros((), device=device) if name == "step" else torch.zeros_like(parameter)
        elif parameter.dim() == 4 == state[name].dim() and state[name].stride() != parameter.stride():
            state[name] = torch.empty_like(parameter).copy_(state[name])
    return [optimizer.state[parameter][name] for parameter in parameters]


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
