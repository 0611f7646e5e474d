"""Folders of images with labels, masks and landmarks of the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from anamorph.data.layouts import LAYOUTS
from anamorph.errors import AnamorphWarning, InputError


def made(folder: Path, *files: str) -> Path:
    """A folder with these empty files."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_files_of_one_name_are_one_scan(tmp_path: Path) -> None:
    folder = made(
        tmp_path, "images/b.nii.gz", "images/a.nrrd", "labels/b.nii.gz", "masks/a.nii", "landmarks/b.mrk.json",
    )  # fmt: skip
    a, b = LAYOUTS["folders"](folder).scans
    assert (a.name, a.split, a.labels, a.landmarks) == ("a_image", "train", None, None)
    assert (a.image, a.mask) == (tmp_path / "images/a.nrrd", tmp_path / "masks/a.nii")
    assert (b.image, b.labels, b.mask) == (tmp_path / "images/b.nii.gz", tmp_path / "labels/b.nii.gz", None)
    assert b.landmarks == tmp_path / "landmarks/b.mrk.json"


def test_a_folder_below_is_a_modality(tmp_path: Path) -> None:
    folder = made(
        tmp_path, "images/CT/a.nii.gz", "images/mr/a.nii.gz", "images/mr/b.nii.gz", "labels/ct/a.nii.gz",
    )  # fmt: skip
    cohort = LAYOUTS["folders"](folder)
    assert [scan.name for scan in cohort.scans] == ["a_ct", "a_mr", "b_mr"]
    assert [scan.labels is not None for scan in cohort.scans] == [True, False, False]
    assert [pair.name for pair in cohort.pairs("within")] == ["a_ct-a_mr", "a_mr-a_ct"]


def test_a_name_may_have_dots_and_a_header_its_data_beside_it(tmp_path: Path) -> None:
    folder = made(
        tmp_path, "images/p.1.nii.gz", "images/p.2.nii.gz", "images/c.hdr", "images/c.img", "images/d.mhd",
        "images/d.raw", "images/.hidden.nii", "images/Thumbs.db", "images/README.txt",
    )  # fmt: skip
    assert LAYOUTS["folders"](folder).cases == ("c", "d", "p.1", "p.2")


def test_a_name_is_made_fit_for_files(tmp_path: Path) -> None:
    with pytest.warns(AnamorphWarning, match="W-COH-004"):
        cohort = LAYOUTS["folders"](made(tmp_path, "images/=a.nii.gz"))
    assert cohort.cases == ("a",)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "no images, expected images/CASE.nii.gz"),
        (("a.nii.gz",), "no images"),
        (("images/notes.txt",), "no images"),
        (("images/a.nii", "images/a.nrrd"), "a.nii and a.nrrd of one case"),
        (("images/a.nii", "labels/b.nii"), "labels of b (image) without an image, expected"),
        (("images/a.nii", "labels/b.nii", "labels/c.nii"), "labels of b (image) without an image (and 1 more)"),
        (("images/ct/a.nii", "labels/a.nii"), "labels of a (image) without an image"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        LAYOUTS["folders"](made(tmp_path, *files))
    assert caught.value.code == "E-COH-033"
    assert words in str(caught.value)


def test_no_folder_is_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E-COH-033"):
        LAYOUTS["folders"](tmp_path / "nowhere")
