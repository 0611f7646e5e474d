"""``anamorph check``: one healthy file, and some that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.diagnosis import describe

Run = Callable[..., Any]


@pytest.fixture
def shifted(tmp_path: Path) -> Callable[..., Path]:
    """``shifted(mm)``: a file whose qform lies that far from its sform."""

    def make(millimetres: float) -> Path:
        values = np.random.default_rng(0).normal(100, 10, (8, 9, 10)).astype(np.int16)
        affine = np.diag([1, 1.5, 2, 1.0])
        image = nib.Nifti1Image(values, affine)
        image.set_sform(affine, 1)
        affine[0, 3] = millimetres
        image.set_qform(affine, 1)
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / "shifted.nii.gz")
        return tmp_path / "shifted.nii.gz"

    return make


def test_a_healthy_file(pair: Any, anamorph: Run) -> None:
    ended = anamorph("check", pair.fixed)
    assert (ended.code, ended.err) == (0, "")
    row = next(line for line in ended.out.splitlines() if line.startswith("fixed.nii.gz"))
    assert row.split()[1:] == ["16", "x", "16", "x", "16", "2", "x", "2.5", "x", "3", "RAS", "0", "ok"]
    assert "NIfTI-1, gzip, float32, values " in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_forms_far_apart_are_refused_and_a_choice_helps(shifted: Callable[..., Path], anamorph: Run) -> None:
    ended = anamorph("check", shifted(30))
    assert ended.code == 3
    assert "sform (code 1) and qform (code 1): 30 mm and 0 degrees apart" in ended.out
    assert "refused: E-GEO-001: shifted.nii.gz: " in ended.out
    assert ended.out.endswith("1 of 1 would be refused\n")
    assert anamorph("check", shifted(30), "--xform", "qform").code == 0


def test_a_repair_is_a_warning_and_can_be_made_for_good(
    shifted: Callable[..., Path], tmp_path: Path, anamorph: Run
) -> None:
    file = shifted(0.05)
    before = file.read_bytes()
    ended = anamorph("check", file, "--fix", tmp_path / "clean")
    assert ended.code == 0
    assert "warning: W-GEO-002: shifted.nii.gz: " in ended.out
    assert "written: shifted.nii.gz, without W-GEO-002" in ended.out
    assert file.read_bytes() == before
    assert describe(tmp_path / "clean" / "shifted.nii.gz").problems == ()
    again = anamorph("check", file, "--fix", tmp_path / "clean")
    assert "not fixed: E-OUT-016: shifted.nii.gz" in again.out


def test_a_truncated_file_is_refused_among_healthy_ones(pair: Any, anamorph: Run) -> None:
    pair.moving.write_bytes(pair.moving.read_bytes()[:2000])
    ended = anamorph("check", pair.fixed, pair.moving, pair.fixed_labels)
    assert ended.code == 3
    assert "E-NII-006: moving.nii.gz: " in ended.out
    assert ended.out.endswith("1 of 3 would be refused\n")


def test_quiet_leaves_the_problems(pair: Any, shifted: Callable[..., Path], anamorph: Run) -> None:
    ended = anamorph("check", pair.fixed, shifted(30), "--quiet")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("E-GEO-001: shifted.nii.gz: ")
    assert ended.err.count("\n") == 1


def test_strict_refuses_a_guess(tmp_path: Path, anamorph: Run) -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32), None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, tmp_path / "nowhere.nii.gz")
    ended = anamorph("check", tmp_path / "nowhere.nii.gz")
    assert ended.code == 0
    assert "warning: W-GEO-003" in ended.out
    ended = anamorph("check", tmp_path / "nowhere.nii.gz", "--strict")
    assert ended.code == 3
    assert "refused: E-GEO-003" in ended.out


def test_against_tells_overlap_and_distance(pair: Any, anamorph: Run) -> None:
    ended = anamorph("check", pair.moving, "--against", pair.fixed)
    assert "covers 100% of fixed.nii.gz, centres 0 mm apart" in ended.out


def test_labels_have_to_lie_on_the_grid_of_their_image(pair: Any, shifted: Callable[..., Path], anamorph: Run) -> None:
    assert anamorph("check", pair.fixed_labels, "--kind", "labels", "--against", pair.fixed).code == 0
    ended = anamorph("check", pair.fixed_labels, "--kind", "labels", "--against", shifted(0))
    assert ended.code == 3
    assert "refused: E-GEO-015: fixed_labels.nii.gz" in ended.out


def test_transforms_and_landmarks_are_looked_at_too(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    anamorph("convert", pair.truth, "--out", tmp_path / "field.nii.gz", "--onto", pair.fixed)
    (tmp_path / "broken.csv").write_text("# space: RAS\nx,y,z\n1,2\n")
    ended = anamorph(
        "check", pair.truth, tmp_path / "field.nii.gz", pair.fixed_landmarks, tmp_path / "broken.csv",
        "--against", pair.fixed,
    )  # fmt: skip
    assert ended.code == 3
    for line in (
        "transform in 3-D: Affine",
        "transform in 3-D: Field",
        "3 landmarks in 3-D",
        "refused: E-LMK-018: broken.csv: line 3",
    ):
        assert line in ended.out


def test_a_missing_file(tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("check", tmp_path / "missing.nii")
    assert ended.code == 3
    assert "refused: E-IO-001: missing.nii: no such file" in ended.out
    assert str(tmp_path) not in ended.out


def test_a_folder_that_cannot_be_made(shifted: Callable[..., Path], tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "clean").write_text("a file")
    ended = anamorph("check", shifted(0.05), "--fix", tmp_path / "clean")
    assert ended.code == 2
    assert ended.err.startswith("E-OUT-001: clean: no folder can be made")
