"""Masks stacked in 4-D files: what becomes labels, what landmarks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.cohort_files import read_cohort, write_cohort
from anamorph.data.files import read_labels
from anamorph.data.landmark_files import read_landmarks
from anamorph.data.layouts import LAYOUTS, gathered
from anamorph.errors import InputError

SHAPE = (4, 5, 6)
AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
AFFINE[:3, 3] = (-7.0, 1.0, 10.0)


def volume(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, AFFINE).to_filename(path)


def masks(*boxes: tuple[slice, slice, slice] | None) -> np.ndarray:
    """Float masks as the tutorial has them, None being an empty one; one box alone makes a 3-D array."""
    stack = np.zeros((*SHAPE, len(boxes)))
    for number, box in enumerate(boxes):
        if box is not None:
            stack[(*box, number)] = 1.0
    return stack[..., 0] if len(boxes) == 1 else stack


ORGAN = np.s_[0:3, 0:3, 0:3]
BOX = np.s_[1:3, 2:3, 4:6]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Case a has a stack in both modalities, b one mask each, c none; d is of another split."""
    root = tmp_path / "data"
    for part, case in (("train", "a"), ("train", "b"), ("train", "c"), ("valid", "d")):
        for kind in ("MR", "us"):
            volume(root / part / f"{kind}_images" / f"{case}.nii.gz", np.ones(SHAPE, np.uint8))
    volume(root / "train" / "MR_labels" / "a.nii.gz", masks(ORGAN, np.s_[1:2, 1:2, 1:2], BOX, BOX))
    volume(root / "train" / "us_labels" / "a.nii.gz", masks(ORGAN, None, np.s_[3:4, 0:1, 0:1], BOX))
    for kind in ("MR", "us"):
        volume(root / "train" / f"{kind}_labels" / "b.nii.gz", masks(ORGAN))
    (root / "train" / "us_labels" / ".DS_Store").touch()
    (root / "more" / "MR_images").mkdir(parents=True)
    return root


def test_stacks_become_labels_and_landmarks(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    cohort = gathered("stacks", folder, out)
    found = [(s.case, s.modality, s.split, s.labels is not None, s.landmarks is not None) for s in cohort.scans]
    assert found == [
        ("a", "mr", "train", True, True), ("a", "us", "train", True, True),
        ("b", "mr", "train", True, False), ("b", "us", "train", True, False),
        ("c", "mr", "train", False, False), ("c", "us", "train", False, False),
        ("d", "mr", "validation", False, False), ("d", "us", "validation", False, False),
    ]  # fmt: skip
    assert cohort.label_names == {1: "organ"}
    mr, us, alone = cohort.scans[:3]
    assert mr.labels is not None
    assert mr.landmarks is not None
    assert us.landmarks is not None
    labels = read_labels(mr.labels)
    expected = np.zeros(SHAPE, np.int32)
    expected[ORGAN] = 1
    np.testing.assert_array_equal(labels.data.numpy(), expected)
    assert labels.dtype == np.uint8
    np.testing.assert_allclose(labels.grid.affine, AFFINE)
    assert alone.labels == folder / "train" / "MR_labels" / "b.nii.gz"
    points = read_landmarks(mr.landmarks)
    assert points.names == read_landmarks(us.landmarks).names == ("3", "4")  # the second is empty in one modality
    np.testing.assert_allclose(points.points[0], (2 * 1.5 - 7, 2 + 1, 3 * 4.5 + 10))
    np.testing.assert_allclose(read_landmarks(us.landmarks).points[0], (2 * 3 - 7, 1, 10))
    write_cohort(cohort, out)
    assert [scan.files for scan in read_cohort(out).scans] == [scan.files for scan in cohort.scans]


def test_nothing_is_written_where_no_folder_is_given(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    a, _, b, *_ = LAYOUTS["stacks"](folder).scans
    assert a.labels is None
    assert b.labels is not None
    assert sorted(folder.rglob("*")) == before


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"E-COH-033: more: no images"):
        gathered("stacks", folder / "more", tmp_path)
    lost = folder / "train" / "us_labels" / "e.nii.gz"
    volume(lost, masks(ORGAN))
    with pytest.raises(InputError, match=r"E-COH-033: train: masks without an image: e \(us\)"):
        gathered("stacks", folder, tmp_path)
    lost.unlink()
    volume(folder / "test" / "MR_images" / "b.nii.gz", np.ones(SHAPE, np.uint8))
    with pytest.raises(InputError, match=r"E-COH-033: train: cases of another folder: b"):
        gathered("stacks", folder, tmp_path)
    (folder / "test" / "MR_images" / "b.nii.gz").unlink()
    volume(folder / "train" / "us_images" / "c.nii", np.ones(SHAPE, np.uint8))
    with pytest.raises(InputError, match=r"E-COH-033: us_images: c\.nii and c\.nii\.gz of one case"):
        gathered("stacks", folder, tmp_path)
    (folder / "train" / "us_images" / "c.nii").unlink()
    volume(folder / "train" / "us_labels" / "a.nii.gz", masks(None, BOX))
    with pytest.raises(InputError, match=r"E-COH-033: a\.nii\.gz: an empty first mask"):
        gathered("stacks", folder, tmp_path)
