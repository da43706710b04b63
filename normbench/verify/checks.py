"""The checks, each of one block in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from normbench.errors import Unsupported
from normbench.norms import NormScheme, Unfoldable, fold
from normbench.verify.definitions import Options
from normbench.verify.trial import COLUMNS, PLACES, Result, Trial, largest, passed_through, transformed, weight_of

EXACT, SINGLE = 1e-10, 1e-4  # errors allowed in float64 and in float32, of outputs of about 1
STEP, GRADIENT = 1e-5, 1e-6  # of the differences, and the error allowed of a gradient of length 1
UPDATE = 1e-12  # error allowed of running statistics
NO_REFERENCE = "no reference"


def verify(scheme: NormScheme, options: Options, device: str = "cpu") -> list[Result]:
    """All checks of a scheme, in dense layers and convolutions.

    Args:
        options: of its YAML: eps, momentum and so on.

    Raises: TypeError, ValueError: the scheme can't be built with these options.
    """
    found: list[Result] = []
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        for place in PLACES:
            trial = Trial(scheme, options, place, device)
            block = trial.block()
            try:
                passed_through(block, trial.data())
            except Unsupported as reason:
                found.append(Result("supported", place, None, note=f"not in this layer: {reason}"))
                continue
            except Exception as error:  # of a user's own code
                found.append(_crashed("sane", place, error))
                continue
            for name, check in CHECKS.items():
                try:
                    found += check(trial)
                except Exception as error:
                    found.append(_crashed(name, place, error))
    return found


def _crashed(check: str, place: str, error: Exception) -> Result:
    return Result(check, place, False, note=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def sane(trial: Trial) -> Iterator[Result]:
    """Finite, of the same shape as without the scheme, and in evaluation the same each time."""
    block, x = trial.block(), trial.data()
    z, y = block.linear(x), block(x)
    block.eval()
    wrong = ["not finite"] * (not y.isfinite().all())
    wrong += [f"shape {list(z.shape)} became {list(y.shape)}"] * (y.shape != z.shape)
    wrong += ["two passes in evaluation differ"] * (not torch.equal(block(x), block(x)))
    yield Result("sane", trial.place, not wrong, note=", ".join(wrong) or "finite, shape kept, evaluation repeatable")


def reference(trial: Trial) -> Iterator[Result]:
    """Training and evaluation against the closed forms, in float64 and in float32."""
    definition, block, x = trial.definition, trial.block(), trial.data()
    if definition is None:
        yield Result("reference", trial.place, None, note=NO_REFERENCE)
        return
    with torch.no_grad():
        z = definition.linear(block.linear, x, trial.options)
        right = definition.finished(definition.normalised(z, block.norm, trial.options), block.norm)
        if not definition.noisy:
            single = deepcopy(block).float()(x.float())
            yield _compared("reference", trial, block(x), right, EXACT, "training")
            yield _compared("reference", trial, single.double(), right, SINGLE, "training in float32")
        _draw_statistics(block)
        y = block.eval()(x)
        right = definition.finished(definition.evaluated(z, block.norm, trial.options), block.norm)
        yield _compared("reference", trial, y, right, EXACT, "evaluation")


def against_torch(trial: Trial) -> Iterator[Result]:
    """The same against torch's own layer, where it has one."""
    definition, block, x = trial.definition, trial.block(), trial.data()
    if definition is None or not (definition.torch or definition.torch_weight):
        yield Result("torch", trial.place, None, note=NO_REFERENCE)
        return
    with torch.no_grad():
        if definition.torch_weight:
            pair = block.linear.weight, definition.torch_weight(block.linear)
        else:
            assert definition.torch is not None
            z = definition.linear(block.linear, x, trial.options)
            pair = block(x), definition.finished(definition.torch(z, trial.options), block.norm)
        yield _compared("torch", trial, *pair, EXACT, "torch's own layer")


def _draw_statistics(block: Any) -> None:
    for name, low in (("running_mean", -0.5), ("running_var", 0.5)):
        if getattr(block.norm, name, None) is not None:
            values = getattr(block.norm, name)
            values.copy_(torch.rand_like(values) + low)


def _compared(check: str, trial: Trial, y: Tensor, right: Tensor, limit: float, note: str) -> Result:
    error = largest(y - right)
    return Result(check, trial.place, error < limit, error, note)


def invariance(trial: Trial) -> Iterator[Result]:
    """Which of six changes of weights and data does the block not notice? Laws hold up to eps, so that is made tiny."""
    unmoved, largest_of_unmoved, wrong = [], 0.0, []
    definition = trial.definition
    expected: list[bool | None] = [None] * len(COLUMNS)
    if definition is not None:
        conv = trial.place == "convolution" and definition.unmoved_conv
        answers = (conv or definition.unmoved).split()
        expected = [answer == "yes" for answer in answers]
    for column, answer in zip(COLUMNS, expected, strict=True):
        moved = _change(trial, column)
        if moved < EXACT:
            unmoved.append(column)
            largest_of_unmoved = max(largest_of_unmoved, moved)
        if answer is not None and not (moved < EXACT if answer else moved > 0.01):
            wrong.append(f"{column} {'must not' if answer else 'must'} change the output: it changed by {moved:.1e}")
    note = "; ".join(wrong) or f"unmoved by {', '.join(unmoved) or 'nothing'}"
    passed = None if definition is None else not wrong
    yield Result("invariance", trial.place, passed, largest_of_unmoved if unmoved else None, note)


def _change(trial: Trial, column: str) -> float:
    """The largest difference that the change makes to the block's output."""
    block, x = trial.block(), trial.data()
    for module in block.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = 1e-30
    with torch.no_grad():
        if block.linear.bias is not None:  # the laws are about weights: a bias before a norm does not scale with them
            block.linear.bias.zero_()
        before = passed_through(block, x)
        w, x = transformed(column, weight_of(block), x)
        weight_of(block).copy_(w)
        return largest(passed_through(block, x) - before)


def mixing(trial: Trial) -> Iterator[Result]:
    """Does the output for one example depend on the others of its batch? In evaluation it must not."""
    definition, x = trial.definition, trial.data()
    others = torch.cat([x[:1], x[1:] * 2 + 1])
    for training in (True, False):
        with torch.no_grad():
            ys = [passed_through(trial.block().train(training), images)[0] for images in (x, others)]
        moved, way = largest(ys[0] - ys[1]), "training" if training else "evaluation"
        depends = moved > EXACT
        note = f"{way}: an example {'depends' if depends else 'does not depend'} on the others"
        expected = False if not training else None if definition is None else definition.mixes
        passed = None if expected is None else depends == expected
        yield Result("batch mixing", trial.place, passed, None if depends and passed is not False else moved, note)


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
            if not error <= UPDATE:
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
    """The largest error after one more training pass, and what is wrong where that is no number."""
    definition, norm, x = trial.definition, block.norm, trial.data(seed)
    assert definition is not None
    names = ("mean", "var") if definition.keeps == "mean and variance" else ("mean",)
    if missing := [name for name in names if getattr(norm, f"running_{name}", None) is None]:
        return float("nan"), f"there is no running_{missing[0]}"
    before = {name: getattr(norm, f"running_{name}").clone() for name in names}
    count = _count(norm)
    passed_through(block, x)
    batch = _batch(definition.linear(block.linear, x, trial.options).detach(), trial)
    share = trial.options["momentum"]
    error = max(
        largest((1 - share) * before[name] + share * batch[name] - getattr(norm, f"running_{name}")) for name in names
    )
    if error <= UPDATE and count is not None and _count(norm) != count + 1:
        return float("nan"), f"the batch was counted {(_count(norm) or 0) - count} times"
    return error, ""


def _batch(z: Tensor, trial: Trial) -> dict[str, Tensor]:
    """Mean and unbiased variance of each unit of z [N, C, ...]; of ghost batches the averages."""
    size = trial.options["virtual"] if trial.scheme.name == "ghost_batch" else len(z)
    parts = [part.movedim(1, 0).flatten(1) for part in z.split(size)]  # each [C, values]
    return {name: torch.stack([f(part, 1) for part in parts]).mean(0)
            for name, f in (("mean", torch.mean), ("var", torch.var))}  # fmt: skip


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


def folding(trial: Trial) -> Iterator[Result]:
    """The network after a few training steps, and what it is folded to."""
    network, x, result = trial.network(), trial.data(), ("fold", trial.place)
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
        yield Result(*result, None if expected is None else expected == "no", note=f"can't: {reason}")
        return
    error = largest(network.eval()(x) - folded(x))
    found = "yes" if merges else "nothing"
    right = error < EXACT and expected in (None, found)
    yield Result(*result, right, error, "folds" if merges else "nothing to fold")


def gradient(trial: Trial) -> Iterator[Result]:
    """Gradients of all weights and of the data against central differences, in float64.

    Along random directions d of one tensor at a time, (L(p + h d) - L(p - h d)) / 2h must be d . gradient, for L a
    random weighing of the output. (torch.autograd.gradcheck compares the same, but where it fails in its fast mode it
    computes the whole Jacobian, which takes minutes here.)
    """
    if trial.corrects:
        yield Result("gradient", trial.place, None, note="by definition no gradient flows through r and d")
        return
    block, x = trial.block(), trial.data().requires_grad_()
    tensors = {n: p for n, p in [("data", x), *block.named_parameters()] if p.requires_grad}
    torch.manual_seed(3)
    weighing = torch.randn_like(passed_through(block, x))
    gradients = dict(
        zip(tensors, torch.autograd.grad(_weighed(block, x, weighing), list(tensors.values())), strict=True)
    )
    errors: dict[str, float] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            for seed in range(3):
                torch.manual_seed(seed)
                d = torch.randn_like(tensor)
                ends = [_weighed(block, x, weighing, {name: tensor + h * d}) for h in (STEP, -STEP)]
                numeric, analytic = (ends[0] - ends[1]).item() / (2 * STEP), (d * gradients[name]).sum().item()
                scale = max(1.0, gradients[name].norm().item())
                errors[name] = max(errors.get(name, 0.0), abs(numeric - analytic) / scale)
    worst = max(errors, key=lambda name: errors[name])
    passed = errors[worst] < GRADIENT
    note = "equals finite differences" if passed else f"that of {worst} differs from finite differences"
    yield Result("gradient", trial.place, passed, errors[worst], note)


def _weighed(block: Any, x: Tensor, weighing: Tensor, changed: Mapping[str, Tensor] = MappingProxyType({})) -> Tensor:
    """L = the weighed sum of the output, with some tensors exchanged; buffers stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
    parameters = {name: value for name, value in changed.items() if name != "data"}
    torch.manual_seed(2)
    return (functional_call(block, {**parameters, **buffers}, (changed.get("data", x),)) * weighing).sum()


CHECKS: dict[str, Callable[[Trial], Iterator[Result]]] = {
    "sane": sane,
    "reference": reference,
    "torch": against_torch,
    "invariance": invariance,
    "batch mixing": mixing,
    "statistics": statistics,
    "fold": folding,
    "gradient": gradient,
}
