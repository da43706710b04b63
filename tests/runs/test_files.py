"""Whole files and tables survive a kill at any moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normbench.files import write_atomically
from normbench.runs import Damaged, Table
from normbench.runs.files import seal, unseal


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@given(data=st.binary(max_size=200), place=st.integers(0, 300), flip=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_sealed_file_notices_any_change(data: bytes, place: int, flip: int) -> None:
    sealed = seal(data)
    assert unseal(sealed, "x") == data
    changed = bytearray(sealed)
    changed[place % len(sealed)] ^= flip
    with pytest.raises(Damaged):
        unseal(bytes(changed), "x")
    with pytest.raises(Damaged):
        unseal(sealed[: place % len(sealed)], "x")


ROWS = st.lists(st.tuples(st.integers(0, 10**6), st.floats(allow_nan=False)), max_size=8)


@given(kept=ROWS, lost=ROWS, torn=st.binary(max_size=9))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_restored_table_is_as_it_was(tmp_path: Path, kept: list, lost: list, torn: bytes) -> None:
    """Rows after the saved state, and a torn line, are cut off; appending goes on from there."""
    table = Table(tmp_path / "t.csv", ["step", "loss"])
    table.start()
    table.append({"step": a, "loss": b} for a, b in kept)
    state, before = table.state(), table.path.read_bytes()
    table.append({"step": a, "loss": b} for a, b in lost)
    with table.path.open("ab") as file:
        file.write(torn)
    again = Table(table.path, ["step", "loss"])
    again.restore(state)
    assert again.path.read_bytes() == before
    again.append([{"step": 7, "loss": 0.1}])
    assert again.path.read_bytes() == before + b"7,0.1\n"
    assert again.state()["length"] == len(before) + len(b"7,0.1\n")


def test_a_table_that_is_not_what_was_saved_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", ["step"])
    table.start()
    table.append([{"step": 12}])
    state = table.state()
    for data in (b"step\n1", b"step\n13\n"):  # cut short; changed at the same length
        table.path.write_bytes(data)
        with pytest.raises(Damaged):
            Table(table.path, ["step"]).restore(state)
    table.path.write_bytes(b"step\n12\n")
    with pytest.raises(Damaged, match="columns of another version"):
        Table(table.path, ["step", "loss"]).restore(state)
    table.path.unlink()
    with pytest.raises(Damaged):
        Table(table.path, ["step"]).restore(state)


def test_a_row_may_leave_out_a_column_but_not_add_one(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", ["a", "b"])
    table.start()
    table.append([{"b": 0.1}])
    assert table.path.read_text() == "a,b\n,0.1\n"
    with pytest.raises(ValueError, match="no column c"):
        table.append([{"c": 1}])
