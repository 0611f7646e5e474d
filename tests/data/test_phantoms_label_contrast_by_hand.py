"""Labels and signals at points, on labelmaps small enough to follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.files import write
from anamorph.data.image import Labelmap
from anamorph.data.phantoms.brain_tumour import Push, with_tumour
from anamorph.data.phantoms.deformation import preimages, random_diffeomorphism
from anamorph.data.phantoms.label_contrast import (
    MARGIN_MM,
    cropped,
    fine_grid,
    labels_at,
    outermost_points,
    random_contrast,
    read_labelmap,
    signal_at,
)
from anamorph.data.phantoms.scanners import QUALITIES, averaged, sliced
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid

ROW = np.array([[0, 1, 1], [0, 2, 2]], np.int32)  # i: 0, 1; j: 0, 1, 2
GRID = Grid.from_spacing((2, 3), 2.0)


def test_the_label_of_the_largest_share_wins() -> None:
    points = np.array([[0.0, 0], [0, 0.9], [0, 1.1], [0.9, 4], [1.1, 4], [1.0, 2.0], [2.0, 1.8], [0.8, 0.9]])
    np.testing.assert_array_equal(labels_at(ROW, GRID, points)[:5], [0, 0, 1, 1, 2])
    assert labels_at(ROW, GRID, points)[6] == 2
    # At (0.4, 0.45) voxels: 0 has 0.55, 1 has 0.6 x 0.45, 2 has 0.4 x 0.45.
    assert labels_at(ROW, GRID, points)[7] == 0


def test_a_label_in_two_corners_adds_up() -> None:
    labels = np.array([[1, 2], [2, 3]], np.int32)
    points = np.array([[0.45, 0.45]])  # 1 has 0.3025, 2 has 2 x 0.2475
    assert labels_at(labels, Grid.from_spacing((2, 2), 1.0), points) == [2]


def test_outside_there_is_nothing() -> None:
    points = np.array([[0.0, 4.9], [0, 5.1], [-1.1, 4], [-0.9, 4]])
    np.testing.assert_array_equal(labels_at(ROW, GRID, points), [1, 0, 0, 1])


def test_one_voxel_along_an_axis() -> None:
    assert labels_at(np.array([[4], [5]], np.int32), Grid.from_spacing((2, 1), 1.0), np.array([[0.8, 0.2]])) == [5]


def test_means_mix_where_labels_meet() -> None:
    labels = np.repeat(np.array([0, 1, 2], np.int32), 20)[:, None, None] * np.ones((1, 6, 6), np.int32)
    grid = Grid.from_spacing(labels.shape, 1.0)
    points = np.array([[30.0, 3, 3], [19.5, 3, 3], [39.5, 3, 3], [50, 3, 3]])
    contrast = {1: (100.0, 0.0), 2: (300.0, 0.0)}
    signal = signal_at(labels, grid, points, contrast, np.random.default_rng(0), 1.0)
    np.testing.assert_allclose(signal, [100, 50, 200, 300], atol=0.5)


def test_texture_has_the_spread_that_was_asked() -> None:
    labels = np.ones((40, 40, 40), np.int32)
    grid = Grid.from_spacing(labels.shape, 1.0)
    points = np.random.default_rng(1).uniform(0, 39, (4000, 3))
    signal = signal_at(labels, grid, points, {1: (500.0, 20.0)}, np.random.default_rng(0), 0.5)
    assert signal.mean() == pytest.approx(500, abs=8)
    assert signal.std() == pytest.approx(20, rel=0.25)


def test_random_contrast_has_every_label_once() -> None:
    labels = np.array([0, 4, 4, 9])
    assert set(random_contrast(labels, np.random.default_rng(0))) == {4, 9}
    assert set(random_contrast(labels, np.random.default_rng(0), background=True)) == {0, 4, 9}


def test_cropping_keeps_every_label_where_it_is() -> None:
    data = torch.zeros((30, 40), dtype=torch.int32)
    data[2:5, 20:30] = 3
    grid = Grid((30, 40), np.array([[-2.0, 0, 7], [0, 4, 1], [0, 0, 1]]))
    found = cropped(Labelmap(data, grid))
    assert found.grid.shape == (3 + 2 * 5, 10 + 2 * 3)  # MARGIN_MM on every side
    assert MARGIN_MM == 10
    for labels in (Labelmap(data, grid), found):
        inside = labels.grid.to_world(np.argwhere(labels.data.numpy() == 3))
        np.testing.assert_allclose([inside.min(0), inside.max(0)], [[-1.0, 81], [3, 117]])


def test_fine_grids_are_cubic_and_cover_the_same_place() -> None:
    labels = Grid((10, 8, 4), np.array([[0.0, 0, 5, 1], [-2, 0, 0, 2], [0, 3, 0, 3], [0, 0, 0, 1]]))
    fine = fine_grid(labels, 1.5)
    np.testing.assert_allclose(fine.spacing, 1.5)
    assert fine.shape == (14, 16, 14)
    np.testing.assert_allclose(fine.centre, labels.centre)


def test_outermost_points() -> None:
    data = torch.zeros((4, 5), dtype=torch.int32)
    data[1, 2] = data[2, 2] = data[2, 4] = 1
    points = outermost_points(Labelmap(data, Grid.from_spacing((4, 5), 2.0)))
    assert points.names == ("leftmost", "rightmost", "rearmost", "foremost")
    np.testing.assert_array_equal(points.points[[0, 3]], [[2, 4], [4, 8]])


@pytest.mark.parametrize(
    ("labels", "dimensions"), [(np.zeros((4, 4, 4)), (3,)), (np.full((4, 4), 70000), (2,)), (np.ones((4, 4)), (3,))]
)
def test_labelmaps_that_nothing_can_be_made_of(labels: np.ndarray, dimensions: tuple[int, ...], tmp_path: Path) -> None:
    write(Labelmap.from_array(labels.astype(np.int32), np.eye(labels.ndim + 1)), tmp_path / "labels.nii.gz")
    with pytest.raises(InputError) as refused:
        read_labelmap(tmp_path / "labels.nii.gz", dimensions)
    assert refused.value.code == "E-SYN-004"


def test_slices_are_averages_in_the_same_place() -> None:
    grid, quality = Grid.from_spacing((2, 2, 8), 1.0), QUALITIES["hard"]
    thick = sliced(grid, quality)
    assert (thick.shape, tuple(thick.spacing)) == ((2, 2, 2), (1.0, 1.0, 3.0))
    np.testing.assert_allclose(thick.to_world(np.zeros(3)), [0, 0, 1])
    values = np.broadcast_to(np.arange(8.0), grid.shape)
    np.testing.assert_allclose(averaged(values, quality), np.broadcast_to([1.0, 4.0], thick.shape))
    assert sliced(grid, QUALITIES["routine"]) is grid


def test_a_push_and_its_inverse_undo_each_other() -> None:
    push = Push(np.array([1.0, 2, 3]), 15.0)
    points = np.random.default_rng(0).normal(0, 30, (500, 3))
    points[0] = push.centre
    np.testing.assert_allclose(push.inverse()(push(points)), points, atol=1e-6)
    near = np.array([[4.0, 2, 3]])
    assert 1 < push(near)[0, 0] < 4  # what is near the tumour was nearer to its middle before


def test_a_tumour_grows_in_white_matter_and_pushes() -> None:
    labels = np.zeros((60, 60, 60), np.int32)
    labels[4:56, 4:56, 4:56] = 2
    labels[12:48, 12:48, 12:48] = 3
    grid = Grid.from_spacing(labels.shape, 1.5)
    changed, push = with_tumour(labels, grid, [3], 8, 9, np.random.default_rng(0))
    assert {8, 9} <= set(np.unique(changed))
    assert labels[changed == 8].min() >= 2
    healthy = np.argwhere((changed > 0) & (changed < 8))
    before = labels_at(labels, grid, push(grid.to_world(healthy)))
    np.testing.assert_array_equal(before, changed[tuple(healthy.T)])
    with np.errstate(all="raise"):
        assert (changed == 8).sum() * grid.voxel_volume > 1000


def test_preimages_are_hit() -> None:
    grid = Grid.from_spacing((40, 36), 3.0)
    transform = random_diffeomorphism(grid, 2, mean_mm=6.0, rotation_degrees=15.0, stretch=0.1)
    points = grid.to_world(grid.voxels())[::11]
    assert np.linalg.norm(transform(preimages(transform, points)) - points, axis=1).max() < 0.01
