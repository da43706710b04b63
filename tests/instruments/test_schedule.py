"""When to measure: laws of the schedules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normbench.instruments import evenly_spaced, log_spaced

totals = st.one_of(st.integers(1, 300), st.integers(1, 10**7))


@pytest.mark.parametrize("schedule", [log_spaced, evenly_spaced])
@settings(max_examples=150, deadline=None)
@given(total=totals, snapshots=st.integers(3, 200))
def test_sorted_unique_and_from_the_start_to_the_end(schedule, total, snapshots):
    steps = schedule(total, snapshots)
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, total)
    assert len(steps) <= snapshots
    assert all(type(step) is int for step in steps)


@pytest.mark.parametrize("schedule", [log_spaced, evenly_spaced])
@pytest.mark.parametrize("total", [2, 100, 10_000])
def test_two_snapshots_are_the_start_and_the_end(schedule, total):
    assert schedule(total, 2) == [0, total]


@pytest.mark.parametrize("schedule", [log_spaced, evenly_spaced])
def test_a_run_without_steps_is_looked_at_once(schedule):
    assert schedule(0, 40) == [0]


@settings(max_examples=150, deadline=None)
@given(total=totals, snapshots=st.integers(4, 200))
def test_log_spaced_is_dense_at_the_start(total, snapshots):
    steps = log_spaced(total, snapshots)
    if total < snapshots:
        assert steps == list(range(total + 1))  # nothing to leave out
    assert steps[1] == 1
    # The distances grow: rounding can shorten one by one step, and cutting at the end the last.
    gaps = np.diff(steps)[:-1]
    assert (np.diff(gaps) >= -1).all()
    # At least as many in the first half as spacing evenly would give.
    assert sum(step <= total / 2 for step in steps) >= len(steps) / 2


@settings(max_examples=150, deadline=None)
@given(total=totals, snapshots=st.integers(2, 200))
def test_evenly_spaced_distances_differ_by_one_at_most(total, snapshots):
    gaps = np.diff(evenly_spaced(total, snapshots))
    assert gaps.max() - gaps.min() <= 1


def test_the_first_hundredth_of_a_run_gets_a_third_of_the_snapshots():
    steps = log_spaced(10_000, 40)
    assert sum(step <= 100 for step in steps) >= 40 / 3
