"""``anamorph check``: one healthy file, and some that are not; and whole cohorts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.diagnosis import describe
from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap

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


# -- whole cohorts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[..., Path]:
    """``cohort(n)``: the folder of n labelled cases, the last of them for test, the last but one for validation."""

    def make(count: int, columns: str = "case,modality,image,labels,split") -> Path:
        folder = tmp_path / "cohort"
        folder.mkdir()
        affine = np.diag([1, 1.5, 2, 1.0])
        rows = [columns]
        for number in range(count):
            values = np.random.default_rng(number).normal(100, 20, (6, 7, 8))
            write(Image.from_array(values, affine), folder / f"c{number:02}.nii.gz")
            labels = np.zeros((6, 7, 8), np.uint8)
            labels[:, :, :3] = 1
            write(Labelmap.from_array(labels, affine), folder / f"c{number:02}_seg.nii.gz")
            split = {count - 1: "test", count - 2: "validation"}.get(number, "train")
            rows.append(f"c{number:02},t1,c{number:02}.nii.gz,c{number:02}_seg.nii.gz,{split}")
        (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
        return folder

    return make


def test_a_healthy_cohort(cohort: Callable[..., Path], anamorph: Run) -> None:
    folder = cohort(3)
    ended = anamorph("check", folder)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert next(line for line in lines if line.startswith("c00_t1")).split() == [
        "c00_t1", "train", "6", "x", "7", "x", "8", "1", "x", "1.5", "x", "2", "RAS", "1", "ok",
    ]  # fmt: skip
    modality = next(line for line in lines if line.startswith("t1 ")).split()
    assert modality[:-3] == ["t1", "1", "1", "1", "6", "x", "7", "x", "8", "1", "x", "1.5", "x", "2"]
    assert next(line for line in lines if line.startswith("1 ")).split() == [
        "1", "3", "of", "3", "0.378", "0.378", "0.378",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80
    assert anamorph("check", folder / "cohort.csv").out == ended.out


def test_extra_scans_have_a_column_of_their_own_where_there_are_some(
    cohort: Callable[..., Path], anamorph: Run
) -> None:
    folder = cohort(5)
    assert "Extra" not in anamorph("check", folder).out
    table = folder / "cohort.csv"
    table.write_text(table.read_text().replace("c01_seg.nii.gz,train", "c01_seg.nii.gz,extra"))
    ended = anamorph("check", folder)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert next(line for line in lines if line.startswith("c01_t1")).split()[:2] == ["c01_t1", "extra"]
    assert next(line for line in lines if line.startswith("Modality")).split()[1:5] == [
        "Train", "Valid.", "Test", "Extra",
    ]  # fmt: skip
    assert next(line for line in lines if line.startswith("t1 ")).split()[1:5] == ["2", "1", "1", "1"]


def test_problems_of_a_cohort_stand_under_their_scans(cohort: Callable[..., Path], anamorph: Run) -> None:
    folder = cohort(4)
    (folder / "c01.nii.gz").unlink()
    (folder / "c03.nii.gz").write_bytes((folder / "c00.nii.gz").read_bytes())
    ended = anamorph("check", folder)
    assert ended.code == 3
    assert "\nc01_t1\n  refused: E-IO-001: c01.nii.gz: no such file" in ended.out
    assert "\ncohort\n  refused: E-COH-024: c00_t1 (train) and c03_t1 (test) hold the same image" in ended.out
    assert ended.out.endswith("\n1 of 4 scans would be refused\n")


def test_a_leak_alone_is_refused_too(cohort: Callable[..., Path], anamorph: Run) -> None:
    folder = cohort(4)
    (folder / "c03.nii.gz").write_bytes((folder / "c00.nii.gz").read_bytes())
    ended = anamorph("check", folder)
    assert ended.code == 3
    assert ended.out.endswith("\nthe cohort would be refused\n")
    ended = anamorph("check", folder, "--quiet")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("E-COH-024: c00_t1 (train)")
    assert ended.err.count("\n") == 1


def test_of_many_scans_only_those_with_problems_of_their_own_are_shown(
    cohort: Callable[..., Path], anamorph: Run
) -> None:
    """All 40 lack an orientation, which is told once; one is cut."""
    folder = cohort(40)
    for file in folder.glob("c??.nii.gz"):
        image = nib.Nifti1Image(np.asarray(nib.load(file).dataobj), None)
        image.header["qform_code"] = image.header["sform_code"] = 0
        nib.save(image, file)
        (file.parent / file.name.replace(".nii", "_seg.nii")).unlink()
    table = (folder / "cohort.csv").read_text()
    (folder / "cohort.csv").write_text("\n".join(line.replace(f"{line[:3]}_seg.nii.gz", "") for line in table.split()))
    (folder / "c07.nii.gz").write_bytes((folder / "c07.nii.gz").read_bytes()[:300])
    ended = anamorph("check", folder)
    assert ended.code == 3
    assert [line[:6] for line in ended.out.splitlines() if line.startswith("c")] == ["c07_t1", "c07_t1", "cohort"]
    assert "39 more scans without problems of their own" in ended.out
    assert "warning: 40 of 40 scans, as c00_t1: W-GEO-003: c00.nii.gz: no orientation" in ended.out
    assert ended.out.count("W-GEO-003") == 1


def test_a_clean_copy_of_a_cohort(cohort: Callable[..., Path], tmp_path: Path, anamorph: Run) -> None:
    folder = cohort(3)
    (folder / "c01.nii.gz").rename(folder / "c01.nii")
    table = folder / "cohort.csv"
    table.write_text(table.read_text().replace("c01.nii.gz", "c01.nii"))
    clean = tmp_path / "clean"
    ended = anamorph("check", folder, "--fix", clean)
    assert ended.code == 0
    assert "written: images/c01_t1.nii.gz, without W-NII-005\nwritten: cohort.csv; " in ended.out
    ended = anamorph("check", clean)
    assert (ended.code, ended.out.count("warning")) == (0, 0)
    assert "../cohort/c00.nii.gz" in (clean / "cohort.csv").read_text()
    ended = anamorph("check", folder, "--fix", clean)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("E-OUT-016: clean: holds a cohort already")
    assert anamorph("check", folder, "--fix", folder).code == 2


def test_s09_a_cohort_that_reaches_out_of_its_root(cohort: Callable[..., Path], tmp_path: Path, anamorph: Run) -> None:
    folder = cohort(3)
    table = folder / "cohort.csv"
    (tmp_path / "out.nii.gz").write_bytes((folder / "c01.nii.gz").read_bytes())
    table.write_text(table.read_text().replace("c01.nii.gz", "../out.nii.gz"))
    assert anamorph("check", folder).code == 0
    assert anamorph("check", folder, "--root", tmp_path).code == 0
    ended = anamorph("check", folder, "--root", folder)
    assert (ended.code, ended.out) == (6, "")
    assert ended.err.startswith("E-COH-008: cohort.csv: line 3: out.nii.gz lies outside the root folder")


@pytest.mark.parametrize(
    ("more", "code"), [(["--kind", "labels"], "E-CFG-007"), (["--against", "x.nii"], "E-CFG-007"), (["x"], "E-CFG-010")]
)
def test_what_does_nothing_for_a_cohort(more: list[str], code: str, cohort: Callable[..., Path], anamorph: Run) -> None:
    ended = anamorph("check", cohort(3), *more)
    assert (ended.code, ended.err[:9]) == (2, code)


def test_a_root_does_nothing_for_a_file(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("check", pair.fixed, "--root", tmp_path)
    assert (ended.code, ended.err[:9]) == (2, "E-CFG-007")


def test_an_unreadable_table_is_one_line(cohort: Callable[..., Path], anamorph: Run) -> None:
    ended = anamorph("check", cohort(3, "case,modality,image,lables,split"))
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("E-COH-002: cohort.csv: unknown column 'lables'")
    assert ended.err.endswith("did you mean labels?\n")


def test_real_images_of_a_cohort(real_data: Path, tmp_path: Path, anamorph: Run) -> None:
    """Ten hippocampi; the values of number 044 are known to lie on another scale."""
    there = real_data / "hippocampus_t1"
    images = [*sorted((there / "images").glob("*.nii.gz"))[:9], there / "images" / "hippocampus_044.nii.gz"]
    rows = [f"{file.name[:-7]},t1,{file},{there / 'labels' / file.name}" for file in images]
    (tmp_path / "cohort.csv").write_text("\n".join(["case,modality,image,labels", *rows]))
    ended = anamorph("check", tmp_path)
    assert ended.code == 0
    assert "\nhippocampus_044_t1\n  warning: W-COH-017: hippocampus_044.nii.gz: values over a range of" in ended.out
    assert ended.out.count("warning: ") == 2


def test_several_volumes_say_which_flag_reads_one(tmp_path: Path, anamorph: Run) -> None:
    values = np.random.default_rng(0).normal(size=(6, 7, 8, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "run.nii.gz")
    ended = anamorph("check", tmp_path / "run.nii.gz")
    assert ended.code == 3
    assert "choose --volume 0 to 2" in ended.out
    assert "--fixed-volume or --moving-volume in register" in ended.out
    ended = anamorph("check", tmp_path / "run.nii.gz", "--volume", "1")
    assert ended.code == 0
    assert "--fixed-volume" not in ended.out
