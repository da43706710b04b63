"""Steps of schemes whose statistics are those of one unit over a mini-batch."""

from __future__ import annotations

import torch

from normbench.explain.place import Place, bias_gradient
from normbench.explain.steps import Step


def count(place: Place) -> int:
    """m: how many values one mean is taken over."""
    return place.seen.x[:, 0].numel()


def statistics(place: Place) -> tuple[float, float]:
    """Mean and biased variance of the unit's values, in double precision."""
    var, mean = torch.var_mean(place.seen.x[:, place.unit].detach().double(), correction=0)
    return mean.item(), var.item()


def source(place: Place) -> str:
    """What o is, in words."""
    if place.recurrent:
        part = f"the {place.gate} gate's part" if place.gate else "the part"
        return f"o = W_x x_t, one row of it: {part} that comes from the image"
    kernel = "convolution" if place.seen.x.dim() > 2 else "weights times inputs"
    if place.after:
        return f"o = activation({kernel} + bias): here the norm comes after the activation"
    return f"o = {kernel}, without a bias (a later step says why)"


def values(place: Place) -> Step:
    size = place.seen.x[:, 0].shape
    m, n = count(place), size[0]
    if len(size) > 1:
        product = " x ".join(map(str, size))
        words = (
            "A channel is one unit at many positions, with the same weights. One mean is taken over the whole channel: "
            f"N x H x W = {product} = {m:,} values. Each position of each image is one of them; here are a few, "
            "from the middle."
        )
    elif place.recurrent:
        words = (
            f"The image is read in {place.block.steps} time steps. At this one, {n} images give {m} values; one mean "
            "is taken over them. Each time step has statistics of its own, unless norm.per_step=false."
        )
    else:
        words = f"Each image gives this unit one value: {n} images, {m} values. One mean is taken over them."
    if (shown := len(place.shown)) < m:
        words += f" Shown are {shown} of {m:,}; the statistics below are over all."
    return Step(
        "values", "The values", source(place), words, (label(place), "o"), place.rows(place.values(place.seen.x))
    )


def not_all(place: Place) -> tuple[str, ...]:
    """What can't be calculated by hand where not all values are shown."""
    return ("mean", "var") if len(place.shown) < count(place) else ()


def label(place: Place) -> str:
    return "image" if place.seen.x.dim() == 2 else "image and position"


def adding_five(place: Place, name: str, plain: bool) -> Step:
    """What comes out when 5 is added to every value of the unit: from the norm itself."""
    amount = torch.zeros(place.seen.x.shape[1])
    amount[place.unit] = 5
    moved = place.seen.x + amount.view(-1, *[1] * (place.seen.x.dim() - 2))
    before, after = (place.values(place.apply(x, plain)) for x in (place.seen.x, moved))
    rows = place.rows(place.values(place.seen.x), place.values(moved), before, after)
    formula = "(o_i + 5) - (mean + 5) = o_i - mean"
    words = "Add 5 to every o: the mean grows by 5, too, and what is left after subtracting it is the same."
    columns = (label(place), "o", "o + 5", f"{name} of o", f"{name} of o + 5")
    return Step("adding_five", "Adding 5 to every o changes nothing", formula, words, columns, rows, columns[3:])


def useless_bias(place: Place) -> Step:
    """The gradients of a bias before the norm and of beta behind it, by autograd through the whole network."""
    before, behind = bias_gradient(place)
    words = (
        "A bias before the norm is such a constant: the mean takes it away again. So it can't change the loss, and its "
        "gradient is 0 (here by automatic differentiation of the loss; what is left is rounding). It would never be "
        "learned, and is left out. "
    )
    rows = [("a bias before the norm", before[place.unit].item())]
    if behind is not None:
        what = "The cell's one bias" if place.recurrent else "beta"
        words += f"{what}, added behind the norm, takes its place: nothing removes it, and its gradient is not 0."
        name = "the cell's bias, behind both norms" if place.recurrent else "beta, behind the norm"
        rows.append((name, behind[place.unit].item()))
    given = tuple(row[0] for row in rows[1:])
    title = "Why a bias vanishes, and beta replaces it"
    formula = "d loss / d bias = 0"
    return Step("bias", title, formula, words, ("gradient of the loss by", "gradient"), rows, ("gradient",), given)


def affected(place: Place) -> tuple[tuple[str, ...], list[list[float]]]:
    """Columns for what follows the norm: the activation, where that is seen."""
    if place.recurrent or place.after or "activation" not in place.seen.tensors:
        return (), []
    return ("activation",), [place.values(place.seen.tensors["activation"])]
