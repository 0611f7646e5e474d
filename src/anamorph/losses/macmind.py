r"""macMIND, the multi-sampling cascaded modality independent neighbourhood descriptor of macJNet.

    SSC_c^k(x) = exp( -SSD_c^k(x) / mean over the edges of SSD^k(x) )     c = 1..M edges, scale k         (eq. 8, 9, 12)
    msSSC_c    = sum_k alpha_k SSC_c^k       or side by side              k = 1..K scales                 (eq. 10)
    macMIND    = cat over bins n of K_n * msSSC                           N = Na Nr Nh log-polar bins     (eq. 11, 13)

    similarity(F, M) = mean over voxels x and channels of ( macMIND(F, x) - macMIND(M, x) )^2               (eq. 14)

Source: macJNet, 2023, doi:10.1186/s12938-023-01143-6. SSD and its patches: ``losses.descriptors``; K_n averages over a
bin of an R2^d window: ``losses.log_polar``. The channels of the descriptor run over the bins first, the edges last.

Where the paper contradicts itself or is silent:

- Edges: 18 in 3-D (6 centre - neighbour, 12 neighbour - neighbour), two in each of the nine directions that the text
  counts. "All pairwise" would be 21, with the three opposite pairs. In 2-D the same rule gives 8.
- alphas = (0.7, 0.3), the small scale first: figures 3 and 10 against the text's 0.3 and 0.7.
- Scale k has the distance L_k = k L (2 and 4 voxels); the paper gives only L = 2. All scales have patches of R1 = 5.
- Eq. 8 and 10 sum over the edges, which would leave one channel where M are needed: no sum is taken.
- Na = 8, Nr = 2, Nh = 1 as in the paper's drawing of 16 bins, which is 2-D; the 3-D counts are not given. R2 = 5.
- Eq. 14 does not say whether channels are summed or averaged: averaged, so that the loss keeps its scale when bins
  change.
- Border: the image goes on with its outermost values, and msSSC beyond the border is that of this image.
- Masks weigh the voxels where descriptors are compared. A descriptor reads intensities up to
  K L + (R1 - 1) / 2 + (R2 - 1) / 2 = 8 voxels away along each axis; what a mask hides has no influence beyond that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from anamorph.losses.descriptor_distance import Description, descriptor_distance
from anamorph.losses.descriptors import describe
from anamorph.losses.log_polar import LogPolarBins
from anamorph.losses.masks import Loss
from anamorph.losses.self_similarity import DescriptorBatch, SelfSimilarity, spokes_and_rim
from anamorph.types import ImageBatch, MaskBatch

ALPHAS = (0.7, 0.3)
"""Weights of the scales, small to large."""

BINS = LogPolarBins(window=5, angles=8, radii=2, heights=1)
"""R2, Na, Nr and Nh."""


def macmind(
    image: ImageBatch,
    *,
    alphas: Sequence[float] = ALPHAS,
    distance: int = 2,
    patch_size: int = 5,
    bins: LogPolarBins = BINS,
    concatenated: bool = False,
) -> DescriptorBatch:
    """The whole descriptor: 288 channels in 3-D, 128 in 2-D, by default. At full size prefer ``macmind_similarity``.

    Args:
        image: intensities, B C *spatial.
        alphas: weight of each scale, small to large; their number is K.
        distance: L in voxels; scale k has k L.
        patch_size: R1 in voxels, odd.
        bins: the window R2 and the numbers of angles, radii and heights.
        concatenated: scales side by side instead of summed: K times the channels.

    Returns:
        B (C * N * M) *spatial.
    """
    description = _description(image.ndim - 2, alphas, distance, patch_size, bins, concatenated)
    weighted = [
        alpha * describe(image, scale, bins.radius) for scale, alpha in zip(description.scales, alphas, strict=True)
    ]
    weighted = [stack.unflatten(1, (image.shape[1], -1)) for stack in weighted]
    context = torch.cat(weighted, 2) if concatenated else torch.stack(weighted).sum(0)
    convolution = F.conv3d if image.ndim == 5 else F.conv2d
    averages = convolution(context.flatten(0, 2).unsqueeze(1), bins.kernels(image))
    averages = averages.unflatten(0, context.shape[:3]).transpose(2, 3)
    return averages.reshape(image.shape[0], -1, *image.shape[2:])


def macmind_similarity(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    alphas: Sequence[float] = ALPHAS,
    distance: int = 2,
    patch_size: int = 5,
    bins: LogPolarBins = BINS,
    concatenated: bool = False,
) -> Loss:
    """Mean squared difference of the ``macmind`` descriptors, which are never held whole. Once differentiable.

    Arguments as in ``macmind``; masks weigh voxels, B 1 *spatial.
    """
    description = _description(fixed.ndim - 2, alphas, distance, patch_size, bins, concatenated)
    return descriptor_distance(fixed, moving, fixed_mask, moving_mask, description)


def _description(
    ndim: int, alphas: Sequence[float], distance: int, patch_size: int, bins: LogPolarBins, concatenated: bool
) -> Description:
    if not alphas:
        raise ValueError("macMIND has at least one scale, found no alphas")
    scales = [SelfSimilarity(spokes_and_rim(ndim), k * distance, patch_size) for k in range(1, len(alphas) + 1)]
    return Description(tuple(scales), tuple(alphas), concatenated, bins)
