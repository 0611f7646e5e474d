"""Folders named after the splits: the letters of Atlas-ISTN, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from anamorph.data.files import read_labels
from anamorph.data.layouts import LAYOUTS
from anamorph.errors import InputError


def touch(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_letters_of_the_paper(tmp_path: Path) -> None:
    names = ("train/B1", "train/B2", "test_clean/B1041", "test_corrupt/B1041")
    folder = touch(
        tmp_path,
        *[f"{name}_{kind}.png" for name in names for kind in ("img", "seg")],
        "extra/B9_img.png",
        "more/B8_img.png",
    )
    found = [
        (scan.case, scan.modality, scan.split, scan.image.name, scan.labels and scan.labels.parent.name)
        for scan in LAYOUTS["splits"](folder).scans
    ]
    assert found == [
        ("B1", "image", "train", "B1_img.png", "train"),
        ("B1041_clean", "image", "test", "B1041_img.png", "test_clean"),
        ("B1041_corrupt", "image", "test", "B1041_img.png", "test_corrupt"),
        ("B2", "image", "train", "B2_img.png", "train"),
        ("B9", "image", "extra", "B9_img.png", None),
    ]


def test_other_splits_formats_and_absent_labels(tmp_path: Path) -> None:
    files = ["train/a_img.nii.gz", "Val/b_img.nii.gz", "validation_2/b_img.nii.gz", "test/c_img.mha", "test/c_seg.nrrd"]
    found = LAYOUTS["splits"](touch(tmp_path, *files, "train/.DS_Store", "notes.txt")).scans
    assert [(scan.case, scan.split, scan.labels is None) for scan in found] == [
        ("a", "train", True),
        ("b", "validation", True),
        ("b_2", "validation", True),
        ("c", "test", False),
    ]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "no images"),
        (["images/a_img.png"], "no images"),
        (["train/a.png"], "no images"),
        (["train/a_img.png", "train/b_seg.png"], "1 labels without an image: b"),
        (["train/a_img.png", "train/a_img.tif"], "of one case"),
        (["train/a_b_img.png", "test_b/a_img.png"], "case a_b a second time"),
    ],
)
def test_what_does_not_fit(files: list[str], found: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"E-COH-033: .*{found}"):
        LAYOUTS["splits"](touch(tmp_path, *files))


@pytest.mark.filterwarnings("ignore:W-FMT-010")
def test_labels_of_255_stay_what_they_are(tmp_path: Path) -> None:
    pixels = np.zeros((6, 5), np.uint8)
    pixels[1, 2] = 255
    folder = touch(tmp_path, "train/a_img.png", "train/a_seg.png")
    Picture.fromarray(pixels).save(folder / "train" / "a_seg.png")
    (scan,) = LAYOUTS["splits"](folder).scans
    assert scan.labels is not None
    labels = read_labels(scan.labels).data.numpy()
    assert labels.shape == (5, 6)
    assert (labels[2, 1], labels.sum()) == (255, 255)


def test_the_letters_that_were_released(real_data: Path) -> None:
    folder = real_data / "letter_b"
    if not folder.is_dir():
        pytest.skip("no letter_b among the real images")
    cohort = LAYOUTS["splits"](folder)
    assert Counter(scan.split for scan in cohort.scans) == {"train": 1000, "test": 120}
    assert all(scan.labels for scan in cohort.scans)
    assert len(cohort.held_back(validation=20).of_split("train").cases) == 980
