"""Separable windows that slide over ``B C *spatial``: sums in a box or under a Gaussian, and local means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CACHED = 2**17
"""Elements of which a handful of tensors fit a core's cache."""

Taps = int | tuple[float, ...]
"""A window along an axis: its width in voxels if all weights are one, else its weights, symmetric, odd in number."""


def check_odd(width: int, name: str) -> None:
    """Refuse a window that has no voxel in its middle, with a ``ValueError``."""
    if width < 1 or width % 2 == 0:
        raise ValueError(f"{name} is odd and positive, found {width}")


def gaussian_taps(sigma: float, truncate: float = 3.5) -> tuple[float, ...]:
    """Weights that sum to one; ``sigma`` in voxels, cut off at ``truncate`` sigma."""
    radius = max(1, int(truncate * sigma + 0.5))
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    return tuple(w / sum(weights) for w in weights)


def row_blocks(x: Tensor) -> list[tuple[int, int]]:
    """Ranges along the first spatial axis to work on one after the other, so small that they stay in a CPU's cache."""
    rows = x.shape[2]
    step = rows if x.is_cuda else max(1, CACHED * rows // max(x.numel(), 1))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _running_sum(x: Tensor, axis: int, width: int) -> Tensor:
    """Sum of ``width`` neighbours by doubling: about log2(width) additions, and exact zeros stay exact."""
    length = x.shape[axis] - width + 1
    total, doubled, span, start = None, x, 1, 0
    while True:
        if width & span:
            part = doubled.narrow(axis, start, length)
            total = part if total is None else total + part
            start += span
        if 2 * span > width:
            return total if total is not None else x
        rest = doubled.shape[axis] - span
        doubled = doubled.narrow(axis, 0, rest) + doubled.narrow(axis, span, rest)
        span *= 2


def _weighted_sum(x: Tensor, axis: int, taps: Sequence[float]) -> Tensor:
    length = x.shape[axis] - len(taps) + 1
    total = x.narrow(axis, 0, length) * taps[0]
    for i in range(1, len(taps)):
        total.add_(x.narrow(axis, i, length), alpha=taps[i])
    return total


def sum_inside(x: Tensor, taps: Taps) -> Tensor:
    """Sum over the window wherever it fits: spatial axes get shorter by the window's width less one. No autograd."""
    lost = (taps if isinstance(taps, int) else len(taps)) - 1
    result = x.new_empty(*x.shape[:2], *[n - lost for n in x.shape[2:]])
    for start, stop in row_blocks(result):
        block = x.narrow(2, start, stop - start + lost)
        for axis in range(2, x.ndim):
            block = _running_sum(block, axis, taps) if isinstance(taps, int) else _weighted_sum(block, axis, taps)
        result.narrow(2, start, stop - start).copy_(block)
    return result


class _WindowSum(torch.autograd.Function):
    """Sum over the window around each voxel, zeros outside: symmetric taps make it its own adjoint."""

    @staticmethod
    def forward(ctx, x: Tensor, taps: Taps) -> Tensor:
        ctx.taps = taps
        radius = (taps if isinstance(taps, int) else len(taps)) // 2
        return sum_inside(F.pad(x, [radius] * (2 * (x.ndim - 2))), taps)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        return window_sum(gradients[0], ctx.taps), None


def window_sum(x: Float[Tensor, "batch channels *spatial"], taps: Taps) -> Float[Tensor, "batch channels *spatial"]:
    """Sum over the window around each voxel; nothing is outside the image."""
    return _WindowSum.apply(x, taps)  # pyright: ignore[reportReturnType]


class LocalMean:
    """Mean over a window of the voxels that count: the window is cut at the border of the image and of the mask alike.

    Args:
        like: any tensor ``B C *spatial`` on the grid, for device and dtype.
        weight: ``B 1 *spatial``, or ``None`` where every voxel of the image counts.
        taps: the window.
    """

    def __init__(self, like: Tensor, weight: Tensor | None, taps: Taps) -> None:
        self.weight, self.taps = weight, taps
        total = window_sum(like.new_ones(1, 1, *like.shape[2:]) if weight is None else weight, taps)
        self.inverse = torch.where(total > 0, total, 1).reciprocal()

    def __call__(self, x: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch channels *spatial"]:
        """Means of ``x``, 0 where nothing counts."""
        return window_sum(x if self.weight is None else x * self.weight, self.taps) * self.inverse
