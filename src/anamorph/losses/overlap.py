"""Overlap of soft labels, as a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anamorph.losses.masks import Loss, voxel_weight
from anamorph.losses.windows import gaussian_taps, window_sum
from anamorph.types import ImageBatch, MaskBatch

SMOOTHING = 1e-5
"""Voxels. Makes two empty labels match (0)."""


def soft_dice(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    sigmas: Sequence[float] = (0.0,),
    squared: bool = True,
) -> Loss:
    """One minus the Dice overlap, averaged over labels, items and scales.

        1 - 2 sum(a b) / (sum(a^2) + sum(b^2))

    With squares any two equal soft labels reach 0 (Milletari et al. 2016, doi:10.1109/3DV.2016.79). Without them, in
    the form 2 sum(a b) / (sum(a) + sum(b)) that many papers use, only crisp ones do. Two empty labels match (0), one
    empty label does not (1).

    Args:
        fixed, moving: probabilities in [0, 1], B L *spatial, one channel a label; leave the background out if it should
            not count.
        fixed_mask, moving_mask: weights of voxels, B 1 *spatial; a voxel of no weight belongs to no label.
        sigmas: of the Gaussians, in voxels, that blur both labels before they are compared; 0 leaves them as they are.
            Several make a multi-scale loss, which also pulls labels together that do not touch (Hu et al. 2018,
            doi:10.1016/j.media.2018.07.002).
        squared: see above.
    """
    weight = voxel_weight(fixed, moving, fixed_mask, moving_mask)
    if weight is None:
        weight = fixed.new_ones(1, 1, *fixed.shape[2:])
    a, b = (torch.where(weight > 0, labels, 0) for labels in (fixed, moving))
    spatial = tuple(range(2, fixed.ndim))
    scales = []
    for sigma in sigmas:
        u, v = (x if sigma == 0 else window_sum(x, gaussian_taps(sigma, truncate=3.0)) for x in (a, b))
        shared = 2 * (u * v * weight).sum(spatial)
        both = ((u.square() + v.square() if squared else u + v) * weight).sum(spatial)
        scales.append(1 - (shared + SMOOTHING) / (both + SMOOTHING))
    return torch.stack(scales).mean()
