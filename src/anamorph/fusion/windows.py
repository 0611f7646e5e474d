"""Means over a window that slides along every axis of ``channels *spatial``, without autograd."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

Taps = tuple[float, ...]
"""Weights of a separable window along an axis: odd in number, their sum one."""


def box_taps(radius: int) -> Taps:
    """A window of ``2 radius + 1`` voxels that weigh alike."""
    return (1 / (2 * radius + 1),) * (2 * radius + 1)


def gaussian_taps(sigma: float) -> Taps:
    """A Gaussian window, cut off at three ``sigma`` (voxels)."""
    radius = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    return tuple(w / sum(weights) for w in weights)


def window_mean(x: Float[Tensor, "channels *padded"], taps: Taps) -> Float[Tensor, "channels *inner"]:
    """Mean under the window wherever it fits: each axis gets shorter by the window's width less one."""
    for axis in range(1, x.ndim):
        length = x.shape[axis] - len(taps) + 1
        if len(set(taps)) == 1:  # additions alone, so that what cancels does so exactly
            total = x.narrow(axis, 0, length).clone()
            for i in range(1, len(taps)):
                total += x.narrow(axis, i, length)
            x = total.mul_(taps[0])
        else:
            total = x.narrow(axis, 0, length) * taps[0]
            for i in range(1, len(taps)):
                total.add_(x.narrow(axis, i, length), alpha=taps[i])
            x = total
    return x
