"""Mean-only batch normalization, step by step."""

from __future__ import annotations

from typing import Any

from normbench.explain import over_batch
from normbench.explain.place import Place, look, parameter
from normbench.explain.steps import Step
from normbench.norms import keep_buffers, preserve_state


def steps(place: Place) -> list[Step]:
    found = [over_batch.values(place), _centred(place), over_batch.adding_five(place, "y", plain=False)]
    return [*found, over_batch.useless_bias(place), _running(place), *_inference(place)]


def _centred(place: Place) -> Step:
    mean, _ = over_batch.statistics(place)
    beta = parameter(place.norm, "bias", place.unit, 0.0)
    o, y = place.values(place.seen.x), place.values(place.seen.y)
    names, more = over_batch.affected(place)
    rows = place.rows(o, [mean] * len(o), y, *more)
    words = (
        f"beta = {beta:.6g}. The variance is left alone: how far values are apart stays as it was, and there is no "
        "gamma. With weight normalization, g sets that scale."
    )
    columns = (over_batch.label(place), "o", "mean", "o - mean + beta", *names)
    formula = f"mean = (o_1 + ... + o_m) / m,  m = {over_batch.count(place):,}\ny_i = o_i - mean + beta"
    return Step("centred", "Subtract the batch's mean", formula, words, columns, rows, columns[2:])


def _mean(place: Place) -> float:
    mean: Any = place.norm.running_mean  # type: ignore[union-attr]
    return (mean if place.t is None else mean[min(place.t, len(mean) - 1)])[place.unit].item()


def _running(place: Place) -> Step:
    norm: Any = place.norm
    mean, _ = over_batch.statistics(place)
    before, restore = _mean(place), keep_buffers(norm)
    norm(place.seen.x, *place.when)
    after = _mean(place)
    restore()
    words = f"Inference can't wait for a batch: training keeps an average of the mean. momentum = {norm.momentum:.6g}."
    formula = "new average = (1 - momentum) x old average + momentum x this batch's"
    columns = ("average of the", "old", "this batch's", "new")
    rows = [("mean", before, mean, after)]
    return Step("running", "The running average", formula, words, columns, rows, columns[2:])


def _inference(place: Place) -> list[Step]:
    mean, beta, first = _mean(place), parameter(place.norm, "bias", place.unit, 0.0), place.shown[0]
    with preserve_state(place.model):
        seen = look(place.model, place.block, place.images[:1], place.t)
    o, y = place.values(seen.x)[first], place.values(seen.y)[first]
    position = "" if seen.x.dim() == 2 else f" ({place.name(first).partition(', ')[2]})"
    words = f"Image 1{position} by itself: the old average (of the network as trained) stands in for the batch's mean."
    rows = [("o", o), ("running mean", mean), ("y", y)]
    formula = "y = o - running mean + beta"
    alone = Step(
        "inference", "Inference: one image", formula, words, ("", "value"), rows, ("value",), ("o", "running mean")
    )
    words = "Both are constants now: together they are an ordinary bias."
    b = beta - mean
    rows = [("b", b), ("o + b", o + b), ("the norm itself", y), ("difference", o + b - y)]
    formula = "b = beta - running mean\ny = o + b"
    return [alone, Step("folded", "Folded into a bias", formula, words, ("", "value"), rows, ("value",))]
