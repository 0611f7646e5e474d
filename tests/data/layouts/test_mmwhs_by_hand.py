"""MM-WHS's own folders, and folders of images and labels as programs for it and for CHAOS take them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anamorph.data.layouts import LAYOUTS
from anamorph.errors import InputError

Dataset = Callable[..., Path]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """``dataset(*files)``: a folder with these files, which nobody opens."""

    def make(*files: str) -> Path:
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def rows(folder: Path) -> list[tuple[str, str, str, str | None, str]]:
    """Case, modality, names of the files, split."""
    return [
        (s.case, s.modality, s.image.name, s.labels and s.labels.name, s.split) for s in LAYOUTS["mmwhs"](folder).scans
    ]


def test_folders_of_the_challenge(dataset: Dataset) -> None:
    """Encrypted labels are none; what else lies about is passed over."""
    folder = dataset(
        "ct_train/ct_train_1001_image.nii.gz", "ct_train/ct_train_1001_label.nii.gz",
        "ct_train/ct_train_1002_image.nii", "mr_train/mr_train_1001_image.nii.gz",
        "mr_train/mr_train_1001_label.nii.gz", "ct_test/ct_test_2001_image.nii.gz",
        "ct_test/ct_test_2001_label_encrypt_1mm.nii.gz", "ct_train/readme.txt", "ct_train/.ct_train_9_image.nii.gz",
        "other/ct_train_1003_image.nii.gz",
    )  # fmt: skip
    assert rows(folder) == [
        ("ct_test_2001", "ct", "ct_test_2001_image.nii.gz", None, "test"),
        ("ct_train_1001", "ct", "ct_train_1001_image.nii.gz", "ct_train_1001_label.nii.gz", "train"),
        ("ct_train_1002", "ct", "ct_train_1002_image.nii", None, "train"),
        ("mr_train_1001", "mr", "mr_train_1001_image.nii.gz", "mr_train_1001_label.nii.gz", "train"),
    ]
    names = LAYOUTS["mmwhs"](folder).label_names
    assert (sorted(names), names[500], names[205]) == (
        [205, 420, 500, 550, 600, 820, 850], "left ventricle", "left ventricular myocardium",
    )  # fmt: skip
    assert [row[0] for row in rows(folder / "ct_train")] == ["ct_train_1001", "ct_train_1002"]


def test_folders_of_images_and_labels(dataset: Dataset) -> None:
    """A number that a CT and an MR share is no person; files are told apart by a word, or by their folder alone."""
    folder = dataset(
        "ct-image/ct_train_1001_image.nii.gz", "ct-label/ct_train_1001_label.nii.gz",
        "mr-image/mr_train_1001_image.nii.gz", "mr-label/mr_train_1001_label.nii.gz",
        "mr-test-image/mr_test_2001_image.nii.gz",
    )  # fmt: skip
    assert rows(folder) == [
        ("ct_train_1001", "ct", "ct_train_1001_image.nii.gz", "ct_train_1001_label.nii.gz", "train"),
        ("mr_test_2001", "mr", "mr_test_2001_image.nii.gz", None, "test"),
        ("mr_train_1001", "mr", "mr_train_1001_image.nii.gz", "mr_train_1001_label.nii.gz", "train"),
    ]
    assert LAYOUTS["mmwhs"](folder).label_names[420] == "left atrium"


def test_folders_of_chaos(dataset: Dataset) -> None:
    folder = dataset(
        "ct-image/1.nii.gz", "ct-label/1.nii.gz", "mr-image/img_1.nii.gz", "mr-label/lab_1.nii.gz",
        "t1_in-image/imagesque.nii", "mr-image/image7.nii", "mr-label/label7.nii", "notes/1.nii.gz",
    )  # fmt: skip
    assert rows(folder) == [
        ("ct_1", "ct", "1.nii.gz", "1.nii.gz", "train"),
        ("mr_1", "mr", "img_1.nii.gz", "lab_1.nii.gz", "train"),
        ("mr_7", "mr", "image7.nii", "label7.nii", "train"),
        ("t1_in_imagesque", "t1_in", "imagesque.nii", None, "train"),
    ]
    assert LAYOUTS["mmwhs"](folder).label_names == {}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "no images, expected ct_train/ct_train_1001_image"),
        (["ct_train/case_image.nii.gz"], "no images"),
        (["mr_train/mr_train_1001_label.nii.gz"], "1 labels without an image: mr_train_1001"),
        (["ct-image/1.nii.gz", "ct-image/1.nii"], r"1\.nii and 1\.nii\.gz of one case"),
        (["ct-image/1.nii.gz", "ct-test-image/1.nii.gz"], "ct_1 in train and in test"),
    ],
)
def test_what_is_no_mmwhs(files: list[str], found: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=f"E-COH-033: .*{found}"):
        LAYOUTS["mmwhs"](dataset(*files))
