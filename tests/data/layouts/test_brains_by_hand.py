"""Brains as IXI, FreeSurfer and FSL FIRST leave them: which file becomes what, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anamorph.data.cohort import Cohort
from anamorph.data.layouts import LAYOUTS
from anamorph.errors import AnamorphWarning, InputError

Dataset = Callable[..., Path]
FIRST = "_all_fast_firstseg.nii.gz"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """``dataset(*files)``: a folder with these (empty) files."""

    def make(*files: str) -> Path:
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def rows(cohort: Cohort) -> list[tuple[str, str, str, str | None, str | None]]:
    """Case, modality and files, below the cohort's folder."""
    return [
        (
            scan.case,
            scan.modality,
            *(None if file is None else file.relative_to(cohort.root).as_posix() for file in (scan.image, scan.labels)),
            None if scan.mask is None else scan.mask.name,
        )
        for scan in cohort.scans
    ]


def test_ixi(dataset: Dataset) -> None:
    folder = dataset(
        "IXI-T1/IXI012-HH-1211-T1.nii.gz", "IXI-T2/IXI012-HH-1211-T2.nii.gz", "IXI002-Guys-0828-T1.nii.gz",
        "IXI-T2/IXI035-IOP-0873-T2.nii.gz", "IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz", "IXI.xls", "IXI-T1/readme.txt",
        f"labels/IXI002-Guys-0828-T1{FIRST}", "labels/more/IXI012-HH-1211.nii.gz", "labels/IXI035-IOP-0873_seg.nii",
        "masks/IXI012-HH-1211-T2.nii.gz",
    )  # fmt: skip
    cohort = LAYOUTS["ixi"](folder)
    assert rows(cohort) == [
        (
            "IXI002-Guys-0828",
            "t1",
            "IXI002-Guys-0828-T1.nii.gz",
            "labels/IXI002-Guys-0828-T1_all_fast_firstseg.nii.gz",
            None,
        ),
        ("IXI012-HH-1211", "t1", "IXI-T1/IXI012-HH-1211-T1.nii.gz", "labels/more/IXI012-HH-1211.nii.gz", None),
        ("IXI012-HH-1211", "t2", "IXI-T2/IXI012-HH-1211-T2.nii.gz", None, "IXI012-HH-1211-T2.nii.gz"),
        ("IXI035-IOP-0873", "t2", "IXI-T2/IXI035-IOP-0873-T2.nii.gz", "labels/IXI035-IOP-0873_seg.nii", None),
    ]
    assert cohort.label_names == {}  # not all of the labels are FIRST's
    assert {scan.split for scan in cohort.scans} == {"train"}


def test_ixi_s_labels_by_first_have_names(dataset: Dataset) -> None:
    folder = dataset("IXI002-Guys-0828-T1.nii.gz", f"labels/IXI002-Guys-0828-T1{FIRST}")
    assert LAYOUTS["ixi"](folder).label_names[58] == "Right-Accumbens-area"


def test_one_hospital_of_ixi_for_the_test(dataset: Dataset) -> None:
    cases = ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI035-IOP-0873", "IXI036-Guys-0736")
    cohort = LAYOUTS["ixi"](dataset(*[f"{case}-{kind}.nii.gz" for case in cases for kind in ("T1", "T2")]))
    apart = cohort.with_test(["*-IOP-*", "*-HH-*"])
    assert apart.of_split("test").cases == ("IXI012-HH-1211", "IXI035-IOP-0873")
    assert apart.of_split("train").cases == ("IXI002-Guys-0828", "IXI036-Guys-0736")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "no images"),
        (["IXI002-Guys-0828-DTI-00.nii.gz"], "no images"),
        (["labels/IXI002-Guys-0828-T1.nii.gz"], "no images"),
        (["a/IXI002-Guys-0828-T1.nii.gz", "b/IXI002-Guys-0828-T1.nii"], "of one image"),
        (["IXI002-Guys-0828-T1.nii.gz", "labels/IXI003-Guys-0829-T1.nii.gz"], "1 files without an image"),
        (["IXI002-Guys-0828-T2.nii.gz", "labels/IXI002-Guys-0828-T1.nii.gz"], "1 files without an image"),
        (
            [
                "IXI002-Guys-0828-T1.nii.gz",
                "labels/IXI002-Guys-0828-T1_a.nii.gz",
                "labels/IXI002-Guys-0828-T1_b.nii.gz",
            ],
            "of one image",
        ),
    ],
)
def test_what_is_no_ixi(files: list[str], found: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=f"E-COH-033: .*{found}"):
        LAYOUTS["ixi"](dataset(*files))


def test_a_study_of_freesurfer(dataset: Dataset) -> None:
    folder = dataset(
        "s2/mri/norm.mgz", "s2/mri/T1.mgz", "s2/mri/aseg.mgz", "s1/mri/norm.nii.gz", "s1/mri/brain.mgz",
        "fsaverage/mri/norm.mgz", "s1.long.base/mri/norm.mgz", "s2/surf/lh.pial", "notes/norm.mgz", "log.txt",
    )  # fmt: skip
    cohort = LAYOUTS["freesurfer"](folder)
    assert rows(cohort) == [
        ("s1", "t1", "s1/mri/norm.nii.gz", None, None),
        ("s2", "t1", "s2/mri/norm.mgz", "s2/mri/aseg.mgz", None),
    ]
    assert (cohort.label_names[10], cohort.label_names[42]) == ("Left-Thalamus", "Right-Cerebral-Cortex")
    assert list(cohort.label_names) == sorted(cohort.label_names)


def test_all_subjects_have_the_same_kind_of_image(dataset: Dataset) -> None:
    folder = dataset("a/mri/norm.mgz", "b/mri/brain.mgz", "c/mri/brain.mgz", "c/mri/norm.mgz", "d/mri/brain.mgz")
    with pytest.warns(AnamorphWarning, match=r"W-COH-036: .*1 subjects without mri/brain left out: a$"):
        cohort = LAYOUTS["freesurfer"](folder)
    assert [scan.image.name for scan in cohort.scans] == ["brain.mgz"] * 3
    assert cohort.label_names == {}


@pytest.mark.parametrize("files", [[], ["s1/mri/aseg.mgz"], ["fsaverage/mri/norm.mgz"], ["mri/norm.mgz"]])
def test_what_is_no_study_of_freesurfer(files: list[str], dataset: Dataset) -> None:
    with pytest.raises(InputError, match="E-COH-033"):
        LAYOUTS["freesurfer"](dataset(*files))


def test_first_beside_the_images_and_in_folders(dataset: Dataset) -> None:
    folder = dataset(
        f"p2{FIRST}", "p2.nii.gz", "p2_all_fast_origsegs.nii.gz",
        f"p1/t1{FIRST}", "p1/t1_brain.nii.gz", "p1/t1-L_Accu_first.nii.gz",
        f"1000_20252_2_0/T1/T1_first/T1_first{FIRST}",
        "1000_20252_2_0/T1/T1_brain.nii.gz", "1000_20252_2_0/T1/T1.nii.gz",
    )  # fmt: skip
    cohort = LAYOUTS["first"](folder)
    assert rows(cohort) == [
        (
            "1000_20252_2_0",
            "t1",
            "1000_20252_2_0/T1/T1_brain.nii.gz",
            f"1000_20252_2_0/T1/T1_first/T1_first{FIRST}",
            None,
        ),
        ("p1", "t1", "p1/t1_brain.nii.gz", f"p1/t1{FIRST}", None),
        ("p2", "t1", "p2.nii.gz", f"p2{FIRST}", None),
    ]
    assert len(cohort.label_names) == 15
    assert cohort.label_names[16] == "Brain-Stem"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["p1.nii.gz"], "nothing that FIRST has labelled"),
        ([f"p1{FIRST}", "p2.nii.gz"], "without its image"),
        ([f"p1/sub/t1{FIRST}", "t1.nii.gz"], "without its image"),  # of no subject's folder
        ([f"p1/a{FIRST}", f"p1/b{FIRST}", "p1/a.nii.gz", "p1/b.nii.gz"], "two labellings of p1"),
    ],
)
def test_what_is_not_first_s(files: list[str], found: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=f"E-COH-033: .*{found}"):
        LAYOUTS["first"](dataset(*files))
