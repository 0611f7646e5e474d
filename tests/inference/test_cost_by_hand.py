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


def test_where_the_system_does_not_tell_there_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(cost, "CLEAR", tmp_path / "no" / "such" / "file")
    with measured() as found:
        pass
    assert found.peak_mib is None
