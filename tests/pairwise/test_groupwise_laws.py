"""Means of maps: what they undo, what they do not depend on, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import logm

from anamorph.errors import NumericalError
from anamorph.pairwise.groupwise import (
    ImageMean,
    MapMean,
    about_centres,
    centred,
    common_grid,
    deformation_on,
    linear_part,
    mean_affine,
    parts,
    seen_through,
)
from anamorph.pairwise.preparation import Scene
from anamorph.spatial.affine import matrix_from_parameters
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Velocity


def matrices(ndim: int, count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    parameters = 0.3 * rng.standard_normal((count, ndim * (ndim + 1)))
    parameters[:, :ndim] *= 40
    centre = np.full(ndim, 50.0)
    return list(matrix_from_parameters(torch.from_numpy(parameters), "affine", ndim, centre).numpy())


def velocities(grid: Grid, count: int, seed: int = 0) -> list[Velocity]:
    rng = np.random.default_rng(seed)
    nodes = (grid.voxels() / grid.shape).T.reshape(grid.ndim, *grid.shape)
    fields = []
    for _ in range(count):
        waves = [np.prod(np.sin(np.pi * nodes), axis=0) * rng.normal(0, 2) for _ in range(grid.ndim)]
        fields.append(Velocity(torch.from_numpy(np.stack(waves).astype(np.float32)), grid))
    return fields


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_mean_matrix_is_the_middle_from_either_side_and_in_any_order(ndim: int) -> None:
    given = matrices(ndim, 7)
    mean = mean_affine(given)
    for sides in ([m @ np.linalg.inv(mean) for m in given], [np.linalg.inv(mean) @ m for m in given]):
        assert np.abs(np.mean([logm(m) for m in sides], axis=0)).max() < 1e-10
    assert np.allclose(mean_affine(given[::-1]), mean, atol=1e-11)
    moved = matrices(ndim, 1, seed=5)[0]
    assert np.allclose(mean_affine([moved @ m for m in given]), moved @ mean, atol=1e-8)
    assert np.allclose(mean_affine([np.linalg.inv(m) for m in given]), np.linalg.inv(mean), atol=1e-9)


def test_half_turns_and_mirrors_have_no_mean() -> None:
    with pytest.raises(NumericalError, match="E-ATL-004"):
        mean_affine([np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0])])
    with pytest.raises(NumericalError, match="E-ATL-004"):
        mean_affine([np.diag([1.0, 2.0, 1.0]), np.eye(3), np.diag([-1.0, -1.5, 1.0])])


@pytest.mark.parametrize("shape", [(20, 24), (12, 14, 16)])
def test_maps_with_their_mean_taken_out_have_the_identity_for_a_mean(shape: tuple[int, ...]) -> None:
    grid = Grid.from_spacing(shape, 2.0)
    given = [Chain((v, Affine(m))) for v, m in zip(velocities(grid, 5), matrices(len(shape), 5), strict=True)]
    mean, count = MapMean(), len(given)
    for transform in given:
        mean.add(transform)
    found = mean.transform()
    velocity, linear = parts(found)
    assert velocity is not None
    assert np.allclose(linear.matrix, mean_affine([parts(t)[1].matrix for t in given]))
    out = [centred(transform, found) for transform in given]
    assert np.allclose(mean_affine([linear_part(t).matrix for t in out]), np.eye(len(shape) + 1), atol=1e-9)
    inner = (slice(None), *[slice(3, -3)] * len(shape))
    before = sum(deformation_on(t, grid) for t in given)[inner] / count
    after = sum(deformation_on(t, grid) for t in out)[inner] / count
    size = np.mean([np.abs(deformation_on(t, grid)[inner]).mean() for t in given])
    assert np.abs(after).mean() < 0.15 * np.abs(before).mean()
    assert np.abs(after).mean() < 0.05 * size


def test_a_linear_map_counts_as_no_velocity_and_the_linear_mean_can_stay() -> None:
    grid = Grid.from_spacing((16, 16), 1.0)
    velocity, shift = velocities(grid, 1)[0], np.array([[1.0, 0, 6], [0, 1, 0], [0, 0, 1]])
    for with_linear, expected in ((True, shift), (False, np.eye(3))):
        mean = MapMean(with_linear)
        mean.add(Chain((velocity, Affine(shift))))
        mean.add(Affine(shift))
        found, linear = parts(mean.transform())
        assert found is not None
        assert torch.allclose(found.velocity, velocity.velocity / 2)
        assert np.allclose(linear.matrix, expected)
    alone = MapMean()
    alone.add(Affine(shift))
    assert isinstance(alone.transform(), Affine)
    with pytest.raises(ValueError, match="no velocity"):
        parts(Chain((Affine(shift), velocity)))


def test_what_an_image_does_not_see_has_no_part_in_the_mean() -> None:
    grid = Grid.from_spacing((4, 3), 1.0)
    mean = ImageMean(grid)
    seen = torch.ones(grid.shape)
    mean.add(torch.full((1, 4, 3), 2.0), seen)
    half = seen.clone()
    half[0] = 0
    mean.add(4 * half[None], half)
    found = mean.mean()
    assert found[0, 0, 0] == 2
    assert found[0, 1, 0] == 3
    nothing = ImageMean(grid)
    nothing.add(torch.zeros(1, 4, 3), torch.zeros(4, 3))
    assert (nothing.mean() == 0).all()


def test_a_scene_is_pulled_together_with_what_it_sees() -> None:
    grid = Grid.from_spacing((6, 6), 1.0)
    scene = Scene(torch.full((1, 1, 6, 6), 0.5), grid, None, np.zeros(2))
    values, seen = seen_through(scene, Affine(np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]])), grid)
    assert (seen[:4] == 1).all()
    assert (seen[4:] == 0).all()
    assert torch.equal(values[0], 0.5 * seen)


def test_the_common_grid_has_the_median_spacing_and_extent_whatever_the_order_of_the_axes() -> None:
    turned = Grid((20, 10, 8), np.array([[0, -2.0, 0, 30], [1.0, 0, 0, 4], [0, 0, 5.0, 0], [0, 0, 0, 1]]))
    plain = Grid((10, 20, 8), np.diag([2.0, 1.0, 5.0, 1.0]))
    large = Grid((30, 50, 20), np.diag([2.0, 1.0, 5.0, 1.0]))
    found = common_grid([turned, plain, large])
    assert found.shape == (10, 20, 8)
    assert found.spacing.tolist() == [2, 1, 5]
    assert np.allclose(found.centre, np.mean([g.centre for g in (turned, plain, large)], axis=0))


def test_shifts_about_centres_have_no_mean() -> None:
    shifts = about_centres([np.array([1.0, 2]), np.array([5.0, 0])])
    assert np.allclose(shifts[0](np.array([[3.0, 1.0]])), [[1, 2]])
    assert np.allclose(mean_affine([s.matrix for s in shifts]), np.eye(3))
