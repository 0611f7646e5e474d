"""How far a map is from the true one, where that is known at every voxel."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from anamorph.evaluation.scores import Score

Displacement = Float[np.ndarray, "ndim ..."]


def map_error_mm(displacement_mm: Displacement, true_mm: Displacement) -> Float[np.ndarray, "..."]:
    """The distance between where the two maps bring each voxel, I J (K), mm; both on one grid."""
    if displacement_mm.shape != true_mm.shape:
        raise ValueError(f"two maps on one grid have one shape, found {displacement_mm.shape} and {true_mm.shape}")
    return np.linalg.norm(displacement_mm.astype(np.float64) - true_mm, axis=0)


def map_error_scores(
    displacement_mm: Displacement, true_mm: Displacement, mask: Bool[np.ndarray, "..."] | None = None
) -> list[Score]:
    """Mean, median and 95th percentile of the map's error, inside a mask if one is given.

    Voxels at which the true map is NaN are those where nobody knows it, and are left out.
    """
    error = map_error_mm(displacement_mm, true_mm)
    known = np.isfinite(true_mm).all(axis=0)
    inside = error[known if mask is None else known & mask]
    reason = "" if inside.size else "the true map is known nowhere in the mask"
    if inside.size and not np.isfinite(inside).all():
        reason = "the displacement is not finite"
    values = (math.nan,) * 3 if reason else (inside.mean(), np.median(inside), np.percentile(inside, 95))
    names = ("map_error_mean_mm", "map_error_median_mm", "map_error_p95_mm")
    return [Score(name, float(value), "mm", reason=reason) for name, value in zip(names, values, strict=True)]
