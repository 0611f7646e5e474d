r"""Attention gates: what goes up decides which part of a skip connection passes.

    q = relu(theta * x + resize(phi * g))                   or relu of half of that, with combination "mean"      (1)
    a = resize(sigmoid(psi * q))                            in (0, 1); one map, or one a channel                  (2)
    y = a x                                                                                                       (3)

x is the skip, g what comes from the coarser scale; theta a convolution whose kernel is as long as its stride, without
bias; phi and psi 1 x 1 convolutions. Resizing is linear: of phi g to the size of theta x, of a to that of x.

Source: O. Oktay et al. (2018), Attention U-Net: learning where to look for the pancreas, arXiv:1804.03999. Their
release (github.com/ozan-oktay/Attention-Gated-Networks) sends y through one more 1 x 1 convolution and batch
normalisation, which is none of the paper's equations and not here. First weights are torch's: a begins near 1/2.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d


class AttentionGate(nn.Module):
    """Equations (1) to (3), in 2-D and 3-D.

    Args:
        ndim: 2 or 3.
        skip: channels of x.
        gating: channels of g.
        inner: channels of q; half of the skip's if absent.
        stride: of theta; no axis of x is shorter. 1 computes the map at full resolution.
        combination: how the two are joined in (1).
        channelwise: whether each channel of x has a map of its own.
    """

    def __init__(
        self,
        ndim: int,
        skip: int,
        gating: int,
        inner: int | None = None,
        *,
        stride: int = 2,
        combination: Literal["sum", "mean"] = "sum",
        channelwise: bool = False,
    ) -> None:
        super().__init__()
        conv = Conv3d if ndim == 3 else nn.Conv2d
        inner = max(1, skip // 2) if inner is None else inner
        self.share = 0.5 if combination == "mean" else 1.0
        self.theta = conv(skip, inner, stride, stride=stride, bias=False)
        self.phi = conv(gating, inner, 1)
        self.psi = conv(inner, skip if channelwise else 1, 1)

    def forward(
        self, x: Float[Tensor, "batch skip *spatial"], g: Float[Tensor, "batch gating *coarse"]
    ) -> Float[Tensor, "batch skip *spatial"]:
        """Equation (3)."""
        return self.attention(x, g) * x

    def attention(
        self, x: Float[Tensor, "batch skip *spatial"], g: Float[Tensor, "batch gating *coarse"]
    ) -> Float[Tensor, "batch maps *spatial"]:
        """Equation (2), of the size of x."""
        seen = self.theta(x)
        q = functional.relu(self.share * (seen + _resized(self.phi(g), seen)))
        return _resized(torch.sigmoid(self.psi(q)), x)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """On the grid of ``like``, which has the same field of view."""
    if x.shape[2:] == like.shape[2:]:
        return x
    mode = "trilinear" if x.ndim == 5 else "bilinear"
    return functional.interpolate(x, size=like.shape[2:], mode=mode, align_corners=False)
