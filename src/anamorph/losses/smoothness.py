"""Penalties on displacements: how rough a map is, where it folds, how it changes volumes.

Displacements are voxels of their own grid, ``B d *spatial``. With ``spacing`` (mm per voxel along each axis)
displacements are taken in mm and derivatives per mm, so that an anisotropic grid does not make one direction stiffer;
without it, everything is in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anamorph.losses.masks import Loss
from anamorph.spatial.field import jacobian_determinant
from anamorph.types import DisplacementBatch

Spacing = Sequence[float] | np.ndarray | None

FOLDING_NEAR = 0.1
"""Below this determinant its logarithm goes on as a straight line."""


def diffusion(displacement: DisplacementBatch, spacing: Spacing = None) -> Loss:
    """Mean squared entry of the displacement's Jacobian matrix, by forward differences; no unit.

    macJNet eq. 15, averaged instead of summed, as is usual in learning: the mean over axes, components and voxels.

    Args:
        displacement: displacements, or velocities, in voxels: B d *spatial.
        spacing: mm per voxel along each axis.
    """
    steps = _steps(displacement, spacing)
    scaled = _scaled(displacement, steps)
    axes = [_mean(_difference(scaled, axis).div(steps[axis]).square()) for axis in range(len(steps))]
    return torch.stack(axes).mean()


def bending_energy(displacement: DisplacementBatch, spacing: Spacing = None) -> Loss:
    """Sum of all squared second derivatives, mixed ones twice, mean over components and voxels; 1/mm^2 or 1/voxel^2.

    Source: Rueckert et al. 1999, doi:10.1109/42.796284. Affine maps cost nothing. Derivatives are differences of
    neighbours, taken where both are inside.

    Args:
        displacement: in voxels, B d *spatial.
        spacing: mm per voxel along each axis.
    """
    steps = _steps(displacement, spacing)
    scaled = _scaled(displacement, steps)
    total = displacement.new_zeros(())
    for a in range(len(steps)):
        total = total + _mean(_difference(_difference(scaled, a), a).div(steps[a] ** 2).square())
        for b in range(a):
            mixed = _difference(_difference(scaled, a), b).div(steps[a] * steps[b])
            total = total + 2 * _mean(mixed.square())
    return total


def folding(displacement: DisplacementBatch) -> Loss:
    """Mean of how far the Jacobian determinant of the map is below zero; no unit, the same in voxels and mm.

    Args:
        displacement: in voxels, B d *spatial.
    """
    return torch.relu(-jacobian_determinant(displacement)).mean()


def volume_change(displacement: DisplacementBatch) -> Loss:
    """Mean squared logarithm of the Jacobian determinant of the map: halving and doubling a volume cost the same.

    Below a determinant of 0.1 the logarithm goes on as its tangent, so that folded voxels have a finite cost that
    drives them back.

    Args:
        displacement: in voxels, B d *spatial.
    """
    determinant = jacobian_determinant(displacement)
    safe = determinant.clamp_min(FOLDING_NEAR)
    return (safe.log() + (determinant - safe) / FOLDING_NEAR).square().mean()


def _steps(displacement: Tensor, spacing: Spacing) -> list[float]:
    """Size of a voxel along each axis; checked before it is a tensor, which on a GPU would be waited for."""
    ndim = displacement.ndim - 2
    steps = [1.0] * ndim if spacing is None else [float(step) for step in spacing]
    if len(steps) != ndim or not all(step > 0 for step in steps):
        raise ValueError(f"spacing is one positive number an axis, found {spacing} for {ndim} axes")
    return steps


def _scaled(displacement: Tensor, steps: list[float]) -> Tensor:
    if all(step == 1.0 for step in steps):
        return displacement
    return displacement * displacement.new_tensor(steps).view(1, -1, *[1] * len(steps))


def _difference(x: Tensor, axis: int) -> Tensor:
    return x.diff(dim=axis + 2)


def _mean(x: Tensor) -> Tensor:
    """Mean, and 0 where an axis is too short for any difference."""
    return x.sum() / max(x.numel(), 1)
