"""How a metric and a filter are written in a claim file, and how they are said."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Metric = str | Mapping[str, Any]
Filter = Mapping[str, tuple[str, ...]]  # {"norm": ("batch",)}: one of these values; as in report/selection.py

# The key that names the kind of a metric -> the other keys that it may have.
KINDS: dict[str, frozenset[str]] = {
    "steps_to": frozenset(), "samples_to": frozenset(), "seconds_to": frozenset(),
    "trained": frozenset(), "accuracy": frozenset(), "gap_at": frozenset(),
    "minus": frozenset(), "ratio": frozenset(),
    "table": frozenset({"column", "where", "at", "over"}),
    "correlate": frozenset({"over"}),
    "calculation": frozenset({"number"}),
}  # fmt: skip
AT, OVER = ("last", "first", "max", "mean"), ("mean", "median", "max", "min")
_REACHED = {"steps_to": "updates", "samples_to": "images", "seconds_to": "seconds of training"}


def kind(metric: Metric) -> str:
    """The kind of a metric; "" for a number of the summary."""
    return "" if isinstance(metric, str) else next((key for key in metric if key in KINDS), "")


def require_keys(given: Mapping[str, Any], known: Collection[str], needed: Sequence[str], what: str) -> None:
    """Raises ValueError for a key that there is not, or one that is missing."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise ValueError(f"{what} has no key {key}.{f' Did you mean {near[0]}?' if near else ''} "
                             f"There are: {', '.join(sorted(known))}.")  # fmt: skip
    if missing := [key for key in needed if given.get(key) is None]:
        raise ValueError(f"{what} needs {missing[0]}: ...")


def check_metric(metric: Any, inner: bool = False) -> None:
    """Raises ValueError where `metric` is none. `inner`: of another metric, for which only numbers of a run will do."""
    if isinstance(metric, str):
        return
    name = kind(metric) if isinstance(metric, Mapping) else ""
    if not name:
        raise ValueError(f"a metric is a number of summary.json or one of {', '.join(KINDS)}: got {metric!r}")
    require_keys(metric, {name, *KINDS[name]}, {"table": ["column"], "calculation": ["number"]}.get(name, []), name)
    value = metric[name]
    if name in _REACHED and not (_number(value) and 0 < value < 1):
        raise ValueError(f"{name} takes an accuracy between 0 and 1: got {value}. 95% is 0.95")
    if name == "gap_at" and not (_number(value) and value > 0):
        raise ValueError(f"gap_at takes a training loss above 0: got {value}")
    if name == "trained" and value is not True:
        raise ValueError(f"trained is written {{trained: true}}: got {value}")
    if name == "accuracy" and value not in ("test", "validation"):
        raise ValueError(f"accuracy is test or validation: got {value}")
    for key, known in (("at", AT), ("over", OVER)):
        if name == "table" and metric.get(key, known[0]) not in known:
            raise ValueError(f"{key} of a table is one of {', '.join(known)}: got {metric[key]}")
    if inner and name in ("correlate", "calculation"):
        raise ValueError(f"{name} can't be a part of another metric")
    if name in ("minus", "ratio", "correlate"):
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"{name} takes two metrics, [A, B]: got {value}")
        for part in value:
            check_metric(part, inner=True)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def filter_of(given: Any, what: str) -> Filter:
    """{"batch_size": 2, "norm": ["batch", "none"]} -> {"batch_size": ("2",), "norm": ("batch", "none")}."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} is written {{option: value}}, such as {{norm: batch, batch_size: 2}}: got {given}")
    listed = {str(key): value if isinstance(value, list) else [value] for key, value in given.items()}
    return {key: tuple(_text(value) for value in values) for key, values in listed.items()}


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def said(only: Filter) -> str:
    return " ".join(f"{key}={','.join(values)}" for key, values in only.items())


def words(metric: Metric) -> str:
    """A metric as a reader would say it."""
    if isinstance(metric, str):
        return metric.replace("_", " ").replace(".", " ")
    name = kind(metric)
    value = metric[name]
    if name in _REACHED:
        return f"{_REACHED[name]} to {100 * value:g}% validation accuracy"
    if name == "table":
        only = said(filter_of(metric.get("where") or {}, "where"))
        how = f"{metric.get('at', AT[0])} snapshot, {metric.get('over', OVER[0])}"
        return f"{metric['column'].replace('_', ' ')} ({', '.join(filter(None, (value, only, how)))})"
    if name in ("minus", "ratio", "correlate"):
        a, b = map(words, value)
        if name == "correlate":
            return f"rank correlation over {metric.get('over', 'norm')}: {a} with {b}"
        return f"({a}) {'minus' if name == 'minus' else 'over'} ({b})"
    return {
        "trained": "trained (1) or not (0)",
        "accuracy": f"{value} accuracy (diverged: chance)",
        "gap_at": f"validation minus training loss where the training loss is {value}",
        "calculation": f"{value}: {metric.get('number')}".replace("_", " "),
    }[name]
