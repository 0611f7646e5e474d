r"""Concurrent spatial and channel squeeze and excitation (scSE): features weighed by channel and by place.

    c = sigmoid(W2 relu(W1 mean over voxels of x))          one number a channel                                  (1)
    s = sigmoid(w * x)                                      one number a voxel; w a 1 x 1 convolution             (2)
    y = max(c x, s x), or c x + s x                         number by number                                      (3)

Source: A. G. Roy, N. Navab and C. Wachinger (2018), Concurrent spatial and channel squeeze & excitation in fully
convolutional networks, doi:10.1007/978-3-030-00928-1_48, where (3) is the sum; the maximum is that of their release
(github.com/ai-med/squeeze_and_excitation) and of their later work, doi:10.1109/TMI.2018.2867261.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d

Combination = Literal["max", "add"]


class ConcurrentSqueezeExcitation(nn.Module):
    """Equations (1) to (3), in 2-D and 3-D.

    Args:
        ndim: 2 or 3.
        channels: of x.
        reduction: how many times fewer channels there are between W1 and W2.
        combination: of the two in (3).
    """

    def __init__(self, ndim: int, channels: int, reduction: int = 2, combination: Combination = "max") -> None:
        super().__init__()
        self.combination: Combination = combination
        self.squeeze = nn.Linear(channels, max(1, channels // reduction))
        self.excite = nn.Linear(max(1, channels // reduction), channels)
        self.place = (Conv3d if ndim == 3 else nn.Conv2d)(channels, 1, 1)

    def forward(self, x: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch channels *spatial"]:
        """B ``channels`` I J (K) -> the same shape."""
        means = x.flatten(2).mean(2)
        weights = torch.sigmoid(self.excite(functional.relu(self.squeeze(means))))
        by_channel = weights.view(*weights.shape, *[1] * (x.ndim - 2)) * x
        by_place = torch.sigmoid(self.place(x)) * x
        return torch.maximum(by_channel, by_place) if self.combination == "max" else by_channel + by_place
