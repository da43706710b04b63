"""A claim: a sentence of a textbook or a paper, and the comparisons that would support it. One YAML file each."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from normbench.claims.grammar import Filter, Metric, check_metric, filter_of, kind, require_keys, said, words
from normbench.config.options import config_dir, description
from normbench.errors import UserError

STATEMENTS = {"as_stated": "as stated", "restated": "restated"}
EXPECTED = ("higher", "lower", "equal")
CLAIM = {"order", "as_stated", "restated", "source", "study", "figure", "checks"}
CHECK = {"say", "of", "against", "than", "metric", "expect", "margin", "scale", "mean_over", "answers"}


class ClaimError(UserError):
    """A claim file that can't be meant, or the name of a claim that there is not."""


@dataclass(frozen=True)
class Check:
    """One number per seed, and what the claim expects of it.

    Args:
        of: the runs that it is about; an option with several values is averaged (`mean_over`) or correlated over.
        against: the runs that they are compared with, seed by seed; None: they are compared with the number `than`.
        expect: higher | lower | equal.
        margin: by how much, in units of the metric; with `ratio` a factor.
        ratio: compare by quotient, not by difference.
        answers: the statements that need it.
    """

    metric: Metric
    expect: str
    margin: float
    of: Filter = field(default_factory=dict)
    against: Filter | None = None
    than: float = 0.0
    ratio: bool = False
    mean_over: tuple[str, ...] = ()
    answers: tuple[str, ...] = tuple(STATEMENTS)
    say: str = ""

    @property
    def calculation(self) -> str:
        """The name of the calculation that it takes a number of; "" for a check of runs."""
        return str(self.metric["calculation"]) if kind(self.metric) == "calculation" else ""  # type: ignore[index]

    @property
    def words(self) -> str:
        if self.say:
            return self.say
        beside = self.against and {key: v for key, v in self.against.items() if self.of.get(key) != v}
        how = f" {'over' if self.ratio else 'minus'} {said(beside)}" if beside else ""
        return words(self.metric) + (f": {said(self.of)}" if self.of else "") + how

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


@dataclass(frozen=True)
class Claim:
    """Everything that the file says; `digest` changes when it does, so that an old verdict is known for one."""

    id: str
    title: str
    order: float
    statements: Mapping[str, str]  # "as_stated", "restated" -> the sentence
    source: str
    checks: tuple[Check, ...]
    study: str = ""
    figure: str = ""
    digest: str = ""

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
        return _claim(path, given, hashlib.sha256(data).hexdigest()[:12])
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ClaimError(f"claim {path.stem}: {' '.join(str(error).split())} (in {path})") from error


def _claim(path: Path, given: dict[str, Any], digest: str) -> Claim:
    require_keys(given, CLAIM, ("order", "as_stated", "source", "checks"), "a claim")
    statements = {key: str(given[key]) for key in STATEMENTS if given.get(key)}
    if not isinstance(given["checks"], list) or not given["checks"]:
        raise ValueError(f"checks are a list with at least one check: got {given['checks']}")
    checks = []
    for number, each in enumerate(given["checks"], 1):
        try:
            checks.append(_check(each, tuple(statements)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"check {number}: {error}") from error
    for key in statements:
        if not any(key in check.answers for check in checks):
            raise ValueError(f"no check answers {key}. Add it to the answers of one, or leave `answers` out")
    claim = Claim(path.stem, description(path), float(given["order"]), statements, str(given["source"]),
                  tuple(checks), str(given.get("study") or ""), str(given.get("figure") or ""), digest)  # fmt: skip
    if (of_runs := any(not check.calculation for check in checks)) != bool(claim.study):
        raise ValueError("checks of runs need study: NAME" if of_runs else "a claim of calculations has no study")
    return claim


def _check(given: Any, statements: tuple[str, ...]) -> Check:
    if not isinstance(given, dict):
        raise ValueError(f"a check is written key: value: got {given}")
    require_keys(given, CHECK, ("metric", "expect", "margin"), "a check")
    check_metric(given["metric"])
    ratio = {"difference": False, "ratio": True}.get(given.get("scale", "difference"))
    if ratio is None:
        raise ValueError(f"scale is difference or ratio: got {given['scale']}")
    if given["expect"] not in EXPECTED:
        raise ValueError(f"expect is one of {', '.join(EXPECTED)}: got {given['expect']}")
    margin, least = float(given["margin"]), 1 if ratio else 0
    if margin < least or (margin == least and given["expect"] == "equal"):
        above = "above" if given["expect"] == "equal" else "at least"
        kind_of = "a factor, for the scale is a ratio" if ratio else "not negative: `expect` says the direction"
        raise ValueError(f"the margin is {above} {least} ({kind_of}): got {margin:g}")
    of, against, over = given.get("of"), given.get("against"), given.get("mean_over") or []
    if (kind(given["metric"]) == "calculation") == bool(of) or (against and not of):
        raise ValueError("a check names the runs with `of`, and the number of a calculation does not")
    if against and "than" in given:
        raise ValueError("a check compares `of` either with the runs `against` or with the number `than`")
    if not isinstance(over, list):
        raise ValueError(f"mean_over is a list of options: got {over}")
    if over and kind(given["metric"]) == "correlate":
        raise ValueError("a correlation is over one option already: leave out mean_over")
    if ratio and not against and not float(given.get("than") or 0) > 0:
        raise ValueError("with scale: ratio, `than` is a number above 0")
    answers = tuple(given.get("answers") or statements)
    if unknown := [name for name in answers if name not in statements]:
        raise ValueError(f"answers are of {', '.join(statements)}: got {unknown[0]}")
    own = filter_of(of or {}, "of")
    return Check(given["metric"], given["expect"], margin, own, _inherited(own, against), float(given.get("than") or 0),
                 ratio, tuple(over), answers, str(given.get("say") or ""))  # fmt: skip


def _inherited(of: Filter, against: Any) -> Filter | None:
    """What `against` leaves out is as in `of`, but for options of a group of which it chooses another."""
    if not against:
        return None
    own = filter_of(against, "against")
    return {k: v for k, v in of.items() if k.partition(".")[0] == k or k.partition(".")[0] not in own} | dict(own)
