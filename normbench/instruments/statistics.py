"""How good the averages of batch statistics are that inference works with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe
from normbench.norms import (
    MeanVar,
    average_statistics,
    blocks,
    exact_statistics,
    images_at_once,
    statistics_of,
    working_with,
)
from normbench.training.evaluation import Sample, sample_batches, statistics_errors
from normbench.training.loop import Step, loss_and_accuracy

ERRORS = ("mean_error", "var_ratio", "var_error")
AVERAGED = 200  # mini-batches that the averages are taken over, at most
CHUNK = 2**24  # bytes of the largest tensor where the size of a batch has no meaning: larger ones are slower on a CPU


class Statistics(Instrument):
    """Of each norm that keeps running statistics, each kind of statistics beside the exact ones (m, v), over its units:

        mean_error  root mean square of (mean - m) / sqrt(v + eps)
        var_ratio   mean of (var + eps) / (v + eps)
        var_error   root mean square of (var + eps) / (v + eps) - 1

    with the norm's own eps, because it divides by sqrt(var + eps). `statistics` says which: "ema", the running average
    over training, or "averages", over up to 200 mini-batches at the present weights. Exact are those of training images
    at the present weights without dropout and noise, the norms before being on their exact statistics already: as many
    `images` as the run allows and fit through at once. Units that don't vary are left out. A norm of the mean alone has
    NaN for the variance.

    `layer` is where the norm is and `norm` its name there. In recurrent cells there are rows for time steps, and one
    (`time` empty) with the medians over all steps: blank rows of images, and the noise of the first state in training,
    make the first ones extreme (a var_ratio of 500, measured).

    And of the network as a whole (`layer` empty), loss and accuracy on the validation set with these, the exact
    ("precise") statistics, and those of mini-batches of the run's own size ("batch"), drawn at random.

    Schemes without running statistics have no rows.

    Args:
        when: "end" or "snapshots".

    Source: Wu & Johnson 2021, arXiv:2105.07576, section 3.
    """

    name = "statistics"
    columns = ("norm", "time", "statistics", "images", "units", *ERRORS, "loss", "accuracy")

    def __init__(self, *, when: str = "end") -> None:
        self.when = when

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        running = statistics_of(model)
        if not running:
            return
        train, size, device, seed = self.setting.train, self.setting.batch_size, probe.images.device, self.setting.seed
        count = min(self.setting.images, images_at_once(model, probe.images[0]))
        exact = exact_statistics(model, sample_batches(train, count, count, device, seed)[0][0])
        kinds = {"ema": running}
        if whole := min(AVERAGED, self.setting.images // size) * size:
            kinds["averages"] = average_statistics(model, Sample(train, whole, size, device, seed=seed))
        empty: Row = {"layer": "", "tensor": "", "images": count}
        skipped = {name for name, _ in blocks(model)} - {layer for layer, _ in probe.tensors()}
        for kind, found in kinds.items():
            for name in found:
                layer, _, norm = name.rpartition(".")
                if layer not in skipped and name in exact:
                    row = empty | {"layer": layer, "norm": norm, "statistics": kind}
                    eps = getattr(model.get_submodule(name), "eps", 0.0)
                    yield from rows_of(row, found[name], exact[name], eps, probe.times(layer))
        evaluations = self._evaluate(model, kinds | {"precise": exact, "batch": {}}, probe)
        for kind, numbers in evaluations.items():
            yield empty | {"statistics": kind, **numbers}
        self.result = {
            name: {kind: numbers[name] for kind, numbers in evaluations.items()} for name in ("accuracy", "loss")
        }

    def _evaluate(
        self, model: nn.Module, kinds: Mapping[str, Mapping[str, MeanVar]], probe: Probe
    ) -> dict[str, dict[str, float]]:
        """Loss and accuracy on the validation set with each of `kinds` of statistics."""
        validation = self.setting.validation
        size = min(self.setting.batch_size, len(validation))
        batches = sample_batches(validation, len(validation), size, probe.images.device, self.setting.seed)
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        fit = images_at_once(model, images[0], CHUNK)
        chunks = list(zip(images.split(fit), labels.split(fit), strict=True))
        whole = [batch for batch in batches if len(batch[1]) == size]
        found = {}
        for kind, statistics in kinds.items():
            with working_with(model, kind, statistics):
                loss, accuracy = loss_and_accuracy(model, whole if kind == "batch" else chunks)
            found[kind] = {"loss": loss, "accuracy": accuracy}
        return found


def rows_of(row: Row, found: MeanVar, exact: MeanVar, eps: float, times: Sequence[int]) -> Iterator[Row]:
    """`row` with the errors of one norm's statistics: the medians over time steps, if there are several, then each of
    `times`.
    """
    units, numbers = statistics_errors(found, exact, eps)
    yield row | {"units": int(units.sum())} | dict(zip(ERRORS, numbers.nanmedian(0).values.tolist(), strict=True))
    if len(units) > 1:
        for t in times:
            yield row | {"time": t, "units": int(units[t])} | dict(zip(ERRORS, numbers[t].tolist(), strict=True))
