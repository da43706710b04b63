"""When instruments measure, laws of the schedules, and how rows are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from short_run import Shown, short_run

from normbench.instruments import Activations, evenly_spaced
from normbench.instruments.instrument import log_spaced, read

totals = st.one_of(st.integers(1, 300), st.integers(1, 10**7))


@pytest.mark.parametrize("schedule", [log_spaced, evenly_spaced])
@settings(max_examples=100, deadline=None)
@given(total=totals, snapshots=st.integers(3, 200))
def test_sorted_unique_and_from_the_start_to_the_end(schedule, total, snapshots):
    steps = schedule(total, snapshots)
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, total)
    assert len(steps) <= snapshots
    assert all(type(step) is int for step in steps)
    assert schedule(total, 2) == [0, total]
    assert schedule(0, snapshots) == [0]


@settings(max_examples=100, deadline=None)
@given(total=totals, snapshots=st.integers(4, 200))
def test_log_spaced_is_dense_at_the_start_and_evenly_spaced_is_even(total, snapshots):
    steps, even = log_spaced(total, snapshots), np.diff(evenly_spaced(total, snapshots))
    assert even.max() - even.min() <= 1
    if total < snapshots:
        assert steps == list(range(total + 1))  # nothing to leave out
    assert steps[1] == 1
    # The distances grow: rounding can shorten one by one step, and cutting at the end the last.
    assert (np.diff(np.diff(steps)[:-1]) >= -1).all()
    # At least as many in the first half as spacing evenly would give.
    assert sum(step <= total / 2 for step in steps) >= len(steps) / 2


def test_the_first_hundredth_of_a_run_gets_a_third_of_the_snapshots():
    assert sum(step <= 100 for step in log_spaced(10_000, 40)) >= 40 / 3


def test_is_due_at_the_snapshots_or_at_the_end():
    run, instrument = short_run(Shown(), updates=None, snapshots=[0, 5, 10]), Activations()
    run.measure(instrument)
    assert [index for index in range(12) if instrument.due(index)] == [0, 5, 10]
    instrument.when = "end"
    assert [index for index in range(12) if instrument.due(index)] == [10]


def test_tensors_of_one_number_are_read_as_floats():
    rows = [{"layer": "a", "count": 3, "mean": torch.tensor(0.1)}, {"std": torch.tensor(0.1, dtype=torch.float64)}]
    assert read(iter(rows)) == [{"layer": "a", "count": 3, "mean": torch.tensor(0.1).item()}, {"std": 0.1}]
    assert read([]) == []
