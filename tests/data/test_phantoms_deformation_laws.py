"""Random maps: as large as asked, invertible, repeatable, in two and three dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.data.phantoms import random_diffeomorphism
from anamorph.data.phantoms.texture import correlated_gaussian, rician, smooth_noise
from anamorph.evaluation.folding import folding
from anamorph.spatial.grid import Grid

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0] * [4.0, 5.0, 6.0]
OBLIQUE[:3, 3] = (-40, 120, 15)
GRIDS = [
    pytest.param(Grid.from_spacing((24, 20, 18), (5.0, 6.0, 7.0)), id="3-D"),
    pytest.param(Grid((24, 20, 18), OBLIQUE), id="oblique"),
    pytest.param(Grid.from_spacing((40, 36), 4.0), id="2-D"),
]
AFFINE = {"rotation_degrees": 8.0, "stretch": 0.05, "translation_mm": 12.0}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mean_mm", [2.0, 6.0])
def test_the_mean_displacement_is_as_asked(grid, mean_mm):
    displacement = random_diffeomorphism(grid, 3, mean_mm=mean_mm).displacement_on(grid)
    assert np.linalg.norm(displacement, axis=0).mean() == pytest.approx(mean_mm, rel=0.15)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_fold_and_its_inverse_undoes_it(grid, seed):
    transform = random_diffeomorphism(grid, seed, mean_mm=6.0, **AFFINE)
    found = folding(transform.displacement_on(grid), grid.affine)
    assert found.smallest > 0.1
    points = grid.to_world(grid.voxels())[::7]
    back = transform.inverse()(transform(points))
    assert np.linalg.norm(back - points, axis=1).max() < 0.15


def test_the_seed_decides():
    grid = Grid.from_spacing((12, 12, 12), 8.0)
    one, same, other = (random_diffeomorphism(grid, seed, **AFFINE).displacement_on(grid) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1


def test_nothing_asked_nothing_moved():
    grid = Grid.from_spacing((10, 11, 12), 8.0)
    assert np.abs(random_diffeomorphism(grid, 0, mean_mm=0.0).displacement_on(grid)).max() < 1e-9


def test_the_affine_part_keeps_to_its_ranges():
    grid = Grid((10, 10, 10), OBLIQUE)
    for seed in range(20):
        matrix = random_diffeomorphism(grid, seed, mean_mm=0.0, **AFFINE).transforms[-1].matrix
        moved = matrix[:3, :3] @ grid.centre + matrix[:3, 3] - grid.centre
        assert np.abs(moved).max() <= 12
        stretches = np.linalg.svd(matrix[:3, :3], compute_uv=False)
        assert np.abs(np.log(stretches)).max() <= 3 * 0.05
        assert np.linalg.det(matrix[:3, :3]) > 0


def test_far_outside_nothing_moves():
    grid = Grid.from_spacing((12, 12, 12), 8.0)
    transform = random_diffeomorphism(grid, 1, smoothness_mm=20.0)
    far = np.array([[-41.0, 40, 40], [200, 40, 40], [40, 40, 500]])
    np.testing.assert_array_equal(transform(far), far)


def test_noise_has_the_moments_it_promises():
    rng = np.random.default_rng(0)
    points = rng.uniform(-60, 60, (3, 20000))
    values = smooth_noise(rng, (120.0, 120.0, 120.0), 8.0)(points)
    assert values.mean() == pytest.approx(0, abs=0.1)
    assert values.std() == pytest.approx(1, abs=0.15)
    assert correlated_gaussian(rng, (20, 20, 20), 13.0, (0.7, 0.7, 0.4)).std() == pytest.approx(13.0, rel=1e-3)
    background = rician(rng, np.zeros((40, 40, 40), np.float32), 14.0)
    assert background.mean() == pytest.approx(14 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh where there is no signal
    assert rician(rng, np.full((40, 40, 40), 900.0, np.float32), 14.0).std() == pytest.approx(14, rel=0.02)
