"""The checks, each of one block in one place: what is expected is in `definitions.py`, what is tried in `trial.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from normbench.errors import Unsupported
from normbench.norms import NormScheme, Unfoldable, fold
from normbench.training.device import calculate_exactly
from normbench.verify.definitions import Options
from normbench.verify.trial import COLUMNS, PLACES, Trial, largest, passed_through, transformed, weight_of

SINGLE = 1e-4  # error allowed in float32, of outputs of about 1; in float64: `Limits`
STEP = 1e-5  # of finite differences
Found = Iterator[tuple[bool | None, float | None, str]]  # passed, error and note of results
NO_REFERENCE = (None, None, "no reference")


@dataclass(frozen=True)
class Result:
    """What one check found.

    Args:
        check: its name.
        place: "dense" or "convolution".
        passed: None where nothing is expected: the scheme has no reference.
        error: the largest difference from what was expected, where that is a number.
        note: what was seen, or what is wrong.
    """

    check: str
    place: str
    passed: bool | None
    error: float | None
    note: str


def verify(scheme: NormScheme, options: Options, device: str = "cpu") -> list[Result]:
    """All checks of a scheme, in dense layers and convolutions.

    Args:
        options: of its YAML: eps, momentum and so on.

    Raises: TypeError, ValueError: the scheme can't be built with these options.
    """
    found: list[Result] = []
    calculate_exactly()
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        for place in PLACES:
            trial = Trial(scheme, options, place, device)
            trial.block()
            for name, check in CHECKS.items():
                try:
                    found += [Result(name, place, *result) for result in check(trial)]
                except Exception as error:  # of a user's own code
                    if name == "sane" and isinstance(error, Unsupported):
                        found.append(Result("supported", place, None, None, f"not in this layer: {error}"))
                    else:
                        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                        found.append(Result(name, place, False, None, what))
                    if name == "sane":  # it does not even run
                        break
    return found


def sane(trial: Trial) -> Found:
    """Finite, of the same shape as without the scheme, and in evaluation the same each time."""
    block, x = trial.block(), trial.data()
    y, z = passed_through(block, x), block.linear(x)
    block.eval()
    wrong = ["not finite"] * (not y.isfinite().all())
    wrong += [f"shape {list(z.shape)} became {list(y.shape)}"] * (y.shape != z.shape)
    wrong += ["two passes in evaluation differ"] * (not torch.equal(block(x), block(x)))
    yield not wrong, None, ", ".join(wrong) or "finite, shape kept, evaluation repeatable"


@torch.no_grad()
def reference(trial: Trial) -> Found:
    """Training and evaluation against the closed forms, in float64 and in float32."""
    definition, block, x = trial.definition, trial.block(), trial.data()
    if definition is None:
        yield NO_REFERENCE
        return
    z = definition.linear(block.linear, x, trial.options)
    right = definition.finished(definition.normalised(z, block.norm, trial.options), block.norm)
    if not definition.noisy:
        single = deepcopy(block).float()(x.float())
        yield _compared(block(x), right, trial.limits.exact, "training")
        yield _compared(single.double(), right, SINGLE, "training in float32")
    for name, low in (("running_mean", -0.5), ("running_var", 0.5)):
        if (values := getattr(block.norm, name, None)) is not None:
            values.copy_(torch.rand_like(values) + low)
    right = definition.finished(definition.evaluated(z, block.norm, trial.options), block.norm)
    yield _compared(block.eval()(x), right, trial.limits.exact, "evaluation")


@torch.no_grad()
def against_torch(trial: Trial) -> Found:
    """The same against torch's own layer, where it has one."""
    definition, block, x = trial.definition, trial.block(), trial.data()
    if definition is not None and definition.torch_weight:
        pair = block.linear.weight, definition.torch_weight(block.linear)
    elif definition is not None and definition.torch:
        z = definition.linear(block.linear, x, trial.options)
        pair = block(x), definition.finished(definition.torch(z, trial.options), block.norm)
    else:
        yield NO_REFERENCE
        return
    yield _compared(*pair, trial.limits.exact, "torch's own layer")


def _compared(y: Tensor, right: Tensor, limit: float, note: str) -> tuple[bool, float, str]:
    error = largest(y - right)
    return error < limit, error, note


@torch.no_grad()
def invariance(trial: Trial) -> Found:
    """Which of six changes of weights and data does the block not notice? Laws hold up to eps, so that is made tiny."""
    definition, unmoved, wrong = trial.definition, dict[str, float](), []
    expected = None if definition is None else definition.unmoved_in(trial.place)
    for column in COLUMNS:
        block, x = trial.block(), trial.data()
        for module in block.modules():
            if isinstance(getattr(module, "eps", None), float):
                module.eps = 1e-30
        if block.linear.bias is not None:  # the laws are about weights: a bias before a norm does not scale with them
            block.linear.bias.zero_()
        before = passed_through(block, x)
        w, x = transformed(column, weight_of(block), x)
        weight_of(block).copy_(w)
        moved = largest(passed_through(block, x) - before)
        if moved < trial.limits.exact:
            unmoved[column] = moved
        if expected is not None and not (moved < trial.limits.exact if column in expected else moved > 0.01):
            must = "must not" if column in expected else "must"
            wrong.append(f"{column} {must} change the output: it changed by {moved:.1e}")
    note = "; ".join(wrong) or f"unmoved by {', '.join(unmoved) or 'nothing'}"
    yield None if expected is None else not wrong, max(unmoved.values(), default=None), note


@torch.no_grad()
def mixing(trial: Trial) -> Found:
    """Does the output for one example depend on the others of its batch? In evaluation it must not."""
    definition, x = trial.definition, trial.data()
    others = torch.cat([x[:1], x[1:] * 2 + 1])
    for mode in ("training", "evaluation"):
        y, other = (passed_through(trial.block().train(mode == "training"), images)[0] for images in (x, others))
        moved = largest(y - other)
        depends = moved > trial.limits.exact
        expected = False if mode == "evaluation" else None if definition is None else definition.mixes
        passed = None if expected is None else depends == expected
        note = f"{mode}: an example {'depends' if depends else 'does not depend'} on the others"
        yield passed, None if depends and passed is not False else moved, note


def statistics(trial: Trial) -> Found:
    """After one and after two passes: (1 - momentum) old + momentum new, with the variance m / (m - 1) var.

    Schemes without running statistics must leave every buffer alone; all must in evaluation.
    """
    definition, block = trial.definition, trial.block()
    if definition is None:
        keeps = f"training moves {_moved(trial, block, True, False) or 'no buffer'}"
        yield None, None, f"no reference; {keeps if list(block.buffers()) else 'keeps none'}"
        return
    names = {"": (), "mean": ("mean",), "mean and variance": ("mean", "var")}[definition.keeps]
    errors = [_error_after_a_pass(trial, block, names, seed) for seed in (1, 5) if names]
    if not all(error <= trial.limits.update for error in errors):
        yield False, max(errors), "the running statistics are not the moving averages, or count their batches wrong"
    elif errors:
        yield True, max(errors), f"one update of the running {definition.keeps} per pass"
    if moved := _moved(trial, block, *([False] if names else [False, True])):
        yield False, None, f"{moved} changed where nothing may"
    elif not names:
        yield True, None, "keeps none"


def _error_after_a_pass(trial: Trial, block: Any, names: tuple[str, ...], seed: int) -> float:
    """The largest error of the running statistics after one more training pass; infinite if it is counted wrong."""
    assert trial.definition is not None
    norm, x, share = block.norm, trial.data(seed), trial.options["momentum"]
    z = trial.definition.linear(block.linear, x, trial.options).detach()
    size = trial.options["virtual"] if trial.scheme.name == "ghost_batch" else len(z)
    parts = [part.movedim(1, 0).flatten(1) for part in z.split(size)]  # of each ghost batch [C, values]
    per_ghost_batch = trial.options.get("update_per") == "ghost_batch"
    wanted = {}
    for name in names:
        batches = torch.stack([getattr(torch, name)(part, 1) for part in parts])
        running = getattr(norm, f"running_{name}")
        for batch in batches if per_ghost_batch else [batches.mean(0)]:
            running = (1 - share) * running + share * batch
        wanted[f"running_{name}"] = running
    if getattr(norm, "num_batches_tracked", None) is not None:
        wanted["num_batches_tracked"] = norm.num_batches_tracked + (len(parts) if per_ghost_batch else 1)
    passed_through(block, x)
    return max(largest(value - getattr(norm, name)) for name, value in wanted.items())


def _moved(trial: Trial, block: Any, *modes: bool) -> str:
    """The first buffer that passes in training (True) or evaluation (False) change; "" if none does."""
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    for mode in modes:
        passed_through(block.train(mode), trial.data(7))
    return next((n for n, buffer in block.named_buffers() if not torch.equal(buffer, before[n])), "")


def folding(trial: Trial) -> Found:
    """The network after a few training steps, and what it is folded to."""
    network, x = trial.network(), trial.data()
    after = trial.scheme.placement == "after"  # the activation, which stands between layer and norm
    expected = None if trial.definition is None or after else trial.definition.folds
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        passed_through(network, x).square().mean().backward()
        optimizer.step()
    try:
        folded, merges = fold(network)
    except Unfoldable as reason:
        yield None if expected is None else expected == "no", None, f"can't: {reason}"
        return
    note = "folds" if merges else "nothing to fold"
    right, error, note = _compared(network.eval()(x), folded(x), trial.limits.exact, note)
    yield right and expected in (None, "yes" if merges else "nothing"), error, note


def gradient(trial: Trial) -> Found:
    """Gradients of all weights and of the data against central differences, in float64.

    Along random directions d of one tensor at a time, (L(p + h d) - L(p - h d)) / 2h must be d . gradient, for L a
    random weighing of the output. (torch.autograd.gradcheck compares the same, but where it fails in its fast mode it
    computes the whole Jacobian, which takes minutes here.)
    """
    if trial.corrects:
        yield None, None, "by definition no gradient flows through r and d"
        return
    block, x = trial.block(), trial.data().requires_grad_()
    buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
    tensors = {n: p for n, p in [("data", x), *block.named_parameters()] if p.requires_grad}
    torch.manual_seed(3)
    weighing = torch.randn_like(passed_through(block, x))

    def loss(changed: Mapping[str, Tensor]) -> Tensor:
        """L with some tensors exchanged, and the buffers of the start."""
        values = {**changed, **{name: value.clone() for name, value in buffers.items()}}
        data = values.pop("data", x)
        torch.manual_seed(2)
        return (functional_call(block, values, (data,)) * weighing).sum()

    found = torch.autograd.grad(loss({}), list(tensors.values()))
    errors: dict[str, float] = {}
    with torch.no_grad():
        for (name, tensor), exact in zip(tensors.items(), found, strict=True):
            for seed in range(3):
                torch.manual_seed(seed)
                d = torch.randn_like(tensor)
                above, below = (loss({name: tensor + h * d}) for h in (STEP, -STEP))
                difference = abs((above - below).item() / (2 * STEP) - (d * exact).sum().item())
                errors[name] = max(errors.get(name, 0.0), difference / max(1.0, exact.norm().item()))
    worst = max(errors, key=lambda name: errors[name])
    passed = errors[worst] < trial.limits.gradient
    note = "equals finite differences" if passed else f"that of {worst} differs from finite differences"
    yield passed, errors[worst], note


CHECKS: dict[str, Callable[[Trial], Found]] = {
    "sane": sane,
    "reference": reference,
    "torch": against_torch,
    "invariance": invariance,
    "batch mixing": mixing,
    "statistics": statistics,
    "fold": folding,
    "gradient": gradient,
}
