"""A discriminator that judges an image patch by patch: one answer for each of many overlapping parts.

    convolutions k4, LeakyReLU(0.2)      stride 2, ``layers`` times, then once stride 1; widths double, to eight times
    convolution  k4, stride 1            the answer

Instance normalisation without parameters follows the convolutions between the first and the last, whose biases, which
it would take away again, are left out. With three layers of stride 2 an answer sees 70 voxels an axis; with 64 features
that is 11 046 977 weights in 3-D, of one channel.

Sources: P. Isola et al. (2017), Image-to-image translation with conditional adversarial networks,
doi:10.1109/CVPR.2017.632; CycleGAN's and CoCycleReg's releases.
"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d
from anamorph.networks.normalisation import instance_norm
from anamorph.types import ImageBatch

WIDEST = 8
"""Most features, as a multiple of the first layer's."""


class PatchDiscriminator(nn.Module):
    """Images of any size, 2-D or 3-D; axes too short for one answer are made up by their border value.

    Args:
        ndim: 2 or 3.
        channels: of all images together.
        features: of the first layer.
        layers: of stride 2.
    """

    def __init__(self, ndim: int, channels: int, features: int = 64, layers: int = 3) -> None:
        super().__init__()
        convolution = Conv3d if ndim == 3 else nn.Conv2d
        widths = [features * min(2**layer, WIDEST) for layer in range(layers + 1)]
        strides = [2] * (layers - 1) + [1]
        self.least = 3 * 2**layers
        self.first = convolution(channels, features, 4, stride=2, padding=1)
        self.middle = nn.ModuleList(
            convolution(before, after, 4, stride=stride, padding=1, bias=False)
            for (before, after), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.last = convolution(widths[-1], 1, 4, padding=1)

    def forward(self, image: ImageBatch) -> Float[Tensor, "batch 1 *patches"]:
        """B ``channels`` I J (K) -> an answer a patch, of any size: about 1 (or above 0, as a logit) for real."""
        missing = [pad for n in reversed(image.shape[2:]) for pad in (0, max(0, self.least - n))]
        x = functional.pad(image, missing, mode="replicate") if any(missing) else image
        x = functional.leaky_relu(self.first(x), 0.2)
        for layer in self.middle:
            x = functional.leaky_relu(instance_norm(layer(x)), 0.2)
        return self.last(x)
