"""Tiny methods under names of their own, and cohorts for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from anamorph.data.prepared import PreparedCohort
from anamorph.methods import METHODS
from tests.training.tiny import TINY, prepared_cohort


@pytest.fixture(autouse=True)
def tiny_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in TINY.items():
        monkeypatch.setitem(METHODS, name, method)


@pytest.fixture
def cohort(tmp_path: Path) -> PreparedCohort:
    """Five training and two validation cases, each in ct and mr."""
    return prepared_cohort(tmp_path / "prepared")
