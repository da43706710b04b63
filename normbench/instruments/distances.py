"""How far apart the values of units are, at two times or in two sets of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from normbench.instruments.probe import joined
from normbench.norms import mean_and_var

NUMBERS = ("w1_median", "w1_mean", "w1_p90", "w1_scaled_median", "w1_scaled_mean", "w1_scaled_p90",
           "moved_median", "moved_mean", "moved_scaled_median", "moved_scaled_mean",
           "drift_scaled_median", "drift_scaled_mean", "log_std_median", "log_std_mean", "js_mean")  # fmt: skip
QUANTITIES = ("w1", "moved", "w1_scaled", "moved_scaled", "drift_scaled", "log_std", "js")
COMPUTED = [f"{quantity}_{statistic}" for statistic in ("median", "mean", "p90") for quantity in QUANTITIES]
BINS = 64  # of the histograms that js compares
ROUNDING = 1e-6  # a unit whose standard deviation is below this share of its mean differs from a constant by rounding


class Values(NamedTuple):
    """The values of a tensor at one time, image by image [N, C, P] (None: not comparable so), and unit by unit."""

    by_image: Tensor | None
    ordered: Tensor  # [C, M], each row ascending; M = N * P
    mean: Tensor  # [C]
    std: Tensor  # [C]

    @classmethod
    def of(cls, by_image: Tensor | None, ordered: Tensor) -> Values:
        ordered = ordered.contiguous()  # unit by unit also in memory: comparing takes 15% less time
        return cls(by_image, ordered, *moments(ordered))

    @classmethod
    def side_by_side(cls, networks: Sequence[Values]) -> Values:
        """The units of several networks as those of one."""
        images, *others = zip(*networks, strict=True)
        return cls(None if images[0] is None else joined(images, 1), *(joined(parts, 0) for parts in others))

    def apart(self, networks: int) -> list[Values]:
        """What `side_by_side` put together."""
        images = [None] * networks if self.by_image is None else self.by_image.chunk(networks, 1)
        return [Values(*parts) for parts in zip(images, *(part.chunk(networks) for part in self[1:]), strict=True)]


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the last axis."""
    mean, var = mean_and_var(values, (-1,))
    return mean, var.sqrt_()


def distances(
    pairs: Sequence[tuple[Values, Values]], every: Sequence[int], networks: int = 1
) -> list[dict[str, float]]:
    """For each pair (z, z') how many units are `constant` in both, and NUMBERS: over the other units statistics of

        w1       mean |sorted(z) - sorted(z')|: Wasserstein-1, exact
        moved    mean |z(x) - z'(x)| over the same images x: at least w1. Left out where the images are not the same
        drift    |m - m'|, of the means: at most w1
        _scaled  divided by sqrt((s^2 + s'^2) / 2), of the standard deviations
        log_std  |log(s / s')|, of units that vary in both
        js       Jensen-Shannon divergence, 0 to log 2: see `jensen_shannon`

    A unit is constant if its values differ by rounding alone. A number is NaN if no unit is left, and all are if any
    value of the tensor is not finite (or too large to be squared): a layer that has diverged is not calm.

    Args:
        every: for each pair, js is taken of every n-th unit.
        networks: how many have their units side by side in each pair. Each has a row of its own, pair after pair.
    """
    if not pairs:
        return []

    def by_network(units: Tensor) -> Tensor:
        return units.unflatten(0, (networks, -1))

    def filled_up(units: Sequence[Tensor]) -> Tensor:
        """[C of each pair] -> [pairs * networks, C]"""
        return pad_sequence([by_network(of).T for of in units], batch_first=True).mT.flatten(0, 1)

    by_length: dict[int, list[int]] = {}
    for i, (z, _) in enumerate(pairs):
        by_length.setdefault(z.ordered.shape[1], []).append(i)
    of_units: dict[str, list[Tensor]] = {name: [torch.full_like(z.mean, math.nan) for z, _ in pairs]
                                         for name in ("w1", "moved", "js")}  # fmt: skip
    for members in by_length.values():
        sampled = [[by_network(z.ordered)[:, :: every[i]].flatten(0, 1) for z in pairs[i]] for i in members]
        divergence = jensen_shannon(*(torch.cat(side) for side in zip(*sampled, strict=True)))
        for i, js in zip(members, divergence.split([len(z) for z, _ in sampled]), strict=True):
            by_network(of_units["js"][i])[:, :: every[i]] = by_network(js)
    for i, (now, then) in enumerate(pairs):
        of_units["w1"][i] = (now.ordered - then.ordered).abs_().mean(1)
        if now.by_image is not None and then.by_image is not None:
            of_units["moved"][i] = (now.by_image - then.by_image).abs_().mean((0, 2))
    # From here on all pairs at once, [pairs, C]: on so few numbers an operation costs the same for one pair as for
    # fifty. Tensors with fewer units than others are filled up with zeros, which are constant.
    w1, moved, js = map(filled_up, of_units.values())
    (mean, std), (mean_, std_) = (
        (filled_up([z.mean for z in side]), filled_up([z.std for z in side])) for side in zip(*pairs, strict=True)
    )
    std, std_ = std * (std > ROUNDING * mean.abs()), std_ * (std_ > ROUNDING * mean_.abs())
    scale = torch.hypot(std, std_) / math.sqrt(2)
    log_std = torch.where((std > 0) & (std_ > 0), (std / std_).log().abs(), math.nan)
    numbers = torch.stack((w1, moved, w1 / scale, moved / scale, (mean - mean_).abs() / scale, log_std, js))
    known = (scale > 0) & scale.isfinite().all(1, keepdim=True)
    numbers = torch.where(known, numbers, math.nan).double()  # [quantities, pairs, C]
    median, p90 = numbers.nanquantile(numbers.new_tensor([0.5, 0.9]), 2)
    over_units = torch.stack((median, numbers.nanmean(2), p90)).flatten(0, 1).T.tolist()  # [pairs, COMPUTED]
    rows = []
    for i, (constant, row) in enumerate(zip((scale == 0).sum(1).tolist(), over_units, strict=True)):
        now, then = pairs[i // networks]
        found = dict(zip(COMPUTED, row, strict=True))
        same_images = now.by_image is not None and then.by_image is not None
        names = [name for name in NUMBERS if same_images or not name.startswith("moved")]
        more = scale.shape[1] - len(now.mean) // networks
        rows.append({"constant": constant - more, **{name: found[name] for name in names}})
    return rows


def jensen_shannon(a: Tensor, b: Tensor) -> Tensor:
    """H((p + q) / 2) - (H(p) + H(q)) / 2 in nats, row by row: 0 for equal histograms, log 2 for disjoint ones.

    p and q are histograms of BINS equal bins between the least and the greatest value of both.

    Shape: twice [U, M], each row ascending -> [U].
    """
    z = torch.stack((a, b))  # [2, U, M]
    u, m = a.shape
    low, high = z[:, :, :1].amin(0), z[:, :, -1:].amax(0)
    width = torch.where(high > low, (high - low) / BINS, 1.0)
    # By division: a binary search for the edges takes four times as long, as each branch of it is a surprise.
    bins = z.sub_(low).div_(width).int().clamp_(0, BINS - 1)  # also where a value is not finite
    bins += BINS * torch.arange(2 * u, dtype=torch.int32, device=z.device).view(2, -1, 1)
    counts = torch.bincount(bins.flatten(), minlength=BINS * 2 * u).view(2, -1, BINS)
    n_log_n = torch.arange(2 * m + 1, dtype=z.dtype, device=z.device)
    n_log_n.xlogy_(n_log_n)  # looked up: a third of the time of as many logarithms
    p, q, both = n_log_n.take(torch.cat((counts, counts.sum(0, keepdim=True)))).sum(2)
    return ((p + q - both) / (2 * m) + math.log(2)).clamp_(0, math.log(2))
