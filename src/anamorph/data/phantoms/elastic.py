"""Random elastic deformations: control points that are moved at random, and a Gaussian that smooths what lies between.

Between the points the displacement is interpolated linearly. Points on the border of the field of view stay where they
are, and the smoothing keeps that border in place, so that nothing has to be made up that would come from outside.

Source: C. Qin et al. (2019), doi:10.1007/978-3-030-20351-1_19, after whom C. Lian et al. (2022),
doi:10.1016/j.neucom.2022.05.113, deform aligned images; neither tells distance, size or width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from anamorph.spatial.field import jacobian_determinant
from anamorph.spatial.grid import Grid

FEWEST_VOXELS = 3
"""Along every axis; of fewer none lies inside."""
REACH = 4.0
"""Standard deviations at which the Gaussian is cut off."""


def elastic_displacement(
    grid: Grid, rng: np.random.Generator, control_mm: float, smoothness_mm: float
) -> Float32[np.ndarray, "ndim *spatial"]:
    """A displacement on a grid whose control points moved by up to 1 mm along each axis; times any other length.

    Args:
        grid: with ``FEWEST_VOXELS`` along every axis.
        rng: draws uniformly.
        control_mm: distance between control points, adjusted so that a whole number fits, and one at least is inside.
        smoothness_mm: standard deviation of the Gaussian.

    Returns:
        d I J (K), in the world's directions.
    """
    weights = [
        control_weights(n, control_mm / spacing, smoothness_mm / spacing)
        for n, spacing in zip(grid.shape, grid.spacing.tolist(), strict=True)
    ]
    field = rng.uniform(-1.0, 1.0, (grid.ndim, *[matrix.shape[1] for matrix in weights])).astype(np.float32)
    for axis, matrix in enumerate(weights, 1):
        field = np.moveaxis(np.tensordot(field, matrix.astype(np.float32), axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(field)


def control_weights(n: int, spacing: float, sd: float) -> Float[np.ndarray, "voxels points"]:
    """What each inner control point along an axis adds to each voxel: linear between the points, then smoothed.

    Interpolation and Gaussian go axis by axis, so the field is a product of such matrices. Beyond the border the values
    are taken on with the opposite sign, which keeps those on it at 0.

    Args:
        n: voxels.
        spacing: between control points, voxels.
        sd: of the Gaussian, voxels.
    """
    pieces = max(2, round((n - 1) / spacing))
    knots = np.linspace(0, n - 1, pieces + 1)
    hats = np.stack([np.interp(np.arange(n), knots, row) for row in np.eye(pieces + 1)[1:-1]], axis=1)
    beyond = math.ceil(REACH * sd)
    mirrored = np.pad(hats, ((beyond, beyond), (0, 0)), mode="reflect", reflect_type="odd")
    return gaussian_filter1d(mirrored, sd, axis=0, truncate=REACH)[beyond : beyond + n]


def in_voxels(displacement: Float[np.ndarray, "ndim *spatial"], grid: Grid) -> Float[Tensor, "1 ndim *spatial"]:
    """A displacement in mm as ``spatial.field`` takes it."""
    linear = np.linalg.inv(grid.affine[:-1, :-1]).astype(displacement.dtype)
    return torch.from_numpy(np.tensordot(linear, displacement, axes=1))[None]


def least_determinant(displacement: Float[np.ndarray, "ndim *spatial"], grid: Grid) -> float:
    """The smallest Jacobian determinant of x + u(x), with u in mm; where it is not above 0 the map folds."""
    return float(jacobian_determinant(in_voxels(displacement, grid)).min())
