"""Layer normalization, step by step: one image over all units of the layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from normbench.explain.place import SHOWN, Place, bias_gradient, inner, look, parameter
from normbench.explain.steps import Step


def steps(place: Place) -> list[Step]:
    return [_values(place), _statistics(place), _standardised(place), _scaled(place), *_others(place), _biases(place)]


def _image(tensor: Tensor) -> Tensor:
    """The first image's values, unit by unit: [C], at the middle position where there are many."""
    first = tensor.detach()[0].double().flatten(1) if tensor.dim() > 2 else tensor.detach()[0].double()
    return first if first.dim() == 1 else first[:, _middle(tensor)]


def _middle(tensor: Tensor) -> int:
    height, width = tensor.shape[2:]
    return (height // 2) * width + width // 2


def _units(place: Place) -> list[int]:
    """The asked unit and those after it: a handful."""
    count = place.seen.x.shape[1]
    start = max(0, min(place.unit, count - SHOWN))
    return list(range(start, min(count, start + SHOWN)))


def _rows(place: Place, *tensors: Tensor) -> list[list[Any]]:
    columns = [_image(tensor).tolist() for tensor in tensors]
    return [[str(unit), *(column[unit] for column in columns)] for unit in _units(place)]


def _values(place: Place) -> Step:
    size = place.seen.x.shape[1:]
    m, shown = size.numel(), len(_units(place))
    what = f"all {size[0]} units" if len(size) == 1 else f"C x H x W = {' x '.join(map(str, size))} values"
    words = f"Statistics are those of one image, over {what} of the layer: m = {m:,}. Shown are {shown} units"
    if len(size) > 1:
        row, column = divmod(_middle(place.seen.x), size[2])
        words += f", at row {row + 1}, column {column + 1}"
    if place.recurrent:
        words += ", of all gates together, at this time step"
    product = "W x" if len(size) == 1 else "convolution"
    formula = "o = W_x x_t" if place.recurrent else f"o = {product}, without a bias (the last step says why)"
    formula = f"o = activation({product} + bias)" if place.after else formula
    return Step("values", "The values of one image", formula, words + ".", ("unit", "o"), _rows(place, place.seen.x))


def _eps(place: Place) -> float:
    return float(inner(place.norm).eps)  # type: ignore[arg-type]


def _statistics(place: Place) -> Step:
    var, mean = torch.var_mean(place.seen.x[0].double(), correction=0)
    rows = [("mean", mean.item()), ("var", var.item()), ("sqrt(var + eps)", math.sqrt(var.item() + _eps(place)))]
    formula = "mean = (o_1 + ... + o_m) / m\nvar  = ((o_1 - mean)^2 + ... + (o_m - mean)^2) / m"
    words = f"Over all {place.seen.x[0].numel():,} values of this image, divided by m; eps = {_eps(place):g}."
    return Step(
        "statistics", "Mean and variance of the image", formula, words, ("", "value"), rows, ("value",), ("mean", "var")
    )


def _standardised(place: Place) -> Step:
    mean = place.seen.x[0].double().mean()
    z = place.apply(place.seen.x, plain=True)
    columns = ("unit", "o", "o - mean", "z")
    rows = _rows(place, place.seen.x, place.seen.x.double() - mean, z)
    formula = "z_j = (o_j - mean) / sqrt(var + eps)"
    return Step("standardised", "Standardise", formula, "", columns, rows, columns[2:])


def _scaled(place: Place) -> Step:
    count = place.seen.x.shape[1]
    gammas, betas = ([parameter(place.norm, name, unit, usual) for unit in range(count)]
                     for name, usual in (("weight", 1.0), ("bias", 0.0)))  # fmt: skip
    z, y = (_image(t).tolist() for t in (place.apply(place.seen.x, plain=True), place.seen.y))
    names, last = [], []
    if not place.recurrent and not place.after and "activation" in place.seen.tensors:
        names, last = ["activation"], [_image(place.seen.tensors["activation"]).tolist()]
    rows = [[str(u), z[u], gammas[u], betas[u], y[u], *(column[u] for column in last)] for u in _units(place)]
    columns = ("unit", "z", "gamma", "beta", "gamma z + beta", *names)
    words = "Each unit has a gamma and a beta of its own."
    if place.recurrent:
        words = "Each row has a gamma of its own, the same at all time steps; the cell adds one bias later (beta = 0)."
    title = "Scale and shift" + (", then the activation" if names else "")
    formula = "y_j = gamma_j z_j + beta_j"
    return Step("scaled", title, formula, words, columns, rows, ("z", *columns[4:]))


def _others(place: Place) -> list[Step]:
    """The same image alone, and with other companions: through the whole network."""
    usual, unit = _image(place.seen.y)[place.unit].item(), place.unit
    rows: list[list[Any]] = [[f"with the {len(place.images) - 1} others", usual, 0.0]] if len(place.images) > 1 else []
    noise = torch.randn(place.many[:7].shape, generator=torch.Generator().manual_seed(0))
    for words, images in (
        ("alone", place.images[:1]),
        ("with 7 images of noise", torch.cat([place.images[:1], noise])),
    ):
        y = look(place.model, place.block, images, place.t).y
        rows.append([words, _image(y)[unit].item(), (y[0] - place.seen.y[0]).abs().max().item()])
    words = (
        f"The output of unit {unit} for image 1, and the largest change of any unit's (rounding aside, none): there is "
        "nothing to average for inference, which computes the same as training, and a batch of 1 is no problem."
    )
    columns = ("image 1", "gamma z + beta", "largest change")
    return [Step("others", "Other images play no part", "", words, columns, rows, columns[1:2])]


def _biases(place: Place) -> Step:
    before, behind = bias_gradient(place)
    moved = place.apply(place.seen.x + 5, plain=True) - place.apply(place.seen.x, plain=True)
    rows = [("largest change of z by adding 5 to all units", moved.abs().max().item())]
    rows += [(f"gradient by a bias of unit {place.unit} before the norm", before[place.unit].item())]
    rows += [("the same, summed over all units", before.sum().item())]
    if behind is not None:
        rows.append((f"gradient by beta of unit {place.unit}", behind[place.unit].item()))
    words = (
        "Adding the same number to all units of an image changes nothing: the mean takes it away. A bias of one unit "
        "is not the same for all, and so it does something, unlike before batch norm; only a shift common to all "
        "units is lost: the gradients sum to 0. beta can do what a bias does, so one of the two is enough."
    )
    return Step("bias", "What becomes of a bias", "", words, ("", "value"), rows)
