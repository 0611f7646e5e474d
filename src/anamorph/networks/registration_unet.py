"""VoxelMorph's network: features of two images at full resolution, and the head that makes a field of them.

    encoder   e_1 ... e_n      convolutions k3, each finer than the next by a factor of two
    decoder   d_1 ... d_m      from the coarsest scale on: convolution, x2 nearest, concatenated with the encoder's
                               features of that size
    final     the rest of d    convolutions at full resolution
    head      convolution k3, weights from N(0, 1e-5), no bias at first

each with LeakyReLU(0.2) but the head. How the encoder halves:

- ``pool``: max-pooling by two after each e_i, so that m = n, and d_1 works below e_n. The torch release of VoxelMorph.
- ``stride``: each e_i but the first has stride 2, so that m = n - 1, and e_n lies at the bottom. CoCycleReg's.

Sources: G. Balakrishnan et al. (2019), VoxelMorph, doi:10.1109/TMI.2019.2897538, and its torch release; CoCycleReg's
release.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d
from anamorph.networks.deformation import Deformation, RegistrationNetwork
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.spatial.field import exponential, resize_displacement
from anamorph.types import DisplacementBatch, ImageBatch

Down = Literal["pool", "stride"]

HEAD_DEVIATION = 1e-5
"""Of the head's first weights: registration begins at the identity."""


def scales_below(encoder: Sequence[int], down: Down) -> int:
    """How often the network halves its images."""
    return len(encoder) if down == "pool" else len(encoder) - 1


class RegistrationUNet(nn.Module):
    """Features of images of any size, 2-D or 3-D; sizes are made up to a multiple inside.

    Args:
        ndim: 2 or 3.
        inputs: channels of all images together.
        encoder: features, fine to coarse.
        decoder: features, coarse to fine; those beyond the scales work at full resolution.
        down: how the encoder halves.
    """

    def __init__(
        self, ndim: int, inputs: int, encoder: Sequence[int], decoder: Sequence[int], down: Down = "pool"
    ) -> None:
        super().__init__()
        conv = Conv3d if ndim == 3 else nn.Conv2d
        scales, self.down = scales_below(encoder, down), down
        self.multiples = [2**scales] * ndim
        self.pool = nn.MaxPool3d(2) if ndim == 3 else nn.MaxPool2d(2)
        strides = [1 if down == "pool" or i == 0 else 2 for i in range(len(encoder))]
        self.encoder = nn.ModuleList(
            conv(before, after, 3, stride, 1)
            for (before, after), stride in zip(pairwise([inputs, *encoder]), strides, strict=True)
        )
        self.decoder, width = nn.ModuleList(), encoder[-1]
        for features, skipped in zip(decoder[:scales], reversed(encoder[:scales]), strict=True):
            self.decoder.append(conv(width, features, 3, padding=1))
            width = features + skipped
        self.final = nn.ModuleList(
            conv(before, after, 3, padding=1) for before, after in pairwise([width, *decoder[scales:]])
        )
        self.outputs = decoder[-1] if self.final else width

    def forward(self, images: Float[Tensor, "batch inputs *spatial"]) -> Float[Tensor, "batch outputs *spatial"]:
        """B ``inputs`` I J (K) -> B ``outputs`` I J (K)."""
        x, skips = pad_to_multiple(images, self.multiples), list[Tensor]()
        for number, encode in enumerate(self.encoder):
            if self.down == "stride" and number > 0:
                skips.append(x)
            x = functional.leaky_relu(encode(x), 0.2)
            if self.down == "pool":
                skips.append(x)
                x = self.pool(x)
        for decode in self.decoder:
            x = functional.leaky_relu(decode(x), 0.2)
            x = torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skips.pop()], 1)
        for convolve in self.final:
            x = functional.leaky_relu(convolve(x), 0.2)
        return crop_to(x, images.shape[2:])


def field_head(ndim: int, inputs: int) -> nn.Conv2d | nn.Conv3d:
    """The convolution that makes a field of features, in voxels: B d I J (K), nearly zero at first."""
    head = (Conv3d if ndim == 3 else nn.Conv2d)(inputs, ndim, 3, padding=1)
    nn.init.normal_(head.weight, std=HEAD_DEVIATION)
    nn.init.zeros_(head.bias)  # pyright: ignore[reportArgumentType]
    return head


class VoxelMorphNetwork(RegistrationNetwork):
    """U-Net and head.

    Args:
        ndim: 2 or 3.
        channels: of one image.
        encoder, decoder, down: of the U-Net.
        squarings: of the velocity's integration; None where the network finds displacements.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        encoder: Sequence[int],
        decoder: Sequence[int],
        down: Down = "pool",
        squarings: int | None = 7,
    ) -> None:
        super().__init__()
        self.squarings = squarings
        self.backbone = RegistrationUNet(ndim, 2 * channels, encoder, decoder, down)
        self.head = field_head(ndim, self.backbone.outputs)

    def deformation(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """The field, or the velocity that it holds on half the grid, brought to the whole one, and its flow there."""
        return deformation_of(flow_of(self.backbone, self.head, fixed, moving), self.squarings)

    def regularised(self, deformation: Deformation) -> DisplacementBatch:
        """The displacement, or the velocity times the root of 2, so that its diffusion is doubled."""
        return deformation.displacement if deformation.velocity is None else math.sqrt(2) * deformation.velocity


def flow_of(backbone: nn.Module, head: nn.Module, fixed: ImageBatch, moving: ImageBatch) -> DisplacementBatch:
    """What the head says, in voxels; not in half precision, whatever it is computed in: that holds no coordinate."""
    return head(backbone(torch.cat([moving, fixed], 1))).to(fixed.dtype)


def on_half(flow: DisplacementBatch) -> Float[Tensor, "batch ndim *half"]:
    """The same field of view in half as many voxels an axis, rounded up."""
    return resize_displacement(flow, [(n + 1) // 2 for n in flow.shape[2:]])


def deformation_of(flow: DisplacementBatch, squarings: int | None) -> Deformation:
    """Of a flow that is a displacement if ``squarings`` is None, else the velocity that is on half of its grid."""
    if squarings is None:
        return Deformation(flow)
    velocity = resize_displacement(on_half(flow), flow.shape[2:])
    return Deformation(exponential(velocity, squarings), velocity, squarings)
