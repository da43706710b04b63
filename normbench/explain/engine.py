"""The calculation of a norm, step by step, whatever the norm: it follows the values that share their statistics.

A norm declares over which axes it works; everything here follows from that, and from comparing the norm's own output
with the formula. Each number is the norm's, or calculated in double precision from what was recorded.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from normbench.explain import weight
from normbench.explain.place import AXES, Place, Step, Subject, find_place
from normbench.norms import (
    MeanOnlyBatchNorm,
    RMSNorm,
    SwitchableNorm,
    VarianceOnlyBatchNorm,
    batch_statistics,
    keep_buffers,
    preserve_state,
)


def explanation(subject: Subject, layer: str | None, unit: int) -> tuple[list[Step], dict[str, Any]]:
    """The steps, and what they are about. The network stays as it is. Raises UserError."""
    with batch_statistics(subject.model, noise=False):
        place = find_place(subject, layer, unit)
        steps = weight.steps(place)
        if place.norm is not None:
            steps += norm_steps(Calculation(place))
        steps = steps or [plain_step(place)]
    time = f", time step {place.t + 1} of {place.block.steps}" if place.t is not None else ""
    where = (
        f"Layer {place.layer}, unit {unit} (of 0 to {place.x.shape[1] - 1}){time}; a mini-batch of "
        f"{len(place.images)}: the first images of the training set. The network: {subject.trained}."
    )
    facts = {"network": subject.title, "where": where, "norm": subject.scheme, "layer": place.layer, "unit": unit,
             "batch_size": len(place.images), "time_step": place.t}  # fmt: skip
    return steps, facts


def plain_step(place: Place) -> Step:
    """A layer without a norm."""
    names, more = activation(place)
    formula = "o = W_x x_t + W_h h + b" if place.recurrent else "o = W x + b"
    words = "This layer has no norm: nothing is standardised here."
    if isinstance(getattr(place.block, "activation", None), nn.SELU):
        formula += "\nselu(o) = scale o for o > 0, and scale alpha (exp(o) - 1) otherwise"
        words += (
            " scale = 1.0507 and alpha = 1.6733 are chosen so that mean 0 and variance 1 are a fixed point: for normal "
            "o with these, selu(o) has them again, and from other values each layer comes nearer, if the weights of a "
            "unit sum to 0 and their squares to 1 (LeCun initialisation, on average)."
        )
    return Step("values", "The values", formula, words, (place.label, "o", *names),
                place.rows(place.column(place.x), *more), names)  # fmt: skip


class Calculation:
    """Mean, variance and standardised values, calculated here and by the norm.

    z = (o - mean) / sqrt(var + eps); mean-only batch norm does not divide; variance-only batch norm and RMS norm do not
    subtract the mean, and RMS norm divides by the root mean square.

    Args:
        place: one that has a norm.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        members = place.x.double()[place.members]
        self.m = members.numel()
        var, mean = torch.var_mean(members, correction=0)
        self.mean, self.var = mean.item(), var.item()
        self.eps = float(getattr(place.inner, "eps", 0.0))
        self.centres = not isinstance(place.inner, RMSNorm | VarianceOnlyBatchNorm)
        self.by_variance = not isinstance(place.inner, RMSNorm)
        self.scales = not isinstance(place.inner, MeanOnlyBatchNorm)
        self.square = self.var if self.by_variance else self.var + self.mean**2
        self.root = math.sqrt(self.square + self.eps) if self.scales else 1.0
        self.z = place.apply(place.x, plain=True)
        z = (members - (self.mean if self.centres else 0.0)) / self.root
        # Does the norm's own z, for all members, equal the formula? One that corrects or squashes does not.
        ours = self.z[place.members].double()
        self.follows_formula = bool(place.over) and torch.allclose(ours, z, rtol=1e-3, atol=1e-4)


def norm_steps(found: Calculation) -> list[Step]:
    """From the values to what the norm is in inference; steps that the norm has no use for are left out."""
    place = found.place
    steps = [values(place, found.centres)]
    if found.follows_formula:
        steps += [statistics(found), standardised(found)]
        if found.scales and found.centres:
            steps.append(spread(found))
    if isinstance(place.inner, SwitchableNorm):
        steps.append(mixture(place))
    steps += [scaled(found), changes(place)]
    if found.centres and place.over:
        steps.append(bias(place))
    if getattr(place.inner, "running_mean", None) is not None and "features" not in (place.over or ()):
        steps += [*running(found), *inference(found)]
    return steps


def values(place: Place, centres: bool) -> Step:
    o, name = place.x, type(place.inner).__name__
    if place.recurrent:
        formula = "o = W_x x_t, one row of it"
    else:
        product = "convolution" if o.dim() > 2 else "W x"
        has_bias = getattr(place.block.linear, "bias", None) is not None
        why = "a later step says why" if centres else "beta takes its place"
        formula = f"o = {product} + b" if has_bias else f"o = {product}, without a bias ({why})"
        if place.after:
            formula = f"o = activation({product} + b): here the norm comes after the activation"
    over = place.over and tuple(axis for axis in list(AXES)[: o.dim()] if axis in place.over)
    if over:
        parts = [f"{AXES[axis]} = {len(range(size)[part])}" for axis, size, part in
                 zip(AXES, o.shape, place.members, strict=False) if axis in over]  # fmt: skip
        m = o[place.members].numel()
        words = f"{name} works over {' and '.join(over)}: {', '.join(parts)}, so m = {m:,} values "
        words += "share one mean and variance." if not isinstance(place.inner, SwitchableNorm) else "play a part."
        if "height" not in over and "examples" not in over and o.dim() > 2:
            words += " Each position has its own."
        if "examples" not in over:
            words += " They are those of one image: other images play no part."
        if len(place.shown) < m:
            words += f" Shown are {len(place.shown)} of them; the statistics are over all."
        if place.recurrent:
            words += f" The image is read in {place.block.steps} time steps; this is one of them."
    else:
        words = f"{name} works on each value by itself." if over == () else f"{name} does not say which values it uses."
    return Step("values", "The values", formula, words, (place.label, "o"), place.rows(place.column(o)))


def statistics(found: Calculation) -> Step:
    hidden = ("mean", "var", "mean of o^2") if len(found.place.shown) < found.m else ()
    if not found.by_variance:
        formula = "mean of o^2 = (o_1^2 + ... + o_m^2) / m"
        rows = [("mean of o^2", found.square), ("sqrt(mean of o^2 + eps)", found.root)]
    else:
        formula, rows = "mean = (o_1 + ... + o_m) / m", [("mean", found.mean)]
        if found.scales:
            formula += "\nvar  = ((o_1 - mean)^2 + ... + (o_m - mean)^2) / m"
            rows += [("var", found.var), ("sqrt(var + eps)", found.root)]
    words = f"m = {found.m:,}. The variance is left alone: how far the values are apart stays as it was."
    if found.scales:
        words = f"m = {found.m:,}. Divided by m, not by m - 1 (the biased variance); eps = {found.eps:g}."
    title = "Mean and variance" if found.scales and found.by_variance else rows[0][0].capitalize()
    return Step("statistics", title, formula, words, ("", "value"), rows, ("value",), hidden)


def mixture(place: Place) -> Step:
    """The statistics that switchable normalization mixes, and their learned weights."""
    rows, mean, var = [], 0.0, 0.0
    for part, (w, v) in place.inner.shares(space=place.x.dim() > 2).items():
        own_var, own_mean = torch.var_mean(place.x.double()[place.members_over(place.inner.parts[part])], correction=0)
        rows.append((part, own_mean.item(), w.item(), own_var.item(), v.item()))
        mean, var = mean + w.item() * own_mean.item(), var + v.item() * own_var.item()
    words = "The weights of the means sum to 1, and so do those of the variances: each layer learns both."
    if place.x.dim() == 2:
        words += " One value per unit has no statistics of its own: there is no instance here."
    columns = ("statistics of", "mean", "w", "var", "v")
    rows.append(("the mixture", mean, 1.0, var, 1.0))
    return Step("mixture", "The mixture", "mean = sum of w_k mean_k\nvar  = sum of v_k var_k", words, columns, rows)


def standardised(found: Calculation) -> Step:
    place = found.place
    o, z = place.column(place.x), place.column(found.z)
    columns, rows = (place.label, "o", "z"), place.rows(o, z)
    if not found.centres:
        formula = f"z_i = o_i / sqrt({'var' if found.by_variance else 'mean of o^2'} + eps)"
    elif not found.scales:
        formula = "z_i = o_i - mean"
    else:
        formula = "z_i = (o_i - mean) / sqrt(var + eps)"
        rows = place.rows(o, [value - found.mean for value in o], z)
        return Step("standardised", "Standardise", formula, "", (place.label, "o", "o - mean", "z"), rows,
                    ("o - mean", "z"))  # fmt: skip
    return Step("standardised", "Standardise", formula, "", columns, rows, ("z",))


def spread(found: Calculation) -> Step:
    z = found.z[found.place.members].double()
    var, mean = torch.var_mean(z, correction=0)
    rows = [("mean of z", mean.item()), ("standard deviation of z", var.sqrt().item()), ("smallest z", z.min().item()),
            ("largest z", z.max().item()), ("sqrt(m - 1)", math.sqrt(found.m - 1))]  # fmt: skip
    given = tuple(row[0] for row in rows[:-1]) if len(found.place.shown) < found.m else ()
    words = (
        "Standardised values are centred at 0 and spread by 1 (eps makes it a little less). They aren't squeezed "
        "between 0 and 1. A value far from the others moves their mean and widens their spread, so no z is beyond "
        "sqrt(m - 1): of 2 values z is always 1 and -1 (but for eps), of 4 at most 1.73."
    )
    title = "z has mean 0 and standard deviation 1, not the range 0..1"
    return Step("spread", title, "|z_i| <= sqrt(m - 1)", words, ("", "value"), rows, ("value",), given)


def activation(place: Place) -> tuple[tuple[str, ...], list[list[float]]]:
    """Columns for what follows: the activation, where it is recorded."""
    if place.recurrent or place.after or "activation" not in place.values:
        return (), []
    return ("activation",), [place.column(place.values["activation"])]


def scaled(found: Calculation) -> Step:
    """Gamma and beta, and the activation; of a norm that follows no formula known here, what comes out."""
    place = found.place
    (names, more), y = activation(place), place.column(place.values["y"])
    if not found.follows_formula:
        formula = " ".join((type(place.inner).__doc__ or "").split("\n\n")[0].split())
        rows = place.rows(place.column(place.x), y, *more)
        words = "Here x is o." if formula else ""
        return Step("scaled", "What comes out", formula, words, (place.label, "o", "y", *names), rows)
    gammas, betas = (place.parameter(name, usual)[[index[1] for index in place.shown]].double().tolist()
                     for name, usual in (("weight", 1.0), ("bias", 0.0)))  # fmt: skip
    words = "gamma and beta, one pair per unit, are learned: the network may choose another spread and centre."
    if not found.scales:
        words = "There is no gamma: with weight normalization, g sets the scale. beta is learned."
    elif place.recurrent:
        words = "gamma is learned. There is no beta here: the cell adds one bias to the sum of both products."
    columns = (place.label, "z", "gamma", "beta", "gamma z + beta", *names)
    title = "Scale and shift" + (", then the activation" if names else "")
    rows = place.rows(place.column(found.z), gammas, betas, y, *more)
    return Step("scaled", title, "y_i = gamma z_i + beta", words, columns, rows, columns[4:])


def changes(place: Place) -> Step:
    """What the norm takes away, and whether other images play a part: the norm itself, on changed inputs."""
    x = place.x
    one = torch.zeros_like(x)
    one[:, place.unit] = 5
    changed: list[tuple[str, Tensor]] = [
        ("5 added to this unit, for all images", x + one),
        ("5 added to all units", x + 5),
        ("all units 10 times as large", x * 10),
    ]
    if len(x) > 1:
        drawn = torch.randn(x[1:].shape, generator=torch.Generator().manual_seed(0)).to(x)
        changed.append(("the other images replaced by noise", torch.cat([x[:1], drawn])))
    first = place.shown[0] if "features" not in (place.over or ()) else (0, place.unit, *place.shown[0][2:])
    usual = place.apply(x)[first].item()
    rows = [(words, place.apply(other)[first].item() - usual) for words, other in changed]
    words = (
        f"How much the output of unit {place.unit} for image 1 changes: 0, but for rounding (and eps), where the norm "
        "takes the change away, or where what was changed plays no part."
    )
    return Step("changes", "What the norm removes", "", words, ("change of o", "change of y"), rows)


def bias(place: Place) -> Step:
    """The gradients of a bias before the norm and of beta behind it, by autograd through the whole network."""
    before, behind = place.bias_gradients()
    rows = [("a bias of this unit before the norm", before[place.unit].item()),
            ("the same, summed over all units", before.sum().item())]  # fmt: skip
    if behind is not None:
        rows.append(("the cell's bias, behind the norms" if place.recurrent else "beta", behind[place.unit].item()))
    words = (
        "A bias before the norm adds the same number to all of these values, and their mean takes it away: it "
        "can't change the loss, and its gradient is 0 (by automatic differentiation; the rest is rounding). "
        "So it is left out. beta, behind the norm, takes its place: nothing removes it."
    )
    if "features" in (place.over or ()):
        words = (
            "A number added to all units alike is taken away by their mean, so these gradients sum to 0. A bias of one "
            "unit is not the same for all, and so does something; beta can do what it does: one of the two is enough."
        )
    return Step("bias", "What becomes of a bias", "", words, ("gradient of the loss by", "gradient"), rows)


def _averages(place: Place) -> dict[str, float]:
    """The running statistics of the unit, now."""
    kept = {name: getattr(place.inner, f"running_{name}", None) for name in ("mean", "var")}
    return {
        name: (tensor if tensor.dim() == 1 else tensor[min(place.t or 0, len(tensor) - 1)])[place.unit].item()
        for name, tensor in kept.items()
        if tensor is not None
    }


def running(found: Calculation) -> list[Step]:
    """The averages before and after this mini-batch: the norm's own."""
    place, m = found.place, found.m
    if getattr(place.inner, "momentum", None) is None or not found.follows_formula or m == 1:
        return []
    if getattr(place.inner, "virtual", None):  # the batch's own numbers are means over the ghost batches
        return []
    before, restore = _averages(place), keep_buffers(place.norm)
    place.norm(place.x, *place.when)
    after = _averages(place)
    restore()
    batch = {"mean": found.mean, "var": found.var * m / (m - 1)}
    rows = [(name, before[name], batch[name], after[name]) for name in before]
    words = f"Inference can't wait for a batch: training keeps averages. momentum = {place.inner.momentum:.6g}."
    if "var" in before:
        words += f" That of the variance is fed with the unbiased estimate, m/(m - 1) = {m}/{m - 1} times the variance."
    columns = ("average of the", "old", "this batch's", "new")
    formula = "new average = (1 - momentum) x old average + momentum x this batch's"
    return [Step("running", "The running averages", formula, words, columns, rows, columns[2:])]


def inference(found: Calculation) -> list[Step]:
    """One image with the averages, and the norm as one multiplication and one addition."""
    place, averages = found.place, _averages(found.place)
    mean, var = averages["mean"], averages.get("var")
    share = getattr(place.inner, "own_share", None)
    with preserve_state(place.model):
        alone = replace(place, images=place.images[:1], labels=place.labels[:1])
        tensors = (alone.x, alone.apply(alone.x, plain=True), alone.values["y"])
        o, z, y = (tensor[place.shown[0]].double().item() for tensor in tensors)
        own = alone.x[0, place.unit].double()  # one value, or those of all positions
    gamma, beta = (place.parameter(name, usual)[place.unit].item() for name, usual in (("weight", 1.0), ("bias", 0.0)))
    a, spelled, formula = 1.0, "1", "z = o - running mean"
    rows = [("o", o)] + [("running mean", mean)] * (found.centres or share is not None)
    if var is not None:
        rows.append(("running variance", var))
        formula = f"z = {'(o - running mean)' if found.centres else 'o'} / sqrt(running variance + eps)"
        a, spelled = gamma / math.sqrt(var + found.eps), "gamma / sqrt(running variance + eps)"
    rows += [("z", z), ("gamma z + beta", y)]
    words = (
        "Image 1 by itself: a batch of 1. The averages (of the network as it was trained) stand in for the batch's "
        f"{'mean and variance' if found.centres else 'variance'}, so the result no longer depends on other images."
    )
    given: tuple[str, ...] = ("o", "running mean", "running variance")
    if share is not None:
        of_its_own = [("a, its share of a mini-batch", share), ("its own mean", own.mean().item())]
        of_its_own += [("its own variance", own.var(correction=0).item() if own.numel() > 1 else 0.0)]
        rows[-2:-2], given = of_its_own, (*given, *(name for name, _ in of_its_own))
        formula += ", but with the mean\n(1 - a) running mean + a own mean" * found.centres
        if var is not None:
            formula += "\nand the variance\n(1 - a) (m - 1)/m running variance + a own variance"
            formula += " + a (1 - a) (own mean - running mean)^2"
        words = (
            "Image 1 by itself, with norm.statistics=evalnorm: by what a mini-batch in training, of 1/a images and m "
            "values, would have on average if this image were in it. No other image plays a part, but each image has "
            "its own factor and shift: the norm can't be folded."
        )
    single = Step("inference", "Inference: one image", formula, words, ("", "value"), rows, ("value",), given)
    if share is not None:
        return [single]
    b = beta - a * mean * found.centres
    words = "All of these are constants now, so the norm is one multiplication and one addition per unit. "
    if place.recurrent:
        words += "Each time step has an a and a b of its own, though, and W_x is one for all: the norm stays."
    elif place.after:
        words += "An activation stands between it and the weights before it: the norm stays."
    else:
        words += "o is a sum of products with weights: a goes into the weights and b becomes a bias. No norm is left."
    rows = [("a", a), ("b", b), ("a o + b", a * o + b), ("the norm itself", y), ("difference", a * o + b - y)]
    formula = f"a = {spelled}\nb = beta{' - a x running mean' * found.centres}\ny = a o + b"
    return [single, Step("folded", "Folded: a o + b", formula, words, ("", "value"), rows, ("value",))]
