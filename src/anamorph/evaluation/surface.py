"""How far the surfaces of two segmentations lie apart, in mm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from anamorph.evaluation.overlap import emptiness
from anamorph.evaluation.scores import Score, mean_score

Mask = Bool[np.ndarray, "..."]
Labels = Int[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From every surface voxel of each mask to the nearest surface voxel of the other, mm.

    A surface voxel belongs to the mask and has a neighbour (across a face) that does not; beyond the image is outside.
    Where one mask is empty the distances are infinite, where both are they are NaN.

    Args:
        a_to_b_mm: one distance a surface voxel of the first mask.
        b_to_a_mm: one distance a surface voxel of the second.
        reason: what is empty.
    """

    a_to_b_mm: Float[np.ndarray, " surface_a"]
    b_to_a_mm: Float[np.ndarray, " surface_b"]
    reason: str = ""

    @cached_property
    def _missing(self) -> float | None:
        if not self.reason:
            return None
        return math.inf if len(self.a_to_b_mm) + len(self.b_to_a_mm) else math.nan

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest distance either way."""
        return self._percentile(100.0)

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles."""
        return self._percentile(95.0)

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over the voxels of both surfaces."""
        return (
            float(np.concatenate([self.a_to_b_mm, self.b_to_a_mm]).mean()) if self._missing is None else self._missing
        )

    def _percentile(self, share: float) -> float:
        if self._missing is not None:
            return self._missing
        return float(max(np.percentile(self.a_to_b_mm, share), np.percentile(self.b_to_a_mm, share)))


def surface_distances(a: Mask, b: Mask, spacing_mm: Sequence[float] | np.ndarray) -> SurfaceDistances:
    """Distances between the surfaces of two masks.

    Args:
        a: I J (K).
        b: the same shape.
        spacing_mm: voxel size along each axis; the axes are taken as perpendicular.
    """
    if a.shape != b.shape or len(spacing_mm) != a.ndim:
        raise ValueError(f"shapes {a.shape} and {b.shape} with a spacing of {len(spacing_mm)} axes do not agree")
    surface_a, surface_b = (_surface_points(mask, np.asarray(spacing_mm, float)) for mask in (a, b))
    reason = emptiness(len(surface_a) > 0, len(surface_b) > 0)
    if reason:
        return SurfaceDistances(np.full(len(surface_a), np.inf), np.full(len(surface_b), np.inf), reason)
    to_b, _ = KDTree(surface_b).query(surface_a)
    to_a, _ = KDTree(surface_a).query(surface_b)
    return SurfaceDistances(np.asarray(to_b), np.asarray(to_a))


def normalised_surface_dice(a: Mask, b: Mask, spacing_mm: Sequence[float] | np.ndarray, tolerance_mm: float) -> float:
    """The share of both surfaces, by area, that lies within ``tolerance_mm`` of the other.

    1 at best, 0 where one mask is empty, NaN where both are. Surfaces run between the voxels, as in the implementation
    that challenges cite. Nikolov et al. 2021, doi:10.2196/26151.
    """
    if emptiness(bool(a.any()), bool(b.any())):
        return 0.0 if a.any() or b.any() else math.nan
    import torch
    from monai.metrics.surface_dice import compute_surface_dice

    box = _bounding_box(a | b)
    prediction, truth = (torch.from_numpy(np.pad(mask[box], 1))[None, None] for mask in (a, b))
    spacing = [float(width) for width in spacing_mm]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls a function of its own that it has deprecated
        share = compute_surface_dice(
            prediction, truth, [tolerance_mm], include_background=True, spacing=spacing, use_subvoxels=True
        )
    return float(share)


def label_surface(
    fixed: Labels,
    warped: Labels,
    spacing_mm: Sequence[float] | np.ndarray,
    names: Mapping[int, str] | None = None,
    tolerance_mm: float = 2.0,
) -> list[Score]:
    """HD, HD95, ASSD and NSD of every label, and the mean HD95.

    Args:
        fixed: labels of the fixed image.
        warped: labels of the moving image brought onto its grid.
        spacing_mm: voxel size of that grid.
        names: which labels to score and what they are called; without it, all but 0 that occur in either image.
        tolerance_mm: of the normalised surface Dice.
    """
    if names is None:
        names = {int(label): str(label) for label in np.union1d(fixed, warped) if label != 0}
    rows = []
    for label, name in names.items():
        distances = surface_distances(fixed == label, warped == label, spacing_mm)
        share = normalised_surface_dice(fixed == label, warped == label, spacing_mm, tolerance_mm)
        rows += [
            Score("hd_mm", distances.hd_mm, "mm", name, distances.reason),
            Score("hd95_mm", distances.hd95_mm, "mm", name, distances.reason),
            Score("assd_mm", distances.assd_mm, "mm", name, distances.reason),
            Score(f"nsd_{tolerance_mm:g}mm", share, "", name, distances.reason),
        ]
    return [*rows, mean_score((row for row in rows if row.metric == "hd95_mm"), "hd95_mean_mm")]


def _surface_points(mask: Mask, spacing_mm: np.ndarray) -> np.ndarray:
    """Centres of the surface voxels in mm from the first voxel, N d."""
    if not mask.any():
        return np.empty((0, mask.ndim))
    box = _bounding_box(mask)
    start = np.array([side.start for side in box])
    return (np.argwhere(mask[box] & ~binary_erosion(mask[box])) + start) * spacing_mm


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds a mask which is not empty."""
    others = [tuple(k for k in range(mask.ndim) if k != axis) for axis in range(mask.ndim)]
    where = [np.flatnonzero(mask.any(axis=axes)) for axes in others]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in where)
