"""How far apart the values of units are, at two times or in two sets of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from normbench.instruments.probe import ascending
from normbench.norms import mean_and_var

QUANTITIES = ("w1", "moved", "w1_scaled", "moved_scaled", "drift_scaled", "log_std", "js")
STATISTICS = ("median", "mean", "p90")  # over units
NUMBERS = ("w1_median", "w1_mean", "w1_p90", "w1_scaled_median", "w1_scaled_mean", "w1_scaled_p90",
           "moved_median", "moved_mean", "moved_scaled_median", "moved_scaled_mean",
           "drift_scaled_median", "drift_scaled_mean", "log_std_median", "log_std_mean", "js_mean")  # fmt: skip
_CHOSEN = [QUANTITIES.index(q) * len(STATISTICS) + STATISTICS.index(s) for q, s in (n.rsplit("_", 1) for n in NUMBERS)]
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


Pair = tuple[Values, Values]


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the last axis."""
    mean, var = mean_and_var(values, (-1,))
    return mean, var.sqrt_()


def distances(pairs: Sequence[Pair], every: Sequence[int]) -> list[tuple[int, dict[str, float]]]:
    """For each pair (z, z'), how many units are constant in both, and NUMBERS: statistics over the other units of

        w1       mean |sorted(z) - sorted(z')|: Wasserstein-1, exact
        moved    mean |z(x) - z'(x)| over the same images x: at least w1
        drift    |m - m'|, of the means: at most w1
        _scaled  divided by sqrt((s^2 + s'^2) / 2), of the standard deviations
        log_std  |log(s / s')|, of units that vary in both
        js       Jensen-Shannon divergence, 0 to log 2: see `jensen_shannon`

    A unit is constant if its values differ by rounding alone. A number is NaN if no unit is left, and all are if any
    value of the tensor is not finite (or too large to be squared): a layer that has diverged is not calm.

    Args:
        every: for each pair, js is taken of every n-th unit.
    """
    sampled = [(a.ordered[::n], b.ordered[::n]) for (a, b), n in zip(pairs, every, strict=True)]
    w1s, moveds, jss = [], [], []
    for (a, b), n, divergence in zip(pairs, every, jensen_shannon(sampled), strict=True):
        w1s.append((a.ordered - b.ordered).abs_().mean(1))
        unknown = torch.full_like(a.mean, math.nan)
        same_images = a.by_image is not None and b.by_image is not None
        moveds.append((a.by_image - b.by_image).abs_().mean((0, 2)) if same_images else unknown)  # type: ignore[operator]
        jss.append(unknown.clone())
        jss[-1][::n] = divergence
    # From here on all at once, [pairs, C]: on so few numbers each operation costs the same. Tensors with fewer units
    # than others are filled up with zeros, which are constant.
    now, then = zip(*pairs, strict=True)
    columns = [w1s, moveds, jss, *([getattr(z, name) for z in zs] for zs in (now, then) for name in ("mean", "std"))]
    w1, moved, js, mean, std, mean_, std_ = (pad_sequence(column, batch_first=True) for column in columns)
    std, std_ = std * (std > ROUNDING * mean.abs()), std_ * (std_ > ROUNDING * mean_.abs())
    scale = torch.hypot(std, std_) / math.sqrt(2)
    log_std = torch.where((std > 0) & (std_ > 0), (std / std_).log().abs(), math.nan)
    numbers = torch.stack((w1, moved, w1 / scale, moved / scale, (mean - mean_).abs() / scale, log_std, js), 1)
    found = over_units(torch.where((scale > 0).unsqueeze(1), numbers, math.nan)).flatten(1)[:, _CHOSEN]
    found = torch.where(scale.isfinite().all(1, keepdim=True), found, math.nan)
    rows = torch.cat((found, (scale == 0).sum(1, keepdim=True)), 1).tolist()  # the one place that waits for the device
    added = [scale.shape[1] - len(units) for units in w1s]
    return [(int(constant) - more, dict(zip(NUMBERS, row, strict=True)))
            for (*row, constant), more in zip(rows, added, strict=True)]  # fmt: skip


def over_units(numbers: Tensor) -> Tensor:
    """STATISTICS over the last axis, without its NaN: [..., C] -> [..., 3]. NaN where nothing is left."""
    ordered = ascending(numbers)  # NaN last
    count = (~ordered.isnan()).sum(-1, keepdim=True)
    places = (count - 1).clamp_(min=0) * numbers.new_tensor([0.5, 0.9])
    low, high = ordered.gather(-1, places.floor().long()), ordered.gather(-1, places.ceil().long())
    median, p90 = (low + (high - low) * (places - places.floor())).unbind(-1)
    return torch.stack((median, ordered.nansum(-1) / count.squeeze(-1), p90), -1)


def jensen_shannon(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """For each pair H((p + q) / 2) - (H(p) + H(q)) / 2 in nats: 0 for equal histograms, log 2 for disjoint ones.

    p and q are histograms of BINS equal bins between the least and the greatest value of both.

    Shape: pairs of [U, M], each row ascending -> [U] each.
    """
    found: dict[int, Tensor] = {}
    for m in {a.shape[1] for a, _ in pairs}:  # those of one length at once
        members = [i for i, (a, _) in enumerate(pairs) if a.shape[1] == m]
        z = torch.cat([pairs[i][side] for side in (0, 1) for i in members]).unflatten(0, (2, -1))  # [2, rows, M]
        histograms = 2 * z.shape[1]
        low, high = z[:, :, :1].amin(0), z[:, :, -1:].amax(0)
        width = torch.where(high > low, (high - low) / BINS, 1.0)
        # By division: a binary search for the edges takes four times as long, as each branch of it is a surprise.
        bins = z.sub_(low).div_(width).int().clamp_(0, BINS - 1)  # also where a value is not finite
        bins += BINS * torch.arange(histograms, dtype=torch.int32, device=z.device).view(2, -1, 1)
        counts = torch.bincount(bins.flatten(), minlength=BINS * histograms).view(2, -1, BINS)
        n_log_n = torch.arange(2 * m + 1, dtype=z.dtype, device=z.device)
        n_log_n.xlogy_(n_log_n)  # looked up: a third of the time of as many logarithms
        p, q, both = n_log_n.take(torch.cat((counts, counts.sum(0, keepdim=True)))).sum(2)
        js = ((p + q - both) / (2 * m) + math.log(2)).clamp_(0, math.log(2))
        found.update(zip(members, js.split([len(pairs[i][0]) for i in members]), strict=True))
    return [found[i] for i in range(len(pairs))]
