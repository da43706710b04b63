"""Claim files; studies are those of the report's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from normbench.analysis.groups import read
from normbench.claims.claim import Claim
from normbench.claims.claim import read as read_claim
from normbench.claims.verdicts import Answer, Judged, judge
from normbench.runs import load

CHECK: dict[str, Any] = {"of": {"norm": "batch"}, "against": {"norm": "none"}, "metric": "test_accuracy",
                         "expect": "higher", "margin": 0.005}  # fmt: skip
CLAIM: dict[str, Any] = {"order": 1, "topic": "robustness", "as_stated": "It helps.", "source": "a book",
                         "study": "first", "figure": "forest"}  # fmt: skip


@pytest.fixture
def claim_of(tmp_path: Path) -> Callable[..., Claim]:
    """`claim_of(check(margin=0.1), order=3)`: a claim file with these checks, read; None leaves a key out."""

    def make(*checks: dict[str, Any], name: str = "helps", **values: Any) -> Claim:
        given = {key: value for key, value in {**CLAIM, **values}.items() if value is not None}
        path = tmp_path / f"{name}.yaml"
        path.write_text("# it helps\n" + yaml.safe_dump({**given, "checks": list(checks) or [CHECK]}, sort_keys=False))
        return read_claim(path)

    return make


@pytest.fixture
def check() -> Callable[..., dict[str, Any]]:
    """`check(margin=0.1, against=None)`: a check as in a file, with other values; None leaves a key out."""
    return lambda **values: {key: value for key, value in {**CHECK, **values}.items() if value is not None}


@pytest.fixture
def judged(study: Path, claim_of: Callable[..., Claim]) -> Callable[..., Judged]:
    """`judged(check(...), ...)`: a claim of these checks, answered from `study`."""
    return lambda *checks, **values: judge(claim_of(*checks, **values), read(load(study)), {})


@pytest.fixture
def answer(judged: Callable[..., Judged], check: Callable[..., dict[str, Any]]) -> Callable[..., Answer]:
    """`answer(metric="test_loss")`: of the only check of a claim."""
    return lambda **values: judged(check(**values)).answers[0]
