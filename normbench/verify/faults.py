"""Mistakes that are known, so that one that was made can be named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from normbench.verify.definitions import Definition, Form, Options, centre, divide_by_rms, standardise

FORMS: dict[str, Form] = {
    "the variance is divided by m - 1 (unbiased) where it should be divided by m": lambda x, mean, var, m, eps: (
        (x - mean) / (var * m / (m - 1) + eps).sqrt()
    ),
    "eps is added to the standard deviation and not to the variance": lambda x, mean, var, m, eps: (
        (x - mean) / (var.sqrt() + eps)
    ),
    "eps is missing": lambda x, mean, var, m, eps: (x - mean) / var.sqrt(),
    "it divides by the variance, without the root": lambda x, mean, var, m, eps: (x - mean) / (var + eps),
    "the mean is not subtracted": divide_by_rms,
    "it is not divided by the standard deviation": centre,
    "the mean is subtracted": standardise,
    "it does nothing": lambda x, mean, var, m, eps: x,
}


def of_the_norm(definition: Definition, z: Tensor, norm: Any, options: Options, y: Tensor) -> str:
    """Which mistake explains that the norm makes `y` of `z`; "" if none that is known does."""

    def explains(normalised: Tensor) -> bool:
        return bool((definition.finished(normalised, norm) - y).abs().max() < 1e-10)

    if definition.form is None:
        return ""
    right = definition.normalised(z, norm, options)
    without: Callable[[Tensor], Tensor] = definition.activation or (lambda x: x)
    if getattr(norm, "weight", None) is not None and (without(right) - y).abs().max() < 1e-10:
        return "gamma and beta are not applied"
    for name, form in FORMS.items():
        if form is not definition.form and explains(definition.normalised(z, norm, options, form)):
            return name
    return ""


def updated(old: Tensor, new: Tensor, momentum: float, times: int = 1, swapped: bool = False) -> Tensor:
    """The moving average after `times` updates by the same value: each time (1 - momentum) old + momentum new."""
    kept = (momentum if swapped else 1 - momentum) ** times
    return kept * old + (1 - kept) * new


def of_the_statistics(
    kept: dict[str, tuple[Tensor, Tensor]], batch: dict[str, Tensor], momentum: float, values: int
) -> str:
    """Which mistakes explain how the averages moved; "" if none that is known does.

    Args:
        kept: {"mean": (before, after), "var": ...}
        batch: {"mean": ..., "var": unbiased variance} of the batch.
        values: m, that each is taken over.
    """
    for times in (1, 0, 2, 3):
        for swapped in (False, True):
            for factor in (1.0, (values - 1) / values, values / (values - 1)):
                moved = {k: v * (factor if k == "var" else 1) for k, v in batch.items()}
                fits = [
                    (updated(before, moved[k], momentum, times, swapped) - after).abs().max() < 1e-10
                    for k, (before, after) in kept.items()
                ]
                if all(fits):
                    return " and ".join(_words(times, swapped, factor))
    return ""


def _words(times: int, swapped: bool, factor: float) -> list[str]:
    found = []
    if times == 0:
        found.append("the statistics are not updated at all")
    elif times > 1:
        found.append(f"the statistics are updated {'twice' if times == 2 else f'{times} times'} in one pass")
    if swapped:
        found.append("momentum weighs the old average instead of the new batch")
    if factor < 1:
        found.append("the running variance averages the biased variance: m / (m - 1) is missing")
    if factor > 1:
        found.append("the running variance has m / (m - 1) twice")
    return found
