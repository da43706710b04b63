"""A claim: a sentence of a textbook or a paper, and the comparisons that would support it. One YAML file each."""

from __future__ import annotations

import difflib
import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from normbench.analysis.selection import format_filter
from normbench.claims.metrics import AnyMetric, Calculation, Correlate, Filter, Metric, Strict
from normbench.config.options import config_dir, description
from normbench.errors import UserError

STATEMENTS = {"as_stated": "as stated", "restated": "restated"}


class ClaimError(UserError):
    """A claim file that can't be meant, or the name of a claim that there is not."""


class Check(Strict):
    """One number per seed, and what the claim expects of it.

    Args:
        of: the runs that it is about; an option with several values is averaged (`mean_over`) or correlated over.
        against: the runs that they are compared with, seed by seed; None: they are compared with the number `than`.
            What it leaves out is as in `of`, but for options of a group of which it chooses another.
        expect: higher | lower | equal.
        margin: by how much, in units of the metric; a factor where the scale is a ratio.
        scale: compare by difference or by quotient.
        any_lr: the number does not depend on the lr, so that it counts at a best lr at the edge of the grid too.
        answers: the statements that need it; left out, all.
    """

    metric: AnyMetric
    expect: Literal["higher", "lower", "equal"]
    margin: float
    of: Filter = Field(default_factory=dict)
    against: Filter | None = None
    than: float = 0.0
    scale: Literal["difference", "ratio"] = "difference"
    mean_over: tuple[str, ...] = ()
    any_lr: bool = False
    answers: tuple[Literal["as_stated", "restated"], ...] = ()
    say: str = ""

    @model_validator(mode="after")
    def _meant(self) -> Check:
        least, equal = (1 if self.ratio else 0), self.expect == "equal"
        if self.margin < least or (self.margin == least and equal):
            kind = "a factor, for the scale is a ratio" if self.ratio else "not negative: `expect` says the direction"
            raise ValueError(f"the margin is {'above' if equal else 'at least'} {least} ({kind}): got {self.margin:g}")
        if bool(self.calculation) == bool(self.of) or (self.against and not self.of):
            raise ValueError("a check names the runs with `of`, and the number of a calculation does not")
        if self.against and "than" in self.model_fields_set:
            raise ValueError("a check compares `of` either with the runs `against` or with the number `than`")
        if self.mean_over and isinstance(self.metric, Correlate):
            raise ValueError("a correlation is over one option already: leave out mean_over")
        if self.ratio and not self.against and not self.than > 0:
            raise ValueError("with scale: ratio, `than` is a number above 0")
        if own := self.against:
            shared = {k: v for k, v in self.of.items() if k.partition(".")[0] == k or k.partition(".")[0] not in own}
            self.against = shared | own
        return self

    @property
    def ratio(self) -> bool:
        return self.scale == "ratio"

    @property
    def calculation(self) -> str:
        """The name of the calculation that it takes a number of; "" for a check of runs."""
        return self.metric.value if isinstance(self.metric, Calculation) else ""

    @property
    def over(self) -> set[str]:
        """The options of which all values take part."""
        return {self.metric.over} if isinstance(self.metric, Correlate) else set(self.mean_over)

    @property
    def words(self) -> str:
        if self.say:
            return self.say
        beside = self.against and {key: v for key, v in self.against.items() if self.of.get(key) != v}
        how = f" {'over' if self.ratio else 'minus'} {format_filter(beside)}" if beside else ""
        return self.metric.words + (f": {format_filter(self.of)}" if self.of else "") + how

    @property
    def limits(self) -> tuple[float, ...]:
        """Where the margin lies, as effects: differences, with `ratio` logarithms of quotients."""
        margin = math.log(self.margin) if self.ratio else self.margin
        return {"higher": (margin,), "lower": (-margin,), "equal": (-margin, margin)}[self.expect]

    def shown(self, effect: float) -> float:
        """An effect as the reader sees it: a factor, a difference, or the metric itself where `than` is compared."""
        if self.ratio:
            return math.exp(min(effect, 700.0)) * (1.0 if self.against else self.than)
        return effect if self.against else effect + self.than


class Claim(Strict):
    """Everything that the file says; `digest` changes when it does, so that an old verdict is known for one."""

    id: str
    title: str
    digest: str
    order: float
    as_stated: str = Field(min_length=1)
    restated: str = ""
    source: str
    study: str = ""
    figure: str = ""
    checks: list[Check] = Field(min_length=1)

    @model_validator(mode="after")
    def _meant(self) -> Claim:
        for check in self.checks:
            if unknown := set(check.answers) - set(self.statements):
                raise ValueError(f"answers are of {', '.join(self.statements)}: got {unknown.pop()}")
            check.answers = check.answers or tuple(self.statements)  # type: ignore[arg-type]
        for key in self.statements:
            if not any(key in check.answers for check in self.checks):
                raise ValueError(f"no check answers {key}. Add it to the answers of one, or leave `answers` out")
        if (of_runs := any(not check.calculation for check in self.checks)) != bool(self.study):
            raise ValueError(
                "checks of runs need study: NAME" if of_runs else "a claim of calculations alone has no study"
            )
        return self

    @property
    def statements(self) -> dict[str, str]:
        """ "as_stated", "restated" -> the sentence."""
        return {key: sentence for key in STATEMENTS if (sentence := getattr(self, key))}

    @property
    def calculations(self) -> list[str]:
        return list(dict.fromkeys(check.calculation for check in self.checks if check.calculation))

    @property
    def level(self) -> float:
        """Confidence of each check's interval: 95% for all of them together (Bonferroni)."""
        return 1 - 0.05 / len(self.checks)


@cache
def claims(folder: Path | None = None) -> tuple[Claim, ...]:
    """Every claim in the teaching order. Raises ClaimError."""
    files = sorted((folder or config_dir() / "claims").glob("*.yaml"))
    return tuple(sorted((read(path) for path in files), key=lambda claim: (claim.order, claim.id)))


def find(ids: list[str], folder: Path | None = None) -> list[Claim]:
    """The claims of these names, all if none is named, in the teaching order. Raises ClaimError."""
    known = {claim.id: claim for claim in claims(folder)}
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3) or list(known)
            raise ClaimError(f"there is no claim {name}. There is: {', '.join(near)}. See normbench claims.")
    return [claim for name, claim in known.items() if not ids or name in ids]


def read(path: Path) -> Claim:
    """Raises ClaimError."""
    data = path.read_bytes()
    try:
        given = yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if not isinstance(given, dict):
            raise ValueError(f"a claim is written key: value: got {given}")
        own = {"id": path.stem, "title": description(path), "digest": hashlib.sha256(data).hexdigest()[:12]}
        return Claim.model_validate(given | own)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        why = _explain(error) if isinstance(error, ValidationError) else str(error)
        raise ClaimError(f"claim {path.stem}: {' '.join(why.split())} (in {path})") from error


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong: where, the rule, what came, and the nearest key that there is."""
    first = error.errors()[0]
    place: list[Any] = [part for part in first["loc"] if part != "value"]
    where = ", ".join(f"check {p + 1}" if isinstance(p, int) and place[i - 1] == "checks" else str(p)
                      for i, p in enumerate(place) if p != "checks")  # fmt: skip
    words = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        name = str(place[-1])
        models: list[type[Strict]] = [Claim, Check, *Metric.__subclasses__()]
        known = {key for model in models for key in model.model_fields}
        near = difflib.get_close_matches(name, known, 1)
        words = f"there is no such key.{f' Did you mean {near[0]}?' if near else ''}"
    elif first["type"] != "missing" and "got " not in words and not isinstance(first["input"], dict):
        words += f": got {first['input']}"
    return f"{where}: {words}" if where else words
