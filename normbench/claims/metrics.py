"""The numbers of a run that claims are about: how a claim file writes them, how they are said, how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, field_validator

from normbench.analysis.groups import show
from normbench.analysis.measured import rows
from normbench.analysis.selection import format_filter, has
from normbench.analysis.targets import MEASURES, reached
from normbench.runs import Run
from normbench.runs.read import flat

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


def as_filter(given: Any) -> Any:
    """{"batch_size": 2, "norm": ["batch", "none"]} -> {"batch_size": ("2",), "norm": ("batch", "none")}."""
    if not isinstance(given, Mapping):
        raise ValueError(f"runs are named {{option: value}}, such as {{norm: batch, batch_size: 2}}: got {given}")
    listed = {str(key): value if isinstance(value, list | tuple) else [value] for key, value in given.items()}
    return {key: tuple(v if isinstance(v, str) else show(v) for v in values) for key, values in listed.items()}


Filter = Annotated[dict[str, tuple[str, ...]], BeforeValidator(as_filter)]  # {"norm": ("batch",)}: one of these values


class Strict(BaseModel):
    """What a claim file says; a key that there is not is an error."""

    model_config = ConfigDict(extra="forbid")


class Metric(Strict):
    """A number of a run. A file writes {KIND: VALUE, ...}, or the name of a number of the summary alone."""

    any_status: ClassVar[bool] = False  # knows what to say of a run that has diverged or is unsupported
    text: ClassVar[str] = ""  # as a reader would say it; in braces its own fields
    value: Any

    @property
    def words(self) -> str:
        return self.text.format(**dict(self))

    def of(self, run: Run) -> Number:
        """What it is for one run. Only metrics of training speed and success know runs that are not complete."""
        return self.read(run) if self.any_status or run.status == "complete" else Number(None, run.status)

    def read(self, run: Run) -> Number:
        raise NotImplementedError


def _as_metric(given: Any) -> Any:
    """{"table": "shift", "column": "w1"} -> {"kind": "table", "value": "shift", "column": "w1"}."""
    if isinstance(given, str):
        return {"kind": "summary", "value": given}
    if isinstance(given, Mapping) and "kind" not in given:
        kind = next((key for key in given if key in KINDS), None)
        if kind is None:
            raise ValueError(f"a metric is a number of summary.json or one of {', '.join(KINDS)}: got {given!r}")
        return {"kind": kind, "value": given[kind], **{key: value for key, value in given.items() if key != kind}}
    return given


class Summary(Metric):
    kind: Literal["summary"]
    value: str

    @property
    def words(self) -> str:
        return self.value.replace("_", " ").replace(".", " ")

    def read(self, run: Run) -> Number:
        value = flat(run.summary).get(self.value)
        return Number(float(value)) if isinstance(value, int | float) else Number(None, f"no {self.value}")


class Reached(Metric):
    """The way to a validation accuracy. A run that never gets there counts at its last step, one that diverged at the
    last of its budget, at its own pace: not at that where it diverged, which may come early.
    """

    any_status = True
    kind: Literal["steps_to", "samples_to", "seconds_to"]
    value: float

    @field_validator("value")
    @classmethod
    def _share(cls, value: float) -> float:
        if not 0 < value < 1:
            raise ValueError(f"takes an accuracy between 0 and 1: got {value:g}. 95% is 0.95")
        return value

    @property
    def words(self) -> str:
        unit = {"steps_to": "updates", "samples_to": "images", "seconds_to": "seconds of training"}[self.kind]
        return f"{unit} to {100 * self.value:g}% validation accuracy"

    def read(self, run: Run) -> Number:
        measure = self.kind.removesuffix("_to")
        if run.status not in ("complete", "diverged"):
            return Number(None, run.status)
        found = reached(run, self.value)
        if found is not None:
            return Number(found[measure])
        summary = flat(run.summary)
        steps = float(summary.get("steps") or 0)
        last = summary.get("seconds.training") if measure == "seconds" else summary.get(measure)
        if not steps or last is None or measure not in MEASURES:
            return Number(None, f"no {measure}")
        unfinished = max(1.0, float(run.record.get("total_steps") or 0) / steps)
        return Number(float(last) * unfinished, f"{run.status} and " * (run.status == "diverged") + NEVER, 1)


class Trained(Metric):
    any_status = True
    text = "trained (1) or not (0)"
    kind: Literal["trained"]
    value: Literal[True]

    def read(self, run: Run) -> Number:
        if run.status not in ("complete", "diverged", "unsupported"):
            return Number(None, run.status)
        if run.status == "complete" and run.summary.get("at_chance", False) is None:
            return Number(None, "too few test images to tell from chance")
        why = "at chance" if run.summary.get("at_chance") else "" if run.status == "complete" else run.status
        return Number(float(not why), why and f"{why}: counts as 0")


class Accuracy(Metric):
    any_status = True
    text = "{value} accuracy (diverged: chance)"
    kind: Literal["accuracy"]
    value: Literal["test", "validation"]

    def read(self, run: Run) -> Number:
        classes = (run.summary.get("dataset") or {}).get("classes")
        if run.status == "diverged" and classes:
            return Number(1 / classes, "diverged: counts at chance")
        value = run.summary.get(f"{self.value}_accuracy")
        return Number(None, run.status) if run.status != "complete" or value is None else Number(float(value))


class Gap(Metric):
    """Validation minus training loss where the training loss first reaches a value, interpolated between snapshots."""

    text = "validation minus training loss where the training loss is {value:g}"
    kind: Literal["gap_at"]
    value: PositiveFloat

    def read(self, run: Run) -> Number:
        table = rows(run, "fit", "step", "train_loss", "validation_loss")
        table = table.dropna(subset=["train_loss", "validation_loss"]).sort_values("step") if len(table) else table
        loss = table["train_loss"].to_numpy() if len(table) else []
        first = next((place for place, value in enumerate(loss) if value <= self.value), None)
        if first is None:
            return Number(None, f"training loss never at {self.value:g}" if len(loss) else "no table fit")
        gap = (table["validation_loss"] - table["train_loss"]).to_numpy()
        if first == 0:
            return Number(float(gap[0]))
        share = (loss[first - 1] - self.value) / (loss[first - 1] - loss[first])
        return Number(float(gap[first - 1] + share * (gap[first] - gap[first - 1])))


class OfTable(Metric):
    """A number of an instrument's table: `over` makes one of the rows of a snapshot, `at` one of the snapshots."""

    kind: Literal["table"]
    value: str
    column: str
    where: Filter = Field(default_factory=dict)
    at: Literal["last", "first", "max", "mean"] = "last"
    over: Literal["mean", "median", "max", "min"] = "mean"

    @property
    def words(self) -> str:
        how = f"{self.at} snapshot, {self.over}"
        named = ", ".join(filter(None, (self.value, format_filter(self.where), how)))
        return f"{self.column.replace('_', ' ')} ({named})"

    def read(self, run: Run) -> Number:
        found = rows(run, self.value, "step", self.column)
        for key, values in self.where.items():
            if key not in found:
                return Number(None, f"no {key} in {self.value}")
            wanted = [
                value for value in found[key].unique() if has({key: None if value != value else value}, {key: values})
            ]
            found = found[found[key].isin(wanted)]  # NaN, an empty cell of the table, is null
        found = found[found[self.column].notna()]
        if not len(found):
            return Number(None, f"no such rows of {self.value}")
        by_step = found.groupby("step")[self.column].agg(self.over)  # in order of step
        return Number(float(by_step.agg(self.at) if self.at in ("max", "mean") else by_step.iloc[-(self.at == "last")]))


class Two(Metric):
    any_status = True
    kind: Literal["minus", "ratio"]
    value: tuple[OfRun, OfRun]

    @property
    def words(self) -> str:
        a, b = self.value
        return f"({a.words}) {'minus' if self.kind == 'minus' else 'over'} ({b.words})"

    def read(self, run: Run) -> Number:
        a, b = self.value
        return apart(a.of(run), b.of(run), self.kind == "ratio")


class Correlate(Metric):
    """Spearman's rank correlation of two metrics over the values of an option: a number of many runs."""

    kind: Literal["correlate"]
    value: tuple[OfRun, OfRun]
    over: str = "norm"

    @property
    def words(self) -> str:
        a, b = self.value
        return f"rank correlation over {self.over}: {a.words} with {b.words}"


class Calculation(Metric):
    """A number that is calculated on the spot, without any run."""

    kind: Literal["calculation"]
    value: str
    number: str

    @property
    def words(self) -> str:
        return f"{self.value}: {self.number}".replace("_", " ")


KINDS = ("steps_to", "samples_to", "seconds_to", "trained", "accuracy", "gap_at", "minus", "ratio", "table",
         "correlate", "calculation")  # fmt: skip
OfRun = Annotated[
    Summary | Reached | Trained | Accuracy | Gap | OfTable | Two,
    Field(discriminator="kind"),
    BeforeValidator(_as_metric),
]
AnyMetric = Annotated[
    Summary | Reached | Trained | Accuracy | Gap | OfTable | Two | Correlate | Calculation,
    Field(discriminator="kind"),
    BeforeValidator(_as_metric),
]
for model in (Two, Correlate):  # which are made of OfRun
    model.model_rebuild()
