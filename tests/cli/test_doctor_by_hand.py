"""``anamorph doctor`` on machines that lack something."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest

from anamorph.cli import doctor

Run = Callable[..., Any]
GIB = 2**30


def findings() -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine()}


def test_it_runs_here(anamorph: Run) -> None:
    ended = anamorph("doctor")
    assert ended.code in (0, 4)
    for what in ("Python", "packages", "CPU", "GPU", "memory", "disk"):
        assert f"  {what}  " in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("gib", "verdict", "code"), [(8, "ok", 0), (2, "warn", 0), (0.5, "fail", 4)], ids=["plenty", "little", "none"]
)
def test_memory(gib: float, verdict: str, code: int, anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anamorph.inference.memory.available_memory", lambda: int(gib * GIB))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100 * GIB))
    assert findings()["memory"].verdict == verdict
    assert bool(findings()["memory"].do) == (verdict != "ok")
    assert anamorph("doctor").code == code


@pytest.mark.parametrize(("gib", "verdict"), [(3, "ok"), (1, "warn"), (0.01, "fail")])
def test_disk(gib: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=int(gib * GIB)))
    assert findings()["disk"].verdict == verdict


def test_a_missing_package_fails_and_an_extra_does_not(anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.version

    def version(name: str) -> str:
        if name in ("nibabel", "pydicom"):
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(doctor, "version", version)
    assert findings()["packages"] == doctor.Finding("packages", "fail", "missing: nibabel", "pip install nibabel")
    assert findings()["[dicom]"].verdict == "ok"
    assert "pip install 'anamorph[dicom]'" in findings()["[dicom]"].do
    assert anamorph("doctor").code == 4
