"""Seconds and memory of a block."""

from __future__ import annotations

import time

import numpy as np
import pytest

from anamorph.inference import cost
from anamorph.inference.cost import measured


def test_a_block_that_sleeps_and_fills_memory() -> None:
    with measured() as found:
        time.sleep(0.05)
        np.ones(100 * 2**20 // 8)  # too much for the allocator to take it from what was freed before
    assert found.seconds >= 0.05
    if found.peak_mib is None:
        pytest.skip("this system does not tell the largest memory of a part of a process")
    assert found.peak_mib == pytest.approx(100, abs=5)
    with measured() as less:  # the record begins anew
        np.ones(2**20 // 8)
    assert less.peak_mib is not None
    assert less.peak_mib < 10


def test_memory_that_was_used_before_counts_again() -> None:
    """Pieces that the allocator keeps when they are freed: small ones, with one in use above them."""
    found, above = [], []
    for _ in range(3):
        with measured() as cost:
            pieces = [np.ones(2**16 // 8) for _ in range(480)]
        above.append(np.ones(2**16 // 8))
        del pieces
        found.append(cost.peak_mib)
    if None in found:
        pytest.skip("this system does not tell the largest memory of a part of a process")
    assert found[1:] == [pytest.approx(30, abs=8)] * 2


def test_where_the_system_does_not_tell_there_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(cost, "CLEAR", tmp_path / "no" / "such" / "file")
    with measured() as found:
        pass
    assert found.peak_mib is None
