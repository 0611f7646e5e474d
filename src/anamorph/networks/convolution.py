"""The first convolution of a network of images, arranged so that a CPU is fast from there on.

Two things about torch's convolutions in 3-D, float32, on a CPU, none of which changes more than rounding:

- oneDNN computes gradients of 28 channels faster where channels lie innermost in memory; what follows keeps that order.
- One image of few channels and rows is left to a loop of torch's own, several times slower than oneDNN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.types import ImageBatch

LARGEST_OF_LOOP = 20480
"""Channels x I x J of a single image up to which torch takes its loop (``ConvParams::use_mkldnn``)."""

MOST_CHANNELS = 8
"""Up to which channels of zeros cost less than that loop."""


def convolve_images(layer: nn.Module, images: ImageBatch) -> Float[Tensor, "batch features *convolved"]:
    """``layer(images)``; on a CPU and in 3-D with channels innermost, and with zeros for channels if they help."""
    if not isinstance(layer, nn.Conv3d) or images.device.type != "cpu" or images.dtype != torch.float32:
        return layer(images)
    batch, channels, *shape = images.shape
    wanted = LARGEST_OF_LOOP // (shape[0] * shape[1]) + 1
    missing = wanted - channels if batch == 1 and channels < wanted <= MOST_CHANNELS else 0
    padding = [0] * 6 + [0, missing]
    padded = functional.pad(images, padding).contiguous(memory_format=torch.channels_last_3d)
    weight = functional.pad(layer.weight, padding)
    result = functional.conv3d(padded, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return result.contiguous(memory_format=torch.channels_last_3d)
