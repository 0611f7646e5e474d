"""BIDS datasets: names as the specification and fMRIPrep write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anamorph.data.cohort import Cohort
from anamorph.data.layouts import LAYOUTS
from anamorph.errors import AnamorphWarning, InputError

Dataset = Callable[..., Path]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """``dataset(*files)``: a folder with these (empty) files; ``01/T1w`` stands for subject 01's T1."""

    def make(*files: str) -> Path:
        for name in files:
            subject, _, suffix = name.partition("/")
            if subject.isdigit():
                name = f"sub-{subject}/anat/sub-{subject}_{suffix}.nii.gz"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def read(folder: Path) -> Cohort:
    return LAYOUTS["bids"](folder)


def names(cohort: Cohort) -> list[str]:
    return [scan.name for scan in cohort.scans]


def test_modalities_by_suffix(dataset: Dataset) -> None:
    folder = dataset("01/T1w", "01/T2w", "01/FLAIR", "02/PDw", "02/T1map", "sub-02/func/sub-02_task-x_bold.nii.gz")
    (folder / "sub-02/anat/sub-02_PDw.json").touch()
    cohort = read(dataset("sub-03/ct/sub-03_ct.nii", "sub-04/anat/readme.txt"))
    assert names(cohort) == ["sub-01_flair", "sub-01_t1", "sub-01_t2", "sub-02_pd", "sub-03_ct"]
    assert cohort.scans[1].image == folder / "sub-01/anat/sub-01_T1w.nii.gz"
    assert {scan.split for scan in cohort.scans} == {"train"}


def test_sessions_are_cases_of_one_subject(dataset: Dataset) -> None:
    cohort = read(dataset(*[f"sub-{s}/ses-{t}/anat/sub-{s}_ses-{t}_T1w.nii.gz" for s in "ab" for t in "12"]))
    assert cohort.cases == ("sub-a_ses-1", "sub-a_ses-2", "sub-b_ses-1", "sub-b_ses-2")
    drawn = cohort.divided(test=0.5)
    assert len(drawn.of_split("test").cases) == 2
    assert len({case[:5] for case in drawn.of_split("test").cases}) == 1


def test_of_repeated_runs_the_first_is_taken(dataset: Dataset) -> None:
    folder = dataset("01/run-10_T1w", "01/run-2_T1w", "02/T1w")
    with pytest.warns(AnamorphWarning, match=r"W-COH-033: 1 files left out.*: sub-01_run-10_T1w\.nii\.gz"):
        cohort = read(folder)
    assert [scan.image.name for scan in cohort.scans] == ["sub-01_run-2_T1w.nii.gz", "sub-02_T1w.nii.gz"]
    assert names(cohort) == ["sub-01_t1", "sub-02_t1"]


def test_entities_join_the_modality_where_they_tell_images_apart(dataset: Dataset) -> None:
    cohort = read(dataset("01/T1w", "01/ce-gad_T1w", "02/T1w", "02/acq-tse_T2w"))
    assert names(cohort) == ["sub-01_t1", "sub-01_t1-gad", "sub-02_t1", "sub-02_t2"]


def test_segmentations_and_masks_of_the_derivatives(dataset: Dataset) -> None:
    there = "derivatives/fmriprep/sub-01/anat/sub-01"
    elsewhere = f"{there}_space-MNI152NLin2009cAsym"
    folder = dataset(
        "01/T1w", "01/T2w", "02/T2w", f"{there}_dseg.nii.gz", f"{there}_desc-brain_mask.nii.gz",
        f"{elsewhere}_dseg.nii.gz", f"{elsewhere}_desc-brain_mask.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_space-T2w_label-lesion_mask.nii.gz",
        "derivatives/manual/sub-02/anat/sub-02_dseg.nii.gz",
    )  # fmt: skip
    t1, t2, other = read(folder).scans
    assert t1.labels == folder / f"{there}_dseg.nii.gz"
    assert t1.mask == folder / f"{there}_desc-brain_mask.nii.gz"
    assert t2.labels == folder / "derivatives/manual/sub-01/anat/sub-01_space-T2w_label-lesion_mask.nii.gz"
    assert t2.mask is None
    assert other.labels == folder / "derivatives/manual/sub-02/anat/sub-02_dseg.nii.gz"


def test_the_plainest_segmentation_is_taken_and_the_others_named(dataset: Dataset) -> None:
    there = "derivatives/fmriprep/sub-01/anat/sub-01"
    folder = dataset("01/T1w", f"{there}_desc-aseg_dseg.nii.gz", f"{there}_dseg.nii.gz")
    with pytest.warns(AnamorphWarning, match=r"W-COH-033: 1 files left out.*: sub-01_desc-aseg_dseg\.nii\.gz"):
        (scan,) = read(folder).scans
    assert scan.labels == folder / f"{there}_dseg.nii.gz"


def test_a_segmentation_of_another_run_or_session_belongs_to_none(dataset: Dataset) -> None:
    derived = "derivatives/x/sub-01/anat/sub-01"
    folder = dataset("01/run-1_T1w", f"{derived}_run-2_dseg.nii.gz", f"{derived}_ses-2_dseg.nii.gz")
    (scan,) = read(folder).scans
    assert scan.labels is None


def test_splits_and_absent_participants(dataset: Dataset) -> None:
    folder = dataset("01/T1w", "02/T1w", "03/T1w")
    table = "participant_id\tage\tsplit\nsub-01\t7\ttest\nsub-02\t8\tn/a\nsub-09\t9\ttrain\n"
    (folder / "participants.tsv").write_text(table)
    with pytest.warns(AnamorphWarning, match=r"W-COH-034: participants\.tsv: 1 participants without a folder: sub-09"):
        cohort = read(folder)
    assert [scan.split for scan in cohort.scans] == ["test", "train", "train"]
    (folder / "participants.tsv").write_text("participant_id\tsplit\nsub-01\tval\n")
    with pytest.raises(
        InputError, match=r"E-COH-003: participants\.tsv: sub-01: split 'val'.* did you mean validation"
    ):
        read(folder)
    (folder / "participants.tsv").write_bytes(b"participant_id\n\xff")
    with pytest.raises(InputError, match=r"E-COH-001: participants\.tsv: no table"):
        read(folder)


@pytest.mark.parametrize("files", [[], ["images/a.nii.gz"], ["sub-01/func/sub-01_bold.nii.gz"], ["01/T1map"]])
def test_what_is_no_bids_dataset(files: list[str], dataset: Dataset) -> None:
    with pytest.raises(InputError, match="E-COH-030"):
        read(dataset(*files))
