"""How good an atlas is: its sharpness, how far it lies from the middle of its cases, and which of them stand apart.

Sharpness is the mean length of the intensity's gradient where the atlas shows something, a focus measure: the same of
the cases that it was averaged from, warped onto its grid, is what it may reach at best. A small Gaussian comes first,
or noise, which averaging removes, would pass for detail.

Sources: E. Krotkov (1988), Focusing, doi:10.1007/BF00127822 (gradient length as a measure of focus); N. Otsu (1979),
doi:10.1109/TSMC.1979.4310076 (foreground); F. Hampel (1974), doi:10.1080/01621459.1974.10482962 (median deviation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, gaussian_filter

BLUR_VOXELS = 1.0
MARGIN_VOXELS = 2
"""How far around the foreground the gradient counts, so that its border has a part in it."""
BINS = 256
NORMAL = 0.6745
"""Median absolute deviation of a normal distribution of unit variance."""
OUTLIER = 3.5
"""Robust z from which a case stands apart."""

ImageArray = Float[np.ndarray, "..."]
OptionalMask = Bool[np.ndarray, "..."] | None


def otsu_threshold(image: ImageArray) -> float:
    """The value between dark and bright that leaves the least variance within both, of 256 bins; finite input.

    Of equally good ones the middle; a constant image's own value.
    """
    low, high = float(image.min()), float(image.max())
    if not high > low:
        return low
    counts, ends = np.histogram(image, BINS, (low, high))
    middles = (ends[:-1] + ends[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between = np.nan_to_num(between)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(ends[1:][best].mean())


def foreground(image: ImageArray) -> Bool[np.ndarray, "..."]:
    """Where an image shows something: brighter than Otsu's threshold, and two voxels around; all of a constant one."""
    bright = image > otsu_threshold(image)
    return binary_dilation(bright, iterations=MARGIN_VOXELS) if bright.any() else np.ones(image.shape, bool)


def sharpness(image: ImageArray, affine: np.ndarray, mask: OptionalMask = None) -> float:
    """Mean length of the gradient in a mask, intensity per mm, after a Gaussian of one voxel; NaN for an empty mask.

    Args:
        image: I J (K).
        affine: of its grid, voxel index -> mm.
        mask: by default ``foreground``.
    """
    inside = foreground(image) if mask is None else mask
    if not inside.any():
        return float("nan")
    smooth = gaussian_filter(image.astype(np.float64), BLUR_VOXELS)
    by_voxel = [np.gradient(smooth, axis=axis) if n > 1 else 0.0 * smooth for axis, n in enumerate(image.shape)]
    gradient = np.tensordot(np.linalg.inv(affine[:-1, :-1]).T, np.stack(by_voxel), axes=1)
    return float(np.linalg.norm(gradient, axis=0)[inside].mean())


def change(before: ImageArray, after: ImageArray, mask: OptionalMask = None) -> float:
    """Root mean square difference of two images in a mask, as a share of the first one's standard deviation there.

    After a Gaussian of one voxel, since noise never stops changing. 0 where both are constant and equal.
    """
    inside = np.ones(before.shape, bool) if mask is None else mask
    old, new = (gaussian_filter(image.astype(np.float64), BLUR_VOXELS)[inside] for image in (before, after))
    moved = float(np.sqrt(np.mean((new - old) ** 2)))
    return moved / max(float(old.std()), 1e-12) if moved else 0.0


def mean_length_mm(displacement_mm: Float[np.ndarray, "ndim ..."], mask: OptionalMask = None) -> float:
    """Mean length of a displacement d I J (K), mm, in a mask if one is given; NaN where that is empty."""
    length = np.linalg.norm(displacement_mm, axis=0)
    inside = length.ravel() if mask is None else length[mask]
    return float(inside.mean()) if inside.size else float("nan")


def robust_z(values: Sequence[float]) -> list[float]:
    """By how many deviations each value lies above the median, the deviation taken from the median one.

    Where more than half of the values are equal, the mean deviation stands in; 0 where all are. NaN stays NaN and has
    no part in it.
    """
    given = np.array(values, dtype=np.float64)
    known = given[np.isfinite(given)]
    if not known.size:
        return given.tolist()
    away = given - np.median(known)
    spread = np.median(np.abs(known - np.median(known))) / NORMAL
    if not spread:
        spread = np.abs(known - np.median(known)).mean() * np.sqrt(np.pi / 2)
    return (away / spread if spread else 0.0 * away).tolist()
