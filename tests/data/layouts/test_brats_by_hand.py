"""BraTS: the names of its years, what is no modality, and cases without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anamorph.data.layouts import LAYOUTS
from anamorph.errors import InputError

Dataset = Callable[..., Path]
KINDS = ("t1", "t1ce", "t2", "flair")


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
        (s.case, s.modality, s.image.name, s.labels and s.labels.name, s.split) for s in LAYOUTS["brats"](folder).scans
    ]


@pytest.mark.parametrize(
    ("case", "above", "ending"),
    [
        ("Brats18_2013_2_1", "HGG/", ".nii.gz"),
        ("BraTS20_Training_001", "MICCAI_BraTS2020_TrainingData/", ".nii"),
        ("BraTS2021_00000", "", ".nii.gz"),
    ],
    ids=["2018", "2020", "2021"],
)
def test_names_until_2021(case: str, above: str, ending: str, dataset: Dataset) -> None:
    folder = dataset(*[f"{above}{case}/{case}_{kind}{ending}" for kind in (*KINDS, "seg")], f"{above}survival_info.csv")
    assert rows(folder) == [
        (case, kind, f"{case}_{kind}{ending}", f"{case}_seg{ending}", "train") for kind in sorted(KINDS)
    ]
    names = {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}
    assert LAYOUTS["brats"](folder).label_names == names


def test_names_from_2023_on(dataset: Dataset) -> None:
    case = "BraTS-GLI-00003-000"
    folder = dataset(*[f"{case}/{case}-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "t2f", "seg")])
    assert [(row[1], row[2]) for row in rows(folder)] == [
        ("flair", f"{case}-t2f.nii.gz"),
        ("t1", f"{case}-t1n.nii.gz"),
        ("t1ce", f"{case}-t1c.nii.gz"),
        ("t2", f"{case}-t2w.nii.gz"),
    ]
    assert LAYOUTS["brats"](folder).label_names[3] == "enhancing tumour"


def test_labels_under_a_name_of_their_own_and_cases_without(dataset: Dataset) -> None:
    folder = dataset(
        "train/BraTS20_Training_355/BraTS20_Training_355_t1.nii",
        "train/BraTS20_Training_355/W39_1998.09.19_Segm.nii",
        "valid/BraTS20_Validation_001/BraTS20_Validation_001_t1.nii",
        "valid/BraTS20_Validation_001/._BraTS20_Validation_001_t2.nii",
    )
    assert rows(folder) == [
        ("BraTS20_Training_355", "t1", "BraTS20_Training_355_t1.nii", "W39_1998.09.19_Segm.nii", "train"),
        ("BraTS20_Validation_001", "t1", "BraTS20_Validation_001_t1.nii", None, "extra"),
    ]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "no images, expected CASE/CASE_t1.nii.gz"),
        (["a/a_adc.nii.gz"], "no images"),
        (["a/a_seg.nii.gz", "b/b_t1.nii.gz"], "1 labels without an image: a"),
        (["a/a_t1.nii", "b/a_t1.nii.gz"], r"a_t1\.nii and a_t1\.nii\.gz of one case"),
        (["a/a-t1n.nii", "a/a_t1.nii"], r"a-t1n\.nii and a_t1\.nii of one case"),
    ],
)
def test_what_is_no_brats(files: list[str], found: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=f"E-COH-033: .*{found}"):
        LAYOUTS["brats"](dataset(*files))
