"""Elastic deformations: what control points do, and that the border of the field of view stays."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.data.phantoms.elastic import control_weights, elastic_displacement, in_voxels, least_determinant
from anamorph.spatial.grid import Grid

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0] * [2.0, 3.0, 4.0]
GRIDS = [
    pytest.param(Grid.from_spacing((20, 17, 12), (2.0, 2.5, 3.0)), id="3-D"),
    pytest.param(Grid((20, 17, 12), OBLIQUE), id="oblique"),
    pytest.param(Grid.from_spacing((30, 25), 2.0), id="2-D"),
]


def test_between_control_points_the_displacement_is_linear() -> None:
    hat = [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]
    np.testing.assert_allclose(control_weights(9, 4.0, 1e-3), np.array([hat]).T)
    np.testing.assert_allclose(control_weights(9, 100.0, 1e-3), np.array([hat]).T)  # one point inside at least


@pytest.mark.parametrize("sd", [0.5, 2.0, 9.0])
def test_smoothing_keeps_the_border_and_weighs_both_ends_alike(sd: float) -> None:
    weights = control_weights(21, 5.0, sd)
    assert weights.shape == (21, 3)
    np.testing.assert_allclose(weights[[0, -1]], 0, atol=1e-12)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)
    sharp = control_weights(21, 5.0, 1e-3)
    bent, kinked = (np.abs(np.diff(matrix, n=2, axis=0)).max() for matrix in (weights, sharp))
    assert bent < 0.9 * kinked


@pytest.mark.parametrize("grid", GRIDS)
def test_nothing_moves_further_than_asked_and_nothing_on_the_border(grid: Grid) -> None:
    one, same, other = (elastic_displacement(grid, np.random.default_rng(s), 10.0, 3.0) for s in (0, 0, 1))
    assert one.shape == (grid.ndim, *grid.shape)
    assert 0.1 < np.abs(one).max() <= 1
    for axis in range(grid.ndim):
        np.testing.assert_allclose(one.take([0, -1], axis=axis + 1), 0, atol=1e-6)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_control_points_are_where_they_were_drawn() -> None:
    grid = Grid.from_spacing((13, 9), 2.0)
    found = elastic_displacement(grid, np.random.default_rng(3), 8.0, 1e-3)
    drawn = np.random.default_rng(3).uniform(-1, 1, (2, 2, 1))
    np.testing.assert_allclose(found[:, 4:9:4, 4:5], drawn, atol=1e-6)
    np.testing.assert_allclose(found[:, 6, 4], drawn[:, :, 0].mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_determinant_is_that_of_the_world(grid: Grid) -> None:
    points = (grid.to_world(grid.voxels()) - grid.centre).T.reshape(grid.ndim, *grid.shape).astype(np.float32)
    assert least_determinant(0 * points, grid) == pytest.approx(1)
    assert least_determinant(-0.5 * points, grid) == pytest.approx(0.5**grid.ndim, rel=1e-3)
    assert least_determinant(-1.5 * points, grid) == pytest.approx((-0.5) ** grid.ndim, rel=1e-3)


def test_millimetres_become_voxels() -> None:
    grid = Grid.from_spacing((4, 5), (2.0, 0.5))
    voxels = in_voxels(np.ones((2, 4, 5), np.float32), grid)
    assert voxels.shape == (1, 2, 4, 5)
    assert voxels[0, :, 1, 1].tolist() == [0.5, 2.0]
