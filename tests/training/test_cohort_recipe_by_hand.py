"""The cases of an experiment: deformed once, chosen by name and contrast, drawn by shares; recipes that contradict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.errors import ConfigurationError
from anamorph.training.cohort_recipe import CohortRecipe, ElasticDeformation, Gathering
from anamorph.training.experiment_claim import claim
from anamorph.training.experiment_cohort import Part, parts_of
from anamorph.training.experiment_recipe import Experiment

SHAPES = {
    "kind": "shapes", "cases": 3, "test": 1,
    "options": {"shape": [20, 18], "labels": 2, "size_mm": 20.0, "mean_mm": 0.0, "degrees": 0.0, "shift_mm": 0.0},
}  # fmt: skip
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def experiment(cohort: dict[str, Any]) -> Experiment:
    values = {"title": "Tiny", "cohort": cohort, "train": {"a": {"method": "voxelmorph"}}, "evaluate": {}}
    return Experiment.model_validate(values)


def part_of(cohort: dict[str, Any], folder: Path) -> Part:
    folder.mkdir(exist_ok=True)
    (part,) = parts_of(experiment(cohort), folder)
    return part


def test_phantoms_are_deformed_once_and_others_join_as_they_are(tmp_path: Path) -> None:
    recipe = {
        "synthesise": SHAPES,
        "deform": {"modality": "b", "control_mm": 12.0, "smoothness_mm": 2.0, "dice": 0.9, "seed": 4},
        "more": {"plain": {"synthesise": {"cases": 1, "seed": 9}}},
    }
    cohort = part_of(recipe, tmp_path / "out").cohort
    assert cohort.cases == ("case0001", "case0001_plain", "case0002", "case0003")
    scans = {scan.name: scan for scan in cohort.scans}
    assert [scans[f"case000{n}_a"].split for n in (1, 2, 3)] == ["train", "train", "test"]
    before, after = (tmp_path / "out" / place / "images" / "case0001_b.nii.gz" for place in ("cohort", "deformed"))
    assert not np.allclose(read(before).data, read(after).data)
    assert scans["case0001_b"].image == after.resolve()
    pairs = {pair.name: pair for pair in cohort.pairs("listed")}
    assert {"case0003_a-case0003_b", "case0003_b-case0003_a"} < pairs.keys()
    assert all(pair.displacement for pair in pairs.values())
    told = json.loads((tmp_path / "out" / "deformed" / "phantom.json").read_text())
    assert (told["kind"], told["seed"]) == ("deformed", 4)
    assert told["found"]["dice"] == pytest.approx(0.9, abs=0.03)
    stamp = after.stat().st_mtime_ns
    part_of(recipe, tmp_path / "out")
    assert after.stat().st_mtime_ns == stamp


def test_slices_are_cut_before_anything_else(tmp_path: Path) -> None:
    solid = {**SHAPES, "options": {**SHAPES["options"], "shape": [20, 18, 12]}}
    elastic = {"modality": "b", "control_mm": 12.0, "smoothness_mm": 2.0, "magnitude_mm": 3.0}
    recipe = {"synthesise": solid, "slices": {"through": [1]}, "deform": elastic}
    cohort = part_of(recipe, tmp_path / "out").cohort
    assert cohort.cases == ("case0001", "case0002", "case0003")
    assert [scan.split for scan in cohort.scans[::2]] == ["train", "train", "test"]
    assert {read(scan.image).grid.ndim for scan in cohort.scans} == {2}
    assert all(pair.displacement for pair in cohort.pairs("listed"))
    uncut = tmp_path / "out" / "cohort" / "images" / "case0001_a.nii.gz"
    assert read(uncut).grid.ndim == 3


def test_a_deformation_belongs_to_what_a_folder_was_made_by(tmp_path: Path) -> None:
    recipe = {"synthesise": SHAPES, "deform": {"dice": 0.8, "judged": [1, 2]}}
    claim(experiment(recipe), tmp_path, False)
    claim(experiment(recipe), tmp_path, False)
    (tmp_path / "deformed").mkdir()
    other = experiment(recipe | {"deform": {"magnitude_mm": 3.0}})
    with pytest.raises(ConfigurationError, match="E-EXP-002"):
        claim(other, tmp_path, False)
    claim(other, tmp_path, True)
    assert not (tmp_path / "deformed").exists()


@pytest.fixture
def tumours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten cases as BraTS has them, T1 and T2 alone; the later, the more contrast in T1."""
    folder = tmp_path / "data" / "BraTS"
    labels = (np.arange(6 * 5 * 4).reshape(6, 5, 4) % 5).astype(np.uint8)
    labels[labels == 3] = 0
    for number in range(10):
        case = f"Brats18_{number:03}_1"
        (folder / "HGG" / case).mkdir(parents=True)
        values = np.random.default_rng(number).normal(100, 1 + number, (6, 5, 4))
        write(Labelmap.from_array(labels, AFFINE), folder / "HGG" / case / f"{case}_seg.nii.gz")
        for modality in ("t1", "t2", "flair"):
            write(Image.from_array(values, AFFINE), folder / "HGG" / case / f"{case}_{modality}.nii.gz")
    monkeypatch.setenv("ANAMORPH_DATA", str(tmp_path / "data"))
    return folder


def test_the_paper_s_way_from_brats_to_its_cases(tumours: Path, tmp_path: Path) -> None:
    """Left out by name, then the middle by contrast, then drawn; the tumour as one label."""
    gather = {
        "layout": "brats", "folder": "BraTS", "modalities": ["t1", "t2"], "exclude": ["*_000_1", "*_005_1"],
        "usual_contrast": "t1", "usual_share": 0.75, "merge": {2: 1, 4: 1},
        "validation_share": 0.17, "test_share": 0.17, "seed": 3,
    }  # fmt: skip
    deform = {"modality": "t2", "control_mm": 4.0, "magnitude_mm": 0.5, "smoothness_mm": 1.0}
    cohort = part_of({"gather": gather, "deform": deform}, tmp_path / "out").cohort
    assert cohort.cases == tuple(f"Brats18_{number:03}_1" for number in (2, 3, 4, 6, 7, 8))
    assert cohort.modalities == ("t1", "t2")
    assert [len(cohort.of_split(split).cases) for split in ("train", "validation", "test")] == [4, 1, 1]
    assert cohort.label_names == {1: "necrotic core, oedema, enhancing tumour"}
    for scan in cohort.scans:
        assert scan.labels is not None
        assert read_labels(scan.labels).values() == [0, 1]
    undrawn = {**gather, "validation_share": 0.0, "test_share": 0.0, "seed": 0, "test": 2}
    cohort = part_of({"gather": undrawn}, tmp_path / "last").cohort
    assert cohort.of_split("test").cases == ("Brats18_007_1", "Brats18_008_1")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"test_share": 0.2, "test": 3}, "either by shares or by numbers"),
        ({"test_share": 0.5, "validation_share": 0.5}, "the shares leave nothing"),
        ({"seed": 1}, "no share is drawn"),
        ({"usual_share": 0.4}, "without usual_contrast"),
        ({"files": [{"modality": "t1", "image": "*.nii"}]}, "either by a layout or by their files"),
    ],
)
def test_gatherings_that_contradict_themselves(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Gathering.model_validate({"layout": "brats", "folder": "BraTS", **more})


def test_what_a_recipe_says_of_a_deformation_is_checked_when_it_is_read() -> None:
    with pytest.raises(ValueError, match="the Dice decides"):
        CohortRecipe.model_validate({"synthesise": SHAPES, "deform": {"dice": 0.8, "magnitude_mm": 3.0}})
    made = ElasticDeformation(dice=0.8, judged=(1, 2), seed=5).phantoms
    assert (made.kind, made.seed, made.options) == ("deformed", 5, {"dice": 0.8, "judged": [1, 2]})
