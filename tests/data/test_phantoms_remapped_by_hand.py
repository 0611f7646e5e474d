"""Remapped images: the curve, what stays as it was, and which cases keep their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import write_cohort
from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap, Landmarks, Mask
from anamorph.data.landmark_files import write_landmarks
from anamorph.data.phantoms import phantom, synthesise
from anamorph.data.phantoms.remapped import LEAST_SWING, random_curve
from anamorph.errors import ConfigurationError
from anamorph.spatial.grid import Grid

GRID = Grid.from_spacing((24, 20, 16), 2.0)
QUIET = {"noise": 0.0, "bias": 0.0, "variation": 0.0}


def cohort(folder: Path, cases: int = 6, modalities: tuple[str, ...] = ("t1",)) -> Path:
    """Ramps of intensity over a dark background, the last two cases for test."""
    ramp = torch.linspace(100, 900, GRID.shape[0]).view(-1, 1, 1).expand(GRID.shape).clone()
    ramp[..., :3] = 0
    labels = Labelmap((ramp > 500).to(torch.int32), GRID)
    scans = []
    for number in range(cases):
        for modality in modalities:
            name = f"case{number}_{modality}"
            write(Image(ramp[None] + number, GRID), folder / f"{name}.nii.gz")
            write(labels, folder / f"{name}_labels.nii.gz")
            write(Mask(ramp > 0, GRID), folder / f"{name}_mask.nii.gz")
            write_landmarks(Landmarks(GRID.to_world(np.array([[8.0, 9, 7], [15, 10, 9]]))), folder / f"{name}.csv")
            split = "test" if number >= cases - 2 else "train"
            files = [folder / f"{name}{end}" for end in (".nii.gz", "_labels.nii.gz", "_mask.nii.gz", ".csv")]
            scans.append(Scan(f"case{number}", modality, *files, split=split))
    write_cohort(Cohort(folder, tuple(scans)), folder)
    return folder


def test_every_curve_rises_and_falls() -> None:
    for seed in range(30):
        steps = np.diff(random_curve(np.random.default_rng(seed)))
        assert steps.max() > 0
        assert steps.min() < 0
        curve = random_curve(np.random.default_rng(seed))
        assert max(later - earlier for k, earlier in enumerate(curve) for later in curve[k:]) >= LEAST_SWING
        assert max(earlier - later for k, earlier in enumerate(curve) for later in curve[k:]) >= LEAST_SWING


def test_without_noise_values_that_were_equal_stay_so_and_the_background_stays_dark(tmp_path: Path) -> None:
    first, second = phantom("remapped", 1, {"cohort": cohort(tmp_path), **QUIET}).case(0).scans
    before, after = (scan.image.data[0].numpy() for scan in (first, second))
    assert (first.image.modality, second.image.modality) == ("t1", "t1r")
    np.testing.assert_array_equal(after[..., :3], 0)
    inner = after[..., 3:]
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:, :1, :1], inner.shape), atol=1e-3)
    steps = np.sign(np.diff(inner[:, 0, 0]))
    assert {1.0, -1.0} <= set(steps.tolist())
    assert (np.diff(before[:, 0, 5]) > 0).all()
    assert first.labels is not None
    assert second.labels is not None
    assert torch.equal(first.labels.data, second.labels.data)


def test_images_differ_from_each_other_and_alike_by_the_modality(tmp_path: Path) -> None:
    options = {"cohort": cohort(tmp_path), "noise": 0.0, "bias": 0.0, "variation": 0.08}
    population = phantom("remapped", 2, options)
    lines = [population.case(index).scans[1].image.data[0, :, 9, 9].numpy() for index in range(5)]
    alike = np.corrcoef(lines)[np.triu_indices(5, 1)]
    assert alike.min() > 0.5
    assert alike.max() < 0.9999
    other = phantom("remapped", 3, options).case(0).scans[1].image.data[0, :, 9, 9].numpy()
    assert np.corrcoef(lines[0], other)[0, 1] < 0.9


def test_cases_names_and_splits_are_kept_unless_others_are_asked_for(tmp_path: Path) -> None:
    source = cohort(tmp_path)
    kept = synthesise("remapped", None, 0, tmp_path / "kept", {"cohort": source})
    assert kept.cases == tuple(f"case{number}" for number in range(6))
    assert {scan.case for scan in kept.scans if scan.split == "test"} == {"case4", "case5"}
    changed = synthesise("remapped", 4, 0, tmp_path / "changed", {"cohort": source}, test=1)
    assert [scan.split for scan in changed.scans[::2]] == ["train"] * 3 + ["test"]
    with pytest.raises(ConfigurationError) as refused:
        synthesise("remapped", 7, 0, tmp_path / "many", {"cohort": source})
    assert refused.value.code == "E-SYN-003"


def test_a_share_of_the_training_cases_keeps_its_labels(tmp_path: Path) -> None:
    source = cohort(tmp_path, 10)
    made = synthesise("remapped", None, 0, tmp_path / "out", {"cohort": source, "labelled": 0.5})
    labelled = {scan.case for scan in made.scans if scan.labels}
    assert {"case8", "case9"} <= labelled
    assert len(labelled - {"case8", "case9"}) == 4
    assert all(bool(scan.labels) == (scan.case in labelled) for scan in made.scans)


def test_a_deformation_takes_everything_with_it(tmp_path: Path) -> None:
    case = phantom("remapped", 0, {"cohort": cohort(tmp_path), "mean_mm": 2.0, "smoothness_mm": 8.0, **QUIET}).case(1)
    first, second = case.scans
    (truth,) = case.truth
    assert first.landmarks is not None
    assert second.landmarks is not None
    assert first.labels is not None
    assert second.labels is not None
    assert second.mask is not None
    np.testing.assert_allclose(truth(first.landmarks.points), second.landmarks.points, atol=1e-9)
    assert np.linalg.norm(second.landmarks.points - first.landmarks.points, axis=1).min() > 0.2
    assert not torch.equal(first.labels.data, second.labels.data)
    assert second.mask.data.any()
    moved = truth(GRID.to_world(np.argwhere(first.labels.data.numpy() == 1)[::37].astype(float)))
    voxels = np.rint(GRID.to_voxel(moved)).astype(int)
    inside = ((voxels >= 0) & (voxels < GRID.shape)).all(axis=1)
    assert (second.labels.data.numpy()[tuple(voxels[inside].T)] == 1).mean() > 0.9


@pytest.mark.parametrize(
    "options", [{}, {"modality": "flair"}, {"modality": "t1", "into": "t1"}], ids=["two", "unknown", "into itself"]
)
def test_the_modality_must_be_clear(options: dict, tmp_path: Path) -> None:
    source = cohort(tmp_path, 2, ("t1", "t2"))
    with pytest.raises(ConfigurationError) as refused:
        phantom("remapped", 0, {"cohort": source, **options})
    assert refused.value.code == "E-SYN-007"
    assert phantom("remapped", 0, {"cohort": source, "modality": "t2"}).case(0).scans[1].image.modality == "t2r"
