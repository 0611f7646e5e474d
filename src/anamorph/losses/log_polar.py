"""Log-polar bins of a window around a voxel, and averages over them (macMIND, eq. 11 and 13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from anamorph.losses.windows import check_odd, row_blocks


@dataclass(frozen=True)
class LogPolarBins:
    """Bins by angle and radius in the plane of the first two axes, and by height along the third.

    - Angles: ``angles`` equal sectors, the first centred on the first axis, so that a quarter turn of the grid permutes
      the bins.
    - Radii: the rings end at ``R ** (1 / radii), R ** (2 / radii), ... R``, R being the distance to the window's
      corner.
    - Heights: ``heights`` equal slices of the window; a voxel cut by two slices is shared in proportion.
    - A voxel without angle (on the axis) is shared equally by all sectors of the innermost ring; one on the line
      between two sectors by these two. So each voxel of the window is in the bins exactly once.

    Args:
        window: R2, side of the window in voxels, odd.
        angles, radii, heights: Na, Nr, Nh. In 2-D there is one height.

    Raises:
        ValueError: a bin would hold no voxel of the window but its centre.
    """

    window: int
    angles: int
    radii: int
    heights: int = 1

    def __post_init__(self) -> None:
        check_odd(self.window, "window")
        if min(self.angles, self.radii, self.heights) < 1:
            raise ValueError(f"at least one angle, radius and height, found {self.angles, self.radii, self.heights}")
        around = self.planar.copy()
        around[:, self.radius, self.radius] = 0
        if self.window == 1 or self.heights > self.window or not around.any((1, 2)).all():
            raise ValueError(
                f"{self.angles} angles x {self.radii} radii x {self.heights} heights leave bins of a window of "
                f"{self.window} voxels empty, or with its centre alone; take fewer bins or a larger window"
            )

    @property
    def radius(self) -> int:
        """Voxels of the window on each side of its centre."""
        return self.window // 2

    def count(self, ndim: int) -> int:
        """N, the number of bins."""
        return len(self.planar) * len(self.columns(ndim))

    @cached_property
    def planar(self) -> np.ndarray:
        """Weights of the averages over each sector of each ring: (Na * Nr) x R2 x R2, sums of one."""
        inside = np.zeros((self.angles, self.radii, self.window, self.window))
        sector, farthest = 2 * math.pi / self.angles, math.hypot(self.radius, self.radius)
        for i in range(self.window):
            for j in range(self.window):
                x, y = i - self.radius, j - self.radius
                if x == y == 0:
                    inside[:, 0, i, j] = 1 / self.angles
                    continue
                # A hair below, so that rounding does not push a voxel on a ring's edge outwards.
                ring = math.ceil(self.radii * math.log(math.hypot(x, y)) / math.log(farthest) - 1e-9)
                turn = math.atan2(y, x) / sector
                for side in (-1e-9, 1e-9):
                    inside[round(turn + side) % self.angles, max(ring, 1) - 1, i, j] += 0.5
        flat = inside.reshape(-1, self.window, self.window)
        total = flat.sum((1, 2), keepdims=True)
        return flat / np.where(total > 0, total, 1)

    def columns(self, ndim: int) -> np.ndarray:
        """Weights of the averages over each slice: Nh x R2, summing to one each; 1 x 1 in 2-D."""
        if ndim == 2:
            if self.heights > 1:
                raise ValueError(f"a 2-D window has one height, found {self.heights}")
            return np.ones((1, 1))
        edges = np.linspace(0, self.window, self.heights + 1)
        voxels = np.arange(self.window)
        shared = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
        return np.clip(shared, 0, None) * self.heights / self.window

    def kernels(self, like: Tensor) -> Tensor:
        """The averages as kernels of a convolution of ``like`` (B C *spatial): N 1 *window, height fastest."""
        kernels = np.einsum("nij,hk->nhijk", self.planar, self.columns(like.ndim - 2))
        kernels = kernels.reshape(-1, 1, *kernels.shape[2:])
        return like.new_tensor(kernels if like.ndim == 5 else kernels[..., 0])

    def weighted_square(self, channel: Tensor, weight: Tensor, replace: bool) -> Tensor:
        """Sum over bins and voxels of ``weight`` times the squared average of ``channel`` over the bin.

        A bin is a sector of a ring times a slice, so the average over the slice is taken once for all sectors.

        Args:
            channel: 1 1 *spatial, with ``radius`` more voxels at each end than ``weight``.
            weight: 1 1 *spatial.
            replace: overwrite ``channel`` with the gradient of the result in it.
        """
        columns = self.columns(channel.ndim - 2).tolist()
        if channel.ndim == 4:
            channel, weight = channel.unsqueeze(-1), weight.unsqueeze(-1)
        gradient = torch.zeros_like(channel) if replace else None
        total = channel.new_zeros(())
        for start, stop in row_blocks(weight):
            rows, reach = stop - start, stop - start + 2 * self.radius
            part = None if gradient is None else gradient.narrow(2, start, reach)
            for column in columns:
                total += self._column_square(
                    channel.narrow(2, start, reach), weight.narrow(2, start, rows), column, part
                )
        if gradient is not None:
            channel.copy_(gradient)
        return total

    def _column_square(self, channel: Tensor, weight: Tensor, column: list[float], gradient: Tensor | None) -> Tensor:
        """``weighted_square`` of the bins of one slice; adds to ``gradient``."""
        slices = [(channel.narrow(4, k, weight.shape[4]), share) for k, share in enumerate(column)]
        slab = _weighted_sum(slices)
        slab_gradient = None if gradient is None else torch.zeros_like(slab)
        squares = torch.zeros_like(weight)
        for plane in self.planar:
            places = [(i, j, float(plane[i, j])) for i, j in np.argwhere(plane).tolist()]
            average = _weighted_sum([(_shifted(slab, i, j, weight), share) for i, j, share in places])
            squares.addcmul_(average, average)
            if slab_gradient is not None:
                average.mul_(weight)
                for i, j, share in places:
                    _shifted(slab_gradient, i, j, weight).add_(average, alpha=2 * share)
        if gradient is not None and slab_gradient is not None:
            for k, share in enumerate(column):
                gradient.narrow(4, k, weight.shape[4]).add_(slab_gradient, alpha=share)
        return squares.mul_(weight).sum()


def _weighted_sum(parts: list[tuple[Tensor, float]]) -> Tensor:
    first, share = parts[0]
    total = first * share
    for part, share in parts[1:]:
        total.add_(part, alpha=share)
    return total


def _shifted(slab: Tensor, i: int, j: int, like: Tensor) -> Tensor:
    return slab.narrow(2, i, like.shape[2]).narrow(3, j, like.shape[3])
