"""How alike two images on one grid look.

Mutual information needs a joint histogram: 64 equal bins an image between the 0.5th and 99.5th percentile of its values
inside the mask; what lies beyond falls into the outermost bins, so that one metal artefact does not empty the others.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

from anamorph.evaluation.scores import Score

BINS = 64
PERCENTILES = (0.5, 99.5)
OF_ONE_SCALE = ("structural_similarity", "rmse", "psnr_db")
"""Metrics that mean something of two images of one modality and one scale only."""

ImageArray = Float[np.ndarray, "..."]
OptionalMask = Bool[np.ndarray, "..."] | None


def mutual_information_nats(
    fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None, bins: int = BINS
) -> float:
    """I(A; B) = H(A) + H(B) - H(A, B), natural logarithm: 0 for independent images; NaN where the mask is empty."""
    a, b, joint = _entropies(fixed, warped, mask, bins)
    return a + b - joint


def normalised_mutual_information(
    fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None, bins: int = BINS
) -> float:
    """(H(A) + H(B)) / H(A, B), from 1 (independent) to 2; NaN where both are constant.

    Studholme, Hill and Hawkes 1999, doi:10.1016/S0031-3203(98)00091-0.
    """
    a, b, joint = _entropies(fixed, warped, mask, bins)
    return (a + b) / joint if joint else float("nan")


def normalised_cross_correlation(fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None) -> float:
    """Pearson's correlation of the intensities, from -1 to 1; NaN where one image is constant."""
    a, b = (values - values.mean() if values.size else values for values in _inside(fixed, warped, mask))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else float("nan")


def structural_similarity(fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None) -> float:
    """The mean of the SSIM map, 1 for equal images; it expects both in the same units.

    A Gaussian window of 1.5 voxels, K1 = 0.01, K2 = 0.03, and the range of the fixed image inside the mask as dynamic
    range. Wang et al. 2004, doi:10.1109/TIP.2003.819861. NaN where the fixed image is constant.
    """
    inside = _inside(fixed, warped, mask)[0]
    dynamic_range = float(np.ptp(inside)) if inside.size else 0.0
    if not dynamic_range:
        return float("nan")

    def local_mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, truncate=3.5)

    a, b = fixed.astype(np.float64), warped.astype(np.float64)
    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a, variance_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
    ssim = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    ssim /= (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float(ssim.mean() if mask is None else ssim[mask].mean())


def root_mean_square_error(fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None) -> float:
    """The root of the mean squared difference, in the images' own unit; NaN where the mask is empty."""
    a, b = _inside(fixed, warped, mask)
    return float(np.sqrt(np.mean((a - b) ** 2))) if a.size else float("nan")


def peak_signal_to_noise_db(fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None) -> float:
    """20 log10(range / RMSE), dB, with the range of the fixed image inside the mask; infinite for equal images.

    Hore and Ziou 2010, doi:10.1109/ICPR.2010.579. NaN where the fixed image is constant.
    """
    inside = _inside(fixed, warped, mask)[0]
    dynamic_range = float(np.ptp(inside)) if inside.size else 0.0
    error = root_mean_square_error(fixed, warped, mask)
    if not dynamic_range:
        return float("nan")
    return float(20 * np.log10(dynamic_range / error)) if error else float("inf")


def appearance_scores(
    fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None, *, same_scale: bool = False
) -> list[Score]:
    """MI, NMI, NCC and perhaps SSIM of a fixed and a warped image, inside a mask if one is given.

    Args:
        fixed, warped: intensities on one grid.
        mask: where to look.
        same_scale: whether both are of one modality and one scale. SSIM expects that: where what is bright in one image
            is dark in the other its covariance is negative, and the worst alignment scores best.
    """
    if fixed.shape != warped.shape:
        raise ValueError(f"two images on one grid have one shape, found {fixed.shape} and {warped.shape}")
    measured = [
        ("mutual_information", "nats", mutual_information_nats),
        ("normalised_mutual_information", "", normalised_mutual_information),
        ("normalised_cross_correlation", "", normalised_cross_correlation),
        *([("structural_similarity", "", structural_similarity)] if same_scale else []),
    ]
    reason = _why_undefined(fixed, warped, mask)
    return [Score(name, measure(fixed, warped, mask), unit, reason=reason) for name, unit, measure in measured]


def intensity_scores(fixed: ImageArray, warped: ImageArray, mask: OptionalMask = None) -> list[Score]:
    """RMSE and PSNR of two images of one modality and one scale, as after a translation between modalities."""
    if fixed.shape != warped.shape:
        raise ValueError(f"two images on one grid have one shape, found {fixed.shape} and {warped.shape}")
    error, why = root_mean_square_error(fixed, warped, mask), _why_undefined(fixed, warped, mask)
    ratio = peak_signal_to_noise_db(fixed, warped, mask)
    equal = "the images are equal" if error == 0 else why
    return [
        Score("rmse", error, "intensity", reason="" if np.isfinite(error) else why),
        Score("psnr_db", ratio, "dB", reason="" if np.isfinite(ratio) else equal),
    ]


def _why_undefined(fixed: ImageArray, warped: ImageArray, mask: OptionalMask) -> str:
    for name, values in zip(("fixed", "warped"), _inside(fixed, warped, mask), strict=True):
        if not values.size:
            return "the mask is empty"
        if not np.isfinite(values).all():
            return f"the {name} image is not finite"
        if not np.ptp(values):
            return f"the {name} image is constant"
    return ""


def _inside(fixed: ImageArray, warped: ImageArray, mask: OptionalMask) -> tuple[np.ndarray, np.ndarray]:
    """Intensities in the mask, N each, float64."""
    pair = (fixed.ravel(), warped.ravel()) if mask is None else (fixed[mask], warped[mask])
    return pair[0].astype(np.float64), pair[1].astype(np.float64)


def _entropies(fixed: ImageArray, warped: ImageArray, mask: OptionalMask, bins: int) -> tuple[float, float, float]:
    """H(A), H(B) and H(A, B) in nats."""
    a, b = _inside(fixed, warped, mask)
    if not a.size:
        return float("nan"), float("nan"), float("nan")
    joint = np.bincount(_bin(a, bins) * bins + _bin(b, bins), minlength=bins * bins).reshape(bins, bins) / a.size
    return _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0)), _entropy(joint.ravel())


def _bin(values: np.ndarray, bins: int) -> np.ndarray:
    low, high = np.percentile(values, PERCENTILES)
    if high <= low:
        low, high = values.min(), values.max()
    scaled = (values - low) * (bins / (high - low)) if high > low else np.zeros_like(values)
    return np.clip(scaled, 0, bins - 1).astype(np.intp)


def _entropy(probabilities: np.ndarray) -> float:
    p = probabilities[probabilities > 0]
    return float(-(p * np.log(p)).sum())
