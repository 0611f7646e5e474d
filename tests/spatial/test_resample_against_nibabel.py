"""``resample`` against nibabel (its affines, its resampling) and SciPy; sheared grids too, which SimpleITK refuses.

SciPy has no half voxel at the border: its images end at the outer voxel centres.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import nibabel
import nibabel.processing
import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.ndimage import map_coordinates

from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, resample

AXIS_ORDERS = [np.column_stack(pair) for pair in product(permutations(range(3)), product((1, -1), repeat=3))]


def inside(source: Grid, target: Grid, margin: float) -> np.ndarray:
    """Which voxels of the target lie within the source's outer voxel centres, or ``margin`` voxels beyond."""
    voxels = nibabel.affines.apply_affine(np.linalg.inv(source.affine) @ target.affine, target.voxels())
    return ((voxels >= -margin) & (voxels <= np.array(source.shape) - 1 + margin)).all(1).reshape(target.shape)


@pytest.mark.parametrize("orientation", AXIS_ORDERS, ids=lambda o: "".join(f"{'-+'[int(s > 0)]}{a}" for a, s in o))
@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_every_axis_order(oblique_grid: Callable, orientation: np.ndarray, shear: float) -> None:
    source = oblique_grid((7, 8, 9), 1, shear)
    image = np.random.default_rng(0).normal(size=source.shape)
    stored = apply_orientation(image, orientation)
    stored_grid = Grid(stored.shape, source.affine @ inv_ornt_aff(orientation, source.shape))
    assert stored_grid.ndim == 3
    target = Grid(
        (6, 7, 5), source.affine @ np.array([[1.1, 0.2, 0, 0.3], [-0.1, 1.2, 0, 0.2], [0.1, 0, 1.7, 0.4], [0, 0, 0, 1]])
    )

    found = resample(torch.from_numpy(stored.copy())[None], stored_grid, target)[0].numpy()
    theirs = nibabel.processing.resample_from_to(
        nibabel.Nifti1Image(stored, stored_grid.affine), (target.shape, target.affine), order=1
    ).get_fdata()
    within = inside(source, target, -1e-6)
    np.testing.assert_allclose(found[within], theirs[within], atol=1e-9)
    assert 0.5 < within.mean() < 1
    assert (found[~inside(source, target, 0.5 + 1e-6)] == 0).all()


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ndim", [2, 3])
def test_sheared_grids_through_an_affine_map(oblique_grid: Callable, ndim: int, seed: int, mode) -> None:
    source, target = oblique_grid((9, 8, 7)[:ndim], seed, 0.4), oblique_grid((8, 9, 10)[:ndim], seed + 30, -0.3)
    random = np.random.default_rng(seed)
    image = random.normal(size=(2, *source.shape))
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += random.uniform(-0.2, 0.2, (ndim, ndim))
    matrix[:-1, -1] = (source.centre - target.centre) * 0.9

    found = resample(torch.from_numpy(image), source, target, Affine(matrix), mode)
    world = nibabel.affines.apply_affine(target.affine, target.voxels())
    moved = nibabel.affines.apply_affine(matrix, world)
    voxels = nibabel.affines.apply_affine(np.linalg.inv(source.affine), moved).T
    within = ((voxels >= -0.5) & (voxels <= np.array(source.shape)[:, None] - 0.5)).all(0)
    for channel, values in zip(image, found, strict=True):
        expected = map_coordinates(channel, voxels, order=1 if mode == "linear" else 0, mode="nearest") * within
        np.testing.assert_allclose(values.flatten(), expected, atol=1e-9)
    assert within.any()
    assert not within.all()
