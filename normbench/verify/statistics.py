"""Do running statistics move by exactly one step per training pass, towards what they should?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from normbench.verify import faults
from normbench.verify.trial import Result, Trial, largest, passed_through

LIMIT = 1e-12


def statistics(trial: Trial) -> Iterator[Result]:
    """After one and after two passes: (1 - momentum) old + momentum new, with the variance m / (m - 1) var.

    Schemes without running statistics must leave every buffer alone; all must in evaluation.
    """
    definition, block = trial.definition, trial.block()
    result = "statistics", trial.place
    if definition is None:
        yield Result(*result, None, note="no reference; " + _behaviour(trial))
        return
    if definition.keeps:
        worst = 0.0
        for seed in (1, 5):
            error, fault = _one_pass(trial, block, seed)
            if not error <= LIMIT:
                yield Result(*result, False, error, fault or "the running statistics are not the moving averages")
                return
            worst = max(worst, error)
        yield Result(*result, True, worst, f"one update of the running {definition.keeps} per pass")
    moved = _moved(trial, block, training=bool(definition.keeps) is False)
    if moved:
        yield Result(*result, False, note=f"{moved} changed where nothing may")
    elif not definition.keeps:
        yield Result(*result, True, note="keeps none")


def _one_pass(trial: Trial, block: Any, seed: int) -> tuple[float, str]:
    """The largest error after one more training pass, and the mistake that explains it."""
    definition, norm, x = trial.definition, block.norm, trial.data(seed)
    assert definition is not None
    names = ("mean", "var") if definition.keeps == "mean and variance" else ("mean",)
    if missing := [name for name in names if getattr(norm, f"running_{name}", None) is None]:
        return float("nan"), f"there is no running_{missing[0]}"
    before = {name: getattr(norm, f"running_{name}").clone() for name in names}
    count = _count(norm)
    passed_through(block, x)
    batch, values = _batch(definition.linear(block.linear, x, trial.options).detach(), trial)
    kept = {name: (before[name], getattr(norm, f"running_{name}")) for name in names}
    momentum = trial.options["momentum"]
    error = max(largest(faults.updated(old, batch[name], momentum) - new) for name, (old, new) in kept.items())
    fault = faults.of_the_statistics(kept, batch, momentum, values)
    if error <= LIMIT and count is not None and _count(norm) != count + 1:
        return float("nan"), f"the batch was counted {(_count(norm) or 0) - count} times"
    return error, fault


def _batch(z: Tensor, trial: Trial) -> tuple[dict[str, Tensor], int]:
    """Mean and unbiased variance of z [N, C, ...], and how many values they are of; ghost batches are averaged."""
    size = trial.options["virtual"] if trial.scheme.name == "ghost_batch" else len(z)
    parts = [part.movedim(1, 0).flatten(1) for part in z.split(size)]  # each [C, values]
    means, variances = ([f(part, 1) for part in parts] for f in (torch.mean, torch.var))
    return {"mean": torch.stack(means).mean(0), "var": torch.stack(variances).mean(0)}, parts[0].shape[1]


def _count(norm: Any) -> int | None:
    count = getattr(norm, "num_batches_tracked", None)
    return None if count is None else int(count)


def _moved(trial: Trial, block: Any, training: bool) -> str:
    """The first buffer that a pass in evaluation (and in training) changes; "" if none does."""
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    for mode in (False, True) if training else (False,):
        passed_through(block.train(mode), trial.data(7))
    return next((n for n, buffer in block.named_buffers() if not torch.equal(buffer, before[n])), "")


def _behaviour(trial: Trial) -> str:
    block = trial.block()
    if not list(block.buffers()):
        return "keeps none"
    return f"training moves {_moved(trial, block, training=True) or 'no buffer'}"
