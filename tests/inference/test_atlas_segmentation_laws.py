"""The map in mm is the one in voxels: forward, back, and with its affine part beyond the network's view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anamorph.inference.atlas_segmentation import world_map
from anamorph.methods.atlas_istn import AtlasTransformation
from anamorph.networks.spatial_transformer import affine_matrix
from anamorph.spatial.field import resize
from anamorph.spatial.grid import Grid

SHAPES = [(20, 17), (16, 13, 18)]


def found_in(shape: tuple[int, ...], affine: bool = True, local: bool = True) -> AtlasTransformation:
    """Made up: velocities on the half grid that vanish at its border, and an affine map that does all it can."""
    ndim, generator = len(shape), torch.Generator().manual_seed(len(shape))
    half = [-(-n // 4) * 2 for n in shape]
    coarse = torch.zeros(1, ndim, *[6] * ndim)
    coarse[(..., *[slice(1, -1)] * ndim)] = 0.4 * torch.randn(1, ndim, *[4] * ndim, generator=generator)
    velocity = resize(coarse, half) if local else torch.zeros(1, ndim, *half)
    numbers = 0.15 * torch.randn(1, ndim * (ndim - 1) // 2 + 2 * ndim, generator=generator)
    matrix = affine_matrix(numbers, shape, [2.0] * ndim) if affine else None
    return AtlasTransformation(velocity, matrix, shape)


def grids_of(shape: tuple[int, ...]) -> tuple[Grid, Grid]:
    """Of the atlas, and turned and moved of the case."""
    ndim = len(shape)
    atlas, case = np.diag([*[2.0] * ndim, 1.0]), np.diag([*[2.0] * ndim, 1.0])
    case[:2, :2] = [[0.0, -2.0], [2.0, 0.0]]
    case[:-1, -1] = 30.0
    return Grid(shape, atlas), Grid(shape, case)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("affine", "local"), [(True, True), (False, True), (True, False)])
def test_it_is_phi_and_back_it_is_the_inverse(shape: tuple[int, ...], affine: bool, local: bool) -> None:
    found, (atlas, case) = found_in(shape, affine, local), grids_of(shape)
    to_case = world_map(found, atlas, case)
    lattice = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape)).astype(float)
    forward, inverse = (u[0].flatten(1).T.double().numpy() for u in (found.forward, found.inverse))
    missed = case.to_voxel(to_case(atlas.to_world(lattice))) - (lattice + forward)
    assert np.abs(missed).max() < 1e-3
    back = atlas.to_voxel(to_case.inverse()(case.to_world(lattice)))
    # Where T^-1 leaves the view, the network takes the value at its border.
    linear = np.eye(len(shape) + 1) if found.matrix is None else found.matrix[0].double().numpy()
    placed = np.linalg.solve(linear, np.column_stack([lattice, np.ones(len(lattice))]).T).T[:, :-1]
    inside = ((placed >= 0) & (placed <= np.array(shape) - 1)).all(1)
    assert inside.mean() > 0.3
    # The network interpolates exp(-v) twice, on its grid and between the voxels of that, which flattens its peaks.
    missed = np.abs(back - (lattice + inverse))[inside]
    assert missed.max() < 0.3
    assert missed.mean() < 0.03
    assert np.abs(inverse)[inside].mean() > 0.1
    assert np.abs(to_case(to_case.inverse()(case.to_world(lattice[inside]))) - case.to_world(lattice[inside])).max() < 1


@pytest.mark.parametrize("shape", SHAPES)
def test_beyond_the_view_the_affine_map_holds(shape: tuple[int, ...]) -> None:
    found, (atlas, case) = found_in(shape), grids_of(shape)
    far = np.array([[n + 5.0 for n in shape], [-7.0] * len(shape)])
    assert found.matrix is not None
    matrix = found.matrix[0].double().numpy()
    expected = case.to_world(far @ matrix[:-1, :-1].T + matrix[:-1, -1])
    assert np.allclose(world_map(found, atlas, case)(atlas.to_world(far)), expected)
