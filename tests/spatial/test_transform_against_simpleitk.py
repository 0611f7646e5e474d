"""Points through ``Affine`` and ``Field`` against SimpleITK's transforms, inside a field, at its edges and beyond."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Field


def through(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """RAS points through a transform that works in LPS."""
    flip = np.array([-1.0, -1.0, 1.0])[: points.shape[1]]
    return np.array([transform.TransformPoint(point.tolist()) for point in points * flip]) * flip


def displacement_field_transform(vectors: np.ndarray, grid: Grid) -> sitk.DisplacementFieldTransform:
    """``vectors`` d I J (K) in RAS mm."""
    flip = np.array([-1.0, -1.0, 1.0])[: grid.ndim]
    backwards = np.moveaxis(vectors, 0, -1) * flip
    image = sitk.GetImageFromArray(backwards.transpose(*reversed(range(grid.ndim)), grid.ndim), isVector=True)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin((grid.affine[:-1, -1] * flip).tolist())
    image.SetDirection((flip[:, None] * grid.affine[:-1, :-1] / grid.spacing).ravel().tolist())
    return sitk.DisplacementFieldTransform(image)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_field_inside_and_outside_of_its_grid(oblique_grid: Callable, ndim: int, seed: int, dtype) -> None:
    grid = oblique_grid((7, 6, 8)[:ndim], seed)
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(ndim, *grid.shape)).astype("f4" if dtype == torch.float32 else "f8")
    voxels = random.uniform(-1.5, np.array(grid.shape) + 0.5, (400, ndim))
    points = grid.to_world(voxels)
    found = Field(torch.from_numpy(vectors), grid)(points)
    expected = through(displacement_field_transform(vectors.astype("f8"), grid), points)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-9)
    outside = ((voxels < -0.5) | (voxels > np.array(grid.shape) - 0.5)).any(1)
    clamped = ((voxels < 0) | (voxels > np.array(grid.shape) - 1)).any(1) & ~outside
    assert (found == points)[outside].all()
    assert (found != points)[clamped].all()
    assert min(outside.sum(), clamped.sum(), (~outside).sum()) > 20


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_field_from_one_side_to_the_other(axis: int) -> None:
    grid = Grid((4, 3, 5), np.diag([1.0, 2.0, 0.5, 1.0]))
    vectors = np.random.default_rng(0).normal(size=(3, *grid.shape))
    voxels = np.tile([1.3, 0.8, 2.1], (80, 1))
    voxels[:, axis] = np.linspace(-2.02, grid.shape[axis] + 1.01, 80)
    points = grid.to_world(voxels)
    np.testing.assert_allclose(
        Field(torch.from_numpy(vectors), grid)(points),
        through(displacement_field_transform(vectors, grid), points),
        atol=1e-9,
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 1), (1, 1), (3, 1)], ids=str)
def test_a_field_with_axes_of_one_voxel(oblique_grid: Callable, shape: tuple[int, ...]) -> None:
    grid = oblique_grid(shape, 3)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(grid.ndim, *shape))
    points = grid.to_world(random.uniform(-1, np.array(shape), (200, grid.ndim)))
    np.testing.assert_allclose(
        Field(torch.from_numpy(vectors), grid)(points),
        through(displacement_field_transform(vectors, grid), points),
        atol=1e-9,
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_affine_maps_and_their_inverses(ndim: int) -> None:
    random = np.random.default_rng(ndim)
    matrix = np.eye(ndim + 1)
    matrix[:-1] += random.normal(size=(ndim, ndim + 1)) * 0.4
    flip = np.array([-1.0, -1.0, 1.0])[:ndim]
    theirs = sitk.AffineTransform(ndim)
    theirs.SetMatrix((flip[:, None] * matrix[:-1, :-1] * flip).ravel().tolist())
    theirs.SetTranslation((flip * matrix[:-1, -1]).tolist())
    points = random.uniform(-100, 100, (50, ndim))
    np.testing.assert_allclose(Affine(matrix)(points), through(theirs, points), atol=1e-9)
    np.testing.assert_allclose(Affine(matrix).inverse()(points), through(theirs.GetInverse(), points), atol=1e-9)


def test_a_rotation_about_a_centre() -> None:
    theirs = sitk.Euler3DTransform((10.0, -20.0, 30.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0))
    flip = np.diag([-1.0, -1.0, 1.0])
    linear = flip @ np.array(theirs.GetMatrix()).reshape(3, 3) @ flip
    centre, translation = flip @ theirs.GetCenter(), flip @ theirs.GetTranslation()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, centre + translation - linear @ centre
    points = np.random.default_rng(0).uniform(-100, 100, (20, 3))
    np.testing.assert_allclose(Affine(matrix)(points), through(theirs, points), atol=1e-9)
