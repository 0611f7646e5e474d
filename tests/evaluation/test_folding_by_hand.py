"""Determinants of maps whose derivative is known, on straight, oblique and sheared grids."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.evaluation import folding as module
from anamorph.evaluation.folding import folding, folding_scores, inverse_residual_mm, inverse_residual_scores
from anamorph.evaluation.folding import jacobian_determinant as determinant_of

TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
GRIDS = {
    "straight": np.diag([1.0, 1.0, 1.0]),
    "anisotropic": np.diag([0.7, 1.5, 4.0]),
    "left-handed": np.diag([-1.0, 1.0, 2.0]),
    "oblique": TURN * [0.7, 1.5, 4.0],
    "sheared": np.array([[1.0, 0.4, 0.1], [0, 1.2, -0.3], [0, 0, 2.5]]),
}


def affine_of(linear, origin=(-20.0, 35.0, 7.0)):
    affine = np.eye(len(linear) + 1)
    affine[:-1, :-1], affine[:-1, -1] = linear, origin[: len(linear)]
    return affine


def points_of(shape, affine):
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return np.einsum("ab,b...->a...", affine[:-1, :-1], voxels) + affine[:-1, -1].reshape(-1, *[1] * len(shape))


@pytest.mark.parametrize("linear", GRIDS.values(), ids=GRIDS)
def test_a_linear_map_has_its_own_determinant_everywhere(linear):
    matrix = np.array([[1.2, 0.1, -0.3], [0.05, 0.8, 0.2], [0.1, -0.1, 1.1]])
    affine = affine_of(linear)
    x = points_of((5, 6, 4), affine)
    displacement = np.einsum("ab,b...->a...", matrix, x) - x
    np.testing.assert_allclose(determinant_of(displacement, affine), np.linalg.det(matrix), rtol=1e-9)
    found = folding(displacement, affine)
    assert found.folded_voxels == 0
    assert found.sd_log_jacobian == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("linear", GRIDS.values(), ids=GRIDS)
def test_a_mirror_folds_every_voxel(linear):
    affine = affine_of(linear)
    x = points_of((4, 4, 4), affine)
    found = folding(np.stack([-2 * x[0], 0 * x[1], 0 * x[2]]), affine)
    assert found.folded_fraction == 1
    assert found.smallest == pytest.approx(-1)


def test_a_fold_is_counted_where_it_is():
    # x -> x + u(x) with u = 0, 0, -1.5, -3, -3, -3: only the middle of the ramp runs backwards.
    u = np.zeros((2, 6, 3))
    u[0] = np.array([0, 0, -1.5, -3, -3, -3])[:, None]
    determinant = determinant_of(u, np.eye(3))
    np.testing.assert_allclose(determinant[:, 0], 1 + np.array([0, -0.75, -1.5, -0.75, 0, 0]))
    found = folding(u, np.eye(3))
    assert (found.voxels, found.folded_voxels) == (18, 3)
    assert found.folded_fraction == pytest.approx(1 / 6)
    mask = np.zeros((6, 3), bool)
    mask[2] = True
    assert folding(u, np.eye(3), mask).folded_fraction == 1
    assert folding(u, np.eye(3), ~mask).folded_fraction == 0


def test_the_logarithm_of_a_known_stretch():
    # Expansion by 2 along one half, none along the other: log-determinants log 2 and 0, and log 1.5 where they meet.
    u = np.concatenate([np.arange(-4.0, 0), np.zeros(5)])[None]
    u = np.stack([np.broadcast_to(u.T, (9, 3)), np.zeros((9, 3))])
    expected = np.log([2, 2, 2, 2, 1.5, 1, 1, 1, 1])
    found = folding(u, np.eye(3))
    assert found.sd_log_jacobian == pytest.approx(expected.std())
    assert (found.smallest, found.largest) == (1, 2)


def test_a_grid_one_voxel_thick():
    u = np.random.default_rng(0).normal(size=(3, 4, 5, 1)) * 0.01
    flat = determinant_of(u[:2, ..., 0], np.eye(3))
    np.testing.assert_allclose(determinant_of(u, np.eye(4))[..., 0], flat)


def test_blocks_leave_no_seam(monkeypatch):
    u = np.random.default_rng(1).normal(size=(3, 9, 4, 5)) * 0.2
    affine = affine_of(GRIDS["oblique"])
    whole = determinant_of(u, affine)
    monkeypatch.setattr(module, "VOXELS_AT_ONCE", 40)
    np.testing.assert_array_equal(determinant_of(u, affine), whole)


def test_a_displacement_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        determinant_of(np.zeros((3, 4, 4, 4)), np.eye(3))
    with pytest.raises(ValueError, match="does not fit"):
        determinant_of(np.zeros((2, 4, 4, 4)), np.eye(4))


def test_rows_of_the_table():
    rows = {row.metric: row for row in folding_scores(np.zeros((3, 4, 4, 4)), np.eye(4))}
    assert rows["folded_voxels"].value == rows["folded_fraction"].value == rows["sd_log_jacobian"].value == 0
    assert rows["jacobian_min"].value == rows["jacobian_max"].value == 1


@pytest.mark.parametrize("linear", GRIDS.values(), ids=GRIDS)
def test_inverse_of_a_shift_and_a_wrong_one(linear):
    forward_affine, backward_affine = affine_of(linear), affine_of(np.diag([3.0, 3.0, 3.0]), (-60.0, -5.0, -40.0))
    shift, miss = np.array([1.5, -2.0, 0.5]), np.array([0.3, 0.0, -0.4])
    forward = np.broadcast_to(shift[:, None, None, None], (3, 5, 5, 5))
    backward = np.broadcast_to((miss - shift)[:, None, None, None], (3, 40, 40, 40))
    points = points_of((5, 5, 5), forward_affine).reshape(3, -1).T
    residual = inverse_residual_mm(points, forward, forward_affine, backward, backward_affine)
    np.testing.assert_allclose(residual, 0.5)
    assert {
        round(row.value, 9) for row in inverse_residual_scores(forward, forward_affine, backward, backward_affine)
    } == {0.5}


def test_points_that_leave_the_grid_have_no_residual():
    forward, backward = np.full((2, 4, 4), 2.0), np.full((2, 4, 4), -2.0)
    points = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [9.0, 0.0]])
    residual = inverse_residual_mm(points, forward, np.eye(3), backward, np.eye(3))
    np.testing.assert_array_equal(residual, [0, 0, np.nan, np.nan])


def test_a_large_grid_is_thinned_out_evenly():
    u = np.zeros((2, 60, 60))
    few = inverse_residual_scores(u, np.eye(3), u, np.eye(3), most_points=100)
    assert [row.value for row in few] == [0, 0, 0]
