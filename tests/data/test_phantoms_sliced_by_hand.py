"""Slices of aligned images: which one is taken, where it lies, and what cannot be sliced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.cohort_files import read_cohort, write_cohort
from anamorph.data.files import read, read_labels, read_mask, write
from anamorph.data.image import Image, Labelmap, Mask
from anamorph.data.phantoms import PhantomCase, phantom, synthesise
from anamorph.errors import AnamorphError
from anamorph.spatial.grid import Grid

SHAPE = (13, 7, 13)
AFFINE = np.array([[-2.0, 0, 0, 4], [0, 0, 3, -6], [0, 1.5, 0, 10], [0, 0, 0, 1]])
"""Voxel axes that run to the left, the top and the front."""


def values(grid: Grid) -> torch.Tensor:
    """10000 x + 100 y + z of each voxel's place."""
    where = grid.to_world(grid.voxels()).reshape(*grid.shape, grid.ndim)
    return torch.from_numpy((where @ [10000.0, 100.0, 1.0]).astype(np.float32))


def cohort(folder: Path, grids: tuple[Grid, Grid] | None = None, labelled: str = "t1") -> Path:
    """Two cases of two scans; a label 3 of two voxels at z = 14.5, of one voxel at z = 16."""
    one = Grid(SHAPE, AFFINE)
    scans = []
    splits: dict[str, Split] = {"a": "train", "b": "test"}
    for case, split in splits.items():
        for modality, grid in zip(("t1", "t2"), grids or (one, one), strict=True):
            name = folder / f"{case}_{modality}"
            write(Image(values(grid)[None] if grid.ndim == 3 else torch.rand(1, *grid.shape), grid), f"{name}.nii.gz")
            scan = Scan(case, modality, Path(f"{name}.nii.gz"), split=split)
            if modality == labelled and grids is None:
                labels = torch.zeros(SHAPE, dtype=torch.int32)
                labels[2:4, 3, 5], labels[2, 4, 5] = 3, 3
                write(Labelmap(labels, grid), f"{name}_labels.nii.gz")
                mask = torch.zeros(SHAPE, dtype=torch.bool)
                mask[:6] = True
                write(Mask(mask, grid), f"{name}_mask.nii.gz")
                files = {"labels": Path(f"{name}_labels.nii.gz"), "mask": Path(f"{name}_mask.nii.gz")}
                scan = Scan(case, modality, scan.image, **files, split=split)
            scans.append(scan)
    write_cohort(Cohort(folder, tuple(scans), label_names={3: "lesion"}), folder)
    return folder


def case_of(source: Path, **options: object) -> PhantomCase:
    return phantom("sliced", 0, {"cohort": source, **options}).case(0)


@pytest.mark.parametrize(
    ("plane", "kept", "across"), [("axial", (0, 1), 14.5), ("coronal", (0, 2), 12.0), ("sagittal", (1, 2), -8.0)]
)
def test_voxels_keep_their_place_in_the_plane(tmp_path: Path, plane: str, kept: tuple[int, int], across: float) -> None:
    for scan in case_of(cohort(tmp_path), plane=plane).scans:
        grid = scan.image.grid
        where = grid.to_world(grid.voxels()).reshape(*grid.shape, 2)
        weights = np.array([10000.0, 100.0, 1.0])
        missing = next(axis for axis in range(3) if axis not in kept)
        expected = where @ weights[list(kept)] + across * weights[missing]
        np.testing.assert_allclose(scan.image.data[0].numpy(), expected, atol=0.1)


def test_the_slice_goes_through_most_of_the_labels_in_every_scan(tmp_path: Path) -> None:
    case = case_of(cohort(tmp_path, labelled="t2"), through=(3,))
    bare, labelled = case.scans
    assert bare.labels is None
    assert labelled.labels is not None
    assert labelled.mask is not None
    assert int((labelled.labels.data == 3).sum()) == 2
    assert int(labelled.mask.data.sum()) == 6 * SHAPE[2]
    assert torch.equal(bare.image.data, labelled.image.data)
    assert (case.name, case.split) == ("a", "train")


def test_scans_on_another_grid_are_brought_into_the_plane_of_the_first(tmp_path: Path) -> None:
    other = Grid.from_spacing((60, 60, 60), (1.0, 1.0, 1.0)).cropped((-30, -10, 0), (60, 60, 60))
    one, two = case_of(cohort(tmp_path, (Grid(SHAPE, AFFINE), other))).scans
    assert two.image.grid.same_as(one.image.grid)
    np.testing.assert_allclose(two.image.data, one.image.data, atol=0.05)


def test_more_slices_are_sessions_of_their_subject_and_go_to_files(tmp_path: Path) -> None:
    source = cohort(tmp_path)
    wanted = {"slices": 3, "slices_held_back": 2, "apart_mm": 3.0}
    made = synthesise("sliced", None, 0, tmp_path / "out", {"cohort": source, **wanted})
    assert made.cases == tuple(f"{case}_ses-slice{number}" for case, number in ("a1", "a2", "a3", "b1", "b2"))
    assert made.label_names == {3: "lesion"}
    again = read_cohort(tmp_path / "out")
    assert {scan.case[0]: scan.split for scan in again.scans} == {"a": "train", "b": "test"}
    heights = [float(read(scan.image).data.flatten()[0]) for scan in again.scans if scan.modality == "t1"]
    assert np.diff(heights[:3]).tolist() == pytest.approx([3.0, 3.0])
    first = again.scans[0]
    assert first.labels is not None
    assert first.mask is not None
    assert read_labels(first.labels).grid.same_as(read(first.image).grid)
    assert read_mask(first.mask).grid.ndim == 2


@pytest.mark.parametrize(
    ("grids", "options", "words"),
    [
        ((Grid.from_spacing((8, 9)), Grid.from_spacing((8, 9))), {}, "a 2-D image"),
        (None, {"slices": 9, "apart_mm": 3.0}, "slice 1 of 9 lies beyond"),
    ],
)
def test_what_cannot_be_sliced_is_refused(
    tmp_path: Path, grids: tuple[Grid, Grid] | None, options: dict, words: str
) -> None:
    with pytest.raises(AnamorphError, match=f"E-SYN-012.*{words}"):
        case_of(cohort(tmp_path, grids), **options)


def test_options_that_change_nothing_are_refused(tmp_path: Path) -> None:
    for options in ({"apart_mm": 4.0}, {"truth": False}):
        with pytest.raises(AnamorphError, match="would change nothing"):
            case_of(cohort(tmp_path), **options)
