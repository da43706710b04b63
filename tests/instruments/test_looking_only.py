"""What holds for units, batch_noise, statistics and memory_time alike, for every scheme in every model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from looking import assert_same, everything
from small_run import at, in_training, rows, run_around, split, through_a_checkpoint
from torch import nn

from normbench.instruments import BatchNoise, MemoryTime, Row, Statistics, Units
from normbench.norms import statistics_of

KINDS: list[Any] = [Units, MemoryTime, BatchNoise, Statistics]
LAST = 10


class Broken(Exception):
    pass


def test_looks_and_leaves_everything_as_it_was(norm_name, model_name, network_of, device):
    train, validation = split(40, device=device), split(24, seed=1, device=device)
    model = in_training(network_of(norm_name, model_name, dropout=0.25).to(device), train)
    around = {"train": train, "validation": validation, "total": LAST, "snapshots": [LAST - 1, LAST]}
    instruments, resumed = [kind() for kind in KINDS], [kind() for kind in KINDS]
    for one, other in zip(instruments, resumed, strict=True):
        rows(one, LAST - 1, model, run_around(one, model, **around))
        through_a_checkpoint(one, other)
    in_training(model, train, updates=1)
    before = everything(model)
    for one, other in zip(instruments, resumed, strict=True):
        found = rows(one, LAST, model, run_around(one, model, **around))
        assert_same(before, everything(model))
        assert bool(found) == (not isinstance(one, Statistics) or bool(statistics_of(model)))
        assert all(map(math.isfinite, numbers_of(found, "mean_only" in norm_name)))
        again = rows(other, LAST, model, run_around(other, model, **around))
        assert str(again) == str(found)  # NaN equals NaN


def numbers_of(found: list[Row], only_mean: bool) -> Iterator[float]:
    """All numbers that should be finite: of units that vary, and of a variance where there is one."""
    for row in found:
        if row.get("units") != 0:
            for name, value in row.items():
                if not isinstance(value, str) and not (only_mean and name.startswith("var_")):
                    yield value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("calls", [0, 1, 3, 6])
@pytest.mark.parametrize(("norm", "network"), [("batch", "mlp"), ("batch_renorm", "cnn"), ("batch", "rnn")])
def test_leaves_everything_as_it_was_when_it_breaks(kind, calls, norm, network, network_of):
    train, validation = split(40), split(24, seed=1)
    model: nn.Module = in_training(network_of(norm, network), train)
    instrument = kind()
    probe = run_around(instrument, model, train, validation, total=LAST, snapshots=[LAST])
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += 1
        if done > calls:
            raise Broken

    model.output.register_forward_hook(count)  # type: ignore[operator, union-attr]
    before = everything(model)
    broke = False
    try:
        list(instrument.measure(at(LAST), model, probe))
    except Broken:
        broke = True
    assert broke or done <= calls
    assert_same(before, everything(model))


@pytest.mark.parametrize("kind", KINDS)
def test_says_the_same_again(kind, network_of):
    train, validation = split(40), split(24, seed=1)
    model = in_training(network_of("noisy_batch", "cnn"), train)
    instrument = kind()
    probe = run_around(instrument, model, train, validation, total=LAST, snapshots=[LAST])
    first = rows(instrument, LAST, model, probe)
    assert str(rows(instrument, LAST, model, probe)) == str(first)


@pytest.mark.parametrize("kind", [BatchNoise, Statistics])
def test_layers_that_are_not_looked_at_have_no_rows(kind, network_of):
    train, validation = split(40), split(24, seed=1)
    model = in_training(network_of("batch", "mlp"), train)
    instrument = kind()
    probe = run_around(instrument, model, train, validation, total=LAST, layers=["hidden2"])
    assert {row["layer"] for row in rows(instrument, LAST, model, probe)} <= {"hidden2", ""}
