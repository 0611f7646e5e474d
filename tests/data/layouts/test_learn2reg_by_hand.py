"""Learn2Reg's datasets as their descriptions lay them out, AbdomenMRCT above all, and what is no such folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from anamorph.cli.gather import GatherRequest
from anamorph.data.cohort import Cohort
from anamorph.data.layouts import LAYOUTS
from anamorph.errors import InputError

Dataset = Callable[..., Path]


def entry(place: str, part: str = "Tr", kinds: tuple[str, ...] = ("image", "label", "mask")) -> dict[str, str]:
    return {kind: f"./{kind}s{part}/AbdomenMRCT_{place}.nii.gz" for kind in kinds}


def pair(case: str, part: str = "Tr") -> dict[str, str]:
    """As the challenge has it: the MR is fixed."""
    return {side: entry(f"{case}_000{n}", part)["image"] for n, side in enumerate(("fixed", "moving"))}


MRCT: dict[str, Any] = {
    "name": "AbdomenMRCT",
    "pairings": "hybrid",
    "registration_direction": {"fixed": 0, "moving": 1},
    "modality": {"0": "MR", "1": "CT"},
    "labels": {"0": {"0": "background", "1": "liver", "2": "spleen"}, "1": {"1": "liver", "3": "right  kidney"}},
    "training": {
        "0": [entry("0001_0000"), entry("0006_0000"), entry("0010_0000")],
        "1": [entry("0001_0001"), entry("0006_0001"), entry("0050_0001")],
    },
    "test": {"0": [entry("0009_0000", "Ts")], "1": [entry("0009_0001", "Ts")]},
    "registration_val": [pair("0006")],
    "registration_test": [pair("0009", "Ts")],
}
"""A pair to train, one to validate, one to test, an MR and a CT without a partner."""


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """``dataset(description, *files)``: a folder with these (empty) files."""

    def make(description: Any, *files: str) -> Path:
        text = description if isinstance(description, str) else json.dumps(description)
        (tmp_path / "AbdomenMRCT_dataset.json").write_text(text)
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def read(folder: Path) -> Cohort:
    return LAYOUTS["learn2reg"](folder)


def rows(cohort: Cohort) -> list[tuple[str, str, str, bool, bool, str]]:
    """Case without the dataset's name, modality, folder of the image, labels, mask, split."""
    return [
        (s.case.removeprefix("AbdomenMRCT_"), s.modality, s.image.parent.name, bool(s.labels), bool(s.mask), s.split)
        for s in cohort.scans
    ]


def test_gather_offers_every_layout() -> None:
    assert set(get_args(GatherRequest.model_fields["layout"].annotation)) == LAYOUTS.keys()


def test_abdomen_mr_ct(dataset: Dataset) -> None:
    cohort = read(dataset(MRCT, "masksTs/AbdomenMRCT_0009_0001.nii.gz"))
    assert rows(cohort) == [
        ("0001", "ct", "imagesTr", True, True, "train"),
        ("0001", "mr", "imagesTr", True, True, "train"),
        ("0006", "ct", "imagesTr", True, True, "validation"),
        ("0006", "mr", "imagesTr", True, True, "validation"),
        ("0009", "ct", "imagesTs", False, True, "test"),
        ("0009", "mr", "imagesTs", False, False, "test"),
        ("0010", "mr", "imagesTr", True, True, "train"),
        ("0050", "ct", "imagesTr", True, True, "train"),
    ]
    assert [found.name for found in cohort.listed] == [
        f"AbdomenMRCT_{case}_mr-AbdomenMRCT_{case}_ct" for case in ("0009", "0006", "0001")
    ]
    assert cohort.label_names == {1: "liver", 2: "spleen", 3: "right kidney"}


def test_lists_in_place_of_one_a_modality_and_pairs_that_are_listed(dataset: Dataset) -> None:
    """As in LungCT and NLST: one modality twice, and validation pairs among those to train."""
    training = [entry(f"{case}_000{n}", kinds=("image",)) for case in ("0001", "0002", "0003") for n in (0, 1)]
    description = {
        "modality": {"0": "CT"},
        "labels": {"1": "lung"},
        "training": training,
        "test": [entry("0008_0000", "Ts")["image"]],
        "training_paired_images": [pair("0001"), pair("0002"), pair("0003")],
        "registration_val": [pair("0003")],
    }
    cohort = read(dataset(description))
    assert cohort.modalities == ("ct0", "ct1")
    assert {scan.case[-4:]: scan.split for scan in cohort.scans} == {
        "0001": "train", "0002": "train", "0003": "validation", "0008": "test"
    }  # fmt: skip
    assert [(found.name[-8:], found.split) for found in cohort.listed] == [
        ("0003_ct1", "validation"), ("0001_ct1", "train"), ("0002_ct1", "train")
    ]  # fmt: skip
    assert cohort.label_names == {1: "lung"}


def test_pairs_of_two_people(dataset: Dataset) -> None:
    """As in OASIS: those of which one is needed elsewhere are left out."""
    images = [entry(f"{case}_0000") for case in ("0001", "0002", "0003", "0004")]
    pairs = [{"fixed": images[a]["image"], "moving": images[b]["image"]} for a, b in ((2, 3), (0, 1), (1, 2))]
    description = {
        "modality": {"0": "MR"}, "training": images, "registration_val": pairs[:1], "training_paired_images": pairs[1:]
    }  # fmt: skip
    cohort = read(dataset(description))
    assert [scan.split for scan in cohort.scans] == ["train", "train", "validation", "validation"]
    assert [found.name for found in cohort.listed] == [
        "AbdomenMRCT_0003_mr-AbdomenMRCT_0004_mr", "AbdomenMRCT_0001_mr-AbdomenMRCT_0002_mr"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("description", "match"),
    [
        ("{", "no JSON"),
        ("[]", "JSON of a list"),
        (MRCT | {"modality": {"0": "MR", "2": "CT"}}, "images of modality 1, expected one of 0, 2"),
        (MRCT | {"modality": None}, "an entry that cannot be understood"),
        (MRCT | {"training": {"0": [{"label": "a"}]}}, "an entry that cannot be understood"),
        (MRCT | {"training": [], "test": [], "registration_val": [], "registration_test": []}, "no images"),
        (MRCT | {"training": [{"image": "./imagesTr/liver.nii.gz"}]}, "a name without the number of its modality"),
        (MRCT | {"registration_val": [pair("0077")]}, "which is none of its images"),
        (MRCT | {"registration_direction": {"fixed": 0}}, "an entry that cannot be understood"),
    ],
)
def test_what_is_no_such_dataset(description: Any, match: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=rf"E-COH-030: .*{match}"):
        read(dataset(description))


def test_a_folder_without_a_description(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=r"E-COH-030: .*no file \*_dataset\.json, expected one"):
            read(folder)
    for name in ("A", "B"):
        (tmp_path / f"{name}_dataset.json").touch()
    with pytest.raises(InputError, match="2 files"):
        read(tmp_path)
