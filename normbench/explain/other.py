"""Any other scheme: over which values its statistics run, what goes in and what comes out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normbench.explain.over_batch import affected, label
from normbench.explain.place import Place, inner
from normbench.explain.steps import Step
from normbench.norms.describe import axes


def steps(place: Place) -> list[Step]:
    norm = place.norm
    o, names, more = place.values(place.seen.x), *affected(place)
    columns: tuple[str, ...] = (label(place), "o")
    if norm is None:
        words = "This layer is plain: nothing is normalised here."
        formula = "o = W_x x_t + W_h h + b" if place.recurrent else "o = W x + b"
        return [Step("values", "The values", formula, words, (*columns, *names), place.rows(o, *more), names)]
    over = axes(norm, tuple(place.seen.x.shape))
    words = f"{type(inner(norm)).__name__} works over: {over}."
    first = Step("values", "The values", "o = input of the norm", words, columns, place.rows(o))
    rows = place.rows(o, place.values(place.seen.y), *more)
    columns = (*columns, "y", *names)
    formula = _formula(inner(norm))
    second = Step("normalized", "What comes out", formula, "Here x is o." if formula else "", columns, rows)
    return [first, second, _changes(place)]


def _formula(norm: Any) -> str:
    """The formula of a norm of ours: the first lines of its description."""
    lines = (type(norm).__doc__ or "").split("\n\n")[0].split("\n")
    return " ".join(line.strip() for line in lines) if type(norm).__module__.startswith("normbench") else ""


def _changes(place: Place) -> Step:
    x, unit = place.seen.x.detach(), place.unit
    one = torch.zeros_like(x)
    one[:, unit] = 5
    noise = torch.cat([x[:1], torch.randn(x[1:].shape, generator=torch.Generator().manual_seed(0))])
    changes: list[tuple[str, Tensor]] = [
        ("5 added to this unit, for all images", x + one),
        ("5 added to all units", x + 5),
        ("all units 10 times as large", x * 10),
    ]
    if len(x) > 1:
        changes.append(("the other images replaced by noise", noise))
    usual = _alike(place, x)
    rows = [(words, (_alike(place, changed) - usual)[0, unit].abs().max().item()) for words, changed in changes]
    words = "The largest change of this unit's output for image 1: 0 (but for rounding) where the norm takes it away."
    return Step("changes", "What it removes", "", words, ("change of the input", "change of y"), rows)


def _alike(place: Place, x: Tensor) -> Tensor:
    """The norm's output, with the same random numbers each time where it draws some."""
    torch.manual_seed(0)
    return place.apply(x)
