"""How far the surfaces of two segmentations lie apart, in mm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import KDTree

from anamorph.evaluation.overlap import emptiness
from anamorph.evaluation.scores import Score, mean_name, mean_score

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
    def asd_mm(self) -> float:
        """Average surface distance: the mean over the surface of b, the prediction, of its distance to that of a."""
        return float(self.b_to_a_mm.mean()) if self._missing is None else self._missing

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over the voxels of both surfaces."""
        return (
            float(np.concatenate([self.a_to_b_mm, self.b_to_a_mm]).mean()) if self._missing is None else self._missing
        )

    @property
    def assd_balanced_mm(self) -> float:
        """The mean of the two directed means, so that the larger surface does not weigh more: medpy's ``assd``."""
        if self._missing is not None:
            return self._missing
        return float(self.a_to_b_mm.mean() + self.b_to_a_mm.mean()) / 2

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


@dataclass(frozen=True)
class RegionDistances:
    """Hausdorff distances of two masks as sets of voxel centres, mm: those of ITK's ``HausdorffDistanceImageFilter``.

    A voxel that lies in the other mask has distance 0, so depth inside the other mask does not count. Infinite where
    one mask is empty, NaN where both are.

    Args:
        hd_mm: the largest distance of a voxel of one mask to the nearest of the other.
        average_hd_mm: the mean of the two directed means.
    """

    hd_mm: float
    average_hd_mm: float


def region_distances(a: Mask, b: Mask, spacing_mm: Sequence[float] | np.ndarray) -> RegionDistances:
    """Hausdorff distances of two masks as sets of voxels; arguments as for ``surface_distances``."""
    if a.shape != b.shape or len(spacing_mm) != a.ndim:
        raise ValueError(f"shapes {a.shape} and {b.shape} with a spacing of {len(spacing_mm)} axes do not agree")
    if emptiness(bool(a.any()), bool(b.any())):
        missing = math.inf if a.any() or b.any() else math.nan
        return RegionDistances(missing, missing)
    box = _bounding_box(a | b)
    a, b = a[box], b[box]
    spacing = [float(width) for width in spacing_mm]
    to_b = np.asarray(distance_transform_edt(~b, sampling=spacing))[a]
    to_a = np.asarray(distance_transform_edt(~a, sampling=spacing))[b]
    return RegionDistances(float(max(to_b.max(), to_a.max())), float(to_b.mean() + to_a.mean()) / 2)


def label_surface(
    fixed: Labels,
    warped: Labels,
    spacing_mm: Sequence[float] | np.ndarray,
    names: Mapping[int, str] | None = None,
    tolerance_mm: float = 2.0,
    every: bool = False,
) -> list[Score]:
    """HD, HD95, ASSD and NSD of every label, and the mean HD95; or every distance, and the mean of each.

    Args:
        fixed: labels of the fixed image, or the truth.
        warped: labels of the moving image brought onto its grid, or a prediction.
        spacing_mm: voxel size of that grid.
        names: which labels to score and what they are called; without it, all but 0 that occur in either image.
        tolerance_mm: of the normalised surface Dice.
        every: also ASD, the balanced ASSD and the distances of the regions.
    """
    if names is None:
        names = {int(label): str(label) for label in np.union1d(fixed, warped) if label != 0}
    surface_dice = f"nsd_{tolerance_mm:g}mm"
    rows = []
    for label, name in names.items():
        a, b = _cropped(fixed == label, warped == label)
        found = surface_distances(a, b, spacing_mm)
        values = {"hd_mm": found.hd_mm, "hd95_mm": found.hd95_mm, "assd_mm": found.assd_mm}
        values[surface_dice] = normalised_surface_dice(a, b, spacing_mm, tolerance_mm)
        if every:
            regions = region_distances(a, b, spacing_mm)
            values |= {"asd_mm": found.asd_mm, "assd_balanced_mm": found.assd_balanced_mm}
            values |= {"region_hd_mm": regions.hd_mm, "region_average_hd_mm": regions.average_hd_mm}
        units = ("mm" if metric.endswith("_mm") else "" for metric in values)
        rows += [Score(m, v, unit, name, found.reason) for (m, v), unit in zip(values.items(), units, strict=True)]
    averaged = dict.fromkeys(row.metric for row in rows) if every else ("hd95_mm",)
    return [*rows, *(mean_score((r for r in rows if r.metric == metric), mean_name(metric)) for metric in averaged)]


def _cropped(a: Mask, b: Mask) -> tuple[Mask, Mask]:
    """Both masks within the box of their union, with an empty voxel round it; a small structure costs little."""
    either = a | b
    if not either.any():
        return a, b
    box = _bounding_box(either)
    return np.pad(a[box], 1), np.pad(b[box], 1)


def _surface_points(mask: Mask, spacing_mm: np.ndarray) -> np.ndarray:
    """Centres of the surface voxels in mm from the first voxel, N d."""
    if not mask.any():
        return np.empty((0, mask.ndim))
    box = _bounding_box(mask)
    start = np.array([side.start for side in box])
    return (np.argwhere(mask[box] & np.logical_not(binary_erosion(mask[box]))) + start) * spacing_mm


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds a mask which is not empty."""
    others = [tuple(k for k in range(mask.ndim) if k != axis) for axis in range(mask.ndim)]
    where = [np.flatnonzero(mask.any(axis=axes)) for axes in others]
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in where)
