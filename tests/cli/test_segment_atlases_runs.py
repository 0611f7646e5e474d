"""``anamorph segment --atlases`` in process: files, page, resumed runs, cohorts and refusals."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import read_tables, write_cohort
from anamorph.data.files import read, read_labels
from anamorph.data.image import Image
from anamorph.inference import multi_atlas_run, multi_atlas_work
from anamorph.inference.register import Registration
from anamorph.spatial.transform import Affine

Run = Callable[..., Any]
SCANS = Path(__file__).parents[1] / "inference" / "multi_atlas_scans.py"
spec = importlib.util.spec_from_file_location("multi_atlas_scans", SCANS)
assert spec is not None
assert spec.loader is not None
scans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scans)
FLAT = [(4.0, -3.0), (-3.0, 4.0), (2.0, 3.0)]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A register that knows where the atlases lie, and notes whom it was asked for."""
    calls: list[str] = []

    def register(fixed: Image, moving: Image, **rest: Any) -> Registration:
        calls.append(moving.name)
        matrix = np.eye(fixed.grid.ndim + 1)
        matrix[:2, -1] = FLAT[int(moving.name[1])]
        return Registration(fixed, moving, Affine(matrix), Affine(matrix), Affine.identity(fixed.grid.ndim))

    monkeypatch.setattr(multi_atlas_work, "register", register)
    return calls


@pytest.fixture
def atlases(tmp_path: Path) -> Path:
    """A cohort of three, in 2-D."""
    folder = tmp_path / "atlases"
    some = [scans.a_scan(folder, f"a{place}", "ct", shift) for place, shift in enumerate(FLAT)]
    write_cohort(Cohort(folder, tuple(some), (), {3: "left organ", 7: "right organ"}), folder)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Scan:
    return scans.a_scan(tmp_path / "targets", "t", "mr", (0.0, 0.0), "test")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_an_image_by_atlases(
    target: Scan, atlases: Path, tmp_path: Path, anamorph: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["segment", target.image, "--atlases", atlases, "--labels", target.labels, "--modality", "mr"]
    ended = anamorph(*command, "--probabilities", "--out", "out", "--device", "cpu")
    assert ended.code == 0, ended.err
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "segmentation.nii.gz", "share.nii.gz", "uncertainty.nii.gz", "scores.csv", "atlases.csv", "report.html",
        "run.json", "cache", *(f"probability_{value}.nii.gz" for value in (0, 3, 7)),
    }  # fmt: skip
    found = read_labels(out / "segmentation.nii.gz")
    assert found.values() == [0, 3, 7]
    total = sum(read(out / f"probability_{value}.nii.gz").data for value in (0, 3, 7))
    np.testing.assert_allclose(total, 1, atol=1e-5)
    dice = {row["label"]: float(row["value"]) for row in rows_of(out / "scores.csv") if row["metric"] == "dice"}
    assert set(dice) == {"left organ", "right organ"}
    assert min(dice.values()) > 0.85
    table = rows_of(out / "atlases.csv")
    assert sorted(row["atlas"] for row in table) == ["a0_ct", "a1_ct", "a2_ct"]
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["fusion"]["fusion"] == "joint"
    assert record["registration"]["similarity"] == "mind_ssc"
    assert set(record["outputs"]) == {path.name for path in out.iterdir()} - {"run.json", "cache"}
    assert str(tmp_path) not in (out / "run.json").read_text()
    assert "dice" in ended.out.lower()
    page = (out / "report.html").read_text()
    for text in ("t_mr.nrrd by the atlases of atlases", "Uncertainty", "What each did", "a2_ct", "left organ"):
        assert text in page


def test_another_fusion_takes_the_registrations_over(
    target: Scan, atlases: Path, tmp_path: Path, anamorph: Run, known: list[str]
) -> None:
    command = ["segment", target.image, "--atlases", atlases, "--out", tmp_path / "out"]
    assert anamorph(*command, "--fusion", "majority", "--select", "2").code == 0
    likest = [row["atlas"] for row in rows_of(tmp_path / "out" / "atlases.csv") if row["used"] == "True"]
    assert len(likest) == 2
    all_aligned = ["a0_ct.nrrd", "a1_ct.nrrd", "a2_ct.nrrd"]
    assert known == [*all_aligned, *(f"{name}.nrrd" for name in likest)]
    known.clear()
    settings = tmp_path / "fusion.yaml"
    settings.write_text("fusion: local\nsimilarity: lncc\n")
    ended = anamorph(*command, "--fusion-settings", settings, "--select", "2", "--force")
    assert ended.code == 0, ended.err
    assert known == []
    assert json.loads((tmp_path / "out" / "run.json").read_text())["fusion"]["similarity"] == "lncc"


def test_more_atlases_to_select_than_there_are_is_told(
    target: Scan, atlases: Path, tmp_path: Path, anamorph: Run
) -> None:
    command = ["segment", target.image, "--atlases", atlases, "--out", tmp_path / "out", "--fusion", "majority"]
    ended = anamorph(*command, "--select", "4")
    assert ended.code == 0, ended.err
    assert "W-ATL-009: atlases: 4 atlases are to be selected, and there are 3: all are taken" in ended.err
    assert "W-ATL-009" not in anamorph(*command, "--select", "3", "--force").err


def test_a_cohort_gets_a_folder_an_image_and_one_failure_does_not_stop_it_R16(
    target: Scan, atlases: Path, tmp_path: Path, anamorph: Run
) -> None:
    folder = target.image.parent
    others = [scans.a_scan(folder, case, "mr", (1.0, 1.0), "test") for case in ("bad", "u")]
    write_cohort(Cohort(folder, (target, *others)), folder)
    others[0].image.write_bytes(b"no image")
    out = tmp_path / "out"
    ended = anamorph("segment", folder, "--atlases", atlases, "--out", out, "--fusion", "majority", "--workers", 1)
    assert ended.code == 5, ended.err
    assert "W-ATL-007: bad_mr is not segmented: E-FMT-009" in ended.err
    assert re.search(r"t_mr: Complete.*, mean Dice 0\.[89]", ended.out)
    assert "failed: 1, as the warnings and scores.csv tell" in ended.out
    assert re.search(r"mean Dice of 2: 0\.[89]", ended.out)
    assert "scores: out/scores.csv; a report.html in the folder of each image" in ended.out
    for name in ("t_mr", "u_mr"):
        assert {path.name for path in (out / name).iterdir()} == {
            "segmentation.nii.gz", "share.nii.gz", "uncertainty.nii.gz", "scores.csv", "atlases.csv", "report.html",
        }  # fmt: skip
    assert {row["target"] for row in rows_of(out / "atlases.csv")} == {"t_mr", "u_mr"}
    scores = rows_of(out / "scores.csv")
    assert {row["case"] for row in scores if row["metric"] != "failed"} == {"t_mr", "u_mr"}
    (failed,) = (row for row in scores if row["metric"] == "failed")
    assert (failed["case"], failed["method"], failed["value"]) == ("bad_mr", "atlases", "")
    assert failed["reason"].startswith("E-FMT-009: bad_mr.nrrd")
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["failed"]) == ("complete", 1)


def test_processes_are_as_many_as_the_work_where_nobody_says(
    target: Scan, atlases: Path, tmp_path: Path, anamorph: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image and three atlases: three registrations, whose memory is estimated from what can be read."""
    asked: list[tuple[Any, ...]] = []

    def processes_for(*arguments: Any) -> int:
        asked.append(arguments)
        return 1

    monkeypatch.setattr(multi_atlas_run, "processes_for", processes_for)
    (atlases / "a0_ct.nrrd").write_bytes(b"no image")
    command = ["segment", target.image, "--atlases", atlases, "--fusion", "majority", "--device", "cpu"]
    assert anamorph(*command, "--out", tmp_path / "out", "--threads", 1, "--max-memory", "8G").code == 0
    ((jobs, job_bytes, *rest),) = asked
    assert (jobs, rest) == (3, [8 * 2**30, 1])
    assert 2**28 < job_bytes < 2**31
    assert anamorph(*command, "--out", tmp_path / "one", "--workers", 1).code == 0
    assert len(asked) == 1


def test_a_cohort_that_is_its_own_atlases_leaves_each_subject_out(tmp_path: Path, anamorph: Run) -> None:
    """Another session lies right on the image; were it an atlas, its labels would be the answer."""
    folder = tmp_path / "cohort"
    cases = {"sub-a_ses-1": (0.0, 0.0), "sub-a_ses-2": (0.0, 0.0), "a1": FLAT[1], "a2": FLAT[2]}
    some = [scans.a_scan(folder, case, "ct", shift) for case, shift in cases.items()]
    write_cohort(Cohort(folder, tuple(some)), folder)
    out = tmp_path / "out"
    command = ["segment", some[0].image, "--modality", "ct", "--atlases", folder, "--fusion", "majority"]
    ended = anamorph(*command, "--out", out)
    assert ended.code == 0, ended.err
    assert "W-ATL-008: sub-a_ses-1_ct.nrrd: sub-a_ses-1_ct, sub-a_ses-2_ct are of the same subject" in ended.err
    assert sorted(row["atlas"] for row in rows_of(out / "atlases.csv")) == ["a1_ct", "a2_ct"]


def test_atlases_without_labels_are_told(target: Scan, atlases: Path, tmp_path: Path, anamorph: Run) -> None:
    """Those that have some are used; without any there is nothing to do, and the cohort is named."""
    cohort = read_tables(atlases)
    bare = [replace(scan, labels=None) for scan in cohort.scans]
    command = ["segment", target.image, "--fusion", "majority", "--atlases"]
    (tmp_path / "some").mkdir()
    (tmp_path / "none").mkdir()
    write_cohort(replace(cohort, scans=(*cohort.scans[:2], bare[2])), tmp_path / "some")
    ended = anamorph(*command, tmp_path / "some", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "W-ATL-004: some: 1 of 3 atlases has no labels and takes no part: a2_ct" in ended.err
    assert sorted(json.loads((tmp_path / "out/run.json").read_text())["atlas_sha256"]) == ["a0_ct", "a1_ct"]
    write_cohort(replace(cohort, scans=tuple(bare)), tmp_path / "none")
    ended = anamorph(*command, tmp_path / "none", "--out", tmp_path / "nothing")
    assert ended.code == 3
    assert "E-ATL-013: none: none of 3 atlases has labels" in ended.err


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        ([], 2, "E-CFG-010"),
        (["--model", "m"], 2, "either --model or --atlases"),
        (["--refine", "3"], 2, "refine would do nothing with atlases"),
        (["--fusion", "voting"], 2, "E-ATL-016: no fusion 'voting', expected majority"),
        (["--atlas-modality", "t1"], 2, "E-ATL-006: no modality 't1', expected ct"),
        (["--atlas-split", "test"], 3, "E-ATL-012: atlases: no scan of the split test"),
        (["--split", "test"], 2, "split test would do nothing with an image"),
        (["--region", "gold"], 3, "E-ATL-015"),
        (["--region", "none", "--margin", "3"], 2, "margin would do nothing with the region none"),
        (["--fusion", "weighted"], 2, "weighted takes weights from outside"),
        (["--workers", "2", "--scheduler", "tcp://a:1"], 2, "either --scheduler or --workers"),
        (["--registration", "nowhere"], 3, "E-IO-001"),
    ],
)
def test_what_is_refused(
    flags: list[str], code: int, line: str, target: Scan, atlases: Path, tmp_path: Path, anamorph: Run
) -> None:
    way = ["--atlases", atlases] if flags else []
    ended = anamorph("segment", target.image, *way, "--out", tmp_path / "out", *flags)
    assert ended.code == code, ended.err
    assert line in ended.err


def test_weights_that_nobody_gives_are_refused_before_anything_is_registered(
    target: Scan, atlases: Path, tmp_path: Path, anamorph: Run, known: list[str]
) -> None:
    settings = tmp_path / "fusion.yaml"
    settings.write_text("fusion: weighted\n")
    ended = anamorph(
        "segment", target.image, "--atlases", atlases, "--out", tmp_path / "out", "--fusion-settings", settings
    )
    assert ended.code == 2
    assert "E-FUS-002: weighted without weights" in ended.err
    assert known == []


def test_flags_for_atlases_do_not_go_with_a_model(target: Scan, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("segment", target.image, "--model", "m", "--out", tmp_path / "out", "--select", "3")
    assert ended.code == 2
    assert "select would do nothing with a model" in ended.err
