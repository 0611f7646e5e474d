"""Folders of patients: names of files, splits, and structures that become labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anamorph.data.cohort import Cohort
from anamorph.data.files import read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.layouts import LAYOUTS, gathered
from anamorph.errors import InputError

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def touched(folder: Path, *files: str) -> Path:
    """A folder with these files, which nobody opens."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def told(cohort: Cohort) -> list[str]:
    """One line a scan: case, modality, split, then its files."""
    return [
        " ".join([s.case, s.modality, s.split, *(f"{kind}={file.name}" for kind, file in s.files.items())])
        for s in cohort.scans
    ]


def test_one_folder_a_patient(tmp_path: Path) -> None:
    folder = touched(
        tmp_path,
        "p01/ct.nii.gz", "p01/mr.nii.gz", "p01/report.txt", "p01/.ct.nii.gz",
        "p02/p02_CT.nrrd", "p02/p02_MR_T1.nrrd", "p02/p02_CT_seg.nrrd", "p02/p02-MR_T1_mask.nii",
        "test/p03/p03_img_ct.mha", "test/p03/mr.mha", "test/p03/labels.mha", "test/p03/mr_landmarks.csv",
        "val/p04/ct.nii.gz", "val/p04/mr.nii.gz", "val/p04/ct_label.nii.gz", "val/p04/mr_segmentation.nii.gz",
        "notes/read_me.md",
    )  # fmt: skip
    assert told(LAYOUTS["patients"](folder)) == [
        "p01 ct train image=ct.nii.gz",
        "p01 mr train image=mr.nii.gz",
        "p02 ct train image=p02_CT.nrrd labels=p02_CT_seg.nrrd",
        "p02 mr_t1 train image=p02_MR_T1.nrrd mask=p02-MR_T1_mask.nii",
        "p03 ct test image=p03_img_ct.mha labels=labels.mha",
        "p03 mr test image=mr.mha labels=labels.mha landmarks=mr_landmarks.csv",
        "p04 ct validation image=ct.nii.gz labels=ct_label.nii.gz",
        "p04 mr validation image=mr.nii.gz labels=mr_segmentation.nii.gz",
    ]


def test_the_folder_above_will_do_where_one_alone_has_patients(tmp_path: Path) -> None:
    """As HaN-Seg is unpacked; with a second folder of patients, nobody knows which is meant."""
    folder = touched(tmp_path, "set_1/case_01/case_01_IMG_CT.nrrd", "set_1/test/case_02/ct.nii.gz", "notes/read_me.md")
    expected = ["case_01 ct train image=case_01_IMG_CT.nrrd", "case_02 ct test image=ct.nii.gz"]
    assert told(LAYOUTS["patients"](folder / "set_1")) == expected
    assert told(LAYOUTS["patients"](folder)) == expected
    touched(tmp_path, "set_2/case_03/ct.nii.gz")
    with pytest.raises(InputError, match=r"E-COH-033: .*patients in set_1, set_2, expected one of these folders"):
        LAYOUTS["patients"](folder)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Two patients with structures in the CT: in a folder; and by names as HaN-Seg's, on a smaller grid."""
    folder = tmp_path / "clinic"
    image = Image.from_array(np.random.default_rng(0).normal(size=(8, 8, 6)), AFFINE)
    box = np.zeros((8, 8, 6), np.uint8)
    box[2:5, 2:5, 1:4] = 1
    other = np.zeros_like(box)
    other[4:7, 2:5, 1:4] = 1
    (folder / "a" / "ct_structures").mkdir(parents=True)
    (folder / "b").mkdir()
    write(image, folder / "a" / "ct.nii.gz")
    write(image, folder / "a" / "mr.nii.gz")
    for name, values in (("parotid_l", box), ("parotid_r", other), ("cord", np.zeros_like(box))):
        write(Labelmap.from_array(values, AFFINE), folder / "a" / "ct_structures" / f"{name}.nii.gz")
    write(image, folder / "b" / "b_IMG_CT.nrrd")
    write(Labelmap.from_array(box[:6, :6, :5], AFFINE), folder / "b" / "b_OAR_parotid_r.seg.nrrd")
    return folder


def test_structures_become_labels_on_the_image_s_grid(clinic: Path, tmp_path: Path) -> None:
    cohort = gathered("patients", clinic, tmp_path / "out")
    assert cohort.label_names == {1: "cord", 2: "parotid_l", 3: "parotid_r"}
    files = {scan.name: scan.labels for scan in cohort.scans}
    assert files["a_mr"] is None
    first, second = (read_labels(tmp_path / "out" / "labels" / f"{name}_ct.nii.gz").data for name in "ab")
    assert files["a_ct"] == tmp_path / "out" / "labels" / "a_ct.nii.gz"
    assert (first[3, 3, 2], first[4, 3, 2], first[6, 3, 2], first[0, 0, 0]) == (2, 3, 3, 0)
    assert (first == 2).sum() == 2 * 3 * 3
    assert second.shape == (8, 8, 6)
    assert (second == 3).sum() == 27
    assert LAYOUTS["patients"](clinic).label_names == {}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "no images, expected PATIENT/ct.nii.gz"),
        (["ct.nii.gz"], "no images"),
        (["p/labels.nii.gz"], "labels, a mask or landmarks without an image"),
        (["p/ct.nii.gz", "p/mr_labels.nii.gz"], "labels, a mask, landmarks or structures of mr without its image"),
        (["p/ct.nii.gz", "p/mr_structures/cord.nii.gz"], "structures of mr without its image"),
        (["p/ct.nii.gz", "p/p_ct.nrrd"], r"ct\.nii\.gz and p_ct\.nrrd of one kind"),
        (["p/ct.nii.gz", "test/p/ct.nii.gz"], "patient p in two splits"),
    ],
)
def test_what_is_no_folder_of_patients(files: list[str], found: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"E-COH-033: .*{found}"):
        LAYOUTS["patients"](touched(tmp_path, *files))


def test_labels_and_structures_of_one_scan_are_one_too_many(clinic: Path, tmp_path: Path) -> None:
    touched(clinic, "a/ct_labels.nii.gz")
    with pytest.raises(InputError, match=r"ct_labels\.nii\.gz and structures of a \(ct\), expected either"):
        gathered("patients", clinic, tmp_path / "out")
