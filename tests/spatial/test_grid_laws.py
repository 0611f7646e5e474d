"""Grids: voxels to world and back, resizing, cropping, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anamorph.spatial.grid import Grid

shapes = st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 9)] * 3))
seeds = st.integers(0, 10_000)


@given(shape=shapes, seed=seeds)
def test_world_and_voxels_invert_each_other(oblique_grid: Callable, shape, seed) -> None:
    grid = oblique_grid(shape, seed, shear=0.3)
    voxels = grid.voxels()
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(voxels)), voxels, atol=1e-9)
    np.testing.assert_allclose(grid.to_world(voxels)[0], grid.affine[:-1, -1])
    assert voxels.shape == (np.prod(shape), len(shape))
    assert grid.contains(grid.to_world(voxels)).all()


@given(shape=st.tuples(*[st.integers(1, 9)] * 3), seed=seeds)
def test_spacing_and_points_are_those_of_nibabel(oblique_grid: Callable, shape, seed) -> None:
    grid = oblique_grid(shape, seed, shear=0.2)
    np.testing.assert_allclose(grid.spacing, nibabel.affines.voxel_sizes(grid.affine))
    np.testing.assert_allclose(grid.to_world(grid.voxels()), nibabel.affines.apply_affine(grid.affine, grid.voxels()))


@given(shape=shapes, data=st.data(), seed=seeds)
def test_resizing_keeps_the_field_of_view(oblique_grid: Callable, shape, data, seed) -> None:
    grid = oblique_grid(shape, seed)
    new = grid.resized(tuple(data.draw(st.integers(1, 12)) for _ in shape))
    np.testing.assert_allclose(new.centre, grid.centre, atol=1e-9)
    for corner in (np.full(len(shape), -0.5), np.array(shape) - 0.5):
        scaled = (corner + 0.5) * np.array(new.shape) / np.array(shape) - 0.5
        np.testing.assert_allclose(new.to_world(scaled), grid.to_world(corner), atol=1e-9)
    np.testing.assert_allclose(new.voxel_volume * np.prod(new.shape), grid.voxel_volume * np.prod(shape))
    assert new.resized(shape).same_as(grid, 1e-9)


@given(shape=shapes, data=st.data(), seed=seeds)
def test_cropping_moves_no_voxel(oblique_grid: Callable, shape, data, seed) -> None:
    grid = oblique_grid(shape, seed)
    start = np.array([data.draw(st.integers(-4, 4)) for _ in shape])
    part = grid.cropped(start.tolist(), (2,) * len(shape))
    np.testing.assert_allclose(part.to_world(part.voxels()), grid.to_world(part.voxels() + start), atol=1e-9)
    np.testing.assert_allclose(part.to_grid(grid)[:-1, -1], start, atol=1e-9)


@given(shape=shapes, seed=seeds, shift=st.floats(1e-6, 1.0))
def test_the_distance_of_two_grids_is_that_of_their_voxels(oblique_grid: Callable, shape, seed, shift) -> None:
    grid = oblique_grid(shape, seed)
    moved = grid.affine.copy()
    moved[0, -1] += shift
    other = Grid(shape, moved)
    np.testing.assert_allclose(grid.distance_mm(other), shift, rtol=1e-6)
    assert grid.same_as(other, shift * 1.01)
    assert not grid.same_as(other, shift * 0.99)
    assert grid.distance_mm(grid.resized((10, *shape[1:]))) == float("inf")


def test_the_field_of_view_ends_half_a_voxel_beyond_the_centres() -> None:
    grid = Grid.from_spacing((2, 1), 2.0)
    assert grid.contains(np.array([[-0.9, 0.9], [2.9, 0.0], [3.1, 0.0], [0.0, 1.1]])).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert grid.contains(np.array([[-0.1, 0.0], [2.0, 0.0]]), margin=0.0).tolist() == [False, True]


def test_one_voxel() -> None:
    grid = Grid.from_spacing((1, 1, 1), (1.0, 2.0, 3.0))
    np.testing.assert_array_equal(grid.corners, np.zeros((8, 3)))
    np.testing.assert_array_equal(grid.centre, np.zeros(3))
    np.testing.assert_array_equal(grid.resized((2, 1, 1)).corners[[0, -1], 0], [-0.25, 0.25])


def test_a_grid_says_in_one_line_what_it_is() -> None:
    assert repr(Grid.from_spacing((143, 167, 20), (1.0, 1.0, 2.5))) == "Grid(143 x 167 x 20 voxels of 1 x 1 x 2.5 mm)"


def test_a_grid_does_not_change_with_the_array_it_came_from() -> None:
    affine = np.eye(3)
    grid = Grid((2, 2), affine)
    affine[0, -1] = 5
    assert grid.affine[0, -1] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


NEARLY_SINGULAR = np.array([[0.1, 0.2, 0.3, 0], [0.4, 0.5, 0.6, 0], [0.7, 0.8, 0.9, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 4, 4), np.eye(3), "needs a 4 x 4 affine"),
        ((4,), np.eye(2), "two or three axes"),
        ((4, 0), np.eye(3), "at least one voxel"),
        ((4, 4), np.diag([1, np.nan, 1]), "NaN or Inf"),
        ((4, 4), np.diag([1, np.inf, 1]), "NaN or Inf"),
        ((4, 4), np.diag([1, 0, 1]), "singular"),
        ((4, 4, 4), NEARLY_SINGULAR, "singular"),
        ((4, 4), np.array([[1, 0, 0], [0, 1, 0], [0, 0.5, 1]]), "last row"),
    ],
)
def test_what_is_no_grid_is_refused(shape: tuple[int, ...], affine: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(shape, affine)


@pytest.mark.parametrize("spacing", [(1e-6, 1e6, 1.0), (1e-120,) * 3, (0.5, 0.5, 10.0)], ids=str)
def test_odd_spacings_are_no_reason_to_refuse(spacing: tuple[float, ...]) -> None:
    np.testing.assert_allclose(Grid.from_spacing((4, 4, 4), spacing).spacing, spacing)
