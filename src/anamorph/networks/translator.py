"""A residual network that makes an image of one modality out of one of another, in [-1, 1].

    first     ``kernel``, k7                       ``features``
    down      2 convolutions k3, stride 2          doubled each time
    blocks    y = x + f(x)                         f: k3, ReLU, dropout, k3
    up        2 transposed convolutions k3, x2     halved each time; ``resize``: x2 by the nearest voxel, then k3
    last      ``kernel``, k7, tanh                 channels

Instance normalisation without parameters follows each convolution but the last, and ReLU follows it, but at the end of
a block; biases that it would take away again are left out. What lies outside an image is its border value. With 64
features and nine blocks that is 34 106 241 weights in 3-D, of one channel.

Sources: J.-Y. Zhu et al. (2017), CycleGAN, doi:10.1109/ICCV.2017.244; CycleGAN's and CoCycleReg's releases.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d, ConvTranspose3d
from anamorph.networks.normalisation import instance_norm
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.types import ImageBatch

SCALES = 2
"""How often images are halved."""

Features = Float[Tensor, "batch features *spatial"]
Upsampling = Literal["transposed", "resize"]


class Translator(nn.Module):
    """Images of any size, 2-D or 3-D; sizes are made up to a multiple of four inside.

    Args:
        ndim: 2 or 3.
        channels: of the images of either modality.
        features: at full resolution.
        blocks: at a quarter of it.
        dropout: share of the features that a block leaves out in training.
        kernel: size of the first and the last convolution, odd.
        upsampling: how images are doubled; see the module.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        features: int = 64,
        blocks: int = 9,
        dropout: float = 0.5,
        kernel: int = 7,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        convolution = Conv3d if ndim == 3 else nn.Conv2d
        transposed = ConvTranspose3d if ndim == 3 else nn.ConvTranspose2d
        widths = [features * 2**scale for scale in range(SCALES + 1)]
        self.multiples = [2**SCALES] * ndim
        self.margin = kernel // 2
        self.first = convolution(channels, features, kernel, bias=False)
        self.down = nn.ModuleList(
            convolution(fine, coarse, 3, stride=2, padding=1, bias=False) for fine, coarse in pairwise(widths)
        )
        self.blocks = nn.ModuleList(ResidualBlock(ndim, widths[-1], dropout) for _ in range(blocks))
        self.up = nn.ModuleList(
            Doubling(ndim, coarse, fine)
            if upsampling == "resize"
            else transposed(coarse, fine, 3, stride=2, padding=1, output_padding=1, bias=False)
            for coarse, fine in pairwise(reversed(widths))
        )
        self.last = convolution(features, channels, kernel)

    def forward(self, image: ImageBatch) -> ImageBatch:
        """B C I J (K), -1 to 1, and so is what comes out."""
        x = _activated(self.first(continued(pad_to_multiple(image, self.multiples), self.margin)))
        for down in self.down:
            x = _activated(down(x))
        for block in self.blocks:
            x = block(x)
        for up in self.up:
            x = _activated(up(x))
        return crop_to(torch.tanh(self.last(continued(x, self.margin))), image.shape[2:]).to(image.dtype)


class Doubling(nn.Module):
    """Each voxel twice along every axis, then a convolution k3; arguments as there, ``coarse`` to ``fine`` features.

    Transposed convolutions weigh neighbouring voxels by different weights, and leave a chequered pattern: A. Odena,
    V. Dumoulin, C. Olah (2016), Deconvolution and checkerboard artifacts, doi:10.23915/distill.00003.
    """

    def __init__(self, ndim: int, coarse: int, fine: int) -> None:
        super().__init__()
        self.convolution = (Conv3d if ndim == 3 else nn.Conv2d)(coarse, fine, 3, bias=False)

    def forward(self, x: Features) -> Float[Tensor, "batch fine *doubled"]:
        """B coarse I J (K) to B fine 2I 2J (2K)."""
        return self.convolution(continued(functional.interpolate(x, scale_factor=2, mode="nearest"), 1))


class ResidualBlock(nn.Module):
    """See the module; arguments as there."""

    def __init__(self, ndim: int, features: int, dropout: float) -> None:
        super().__init__()
        convolution = Conv3d if ndim == 3 else nn.Conv2d
        self.first = convolution(features, features, 3, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.second = convolution(features, features, 3, bias=False)

    def forward(self, x: Features) -> Features:
        """B features I J (K)."""
        y = self.dropout(_activated(self.first(continued(x, 1))))
        return x + instance_norm(self.second(continued(y, 1)))


def continued(x: Tensor, by: int) -> Tensor:
    """``x`` (B C I J (K)) with its border values carried on, on all sides."""
    return functional.pad(x, [by] * (2 * (x.ndim - 2)), mode="replicate")


def _activated(x: Features) -> Features:
    return functional.relu(instance_norm(x))
