"""Instance normalisation that is torch's but for its gradient, which torch gets wrong.

Of a single image, where the gradient that comes back has its channels innermost in memory, as our convolutions leave
it, ``nn.InstanceNorm3d`` reads that gradient in the usual order and passes on a wrong one (torch 2.13 on a CPU).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class InstanceNorm3d(nn.InstanceNorm3d):
    """``nn.InstanceNorm3d`` with the right gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """As there."""
        return _with_gradient_in_order(super().forward(input))


def instance_norm(images: Tensor) -> Tensor:
    """Each channel of each image (B C I J (K)) with mean 0 and variance 1."""
    return _with_gradient_in_order(functional.instance_norm(images))


def _with_gradient_in_order(images: Tensor) -> Tensor:
    if images.requires_grad:
        images.register_hook(torch.Tensor.contiguous)
    return images
