r"""Embeddings of patches, of every voxel's at once.

    x^   = mean of x over 3 x 3 (x 3) voxels, brought to zero mean and unit deviation, image by image             (1)
    e    = L3(pool(L2(pool(L5(x^)))))        L: convolution of kernel 5, 3, 3, ReLU; pooling by two               (2)
    d(x) = mean over o, channels of (e_T(x + o) - e_A(x + o))^2                                                   (3)

A patch of 15 voxels an axis has 3 places of e an axis, 4 voxels apart: the offsets o. Instead of cutting patches out,
pooling and convolutions keep full resolution, their elements 1, 2 and 4 voxels apart (a trous), so that e holds the
embedding of every patch. What lies beyond a patch is seen as it is; the release has 0 there.

Source: W. Ding et al. (2020), Cross-modality multi-atlas segmentation using deep neural networks,
doi:10.1007/978-3-030-59716-0_23, as released; a prototypical network: J. Snell et al. (2017), arXiv:1703.05175.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d
from anamorph.types import ImageBatch

STRIDE = 4
"""Voxels between two places of an embedding: pooled twice."""
KERNELS = (5, 3, 3)


class PatchEmbedding(nn.Module):
    """Equations (1) and (2), in 2-D and 3-D.

    Args:
        ndim: 2 or 3.
        inputs: channels of an image.
        channels: of the three convolutions.
    """

    def __init__(self, ndim: int, inputs: int, channels: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        conv = Conv3d if ndim == 3 else nn.Conv2d
        self.convolutions = nn.ModuleList(
            conv(before, after, kernel, padding=(kernel // 2) * 2**depth, dilation=2**depth)
            for depth, ((before, after), kernel) in enumerate(zip(pairwise([inputs, *channels]), KERNELS, strict=True))
        )

    def forward(self, image: ImageBatch) -> Float[Tensor, "batch outputs *spatial"]:
        """B ``inputs`` I J (K) -> B channels I J (K)."""
        x = _standardised(image)
        for depth, convolution in enumerate(self.convolutions):
            x = functional.relu(convolution(x if depth == 0 else _pooled(x, 2 ** (depth - 1))))
        return x


def patch_distance(
    one: ImageBatch, other: Float[Tensor, "batch channels *spatial"], patch_size: int
) -> Float[Tensor, "batch 1 *spatial"]:
    """Equation (3): B 1 I J (K); beyond the image the border goes on.

    Args:
        one, other: embeddings on one grid.
        patch_size: side of a patch, voxels.
    """
    return _over_places((one - other).square().mean(1, keepdim=True), max(1, patch_size // STRIDE))


def _standardised(image: ImageBatch) -> ImageBatch:
    """Equation (1); a constant image is 0."""
    pool = functional.avg_pool3d if image.ndim == 5 else functional.avg_pool2d
    smooth = pool(image, 3, stride=1, padding=1, count_include_pad=False)
    axes = tuple(range(2, image.ndim))
    deviation, mean = torch.std_mean(smooth, axes, correction=0, keepdim=True)
    return (smooth - mean) / deviation.clamp_min(1e-6)


def _pooled(x: Tensor, apart: int) -> Tensor:
    """Greatest of two voxels an axis, ``apart`` from each other; x is not negative, and what is outside is 0."""
    ahead = apart == 1  # once ahead and once behind, so that the middle stays where it was
    padded = functional.pad(x, [0, apart] * (x.ndim - 2) if ahead else [apart, 0] * (x.ndim - 2))
    pool = functional.max_pool3d if x.ndim == 5 else functional.max_pool2d
    return pool(padded, 2, stride=1, dilation=apart)


def _over_places(values: Tensor, places: int) -> Tensor:
    """Mean over places ``STRIDE`` apart, as many an axis."""
    reach = STRIDE * (places - 1)
    for axis in range(2, values.ndim):
        n = values.shape[axis]
        pads = [0, 0] * (values.ndim - axis - 1) + [reach // 2, reach - reach // 2] + [0, 0] * (axis - 2)
        padded = functional.pad(values, pads, mode="replicate")
        values = torch.stack([padded.narrow(axis, STRIDE * place, n) for place in range(places)]).mean(0)
    return values
