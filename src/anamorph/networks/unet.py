"""The U-Net of Atlas-ISTN: few filters, strided convolutions down, linear interpolation up, no normalisation.

======  ==============================================================================
scale   computes (k3 convolutions; channels c0, c1, ... from fine to coarse)
======  ==============================================================================
0       conv in -> c0, ReLU, conv c0 -> c0, ReLU
s > 0   conv c(s-1) -> c(s) with stride 2, no activation; conv c(s) -> c(s), ReLU
back    x2 linear, concatenated with the skip; conv c(s) + c(s-1) -> c(s-1), ReLU
head    1x1 conv c0 -> out, linear
======  ==============================================================================

With ``batch_norm`` the k3 convolutions are each followed by batch normalisation, as in the paper's variant that learns
without a segmentation loss.

Weights begin as torch draws them, as in the release. With ``initialisation="he"`` those of the k3 convolutions have a
variance of 2 / inputs and biases of 0 (K. He et al. 2015, doi:10.1109/ICCV.2015.123), and those of the head a standard
deviation of 0.01: fewer rectifiers shut for good in the first steps, when squared errors are largest. With a
``negative_slope`` none can: below zero ReLU is then that times its input (A. Maas et al. 2013, "Rectifier
nonlinearities improve neural network acoustic models").

Source: M. Sinclair et al. (2022), Atlas-ISTN, doi:10.1016/j.media.2022.102383; O. Ronneberger et al. (2015),
doi:10.1007/978-3-319-24574-4_28.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.networks.segmentation import SegmentationNetwork
from anamorph.types import ImageBatch

Initialisation = Literal["torch", "he"]

HEAD_DEVIATION = 0.01
"""Of the head's first weights, initialisation he."""


class StridedUNet(SegmentationNetwork):
    """An image-to-image network for inputs of any size, 2-D or 3-D.

    Args:
        ndim: 2 or 3.
        inputs: channels of the image.
        outputs: channels of the result.
        channels: at each scale, from fine to coarse; each scale halves the one before it.
        batch_norm: whether every convolution but the last is normalised over the batch.
        initialisation: how weights begin.
        negative_slope: of the rectifiers below zero.
    """

    def __init__(
        self,
        ndim: int,
        inputs: int,
        outputs: int,
        channels: Sequence[int] = (8, 16, 32, 64),
        batch_norm: bool = False,
        initialisation: Initialisation = "torch",
        negative_slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        conv, norm = (Conv3d, nn.BatchNorm3d) if ndim == 3 else (nn.Conv2d, nn.BatchNorm2d)

        def layer(before: int, after: int, stride: int = 1) -> nn.Module:
            convolution = conv(before, after, 3, stride=stride, padding=1)
            return nn.Sequential(convolution, norm(after)) if batch_norm else convolution

        self.multiples = [2 ** (len(channels) - 1)] * ndim
        self.first = layer(inputs, channels[0])
        self.down = nn.ModuleList(layer(fine, coarse, stride=2) for fine, coarse in pairwise(channels))
        self.encode = nn.ModuleList(layer(c, c) for c in channels)
        self.decode = nn.ModuleList(layer(fine + coarse, fine) for fine, coarse in pairwise(channels))
        self.head = conv(channels[0], outputs, 1)
        if initialisation == "he":
            for module in self.modules():
                if isinstance(module, conv) and module.bias is not None:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(module.bias)
            nn.init.normal_(self.head.weight, std=HEAD_DEVIATION)

    def forward(self, image: ImageBatch) -> Float[Tensor, "batch outputs *spatial"]:
        """B ``inputs`` I J (K) -> B ``outputs`` I J (K)."""
        x = self._rectified(self.first(pad_to_multiple(image, self.multiples)))
        skips: list[Tensor] = []
        for scale, encode in enumerate(self.encode):
            if scale > 0:
                skips.append(x)
                x = self.down[scale - 1](x)
            x = self._rectified(encode(x))
        for decode in reversed(self.decode):
            skip = skips.pop()
            mode = "trilinear" if skip.ndim == 5 else "bilinear"
            x = functional.interpolate(x, size=skip.shape[2:], mode=mode, align_corners=False)
            x = self._rectified(decode(torch.cat([x, skip], 1)))
        return crop_to(self.head(x), image.shape[2:])

    def logits(self, image: ImageBatch) -> list[Float[Tensor, "batch outputs *spatial"]]:
        """The only result."""
        return [self(image)]

    def _rectified(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, self.negative_slope)
