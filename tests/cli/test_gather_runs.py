"""``anamorph gather``: from somebody's layout to a table that ``check`` and everything after it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.data.cohort_files import NAME, read_cohort
from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap

Run = Callable[..., Any]
AFFINE = np.diag([1, 1.5, 2, 1.0])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Ten training cases and two test cases of one channel, in nnU-Net's layout."""
    folder = tmp_path / "Dataset001_Balls"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        part = "Tr" if number < 10 else "Ts"
        values = np.random.default_rng(number).normal(100, 20, (5, 6, 7))
        write(Image.from_array(values, AFFINE), folder / f"images{part}" / f"b{number:02}_0000.nii.gz")
        if part == "Tr":
            labels = Labelmap.from_array((values > 100).astype(np.uint8), AFFINE)
            write(labels, folder / "labelsTr" / f"b{number:02}.nii.gz")
    description = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "ball": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def counts(folder: Path) -> list[int]:
    cohort = read_cohort(folder)
    return [len(cohort.of_split(split).cases) for split in ("train", "validation", "test")]


def test_a_raw_dataset_becomes_a_cohort_that_check_reads(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("gather", "nnunet", dataset, "--out", tmp_path / "cohort", "--validation-share", "0.2")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "12 cases: 8 train, 2 validation, 2 test",
        "  t1: 12 scans, 10 with labels",
        "written: cohort/cohort.csv; anamorph check tells what is in the files",
    ]
    assert counts(tmp_path / "cohort") == [8, 2, 2]
    table = (tmp_path / "cohort" / NAME).read_text()
    assert "b10,t1,../Dataset001_Balls/imagesTs/b10_0000.nii.gz,,,,test\n" in table
    assert str(tmp_path) not in table
    assert anamorph("check", tmp_path / "cohort").code == 0


def test_a_share_for_test_replaces_the_dataset_s_own(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("gather", "nnunet", dataset, "--out", tmp_path / "c", "--test-share", "0.3", "--seed", "1")
    assert ended.code == 0
    assert ended.out.startswith("left out: 2 test cases of the dataset, since others are asked for\n")
    assert counts(tmp_path / "c") == [7, 0, 3]
    again = tmp_path / "again"
    anamorph("gather", "nnunet", dataset, "--out", again, "--test-share", "0.3", "--seed", "1")
    assert (again / NAME).read_text() == (tmp_path / "c" / NAME).read_text()


def test_the_last_subjects_by_name(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("gather", "nnunet", dataset, "--out", tmp_path / "c", "--test-last", "3", "--validation-last", "2")
    assert ended.code == 0
    cohort = read_cohort(tmp_path / "c")
    assert cohort.of_split("test").cases == ("b07", "b08", "b09")
    assert cohort.of_split("validation").cases == ("b05", "b06")
    assert len(cohort.cases) == 10


def test_folders_of_files_of_one_name(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    (dataset / "labelsTr").rename(dataset / "labels")
    (dataset / "imagesTr").rename(dataset / "images")
    for file in (dataset / "images").iterdir():
        file.rename(file.parent / file.name.replace("_0000", ""))
    assert anamorph("gather", "folders", dataset, "--out", tmp_path / "c", "--modality", "t1").code == 0
    cohort = read_cohort(tmp_path / "c")
    assert [scan.name for scan in cohort.scans] == [f"b{number:02}_t1" for number in range(10)]
    assert all(scan.labels is not None for scan in cohort.scans)


def test_a_name_for_the_only_modality(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    assert anamorph("gather", "nnunet", dataset, "--out", tmp_path / "c", "--modality", "t2").code == 0
    assert read_cohort(tmp_path / "c").modalities == ("t2",)
    for modality, code in (("../t2", "E-COH-004"), ("", "E-COH-004")):
        ended = anamorph("gather", "nnunet", dataset, "--out", tmp_path / "d", "--modality", modality)
        assert (ended.code, ended.err[:9]) == (3, code)
    (dataset / "dataset.json").write_text('{"channel_names": {"0": "T1", "1": "T2"}}')
    for number in range(12):
        part = dataset / ("imagesTr" if number < 10 else "imagesTs")
        (part / f"b{number:02}_0001.nii.gz").write_bytes((part / f"b{number:02}_0000.nii.gz").read_bytes())
    ended = anamorph("gather", "nnunet", dataset, "--out", tmp_path / "d", "--modality", "t2")
    assert (ended.code, ended.err[:9]) == (3, "E-COH-035")


def test_labels_keep_the_names_that_the_dataset_gives_them(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    assert anamorph("gather", "nnunet", dataset, "--out", tmp_path / "c").code == 0
    assert read_cohort(tmp_path / "c").label_names == {1: "ball"}


def test_the_cases_of_one_site_for_the_test(tmp_path: Path, anamorph: Run) -> None:
    image = Image.from_array(np.random.default_rng(0).normal(size=(5, 6, 7)), AFFINE)
    (tmp_path / "ixi").mkdir()
    for case in ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI035-IOP-0873", "IXI040-Guys-0724"):
        write(image, tmp_path / "ixi" / f"{case}-T1.nii.gz")
    command = ("gather", "ixi", tmp_path / "ixi", "--out", tmp_path / "c", "--test-cases", "*-IOP-*", "*-HH-*")
    ended = anamorph(*command, "--validation-last", "1")
    assert (ended.code, ended.err) == (0, "")
    assert counts(tmp_path / "c") == [1, 1, 2]
    assert read_cohort(tmp_path / "c").of_split("test").cases == ("IXI012-HH-1211", "IXI035-IOP-0873")
    ended = anamorph(*command, "--force", "--test-last", "1")
    assert (ended.code, ended.err[:9]) == (2, "E-CFG-010")


def test_cases_by_name_and_contrast_and_labels_as_one(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    """Of ten training cases and two for test two are left out by name, and of the ten that remain the middle half."""
    command = ("gather", "nnunet", dataset, "--out", tmp_path / "c", "--modalities", "t1", "--exclude", "b03", "b11")
    ended = anamorph(*command, "--usual-contrast", "t1", "--merge", "1=2")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("left out: 7 of 12 cases\n5 cases: ")
    cohort = read_cohort(tmp_path / "c")
    assert not {"b03", "b11"} & set(cohort.cases)
    assert cohort.label_names == {2: "ball"}
    labelled = [scan.labels for scan in cohort.scans if scan.labels]
    assert labelled
    assert {file.parent for file in labelled} == {(tmp_path / "c" / "merged").resolve()}


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--usual-share", "0.4"), "E-CFG-010"),
        (("--merge", "1"), "E-CFG-010"),
        (("--modalities", "ct"), "E-COH-056"),
        (("--exclude", "c*"), "E-COH-037"),
        (("--exclude", "b*"), "E-COH-054"),
        (("--merge", "7=1"), "E-COH-055"),
    ],
)
def test_a_selection_that_cannot_be(flags: tuple, code: str, dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("gather", "nnunet", dataset, "--out", tmp_path / "c", *flags)
    assert ended.code in (2, 3)
    assert ended.err.startswith(code)


def test_a_table_is_not_replaced_unasked(dataset: Path, tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / NAME).write_text("mine")
    ended = anamorph("gather", "nnunet", dataset, "--out", tmp_path)
    assert (ended.code, ended.err[:23]) == (2, "E-OUT-016: cohort.csv: ")
    assert (tmp_path / NAME).read_text() == "mine"
    assert anamorph("gather", "nnunet", dataset, "--out", tmp_path, "--force").code == 0
    assert counts(tmp_path) == [10, 0, 2]


def test_a_bids_dataset(tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "ds/sub-01/anat").mkdir(parents=True)
    image = Image.from_array(np.random.default_rng(0).normal(size=(5, 6, 7)), AFFINE)
    write(image, tmp_path / "ds/sub-01/anat/sub-01_T1w.nii.gz")
    assert anamorph("gather", "bids", tmp_path / "ds", "--out", tmp_path / "c").code == 0
    assert [scan.name for scan in read_cohort(tmp_path / "c").scans] == ["sub-01_t1"]


def test_links_to_nothing_are_named(tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "ds/sub-01/anat").mkdir(parents=True)
    (tmp_path / "ds/sub-01/anat/sub-01_T1w.nii.gz").symlink_to("../../.git/annex/objects/x")
    ended = anamorph("gather", "bids", tmp_path / "ds", "--out", tmp_path / "c")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("E-COH-006: ds: 1 of 1 files are missing: sub-01/anat/sub-01_T1w.nii.gz; fetch")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nnunet", "absent", "--out", "c"], 3, "E-COH-030: dataset.json: no such file"),
        (["bids", "absent", "--out", "c"], 3, "E-COH-030: absent: no folders sub-*"),
        (
            ["nnUnet", "x", "--out", "c"],
            2,
            "E-CFG-010: LAYOUT: found nnUnet, expected nnunet, bids, learn2reg, chaos, mmwhs, brats, ixi, freesurfer, "
            "first, patients, splits, stacks or folders; did",
        ),
        (["bids", "x", "--out", "c", "--test-share", "1"], 2, "E-CFG-010: --test-share: found 1, expected less than 1"),
        (
            ["bids", "x", "--out", "c", "--test-share", "0.5", "--validation-share", "0.5"],
            2,
            "E-CFG-010: values that do not fit each other: the shares leave nothing to train on",
        ),
        (
            ["bids", "x", "--out", "c", "--test-share", "0.5", "--validation-last", "5"],
            2,
            "E-CFG-010: values that do not fit each other: either shares, or the last so many",
        ),
    ],
)
def test_what_is_refused(
    arguments: list[str], code: int, line: str, anamorph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = anamorph("gather", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(line)
    assert list(tmp_path.iterdir()) == []
