"""The numbers of a run that claims are about, read from its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normbench.analysis.measured import rows
from normbench.analysis.selection import has
from normbench.analysis.targets import MEASURES, reached
from normbench.claims.grammar import AT, OVER, Metric, filter_of, kind
from normbench.runs import Run
from normbench.runs.read import flat

if TYPE_CHECKING:
    import pandas as pd

NEVER, NEITHER = "never gets there: a lower bound", "neither gets there"


@dataclass(frozen=True)
class Number:
    """A number of a run, or of a pair of runs.

    Args:
        value: None where there is none.
        note: why there is none, or what a reader has to know of it.
        bound: 1: the true value may be greater; -1: smaller; 0: this is it.
    """

    value: float | None
    note: str = ""
    bound: int = 0


def number(metric: Metric, run: Run) -> Number:
    """What a metric is for one run. Those of training speed and success know diverged runs, the others don't."""
    if isinstance(metric, str):
        return _finished(run) or _of_summary(run, metric)
    name = kind(metric)
    return _KINDS[name](run, metric) if name in _WHATEVER else _finished(run) or _KINDS[name](run, metric)


def apart(a: Number, b: Number, ratio: bool = False) -> Number:
    """a - b, or a / b. Nothing can be said of two numbers of which either may be greater than it seems."""
    if a.value is None or b.value is None:
        return Number(None, a.note or b.note)
    bounds = {a.bound, -b.bound} - {0}
    if len(bounds) > 1:
        return Number(None, NEITHER)
    if ratio and not (a.value > 0 and b.value > 0):
        return Number(None, "no ratio of numbers that are not above 0")
    note = "; ".join(dict.fromkeys(filter(None, (a.note, b.note))))
    return Number(a.value / b.value if ratio else a.value - b.value, note, sum(bounds))


def _finished(run: Run) -> Number | None:
    """What stands for the number of a run that has none; None for a complete run."""
    return None if run.status == "complete" else Number(None, run.status)


def _of_summary(run: Run, name: str) -> Number:
    value = flat(run.summary).get(name)
    return Number(float(value)) if isinstance(value, int | float) else Number(None, f"no {name}")


def _reached(run: Run, metric: Mapping[str, Any]) -> Number:
    """Where a validation accuracy was first reached. A run that never gets there counts at its last step, one that
    diverged at the last of its budget, at its own pace: not at that where it diverged, which may come early.
    """
    name = kind(metric)
    measure = name.removesuffix("_to")
    if run.status not in ("complete", "diverged"):
        return Number(None, run.status)
    found = reached(run, float(metric[name]))
    if found is not None:
        return Number(found[measure])
    summary = flat(run.summary)
    steps = float(summary.get("steps") or 0)
    last = summary.get("seconds.training") if measure == "seconds" else summary.get(measure)
    if not steps or last is None or measure not in MEASURES:
        return Number(None, f"no {measure}")
    unfinished = max(1.0, float(run.record.get("total_steps") or 0) / steps)
    return Number(float(last) * unfinished, f"{run.status} and " * (run.status == "diverged") + NEVER, 1)


def _trained(run: Run, metric: Mapping[str, Any]) -> Number:
    if run.status not in ("complete", "diverged", "unsupported"):
        return Number(None, run.status)
    why = "at chance" if run.summary.get("at_chance") else "" if run.status == "complete" else run.status
    return Number(float(not why), why and f"{why}: counts as 0")


def _accuracy(run: Run, metric: Mapping[str, Any]) -> Number:
    classes = (run.summary.get("dataset") or {}).get("classes")
    if run.status == "diverged" and classes:
        return Number(1 / classes, "diverged: counts at chance")
    return _finished(run) or _of_summary(run, f"{metric['accuracy']}_accuracy")


def _of_table(run: Run, metric: Mapping[str, Any]) -> Number:
    """`over` makes one number of the rows of a snapshot, `at` one of the snapshots."""
    name, column = metric["table"], metric["column"]
    found = rows(run, name, "step", column)
    for key, values in filter_of(metric.get("where") or {}, "where").items():
        if key not in found:
            return Number(None, f"no {key} in {name}")
        wanted = [
            value for value in found[key].unique() if has({key: None if value != value else value}, {key: values})
        ]
        found = found[found[key].isin(wanted)]  # NaN, an empty cell of the table, is null
    found = found[found[column].notna()]
    if not len(found):
        return Number(None, f"no such rows of {name}")
    by_step = found.groupby("step")[column].agg(metric.get("over", OVER[0]))  # in order of step
    at = metric.get("at", AT[0])
    return Number(float(by_step.agg(at) if at in ("max", "mean") else by_step.iloc[-1 if at == "last" else 0]))


def _gap(run: Run, metric: Mapping[str, Any]) -> Number:
    """Validation minus training loss where the training loss first reaches a value, interpolated between snapshots."""
    table: pd.DataFrame = rows(run, "fit", "step", "train_loss", "validation_loss")
    table = table.dropna(subset=["train_loss", "validation_loss"]).sort_values("step") if len(table) else table
    loss = table["train_loss"].to_numpy() if len(table) else []
    target = float(metric["gap_at"])
    first = next((place for place, value in enumerate(loss) if value <= target), None)
    if first is None:
        return Number(None, f"training loss never at {target:g}" if len(loss) else "no table fit")
    gap = (table["validation_loss"] - table["train_loss"]).to_numpy()
    if first == 0:
        return Number(float(gap[0]))
    share = (loss[first - 1] - target) / (loss[first - 1] - loss[first])
    return Number(float(gap[first - 1] + share * (gap[first] - gap[first - 1])))


def _two(run: Run, metric: Mapping[str, Any]) -> Number:
    name = kind(metric)
    a, b = (number(part, run) for part in metric[name])
    return apart(a, b, name == "ratio")


_WHATEVER = {"steps_to", "samples_to", "seconds_to", "trained", "accuracy", "minus", "ratio"}
_KINDS: dict[str, Callable[[Run, Mapping[str, Any]], Number]] = {
    "steps_to": _reached, "samples_to": _reached, "seconds_to": _reached, "trained": _trained, "accuracy": _accuracy,
    "table": _of_table, "gap_at": _gap, "minus": _two, "ratio": _two,
}  # fmt: skip
