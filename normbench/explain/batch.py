"""Batch normalization, step by step: one unit over a mini-batch, then over time, then for a single image."""

from __future__ import annotations

import math
from typing import Any

import torch

from normbench.explain import over_batch
from normbench.explain.place import Place, inner, look, parameter
from normbench.explain.steps import Step
from normbench.norms import keep_buffers, preserve_state

INPUTS = ("o", "running mean", "running variance")  # of inference


def steps(place: Place) -> list[Step]:
    found = [over_batch.values(place), _statistics(place), _standardised(place), _spread(place), _bound(place)]
    found += [over_batch.adding_five(place, "z", plain=True), over_batch.useless_bias(place), _scaled(place)]
    if place.recurrent:
        found.append(_gate(place))
    return [*found, _running(place), *_inference(place)]


def _norm(place: Place) -> Any:
    return inner(place.norm)  # type: ignore[arg-type]


def _statistics(place: Place) -> Step:
    mean, var = over_batch.statistics(place)
    eps = _norm(place).eps
    formula = "mean = (o_1 + ... + o_m) / m\nvar  = ((o_1 - mean)^2 + ... + (o_m - mean)^2) / m"
    words = f"m = {over_batch.count(place):,}. The variance is divided by m, not m - 1 (biased); eps = {eps:g}."
    rows = [("mean", mean), ("var", var), ("sqrt(var + eps)", math.sqrt(var + eps))]
    return Step(
        "statistics",
        "Mean and variance of the mini-batch",
        formula,
        words,
        ("", "value"),
        rows,
        ("value",),
        over_batch.not_all(place),
    )


def _standardised(place: Place) -> Step:
    mean, _ = over_batch.statistics(place)
    o = place.values(place.seen.x)
    z = place.values(place.apply(place.seen.x, plain=True))
    rows = place.rows(o, [value - mean for value in o], z)
    columns = (over_batch.label(place), "o", "o - mean", "z")
    formula = "z_i = (o_i - mean) / sqrt(var + eps)"
    return Step("standardised", "Standardise", formula, "", columns, rows, columns[2:])


def _spread(place: Place) -> Step:
    z = place.apply(place.seen.x, plain=True)[:, place.unit].double()
    var, mean = torch.var_mean(z, correction=0)
    rows = [("mean of z", mean.item()), ("standard deviation of z", var.sqrt().item())]
    rows += [("smallest z", z.min().item()), ("largest z", z.max().item())]
    given = tuple(row[0] for row in rows) if over_batch.not_all(place) else ()
    words = (
        "Standardised values are centred at 0 and spread by 1 (eps makes it a little less). They aren't squeezed "
        "between 0 and 1: some are negative, and some may be larger than 1."
    )
    title = "z has mean 0 and standard deviation 1, not the range 0..1"
    return Step("spread", title, "", words, ("", "value"), rows, ("value",), given)


def _bound(place: Place) -> Step:
    """The largest |z| of all units of the layer, in mini-batches of 2 and of all images, and in inference."""
    x = place.seen.x
    rows: list[list[Any]] = []
    for n in sorted({2, len(x)} - {1}):
        m = x[:n, 0].numel()
        largest = place.apply(x[:n], plain=True).abs().max().item()
        rows.append([f"training, {_images(n)}", f"{m:,}", math.sqrt(m - 1), largest])
    with preserve_state(place.model):
        seen = look(place.model, place.block, place.many, place.t)
        rows.append([f"inference, {_images(len(seen.x))} one by one", "-", "none", _largest(place, seen.x)])
    words = (
        "A value that is far from the others moves their mean and widens their standard deviation. So z can't leave "
        "these bounds in training, however unusual an image is: of 2 values, z is always 1 and -1 (but for eps), of 4 "
        "at most 1.73. Inference works with fixed averages and has no bound. The largest |z| is that of all units of "
        "this layer."
    )
    columns = ("mode", "m", "sqrt(m - 1)", "largest |z|")
    return Step("bound", "How large z can be", "|z_i| <= sqrt(m - 1)", words, columns, rows, columns[2:3])


def _largest(place: Place, x: torch.Tensor) -> float:
    return place.apply(x, plain=True).abs().max().item()


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n} images"


def _scaled(place: Place) -> Step:
    gamma, beta = (parameter(place.norm, name, place.unit, usual) for name, usual in (("weight", 1.0), ("bias", 0.0)))
    z, y = place.values(place.apply(place.seen.x, plain=True)), place.values(place.seen.y)
    names, more = over_batch.affected(place)
    learned = "learned" if _norm(place).weight is not None and _norm(place).weight.requires_grad else "fixed"
    words = (
        f"gamma = {gamma:.6g} and beta = {beta:.6g} ({learned}; one pair per unit) let the network choose another "
        "spread and centre, if that is better."
    )
    if place.recurrent:
        words = f"gamma = {gamma:.6g} ({learned}). There is no beta here: the cell adds one bias to both products' sum."
    formula = ("y_i = gamma z_i" if place.recurrent else "y_i = gamma z_i + beta") + (
        f"\nactivation = {type(place.block.activation).__name__}(y_i)" if names else ""
    )
    output = "gamma z" if place.recurrent else "gamma z + beta"
    columns = (over_batch.label(place), "z", output, *names)
    title = "Scale and shift" + (", then the activation" if names else "")
    return Step("scaled", title, formula, words, columns, place.rows(z, y, *more), columns[1:])


def _gate(place: Place) -> Step:
    """What the gate gets: both products, normalised one by one, and the bias."""
    bias: float = place.block.bias[place.unit].item()  # type: ignore[index]
    total, y = place.values(place.seen.tensors["normalized"]), place.values(place.seen.y)
    h = place.seen.tensors["activation"][:, place.unit % place.block.units].double().tolist()  # type: ignore[operator]
    rest = [t - v - bias for t, v in zip(total, y, strict=True)]
    words = (
        f"W_h h is normalised in the same way, with statistics and a gamma of its own; the cell's bias is "
        f"b = {bias:.6g}. The last column is the state h of the unit at this time step, to which all gates contribute."
    )
    columns = ("image", "gamma z", "n(W_h h)", "gate's input", "h")
    rows = place.rows(y, rest, total, h)
    title = "What the gate gets"
    asked = ("gamma z", "gate's input")
    return Step("gate", title, "gate's input = gamma z + n(W_h h) + b", words, columns, rows, asked)


def _running(place: Place) -> Step:
    """The averages before and after this mini-batch: the norm's own."""
    norm, m = _norm(place), over_batch.count(place)
    mean, var = over_batch.statistics(place)
    before = averages(place)
    restore = keep_buffers(norm)
    norm(place.seen.x, *place.when)
    after = averages(place)
    restore()
    rows = [("mean", before[0], mean, after[0]), ("variance", before[1], var * m / (m - 1), after[1])]
    words = (
        f"Inference can't wait for a batch: training keeps averages. momentum = {norm.momentum:.6g}, m = {m:,}. "
        f"The average of the variance is fed with the unbiased estimate, m/(m - 1) times the variance above (here "
        f"times {m}/{m - 1}); the normalisation of the mini-batch itself is not."
    )
    formula = "new average = (1 - momentum) x old average + momentum x this batch's"
    columns = ("average of the", "old", "this batch's", "new")
    return Step("running", "The running averages", formula, words, columns, rows, columns[2:])


def averages(place: Place) -> tuple[float, float]:
    """The running mean and variance of the unit, now."""
    mean, var = place.norm.running_mean, place.norm.running_var  # type: ignore[union-attr]
    if place.t is not None:
        at = min(place.t, len(mean) - 1)  # type: ignore[arg-type]
        mean, var = mean[at], var[at]  # type: ignore[index]
    return mean[place.unit].item(), var[place.unit].item()  # type: ignore[index]


def _inference(place: Place) -> list[Step]:
    norm = _norm(place)
    mean, var = averages(place)
    gamma, beta = (parameter(norm, name, place.unit, usual) for name, usual in (("weight", 1.0), ("bias", 0.0)))
    first = place.shown[0]
    with preserve_state(place.model):
        seen = look(place.model, place.block, place.images[:1], place.t)
        z = place.values(place.apply(seen.x, plain=True))[first]
        o, y = place.values(seen.x)[first], place.values(seen.y)[first]
    a = gamma / math.sqrt(var + norm.eps)
    b = beta - a * mean
    position = "" if seen.x.dim() == 2 else f" ({place.name(first).partition(', ')[2]})"
    words = (
        f"Image 1{position} by itself: a batch of 1. The old averages (those of the network as it was trained) stand "
        "in for the batch's mean and variance, so the result no longer depends on other images."
    )
    rows = [
        ("o", o),
        ("running mean", mean),
        ("running variance", var),
        ("z", z),
        ("gamma z" if place.recurrent else "gamma z + beta", y),
    ]
    formula = "z = (o - running mean) / sqrt(running variance + eps)"
    alone = Step("inference", "Inference: one image", formula, words, ("", "value"), rows, ("value",), INPUTS)
    formula = "a = gamma / sqrt(running variance + eps)\nb = beta - a x running mean\ny = a o + b"
    words = "All of these are constants now, so the norm is one multiplication and one addition per unit. "
    if place.recurrent:
        words += "Each time step has an a and a b of its own, though, and W_x is one for all: the norm stays."
    elif place.after:
        words += "An activation is in front of it, so a and b go into the weights and the bias of the next layer."
    else:
        words += (
            "o is a sum of products with weights, so a goes into the weights, and b becomes a bias: no norm is left."
        )
    rows = [("a", a), ("b", b), ("a o + b", a * o + b), ("the norm itself", y), ("difference", a * o + b - y)]
    return [alone, Step("folded", "Folded: a o + b", formula, words, ("", "value"), rows, ("value",))]
