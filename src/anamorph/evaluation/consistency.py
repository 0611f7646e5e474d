"""Whether two maps undo each other where it matters: on the structures of an atlas, there and back.

Atlas-ISTN (Sinclair et al. 2022, doi:10.1016/j.media.2022.102383, table 6) calls the two numbers masked inverse
consistency error (MICE) and inverse consistency Dice (IC-DSC). Its maps go from the atlas to a subject and back; any
two maps that should undo each other will do, as those between two subjects that were composed through an atlas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates

from anamorph.evaluation.folding import inverse_miss_mm
from anamorph.evaluation.overlap import label_overlap
from anamorph.evaluation.scores import Score

Displacement = Float[np.ndarray, "ndim ..."]
Labels = Int[np.ndarray, "..."]
Probabilities = Float[np.ndarray, "classes ..."]


def masked_inverse_consistency_error(
    mask: Bool[np.ndarray, "..."],
    forward_mm: Displacement,
    forward_affine: np.ndarray,
    backward_mm: Displacement,
    backward_affine: np.ndarray,
) -> tuple[float, float, int]:
    """The mean of |back(there(x)) - x| over the voxels of a mask: in voxels, in mm, and how many voxels were lost.

    A voxel is lost where its image is outside the grid of the map back. NaN where the mask is empty or all are lost.

    Args:
        mask: I J (K), the structures of the atlas.
        forward_mm: d I J (K), RAS mm, atlas points -> subject points, on the grid of the mask.
        forward_affine: of that grid.
        backward_mm: d I J (K), RAS mm, subject points -> atlas points, on the subject's grid.
        backward_affine: of that grid.
    """
    if mask.shape != forward_mm.shape[1:]:
        raise ValueError(f"a mask of shape {mask.shape} is not on the grid {forward_mm.shape[1:]} of the forward map")
    index = np.argwhere(mask)
    linear = forward_affine[:-1, :-1]
    points = index @ linear.T + forward_affine[:-1, -1]
    miss = inverse_miss_mm(points, forward_mm, forward_affine, backward_mm, backward_affine)
    miss = miss[np.isfinite(miss).all(axis=1)]
    if not len(miss):
        return math.nan, math.nan, len(index)
    voxels = np.linalg.norm(miss @ np.linalg.inv(linear).T, axis=1)
    return float(voxels.mean()), float(np.linalg.norm(miss, axis=1).mean()), len(index) - len(miss)


def there_and_back(
    atlas: Labels | Probabilities,
    forward_mm: Displacement,
    forward_affine: np.ndarray,
    backward_mm: Displacement,
    backward_affine: np.ndarray,
) -> Labels:
    """The atlas's labels after both warps: (y o back) on the subject's grid, then o there on the atlas's own.

    Each label is interpolated linearly by itself, both times, and the largest wins at the end.

    Args:
        atlas: labels I J (K), or probabilities C I J (K) whose first class is the background.
        forward_mm, forward_affine, backward_mm, backward_affine: as for ``masked_inverse_consistency_error``.
    """
    to_atlas = _voxels(backward_mm, backward_affine, forward_affine)
    to_subject = _voxels(forward_mm, forward_affine, backward_affine)
    shape = forward_mm.shape[1:]
    highest, result = np.zeros(shape), np.zeros(shape, np.int64)
    for label, channel in _channels(atlas):
        back = _read(_read(channel, to_atlas), to_subject)
        result[back > highest] = label
        np.maximum(highest, back, out=highest)
    return result


def inverse_consistency_scores(
    atlas: Labels | Probabilities,
    forward_mm: Displacement,
    forward_affine: np.ndarray,
    backward_mm: Displacement,
    backward_affine: np.ndarray,
    names: Mapping[int, str] | None = None,
) -> list[Score]:
    """MICE over all structures, and the inverse consistency Dice of each and their mean.

    Arguments are those of ``there_and_back``; ``names`` chooses the labels, by default all but 0.
    """
    labels = atlas if np.issubdtype(atlas.dtype, np.integer) else np.argmax(atlas, axis=0)
    maps = forward_mm, forward_affine, backward_mm, backward_affine
    if not (np.isfinite(forward_mm).all() and np.isfinite(backward_mm).all()):
        reason = "a displacement is not finite"
        metrics = (("mice_voxels", "voxels"), ("mice_mm", "mm"), ("ic_dice_mean", ""))
        return [Score(metric, math.nan, unit, reason=reason) for metric, unit in metrics]
    if names is None:
        names = {int(label): str(label) for label in np.unique(labels) if label != 0}
    mask = np.isin(labels, list(names))
    voxels, mm, lost = masked_inverse_consistency_error(mask, *maps)
    reason = f"{lost} of {int(mask.sum())} voxels leave the other grid and are not counted" if lost else ""
    if not mask.any():
        reason = "the structures are empty"
    dice = label_overlap(labels, there_and_back(atlas, *maps), names, ("dice",))
    return [
        Score("mice_voxels", voxels, "voxels", reason=reason),
        Score("mice_mm", mm, "mm", reason=reason),
        *(replace(row, metric=f"ic_{row.metric}") for row in dice),
    ]


def _channels(atlas: Labels | Probabilities) -> Iterator[tuple[int, Float[np.ndarray, "..."]]]:
    """Each label and where it is, the background first; one at a time, for there may be many."""
    if np.issubdtype(atlas.dtype, np.integer):
        yield 0, (atlas == 0).astype(np.float64)
        yield from ((int(label), (atlas == label).astype(np.float64)) for label in np.unique(atlas) if label != 0)
    else:
        yield from ((label, channel.astype(np.float64)) for label, channel in enumerate(atlas))


def _voxels(displacement_mm: Displacement, affine: np.ndarray, other_affine: np.ndarray) -> Float[np.ndarray, "d ..."]:
    """Where the voxels of one grid go, in voxels of the other."""
    index = np.stack(np.meshgrid(*map(np.arange, displacement_mm.shape[1:]), indexing="ij"))
    inverse = np.linalg.inv(other_affine)
    matrix = inverse @ affine
    offset = matrix[:-1, -1].reshape(-1, *[1] * (index.ndim - 1))
    moved = np.tensordot(matrix[:-1, :-1], index, 1) + np.tensordot(inverse[:-1, :-1], displacement_mm, 1)
    return moved + offset


def _read(channel: Float[np.ndarray, "..."], where: Float[np.ndarray, "d ..."]) -> Float[np.ndarray, "..."]:
    """Linear interpolation: the border value up to half a voxel outside, 0 beyond."""
    edge = np.array(channel.shape).reshape(-1, *[1] * (where.ndim - 1)) - 1
    nearest = np.clip(where, 0, edge)
    seen = (np.abs(where - nearest) <= 0.5).all(axis=0)
    return np.where(seen, map_coordinates(channel, nearest, order=1), 0.0)
