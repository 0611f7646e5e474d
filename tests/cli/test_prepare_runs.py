"""``anamorph prepare``: from a table of scans to tensors, and what the user is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anamorph.data.cohort import Cohort
from anamorph.data.cohort_files import write_cohort
from anamorph.data.configuration import load
from anamorph.data.plan import Intensity, Plan
from anamorph.data.prepared import PreparedCohort
from tests.training.scans import FIVE, write_scans

Run = Callable[..., Any]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """``scans/cohort.csv``: five cases in ct and t2."""
    found = write_scans(tmp_path / "scans", modalities=("ct", "t2"), splits=FIVE)
    write_cohort(found, tmp_path / "scans")
    return found


def test_a_cohort_is_prepared_and_explained(cohort: Cohort, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("prepare", tmp_path / "scans", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert len(PreparedCohort.open(tmp_path / "out").scans) == 10
    lines = ended.out.splitlines()
    rows = {line.split()[0]: line.split()[1:6] for line in lines if line[:3] in ("ct ", "t2 ")}
    assert rows == {"ct": ["3", "1", "1", "5", "2"], "t2": ["3", "1", "1", "5", "2.5"]}
    for expected in (
        "grid: 15 x 13 x 14 voxels of 2.25 x 2 x 2.5 mm, RAS, about the middle of the field of view",
        "intensities of ct: window -450 to 450",
        "intensities of t2: percentiles 1 to 99 of positive",
        "labels: 2 (3, 6)",
        "to change it: edit out/plan.yaml and run this again; only what changed is done anew",
    ):
        assert expected in lines
    summary = next(line for line in lines if line.startswith("10 scans"))
    assert summary.startswith("10 scans of 5 cases, 0.")
    assert ended.err.splitlines()[-1].startswith("tensors: ")
    assert max(map(len, lines)) <= 100


def test_a_plan_that_is_there_is_used_and_what_flags_change_is_said(
    cohort: Cohort, tmp_path: Path, anamorph: Run
) -> None:
    out = tmp_path / "out"
    assert anamorph("prepare", tmp_path / "scans", "--out", out).code == 0
    text = (out / "plan.yaml").read_text().replace("label 6", "core")
    (out / "plan.yaml").write_text(f"# mine\n{text}")
    ended = anamorph("prepare", tmp_path / "scans" / "cohort.csv", "--out", out)
    assert ended.out.splitlines()[0] == "plan: out/plan.yaml, which is there already"
    assert "changed in it" not in ended.out
    assert "labels: 2 (3, 6 core)" in ended.out
    assert (out / "plan.yaml").read_text().startswith("# mine\n")
    flags = ("--shape", "10", "11", "12", "--intensities", "ct=window:-160:240,t2=zscore")
    ended = anamorph("prepare", tmp_path / "scans", "--out", out, *flags)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[1] == "changed in it by what was asked: shape, modalities"
    beside = anamorph("prepare", tmp_path / "scans", "--out", out, "--offset", "9", "0", "-3")
    assert "about the middle of the field of view, off by 9 x 0 x -3 mm" in beside.out
    plan = load(Plan, out / "plan.yaml")
    assert (plan.shape, plan.labels[6]) == ((10, 11, 12), "core")
    assert plan.modalities == {"ct": Intensity(kind="window", low=-160, high=240), "t2": Intensity(kind="zscore")}


def test_settings_from_a_file(cohort: Cohort, tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "wishes.yaml").write_text(
        "settings:\n  spacing: [3, 3, 3]\n  intensities:\n    ct: {kind: none}\nskip_bad: true\n"
    )
    cohort.scans[1].image.write_bytes(b"")
    ended = anamorph(
        "prepare", tmp_path / "scans", "--out", tmp_path / "out", "--config", tmp_path / "wishes.yaml", "--workers", "1"
    )
    assert ended.code == 0, ended.err
    assert "W-COH-048: c0 (t2) left out: E-IO-002: c0_t2.nii.gz" in ended.err
    prepared = PreparedCohort.open(tmp_path / "out")
    assert prepared.plan.spacing == (3.0, 3.0, 3.0)
    assert prepared.plan.modalities["ct"].kind == "none"
    assert "intensities of ct: as they are" in ended.out
    assert len(prepared.scans) == 9


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (["--shape", "0", "1", "1"], 2, "E-CFG-010: --shape: found 0"),
        (["--intensities", "ct=bright"], 2, "E-CFG-010: --intensities: found bright, expected window"),
        (["--intensities", "ct"], 2, "E-CFG-010: --intensities: found ct, expected MODALITY=KIND"),
        (["--alignment", "given"], 3, "E-IO-001: "),
        (["--reference", "c0_ct"], 2, "E-COH-048: "),
        (["--spacing", "1", "1"], 2, "E-COH-045: "),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    cohort: Cohort, tmp_path: Path, anamorph: Run, flags: list[str], code: int, line: str
) -> None:
    ended = anamorph("prepare", tmp_path / "scans", "--out", tmp_path / "out", *flags)
    assert ended.code == code, ended.err
    assert ended.err.splitlines()[-1].startswith(line)
    assert not (tmp_path / "out" / "index.json").exists()


def test_p01_a_scan_that_cannot_be_read_ends_with_3(cohort: Cohort, tmp_path: Path, anamorph: Run) -> None:
    cohort.scans[3].image.write_bytes(b"<html>")
    ended = anamorph("prepare", tmp_path / "scans", "--out", tmp_path / "out", "--quiet")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("E-COH-052: 1 of 10 scans cannot be used: c1 (t2): E-IO-003: c1_t2.nii.gz")
