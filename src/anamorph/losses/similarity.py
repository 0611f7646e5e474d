"""Similarities of intensities: 0 at best, minimised; ``moving`` is already warped onto the grid of ``fixed``.

Shared rules, in 2-D and 3-D:

- images are ``B C *spatial``; channels are compared one by one and averaged, and so are the items of a batch;
- a voxel counts by the product of the masks (``losses.masks``). Windows of ``lncc`` and ``ssim`` are cut at the border
  of the image and of the mask alike, so what lies under a zero of the mask changes nothing at all;
- constant images give a finite loss and a finite gradient; for ``lncc``, which is blind to intensities as such, two
  constants match (0) and a constant tells nothing of an image (1).
"""

from __future__ import annotations

import torch

from anamorph.losses.masks import Loss, share, voxel_weight, weighted_mean
from anamorph.losses.windows import LocalMean, check_odd, gaussian_taps
from anamorph.types import ImageBatch, MaskBatch


def mse(
    fixed: ImageBatch, moving: ImageBatch, fixed_mask: MaskBatch | None = None, moving_mask: MaskBatch | None = None
) -> Loss:
    """Mean squared difference, in squared units of intensity."""
    return weighted_mean((fixed - moving).square(), voxel_weight(fixed, moving, fixed_mask, moving_mask))


def l1(
    fixed: ImageBatch, moving: ImageBatch, fixed_mask: MaskBatch | None = None, moving_mask: MaskBatch | None = None
) -> Loss:
    """Mean absolute difference, in units of intensity."""
    return weighted_mean((fixed - moving).abs(), voxel_weight(fixed, moving, fixed_mask, moving_mask))


def squared_local_correlation(
    fixed: ImageBatch, moving: ImageBatch, weight: MaskBatch | None, window: int, epsilon: float
) -> ImageBatch:
    """Squared correlation of the two images in a box around each voxel, in [0, 1]; see ``lncc``."""
    mean = LocalMean(fixed, weight, window)
    fixed, moving = _standardised(fixed, weight), _standardised(moving, weight)
    fixed_mean, moving_mean = mean(fixed), mean(moving)
    fixed_variance = (mean(fixed.square()) - fixed_mean.square()).clamp_min(0)
    moving_variance = (mean(moving.square()) - moving_mean.square()).clamp_min(0)
    covariance = mean(fixed * moving) - fixed_mean * moving_mean
    return (covariance.abs() + epsilon).square() / ((fixed_variance + epsilon) * (moving_variance + epsilon))


def _standardised(image: ImageBatch, weight: MaskBatch | None) -> ImageBatch:
    """Zero mean and unit deviation; both are units of measurement here, so no gradient flows through them."""
    with torch.no_grad():
        mean = _global_mean(image, weight)
        deviation = _global_mean((image - mean).square(), weight).sqrt()
        rounding = 8 * torch.finfo(image.dtype).eps * mean.abs()
        deviation = torch.where(deviation > rounding, deviation, 1)
    return (image - mean) / deviation


def _global_mean(image: ImageBatch, weight: MaskBatch | None) -> torch.Tensor:
    """Of each channel of each item, B C 1 1.."""
    spatial = tuple(range(2, image.ndim))
    if weight is None:
        return image.mean(spatial, keepdim=True)
    return (image * share(weight)).sum(spatial, keepdim=True)


def lncc(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    window: int = 9,
    epsilon: float = 1e-4,
) -> Loss:
    """One minus the mean squared local correlation.

        1 - mean_x (|cov(x)| + e)^2 / ((var_f(x) + e) (var_m(x) + e))

    with moments over a box around x and ``e`` the noise variance below which contrast counts as none. ``e`` in the
    numerator makes two flat windows match; by Cauchy-Schwarz the fraction stays within [0, 1].

    Source: Avants et al. 2008, doi:10.1016/j.media.2007.06.004 (without ``e``).

    Args:
        fixed, moving: intensities, B C *spatial; any affine change of either one's intensities changes nothing.
        fixed_mask, moving_mask: weights of voxels, B 1 *spatial.
        window: side of the box in voxels, odd.
        epsilon: ``e`` as a fraction of each image's own variance.
    """
    check_odd(window, "window")
    weight = voxel_weight(fixed, moving, fixed_mask, moving_mask)
    return weighted_mean(1 - squared_local_correlation(fixed, moving, weight, window, epsilon), weight)


def structural_similarity(
    fixed: ImageBatch, moving: ImageBatch, weight: MaskBatch | None, sigma: float, data_range: float | None
) -> ImageBatch:
    """SSIM around each voxel, in [-1, 1]; see ``ssim``."""
    mean = LocalMean(fixed, weight, gaussian_taps(sigma))
    extent = _joint_range(fixed, moving, weight) if data_range is None else data_range
    luminance_floor, contrast_floor = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    # Second moments about a common centre: about zero they would cancel in float32 where the mean dwarfs the contrast.
    centre = _global_mean(fixed.detach(), weight)
    fixed, moving = fixed - centre, moving - centre
    fixed_mean, moving_mean = mean(fixed), mean(moving)
    variances = (mean(fixed.square()) - fixed_mean.square()).clamp_min(0)
    variances = variances + (mean(moving.square()) - moving_mean.square()).clamp_min(0)
    covariance = mean(fixed * moving) - fixed_mean * moving_mean
    fixed_mean, moving_mean = fixed_mean + centre, moving_mean + centre
    luminance = (2 * fixed_mean * moving_mean + luminance_floor) / (
        fixed_mean.square() + moving_mean.square() + luminance_floor
    )
    return luminance * (2 * covariance + contrast_floor) / (variances + contrast_floor)


def _joint_range(fixed: ImageBatch, moving: ImageBatch, weight: MaskBatch | None) -> torch.Tensor:
    """Largest minus smallest intensity of both images where they count, B 1 1..; 1 where there is no range."""
    with torch.no_grad():
        both = torch.cat([fixed, moving], 1)
        spatial = tuple(range(1, fixed.ndim))
        inside = both if weight is None else torch.where(weight > 0, both, torch.inf)
        low = inside.amin(spatial, keepdim=True)
        inside = both if weight is None else torch.where(weight > 0, both, -torch.inf)
        extent = inside.amax(spatial, keepdim=True) - low
        return torch.where(extent > 0, extent, 1)


def ssim(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    sigma: float = 1.5,
    data_range: float | None = None,
) -> Loss:
    """One minus the mean structural similarity, in [0, 2], for images of one modality in one unit.

    Product of the luminance and the contrast-structure term, Gaussian window cut off at 3.5 sigma, constants 0.01 and
    0.03.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861.

    Args:
        fixed, moving: intensities, B C *spatial.
        fixed_mask, moving_mask: weights of voxels, B 1 *spatial.
        sigma: of the window, in voxels.
        data_range: largest minus smallest possible intensity; by default what the two images span, item by item.
    """
    weight = voxel_weight(fixed, moving, fixed_mask, moving_mask)
    return weighted_mean(1 - structural_similarity(fixed, moving, weight, sigma, data_range), weight)
