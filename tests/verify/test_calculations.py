"""Numbers that are calculated on the spot."""

from __future__ import annotations

import pytest
import torch

from normbench.claims.claim import claims
from normbench.claims.metrics import Calculation
from normbench.errors import UserError
from normbench.verify.calculations import CALCULATIONS, Numbers, calculate


@pytest.fixture(scope="module")
def numbers() -> dict[str, Numbers]:
    return {name: calculate(name) for name in CALCULATIONS}


def test_a_row_of_a_batch(numbers: dict[str, Numbers]) -> None:
    found = numbers["ln_ignores_batch"]
    assert found["layer"] == found["batch_in_inference"] == 0
    assert found["batch_in_training"] > 0.1


def test_a_bias_before_batch_norm(numbers: dict[str, Numbers]) -> None:
    found = numbers["bias_is_useless"]
    assert found["gradient"] < 1e-15
    assert found["change"] < 1e-13
    assert found["gradient_without_norm"] > 1e-3
    assert found["change_without_norm"] > 0.5


def test_folding(numbers: dict[str, Numbers]) -> None:
    found = numbers["folds"]
    assert found["logit_difference"] < 1e-12
    assert found["same_class"] == 1
    assert all(times > 0 for times in found["times_as_fast"])  # type: ignore[union-attr]


def test_times_of_an_update(numbers: dict[str, Numbers]) -> None:
    """That of batch norm is longer than that of nothing, in turns, on the busiest machine."""
    found = numbers["step_times"]
    assert all(len(times) == 5 for times in found.values())  # type: ignore[arg-type]
    assert sorted(found["batch"])[2] > 1  # type: ignore[arg-type]
    assert all(times > 1 for times in numbers["throughput"]["at_2048"])  # type: ignore[union-attr]


def test_calculations_are_the_same_each_time_and_leave_no_trace(numbers: dict[str, Numbers]) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert calculate("ln_ignores_batch") == numbers["ln_ignores_batch"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_claims_name_numbers_that_there_are(numbers: dict[str, Numbers]) -> None:
    for claim in claims():
        for metric in (metric for check in claim.checks for metric in (check.metric, check.times)):
            if isinstance(metric, Calculation):
                assert metric.number in numbers[metric.value], claim.id
    with pytest.raises(UserError, match="there is no calculation x"):
        calculate("x")
