"""Deformed twins of aligned images: what moves, both true maps, and the magnitude that a Dice leads to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import read_cohort, write_cohort
from anamorph.data.files import read_labels, write
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.landmark_files import write_landmarks
from anamorph.data.phantoms import PhantomCase, phantom, synthesise
from anamorph.data.phantoms.deformed import Deformed
from anamorph.data.transform_files import read_transform
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError
from anamorph.spatial.grid import Grid

GRID = Grid.from_spacing((24, 20, 16), 2.0)
STILL = {"control_mm": 12.0, "smoothness_mm": 3.0}


def cohort(folder: Path, cases: int = 4, modalities: tuple[str, ...] = ("t1", "t2"), radius: float = 10.0) -> Path:
    """Ramps of intensity with a ball (1) whose upper half is 2; the last case for test."""
    folder.mkdir(exist_ok=True)
    ramp = torch.linspace(100, 560, GRID.shape[0]).view(-1, 1, 1).expand(GRID.shape).clone()
    away = GRID.to_world(GRID.voxels()) - GRID.centre
    ball = (np.linalg.norm(away, axis=1) < radius).reshape(GRID.shape).astype(np.int32)
    ball[..., 8:] *= 2
    landmarks = Landmarks(GRID.to_world(np.array([[8.0, 9, 7], [15, 10, 9]])), ("a", "b"))
    scans = []
    for number in range(cases):
        for modality in modalities:
            name = f"case{number}_{modality}"
            write(Image(ramp[None] + number, GRID), folder / f"{name}.nii.gz")
            write(Labelmap(torch.from_numpy(ball), GRID), folder / f"{name}_labels.nii.gz")
            write_landmarks(landmarks, folder / f"{name}.csv")
            files = {
                "image": folder / f"{name}.nii.gz",
                "labels": folder / f"{name}_labels.nii.gz",
                "landmarks": folder / f"{name}.csv",
            }
            scans.append(Scan(f"case{number}", modality, **files, split="test" if number == cases - 1 else "train"))
    write_cohort(Cohort(folder, tuple(scans), label_names={1: "lower", 2: "upper"}), folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort(tmp_path_factory.mktemp("aligned"))


def population_of(folder: Path, **options: object) -> Deformed:
    made = phantom("deformed", 1, {"cohort": folder, **options})
    assert isinstance(made, Deformed)
    return made


def case_of(source: Path, **options: object) -> PhantomCase:
    return population_of(source, magnitude_mm=4.0, **STILL, **options).case(0)


def test_one_modality_is_pulled_through_its_map_and_the_other_stays(source: Path) -> None:
    case = case_of(source)
    deformed, still = case.scans
    assert (deformed.image.modality, still.image.modality) == ("t2", "t1")
    assert (case.name, case.split) == ("case0", "train")
    ramp = still.image.data[0]
    assert ramp[3, 4, 5] == 160
    (there,) = case.truth
    where = GRID.to_voxel(there(GRID.to_world(GRID.voxels())))[:, 0].reshape(GRID.shape)
    assert np.abs(where - GRID.voxels()[:, 0].reshape(GRID.shape)).max() > 0.5
    np.testing.assert_allclose(deformed.image.data[0].numpy(), 100 + 20 * np.clip(where, 0, 23), atol=0.05)
    assert deformed.labels is not None
    assert still.labels is not None
    inside = GRID.to_voxel(there(GRID.to_world(np.argwhere(deformed.labels.data.numpy() == 2).astype(float))))
    assert (still.labels.data.numpy()[tuple(np.rint(inside).astype(int).T)] == 2).mean() > 0.85


def test_maps_lead_both_ways_and_carry_landmarks(source: Path) -> None:
    case = case_of(source)
    deformed, still = case.scans
    (there,), (back,) = case.truth, case.back
    assert deformed.landmarks is not None
    assert still.landmarks is not None
    assert np.linalg.norm(deformed.landmarks.points - still.landmarks.points, axis=1).max() > 0.2
    np.testing.assert_allclose(there(deformed.landmarks.points), still.landmarks.points, atol=0.1)
    np.testing.assert_allclose(back(still.landmarks.points), deformed.landmarks.points, atol=1e-6)
    points = GRID.to_world(GRID.voxels())[::11]
    assert np.linalg.norm(there(back(points)) - points, axis=1).max() < 0.2


def test_pairs_are_listed_both_ways_and_splits_and_names_are_kept(source: Path, tmp_path: Path) -> None:
    made = synthesise("deformed", None, 1, tmp_path, {"cohort": source, "modality": "t1", **STILL})
    assert [(pair.fixed.name, pair.moving.name) for pair in made.pairs("listed", "t1")] == [
        (f"case{number}_t1", f"case{number}_t2") for number in range(4)
    ]
    assert [scan.split for scan in made.scans[::2]] == ["train"] * 3 + ["test"]
    assert made.label_names == {1: "lower", 2: "upper"}
    pairs = {pair.name: pair for pair in read_cohort(tmp_path).listed}
    assert len(pairs) == 8
    population = phantom("deformed", 1, {"cohort": source, "modality": "t1", **STILL})
    case = population.case(2)
    for name, truth in (("case2_t1-case2_t2", case.truth[0]), ("case2_t2-case2_t1", case.back[0])):
        file = pairs[name].displacement
        assert file is not None
        np.testing.assert_allclose(read_transform(file).displacement_on(GRID), truth.displacement_on(GRID), atol=2e-3)
    assert "found" not in json.loads((tmp_path / "phantom.json").read_text())


def test_a_dice_decides_the_magnitude_by_training_cases_alone(source: Path, tmp_path: Path) -> None:
    other = cohort(tmp_path, radius=10.0)
    blank = Labelmap(torch.ones(GRID.shape, dtype=torch.int32), GRID)
    write(blank, other / "case3_t2_labels.nii.gz")
    wanted = {"dice": 0.8, "judged": (1, 2), **STILL}
    one, same = (population_of(folder, **wanted) for folder in (source, other))
    assert one.magnitude_mm == same.magnitude_mm
    assert one.found()["dice"] == pytest.approx(0.8, abs=0.02)
    assert population_of(source, **wanted | {"dice": 0.9}).magnitude_mm < one.magnitude_mm
    case = one.case(0)
    before, after = (scan.labels for scan in case.scans[::-1])
    assert before is not None
    assert after is not None
    a, b = before.data > 0, after.data > 0
    first = population_of(source, **wanted, judged_cases=1)
    assert first.magnitude_mm != one.magnitude_mm
    assert 2 * int((a & b).sum()) / int(a.sum() + b.sum()) == pytest.approx(0.8, abs=0.12)


def test_labels_by_themselves_are_harder_than_as_one(source: Path) -> None:
    together = population_of(source, dice=0.85, judged=(1, 2), **STILL).magnitude_mm
    assert population_of(source, dice=0.85, **STILL).magnitude_mm < together


def test_of_each_subject_the_middle_session_is_judged(tmp_path: Path) -> None:
    """The balls of the other sessions are small and would overlap less."""
    small, large = cohort(tmp_path / "small", 2, radius=5.0), cohort(tmp_path / "large", 4)
    scans = [
        replace(scan, case=f"s_ses-{place}")
        for place, folder in enumerate((small, large, small))
        for scan in read_cohort(folder).scans
        if scan.case == "case0"
    ]
    write_cohort(Cohort(tmp_path, tuple(scans)), tmp_path)
    asked = {"dice": 0.85, "judged": (1, 2), **STILL}
    found = population_of(tmp_path, **asked)
    assert [aligned.deformed.case for aligned, _ in found._judged] == ["s_ses-1"]
    assert found.found()["dice"] == pytest.approx(0.85, abs=0.02)


def test_cases_without_a_partner_are_left_out(tmp_path: Path) -> None:
    folder = cohort(tmp_path, 2)
    table = (folder / "cohort.csv").read_text().splitlines()
    (folder / "cohort.csv").write_text("\n".join(line for line in table if "case0_t1" not in line) + "\n")
    with pytest.warns(AnamorphWarning, match="W-SYN-008: 1 cases without t2 or another modality, left out: case0"):
        population = population_of(folder)
    assert population.most == 1
    assert population.case(0).name == "case1"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ({"modality": "ct"}, "E-SYN-008", "no case with ct and another modality; there are t1, t2"),
        ({"dice": 0.8, "judged": (7,)}, "E-SYN-009", "no training case whose t2 has labels 7"),
        ({"magnitude_mm": 40.0, **STILL}, "E-SYN-010", "by up to 40 mm at points 12 mm apart fold"),
        ({"dice": 0.05, **STILL}, "E-SYN-010", "fold"),
    ],
)
def test_what_cannot_be_deformed(options: dict, code: str, says: str, source: Path) -> None:
    with pytest.raises(AnamorphError, match=f"^{code}.*{says}"):
        phantom("deformed", 0, {"cohort": source, **options}).case(0)


def test_a_single_modality_has_no_partner(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="E-SYN-008"):
        population_of(cohort(tmp_path, 2, ("t1",)))


def test_too_thin_an_image(tmp_path: Path) -> None:
    folder = cohort(tmp_path, 2)
    thin = Grid.from_spacing((24, 20, 2), 2.0)
    for name in ("case0_t2", "case0_t2_labels"):
        values = read_labels(folder / f"{name}.nii.gz").data[..., :2].contiguous()
        write(Labelmap(values, thin), folder / f"{name}.nii.gz")
    refused = pytest.raises(AnamorphError, match=r"E-SYN-011.*24 x 20 x 2 voxels")
    with pytest.warns(AnamorphWarning, match="W-LMK-020"), refused:
        population_of(folder).case(0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"judged": (1,)}, "no Dice is asked for"),
        ({"dice": 0.8, "magnitude_mm": 3.0}, "the Dice decides"),
        ({"dice": 1.0}, "dice"),
    ],
)
def test_options_that_contradict_each_other(options: dict, says: str, source: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"E-SYN-002: .*{says}"):
        phantom("deformed", 0, {"cohort": source, **options})
