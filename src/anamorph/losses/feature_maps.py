"""Descriptors as pictures: the mean over their channels, as in figure 10 of macJNet.

    map(x) = mean over channels c of descriptor_c(x)

Of macMIND the bins' averages are averaged first, so that its N M channels are never held: a mean of averages is one
average. Where a place is like its surroundings the map is bright; it is dark along edges and in texture.

Source: doi:10.1186/s12938-023-01143-6, figure 10; the descriptors: ``losses.descriptors`` and ``losses.macmind``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anamorph.losses.descriptors import describe
from anamorph.losses.log_polar import LogPolarBins
from anamorph.losses.macmind import ALPHAS, BINS
from anamorph.losses.self_similarity import SelfSimilarity, rim, spokes, spokes_and_rim
from anamorph.types import ImageBatch

Descriptor = Literal["macmind", "mind", "mind_ssc"]


def feature_map(
    image: ImageBatch,
    descriptor: Descriptor = "macmind",
    *,
    distance: int = 2,
    patch_size: int = 5,
    alphas: Sequence[float] = ALPHAS,
    bins: LogPolarBins = BINS,
) -> Float[Tensor, "batch 1 *spatial"]:
    """Mean over the channels of a descriptor.

    Args:
        image: intensities, B C *spatial.
        descriptor: which.
        distance, patch_size: as in ``mind``.
        alphas, bins: of macMIND, as there.

    Returns:
        B 1 *spatial.
    """
    ndim = image.ndim - 2
    if descriptor == "mind":
        return describe(image, SelfSimilarity(spokes(ndim), distance, patch_size)).mean(1, keepdim=True)
    if descriptor == "mind_ssc":
        scale = SelfSimilarity(rim(ndim), distance, patch_size, from_least=True)
        return describe(image, scale).mean(1, keepdim=True)
    edges = spokes_and_rim(ndim)
    scales = [SelfSimilarity(edges, number * distance, patch_size) for number in range(1, len(alphas) + 1)]
    means = [
        alpha * describe(image, scale, bins.radius).mean(1, keepdim=True)
        for alpha, scale in zip(alphas, scales, strict=True)
    ]
    convolution = F.conv3d if ndim == 3 else F.conv2d
    return convolution(torch.stack(means).sum(0), bins.kernels(image).mean(0, keepdim=True))
