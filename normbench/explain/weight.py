"""Weight normalization, step by step: the length of a unit's weights is a number of its own."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.explain.place import Place
from normbench.explain.steps import Step

FEW = 6  # weights that are shown


def steps(place: Place) -> list[Step]:
    linear: Any = getattr(place.block, "linear", None) or place.block.input
    how = linear.parametrizations.weight
    g, v, w = how.original0.detach(), how.original1.detach(), linear.weight.detach()
    u = place.unit
    flat = v[u].double().flatten()
    shown = flat.abs().argsort(descending=True)[:FEW].sort().values.tolist()
    length, scale = flat.norm().item(), g[u].item()
    rows: list[list[Any]] = [[_name(v[u], i), v[u].flatten()[i].item(), w[u].flatten()[i].item()] for i in shown]
    words = (
        f"The network learns g, one number, and v, {v[u].numel():,} numbers, per unit. w, which it works with, is "
        f"computed from them: the direction of v, with length |g|."
    )
    shortened = f"Shown are the {len(shown)} largest of {v[u].numel():,} (inputs are numbered from 0)."
    columns = ("input", "v", "w = g v / |v|")
    lengths = [("g", scale), ("|v|", length), ("g / |v|", scale / length), ("|w|", w[u].double().norm().item())]
    formula = "|v| = sqrt(v_1^2 + v_2^2 + ...)\nw = g v / |v|,  so |w| = |g|"
    found = [
        Step("length", "The length of v, and g", formula, words, ("", "value"), lengths, ("value",), ("g", "|v|")),
        Step("weights", "The weights", "w = g v / |v|", shortened, columns, rows, columns[2:]),
        _direction(how, g, v, u),
    ]
    return [*found, _output(place, linear, v, w, scale / length)]


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
        "direction are learned apart. No image was looked at: there is nothing to average, and any batch size will do."
    )
    return Step("direction", "Only the direction of v counts", "", words, ("", "value"), rows)


def _inputs(place: Place, linear: nn.Module) -> Tensor:
    """What the unit's weights are multiplied with, for each shown value: [shown, weights]."""
    into = place.seen.into.detach()
    if not isinstance(linear, nn.Conv2d):
        return into[place.shown]
    patches = F.unfold(into, linear.kernel_size, linear.dilation, cast(Any, linear.padding), linear.stride)
    return patches.transpose(1, 2).flatten(0, 1)[place.shown]  # [N, weights, positions] -> [N * positions, weights]


def _output(place: Place, linear: Any, v: Tensor, w: Tensor, ratio: float) -> Step:
    u, inputs = place.unit, _inputs(place, linear).double()
    bias: float = 0.0 if getattr(linear, "bias", None) is None else linear.bias[u].item()
    products, outputs = inputs @ v[u].double().flatten(), inputs @ w[u].double().flatten() + bias
    names: tuple[str, ...] = ()
    more: list[list[float]] = []
    if not place.recurrent:
        o = place.values(place.seen.tensors["linear"])
        outputs = torch.tensor([o[i] for i in place.shown], dtype=torch.float64)
        if place.norm is None and "activation" in place.seen.tensors:
            names, more = ("activation",), [place.values(place.seen.tensors["activation"])]
    rows = [
        [place.name(i), product, product * ratio, o, *(column[i] for column in more)]
        for i, product, o in zip(place.shown, products.tolist(), outputs.tolist(), strict=True)
    ]
    label = "image" if place.seen.x.dim() == 2 else "image and position"
    columns = (label, "v . x", "(g / |v|) v . x", "o", *names)
    what = "W_x x at this time step" if place.recurrent else "the layer itself"
    words = f"b = {bias:.6g}. The column o is what {what} gives, with w."
    if place.recurrent:
        words += " W_h is normalised in the same way; the cell adds both products and a bias."
    return Step("output", "The output", "o = w . x + b = (g / |v|) (v . x) + b", words, columns, rows, columns[2:])
