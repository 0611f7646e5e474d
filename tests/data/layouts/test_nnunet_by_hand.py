"""nnU-Net's raw datasets as its documentation lays them out, and what is no such folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anamorph.data.cohort import Cohort
from anamorph.data.layouts import LAYOUTS
from anamorph.errors import AnamorphWarning, InputError

Dataset = Callable[..., Path]
V2 = {
    "channel_names": {"0": "T2", "1": "ADC"},
    "labels": {"background": 0, "PZ": 1, "TZ": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
V1 = {
    "name": "Hippocampus",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior"},
    "numTraining": 2,
    "training": [{"image": "./imagesTr/h_001.nii.gz", "label": "./labelsTr/h_001.nii.gz"}],
    "test": ["./imagesTs/h_002.nii.gz"],
}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """``dataset(description, *files)``: a folder with these (empty) files."""

    def make(description: Any, *files: str) -> Path:
        folder = tmp_path / "Dataset005_Prostate"
        folder.mkdir(exist_ok=True)
        if description is not None:
            text = description if isinstance(description, str) else json.dumps(description)
            (folder / "dataset.json").write_text(text)
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        return folder

    return make


def read(folder: Path) -> Cohort:
    return LAYOUTS["nnunet"](folder)


def rows(cohort: Cohort) -> list[tuple[str, str, str, str | None, str]]:
    """Case, modality, image, labels and split, files without their folder."""
    return [(s.case, s.modality, s.image.name, s.labels and s.labels.name, s.split) for s in cohort.scans]


def test_version_2_with_two_channels(dataset: Dataset) -> None:
    folder = dataset(
        V2, "imagesTr/p_02_0000.nii.gz", "imagesTr/p_02_0001.nii.gz", "imagesTr/p_00_0000.nii.gz",
        "imagesTr/p_00_0001.nii.gz", "labelsTr/p_00.nii.gz", "labelsTr/p_02.nii.gz", "imagesTs/p_01_0000.nii.gz",
        "imagesTs/p_01_0001.nii.gz", "imagesTr/._p_00_0000.nii.gz", "imagesTr/notes.txt",
    )  # fmt: skip
    assert rows(read(folder)) == [
        ("p_00", "adc", "p_00_0001.nii.gz", "p_00.nii.gz", "train"),
        ("p_00", "t2", "p_00_0000.nii.gz", "p_00.nii.gz", "train"),
        ("p_01", "adc", "p_01_0001.nii.gz", None, "test"),
        ("p_01", "t2", "p_01_0000.nii.gz", None, "test"),
        ("p_02", "adc", "p_02_0001.nii.gz", "p_02.nii.gz", "train"),
        ("p_02", "t2", "p_02_0000.nii.gz", "p_02.nii.gz", "train"),
    ]


def test_version_1_with_and_without_the_channel_number(dataset: Dataset) -> None:
    files = ["imagesTr/h_001.nii.gz", "labelsTr/h_001.nii.gz", "imagesTr/h_003_0000.nii.gz", "imagesTs/h_002.nii.gz"]
    folder = dataset(V1, *files, "labelsTs/h_002.nii.gz")
    assert rows(read(folder)) == [
        ("h_001", "mri", "h_001.nii.gz", "h_001.nii.gz", "train"),
        ("h_002", "mri", "h_002.nii.gz", "h_002.nii.gz", "test"),
        ("h_003", "mri", "h_003_0000.nii.gz", None, "train"),
    ]


def test_another_ending(dataset: Dataset) -> None:
    folder = dataset(
        V2 | {"channel_names": {"0": "CT"}, "file_ending": ".png"}, "imagesTr/a_0000.png", "labelsTr/a.png"
    )
    assert rows(read(folder)) == [("a", "ct", "a_0000.png", "a.png", "train")]


def test_files_that_lie_elsewhere(dataset: Dataset, tmp_path: Path) -> None:
    listed = {"a": {"images": ["../store/x.nii.gz", str(tmp_path / "y.nii.gz")], "label": "../store/z.nii.gz"}}
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "z.nii.gz").touch()
    cohort = read(dataset(V2 | {"dataset": listed}))
    assert rows(cohort) == [
        ("a", "adc", "y.nii.gz", "z.nii.gz", "train"),
        ("a", "t2", "x.nii.gz", "z.nii.gz", "train"),
    ]
    assert cohort.scans[0].image == tmp_path / "y.nii.gz"


def test_channels_of_one_name_are_told_apart(dataset: Dataset) -> None:
    folder = dataset(
        V2 | {"channel_names": {"0": "zscore", "1": "zscore"}}, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"
    )
    assert [scan.modality for scan in read(folder).scans] == ["zscore0", "zscore1"]


def test_s10_a_channel_name_that_is_no_file_name(dataset: Dataset) -> None:
    folder = dataset(V2 | {"channel_names": {"0": "T1/T2"}}, "imagesTr/a_0000.nii.gz")
    with pytest.warns(AnamorphWarning, match=r"W-COH-004: the name 't1/t2' becomes 't1-t2'"):
        assert read(folder).modalities == ("t1-t2",)


def test_a_case_without_one_of_its_channels(dataset: Dataset) -> None:
    folder = dataset(V2, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz")
    with pytest.warns(AnamorphWarning, match=r"W-COH-031: dataset\.json: 1 cases lack a channel: a$"):
        assert len(read(folder).scans) == 3


@pytest.mark.parametrize(
    ("description", "files", "match"),
    [
        (None, [], r"dataset\.json: no such file"),
        ("{", [], "no JSON"),
        ("[]", [], "JSON of a list"),
        ("[" * 100_000, [], "no JSON"),
        ({"labels": {}}, [], r"no channel_names \(version 2\) or modality"),
        ({"channel_names": ["T2"]}, [], "no channel_names"),
        ({"channel_names": {"first": "T2"}}, [], "no channel_names"),
        (V2 | {"file_ending": "nii"}, [], "file_ending 'nii'"),
        (V2 | {"dataset": {"a": {}}}, [], "a dataset entry"),
        (V2 | {"dataset": [1]}, [], "a dataset entry"),
        (V2, [], r"no images in \.nii\.gz"),
        (V2, ["imagesTr/a_0000.nii"], r"no images in \.nii\.gz"),
        (V2, ["imagesTr/a_0002.nii.gz"], "is channel 2, expected one of 0, 1"),
        (V2, ["imagesTr/BRATS_001.nii.gz"], r"imagesTr/BRATS_001\.nii\.gz without the number of its channel"),
    ],
)
def test_what_is_no_raw_dataset(description: Any, files: list[str], match: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read(dataset(description, *files))
    assert str(caught.value).startswith("E-COH-030: dataset.json: ")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E-COH-030"):
        read(tmp_path / "absent")
