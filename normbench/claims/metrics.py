"""The numbers of runs that claims compare: how a claim file writes them, how they read, and a value for each seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat

from normbench.analysis.groups import OVER, Group, show
from normbench.analysis.measured import rows
from normbench.analysis.selection import format_filter, has
from normbench.analysis.targets import reached
from normbench.runs import Run

FEWEST = 3  # schemes to correlate
Values = dict[Any, float]  # by seed


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
    """A number of each run. A file writes {KIND: VALUE, ...}, or the name of a column of the study's frame alone."""

    text: ClassVar[str]  # as a reader would say it; in braces its own fields
    value: Any

    @property
    def words(self) -> str:
        return self.text.format(**dict(self))

    @property
    def parts(self) -> Sequence[Metric]:
        """The numbers of runs that it is made of."""
        return (self,)

    @property
    def is_accuracy(self) -> bool:
        """Whether 0.01 is a point."""
        return "accuracy" in str(getattr(self, "column", self.value))

    def of(self, group: Group) -> Values:
        """Seed -> the number, of the runs that have it; infinite where a run never gets there."""
        return known({run.seed: self.read(run) for run in group.having("complete")})

    def read(self, run: Run) -> float:
        """Of a complete run; NaN where there is none."""
        raise NotImplementedError

    def of_all(self, groups: Sequence[Group]) -> Values:
        """Of all that a check names: one group, but for a number that is of several schemes."""
        [group] = groups
        return self.of(group)


class OfFrame(Metric):
    """A column of `Study.all_columns`, such as a number of the summary."""

    text = "{value}"
    value: str

    def of(self, group: Group) -> Values:
        return group.numbers(self.value)


class StepsTo(Metric):
    """Updates to a validation accuracy: infinitely many for a run that never gets there, or diverges before."""

    text = "updates to {value:.0%} validation accuracy"
    value: float = Field(gt=0, lt=1)

    def of(self, group: Group) -> Values:
        found = {run.seed: reached(run, self.value) for run in group.having(*OVER)}
        return {seed: at["steps"] if at else math.inf for seed, at in found.items()}


class Trained(Metric):
    text = "trained (1) or not (0: diverged, unsupported, at chance)"
    value: Literal[True]

    def of(self, group: Group) -> Values:
        return super().of(group) | dict.fromkeys(group.seeds("diverged", "unsupported"), 0.0)

    def read(self, run: Run) -> float:
        at_chance = run.summary.get("at_chance", False)
        return math.nan if at_chance is None else float(not at_chance)  # None: too few test images to tell


class Accuracy(Metric):
    text = "{value} accuracy (diverged: chance)"
    is_accuracy: ClassVar[bool] = True
    value: Literal["test", "validation"]

    def of(self, group: Group) -> Values:
        return group.accuracies(f"{self.value}_accuracy")


class Gap(Metric):
    """Validation minus training loss where the training loss first reaches a value, interpolated between snapshots."""

    text = "validation minus training loss where the training loss is {value:g}"
    value: PositiveFloat

    def read(self, run: Run) -> float:
        losses = ["train_loss", "validation_loss"]
        table = rows(run, "fit", "step", *losses).dropna(subset=losses).sort_values("step")
        loss, validation_loss = (table[name].to_numpy(float) for name in losses)
        if not (loss <= self.value).any():
            return math.nan
        i = int((loss <= self.value).argmax())
        gap = validation_loss - loss
        return float(np.interp(self.value, loss[[i, i - 1]], gap[[i, i - 1]]) if i else gap[0])


class OfTable(Metric):
    """A number of an instrument's table: `over` makes one of the rows of a snapshot, `at` one of the snapshots."""

    value: str
    column: str
    where: Filter = Field(default_factory=dict)
    at: Literal["last", "first", "max", "mean"] = "last"
    over: Literal["mean", "median", "max", "min"] = "mean"

    @property
    def words(self) -> str:
        named = ", ".join(filter(None, (self.value, format_filter(self.where), f"{self.at} snapshot", self.over)))
        return f"{self.column.replace('_', ' ')} ({named})"

    def read(self, run: Run) -> float:
        found = rows(run, self.value, "step", self.column)
        for key, values in self.where.items():
            if key not in found:
                return math.nan
            there = found[key].unique()  # NaN, an empty cell of the table, is null
            found = found[found[key].isin([v for v in there if has({key: None if v != v else v}, {key: values})])]
        by_step = found.dropna(subset=[self.column]).groupby("step")[self.column].agg(self.over)  # in order of step
        ends = {"first": by_step[:1], "last": by_step[-1:]}
        return float(ends.get(self.at, by_step).agg("max" if self.at == "max" else "mean"))


class Minus(Metric):
    text = "({value[0].words}) minus ({value[1].words})"
    ratio: ClassVar[bool] = False
    value: tuple[AnyMetric, AnyMetric]

    @property
    def is_accuracy(self) -> bool:
        return not self.ratio and all(part.is_accuracy for part in self.value)

    def of(self, group: Group) -> Values:
        a, b = (part.of(group) for part in self.value)
        return compared(a, b, self.ratio)


class Ratio(Minus):
    text = "({value[0].words}) over ({value[1].words})"
    ratio = True


class Correlate(Metric):
    """Spearman's rank correlation of two metrics over schemes; a run that never gets there is behind all others."""

    text = "rank correlation over schemes: {value[0].words} with {value[1].words}"
    value: tuple[AnyMetric, AnyMetric]

    @property
    def parts(self) -> Sequence[Metric]:
        return self.value

    def of_all(self, groups: Sequence[Group]) -> Values:
        """Seed -> the correlation, where three schemes or more have both numbers and neither is the same for all."""
        a, b = (pd.DataFrame(dict(enumerate(part.of(group) for group in groups))) for part in self.value)
        both = a.notna() & b.notna()  # seed x scheme
        a, b = (x.where(both).rank(axis=1) for x in (a, b))  # equal values share their mean rank
        return known(a.corrwith(b, axis=1)[both.sum(axis=1) >= FEWEST].to_dict())


class Calculation(Metric):
    """A number that is calculated on the spot, without any run."""

    text = "{value}: {number}"
    value: str
    number: str


def known(values: Values) -> Values:
    """Without those that are NaN."""
    return {seed: value for seed, value in values.items() if not math.isnan(value)}


def compared(a: Values, b: Values, ratio: bool) -> Values:
    """a - b, or a / b of numbers above 0, of the seeds that have both; two that are infinite do not compare."""
    if ratio:
        return known({seed: a[seed] / b[seed] for seed in a if seed in b and a[seed] > 0 and b[seed] > 0})
    return known({seed: a[seed] - b[seed] for seed in a if seed in b})


def as_metric(given: Any) -> Metric:
    """{"table": "shift", "column": "w1"} -> OfTable(value="shift", column="w1")."""
    if isinstance(given, str):
        return OfFrame(value=given)
    kind = next((key for key in given if key in KINDS), None) if isinstance(given, Mapping) else None
    if kind is None:
        raise ValueError(f"a metric is a column of the study's frame or one of {', '.join(KINDS)}: got {given!r}")
    return KINDS[kind].model_validate({("value" if key == kind else key): value for key, value in given.items()})


AnyMetric = Annotated[Metric, BeforeValidator(as_metric)]
KINDS: dict[str, type[Metric]] = {
    "steps_to": StepsTo, "trained": Trained, "accuracy": Accuracy, "gap_at": Gap,
    "minus": Minus, "ratio": Ratio, "table": OfTable, "correlate": Correlate, "calculation": Calculation,
}  # fmt: skip
for model in (Minus, Ratio, Correlate):  # which are made of others
    model.model_rebuild()
