"""Re-parametrised weights, step by step: the length of a unit's weights is a number of its own."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normbench.explain.place import Place, Step
from normbench.norms.weight import WeightStandardization

FEW = 6  # weights that are shown


def steps(place: Place) -> list[Step]:
    """Of weight normalization, w = g v / |v|, and weight standardization, where v is centred first; [] for others."""
    linear: Any = getattr(place.block, "linear", None) or getattr(place.block, "input", None)
    if linear is None or not parametrize.is_parametrized(linear, "weight"):
        return []
    how = linear.parametrizations.weight
    g, v, w = how.original0.detach(), how.original1.detach(), linear.weight.detach()
    unit, count = place.unit, v[place.unit].numel()
    flat, scale = v[unit].double().flatten(), g[unit].item()
    standardizes = isinstance(how[0], WeightStandardization)
    centred = flat - flat.mean() if standardizes else flat
    scale *= how[0].gain if standardizes else 1.0
    length = centred.norm().item()
    name = "|v - mean(v)|" if standardizes else "|v|"
    formula = f"w = g v / {name}" if not standardizes else f"w = g gain (v - mean(v)) / {name}"
    shown = flat.abs().argsort(descending=True)[:FEW].sort().values.tolist()
    rows = [[_name(v[unit], i), flat[i].item(), w[unit].flatten()[i].item()] for i in shown]
    factor = "g gain" if standardizes else "g"
    lengths = [(factor, scale), (name, length), (f"{factor} / {name}", scale / length),
               ("|w|", w[unit].double().norm().item())]  # fmt: skip
    words = (
        f"The network learns g, one number, and v, {count:,} numbers, per unit. w, which it works with, is "
        f"computed from them: the direction of {'v - mean(v)' if standardizes else 'v'}, with length |{factor}|."
    )
    columns = ("input", "v", "w")
    own_rows = "features" not in (place.over or ())  # else the tables below show other units, with other weights
    few = f"Shown are the {len(shown)} largest of {count:,} (inputs are numbered from 0)."
    return [
        Step("length", f"The length of {name[1:-1]}, and g", f"{formula},  so |w| = |{factor}|", words,
             ("", "value"), lengths, ("value",), (factor, name)),
        Step("weights", "The weights", formula, few, columns, rows, columns[2:]),
        _direction(how, g, v, unit),
        *([_output(place, linear, w)] if own_rows else []),
    ]  # fmt: skip


def _name(weight: Tensor, index: int) -> str:
    """Which weight: "407", or "channel 2, row 0, column 1"."""
    if weight.dim() == 1:
        return str(index)
    channel, row, column = (int(i) for i in torch.unravel_index(torch.tensor(index), weight.shape))
    return f"channel {channel}, row {row}, column {column}"


def _direction(how: Any, g: Tensor, v: Tensor, unit: int) -> Step:
    """The parametrisation itself, with v 10 times as long, and its gradient by v."""
    usual, longer = how[0](g, v), how[0](g, 10 * v)
    some = torch.randn(v[unit].shape, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        trained = v.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((how[0](g, trained)[unit] * some).sum(), trained)
    cosine = F.cosine_similarity(gradient[unit].double().flatten(), v[unit].double().flatten(), 0).item()
    rows = [("largest change of w by 10 times as long a v", (longer - usual)[unit].abs().max().item()),
            ("cosine between v and a gradient by v", cosine)]  # fmt: skip
    words = (
        "The length of v plays no part in w, so no gradient points along v: learning v only turns it. Scale and "
        "direction are learned apart. No image is needed: there is nothing to average, and any batch size will do."
    )
    return Step("direction", "Only the direction of v counts", "", words, ("", "value"), rows)


def _inputs(place: Place, linear: nn.Module) -> Tensor:
    """What the unit's weights are multiplied with, for each shown value: [shown, weights]."""
    into = place.values["into"]
    images = [index[0] for index in place.shown]
    if not isinstance(linear, nn.Conv2d):
        return into[images]
    patches = F.unfold(into, linear.kernel_size, linear.dilation, cast(Any, linear.padding), linear.stride)
    width = place.x.shape[3]  # [N, weights, H * W]
    return torch.stack([patches[image, :, row * width + column] for image, _, row, column in place.shown])


def _output(place: Place, linear: Any, w: Tensor) -> Step:
    """w . x + b, calculated here in double precision, beside what the layer itself gives."""
    unit = place.unit
    bias: float = 0.0 if getattr(linear, "bias", None) is None else linear.bias[unit].item()
    products = (_inputs(place, linear).double() @ w[unit].double().flatten()).tolist()
    after = {} if place.recurrent else place.values
    own = place.column(after["linear"]) if after else [product + bias for product in products]
    names: tuple[str, ...] = ()
    more: list[list[float]] = []
    if place.norm is None and "activation" in after:
        names, more = ("activation",), [place.column(after["activation"])]
    columns = (place.label, "w . x", "o", *names)
    words = f"b = {bias:.6g}."
    if place.recurrent:
        words += " W_h is re-parametrised in the same way; the cell adds both products and a bias."
    return Step("output", "The output", "o = w . x + b", words, columns, place.rows(products, own, *more), columns[1:])
