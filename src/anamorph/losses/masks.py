"""What a mask means in a loss: the weight of a voxel is the product of the fixed and the moving mask.

Masks are constants. No gradient flows through them, so no optimiser can lower a loss by moving badly matched voxels out
of the overlap. Where no voxel weighs anything, a loss is 0 and so is its gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.types import ImageBatch, MaskBatch

Loss = Float[Tensor, ""]
"""One number, 0 at best."""


def voxel_weight(
    fixed: ImageBatch, moving: ImageBatch, fixed_mask: MaskBatch | None, moving_mask: MaskBatch | None
) -> MaskBatch | None:
    """Product of the masks given, ``None`` where neither is.

    Raises:
        ValueError: images or masks that are not on one grid, which would broadcast silently.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"fixed and moving have the same shape, found {tuple(fixed.shape)} and {tuple(moving.shape)}")
    masks = [mask.detach().to(fixed.dtype) for mask in (fixed_mask, moving_mask) if mask is not None]
    expected = (fixed.shape[0], 1, *fixed.shape[2:])
    for mask in masks:
        if mask.shape != expected:
            raise ValueError(f"a mask has one channel on the grid of the images {expected}, found {tuple(mask.shape)}")
    return None if not masks else masks[0] if len(masks) == 1 else masks[0] * masks[1]


def share(weight: Tensor) -> Tensor:
    """``weight`` (B ...) divided by its sum, item by item; nothing stays nothing."""
    total = weight.flatten(1).sum(1).view(-1, *[1] * (weight.ndim - 1))
    return weight / torch.where(total > 0, total, 1)


def weighted_mean(values: ImageBatch, weight: MaskBatch | None) -> Loss:
    """Mean over channels and weighted voxels, then over the batch: an item's loss does not depend on its neighbours."""
    if weight is None:
        return values.mean()
    return (values * share(weight)).sum() / (values.shape[0] * values.shape[1])
