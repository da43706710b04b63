"""A claim: a sentence of a textbook or a paper, and the comparisons that would support it. One YAML file each."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from normbench.analysis.selection import format_filter
from normbench.claims.metrics import AnyMetric, Calculation, Correlate, Filter, Minus, Strict
from normbench.config.options import config_dir
from normbench.errors import UserError

STATEMENTS = {"as_stated": "as stated", "restated": "restated"}
Topic = Literal[
    "internal covariate shift", "the layer", "inference", "speed and cost", "robustness", "regularization",
    "batch size", "weight normalization", "recurrent networks", "self-normalizing networks",
]  # fmt: skip


class ClaimError(UserError):
    """A claim file that can't be meant, or the name of a claim that there is not."""


class Check(Strict):
    """One number per seed, and what the claim expects of it.

    Args:
        of: the runs that it is about.
        against: the runs that they are compared with, seed by seed; None: they are compared with the number `than`.
            What it leaves out is as in `of`, but for options of a group of which it chooses another.
        expect: higher | lower | equal.
        margin: by how much, in units of the metric (an accuracy of 0.005 is half a point); a factor where the scale is
            a ratio.
        scale: compare by difference or by quotient.
        times: a calculated factor of the numbers of `of`, such as what an update costs beside one of `against`.
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
    times: AnyMetric | None = None
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
        if self.ratio and not self.against and not self.than > 0:
            raise ValueError("with scale: ratio, `than` is a number above 0")
        if self.times and not (isinstance(self.times, Calculation) and self.against):
            raise ValueError("`times` is the number of a calculation, and of a check with `against`")
        if own := self.against:
            shared = {k: v for k, v in self.of.items() if k.partition(".")[0] == k or k.partition(".")[0] not in own}
            self.against = shared | own
        return self

    @property
    def ratio(self) -> bool:
        return self.scale == "ratio"

    @property
    def unit(self) -> str:
        """ "points" of accuracy for differences of accuracies, of which 0.01 is one; "times" for quotients; or ""."""
        points = self.metric.is_accuracy and not self.ratio and (self.against or isinstance(self.metric, Minus))
        return "points" if points else "times" if self.ratio and self.against else ""

    @property
    def calculation(self) -> str:
        """The name of the calculation that it takes a number of; "" for a check of runs."""
        return self.metric.value if isinstance(self.metric, Calculation) else ""

    @property
    def several(self) -> bool:
        """Whether its number is of several schemes."""
        return isinstance(self.metric, Correlate)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The runs of one side, or of both."""
        return tuple(filter(None, (self.of, self.against)))

    @property
    def words(self) -> str:
        if self.say:
            return self.say
        beside = self.against and {key: v for key, v in self.against.items() if self.of.get(key) != v}
        how = f" {'over' if self.ratio else 'minus'} {format_filter(beside)}" if beside else ""
        what = self.metric.words + (f", times the factor {self.times.words}" if self.times else "")
        return what + (f": {format_filter(self.of)}" if self.of else "") + how

    @property
    def limits(self) -> tuple[float, ...]:
        """Where the margin lies, as effects: differences, with `ratio` logarithms of quotients."""
        margin = math.log(self.margin) if self.ratio else self.margin
        return {"higher": (margin,), "lower": (-margin,), "equal": (-margin, margin)}[self.expect]

    @property
    def expected(self) -> str:
        """Such as "-0.5 points or less"; factors where the check is of quotients."""
        where, unit = [self.text(self.shown(limit)) for limit in self.limits], f" {self.unit}" * bool(self.unit)
        if self.expect == "equal":
            return " to ".join(where) + unit
        if self.limits == (0.0,):
            return f"{'above' if self.expect == 'higher' else 'below'} {where[0].lstrip('+')}{unit}"
        return f"{where[0]}{unit} or {'more' if self.expect == 'higher' else 'less'}"

    def effect(self, value: float) -> float:
        """A difference as it is, the logarithm of a quotient."""
        return value if not self.ratio else math.log(value) if value > 0 else -math.inf

    def shown(self, effect: float) -> float:
        """An effect as the reader sees it: a factor, a difference, or the metric itself where `than` is compared."""
        if self.ratio:
            factor = math.exp(effect) if effect < 700 else math.inf
            return factor if self.against else factor * self.than
        return effect if self.against else effect + self.than

    def effect_of(self, shown: float) -> float:
        """The effect that is shown so."""
        if self.ratio:
            return self.effect(shown if self.against else shown / self.than)
        return shown if self.against else shown - self.than

    def text(self, value: float) -> str:
        """Three digits, or whole numbers, differences with their sign: +0.0123, 9,300, 1e-17; 0.005 as 0.5 points."""
        if math.isinf(value):
            return "∞" if value > 0 else "-∞"
        value = round(100 * value, 9) if self.unit == "points" else value  # a difference of nothing but rounding is 0
        sign = "+" if self.against and not self.ratio else ""
        return f"{value or 0.0:{sign},.0f}" if abs(value) >= 1000 else f"{value or 0.0:{sign}.3g}"


class Claim(Strict):
    """Everything that the file says.

    Args:
        digest: of the sentences, the study and what is checked: an old verdict is known by it.
        order: the place in the teaching order.
        setting: of calculations; that of a study is read from its runs.
        main: it answers the question of its study, and stands first on the study's page; one of them does.
    """

    id: str
    digest: str
    order: float
    topic: Topic
    as_stated: str = Field(min_length=1)
    restated: str = ""
    source: str
    setting: str = ""
    study: str = ""
    figure: str = ""
    main: bool = False
    checks: list[Check] = Field(min_length=1)

    @model_validator(mode="after")
    def _meant(self) -> Claim:
        for check in self.checks:
            check.answers = check.answers or tuple(self.statements)  # type: ignore[arg-type]
        if (answered := {key for check in self.checks for key in check.answers}) != set(self.statements):
            raise ValueError(f"its checks answer {', '.join(sorted(answered))}: it has {', '.join(self.statements)}")
        if all(check.calculation for check in self.checks) == bool(self.study):
            raise ValueError("checks of runs need study: NAME, and a claim of calculations alone has none")
        return self

    @property
    def statements(self) -> dict[str, str]:
        """ "as_stated", "restated" -> the sentence."""
        return {key: sentence for key in STATEMENTS if (sentence := getattr(self, key))}

    @property
    def calculations(self) -> list[str]:
        metrics = (metric for check in self.checks for metric in (check.metric, check.times))
        return list(dict.fromkeys(metric.value for metric in metrics if isinstance(metric, Calculation)))

    @property
    def level(self) -> float:
        """Confidence of each check's interval: 95% for all of them together (Bonferroni)."""
        return 1 - 0.05 / len(self.checks)


@cache
def claims() -> tuple[Claim, ...]:
    """Every claim in the teaching order. Raises ClaimError."""
    return tuple(sorted(map(read, (config_dir() / "claims").glob("*.yaml")), key=lambda claim: (claim.order, claim.id)))


def find(ids: list[str]) -> list[Claim]:
    """The claims of these names, all if none is named, in the teaching order. Raises ClaimError."""
    known = {claim.id: claim for claim in claims()}
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3) or list(known)
            raise ClaimError(f"there is no claim {name}. There is: {', '.join(near)}. See normbench claims.")
    return [claim for name, claim in known.items() if not ids or name in ids]


def read(path: Path) -> Claim:
    """Raises ClaimError."""
    try:
        given = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if not isinstance(given, dict):
            raise ValueError(f"a claim is written key: value: got {given}")
        claim = Claim.model_validate(given | {"id": path.stem, "digest": ""})
        checks = [{key: value for key, value in check.items() if key != "say"} for check in given["checks"]]
        answered = [*(given.get(key) for key in (*STATEMENTS, "study")), checks]
        digest = hashlib.sha256(json.dumps(answered, default=str).encode()).hexdigest()[:12]
        return claim.model_copy(update={"digest": digest})
    except (ValueError, yaml.YAMLError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{' '.join(map(str, first['loc']))}: {first['msg']}" if first else " ".join(str(error).split())
        raise ClaimError(f"claim {path.stem}: {why} (in {path})") from error
