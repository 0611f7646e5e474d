"""Self-similarity channels exp(-D/V) of images and their adjoint: the one computation under every descriptor.

The equations and choices are in ``losses.descriptors``. Here are plain tensor operations without autograd, so that the
callers decide what is kept and what is computed again.

Two edges of one direction read the same squared-difference volume at two places, so each direction is computed once:
nine volumes serve the eighteen edges of macMIND.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anamorph.losses.masks import share
from anamorph.losses.windows import check_odd, row_blocks, sum_inside

VARIANCE_FLOOR = 1e-3
"""Least V as a fraction of its mean over the image."""

TINY = 1e-20
"""Least V at all, in squared intensities: for constant images."""

DescriptorBatch = Float[Tensor, "batch descriptors *spatial"]
"""Channels of a descriptor: B (C * channels) I J (K)."""

Offset = tuple[int, ...]
Edges = tuple[tuple[Offset, Offset], ...]
"""Pairs of patches, in units of their distance L."""


def spokes(ndim: int) -> Edges:
    """The centre and each of its face neighbours."""
    centre = (0,) * ndim
    return tuple((centre, neighbour) for neighbour in _face_neighbours(ndim))


def rim(ndim: int) -> Edges:
    """Face neighbours that are not opposite to each other."""
    pairs = combinations(_face_neighbours(ndim), 2)
    return tuple((a, b) for a, b in pairs if any(i + j for i, j in zip(a, b, strict=True)))


def spokes_and_rim(ndim: int) -> Edges:
    """All pairs of the centre and its face neighbours but the opposite ones: two in each of nine directions in 3-D."""
    return spokes(ndim) + rim(ndim)


def _face_neighbours(ndim: int) -> list[Offset]:
    return [tuple(sign * (a == axis) for a in range(ndim)) for axis in range(ndim) for sign in (-1, 1)]


@dataclass(frozen=True)
class SelfSimilarity:
    """Channels exp(-D/V) of a padded image (B 1 *padded), one an edge.

    Args:
        edges: pairs of patches in units of ``distance``.
        distance: L in voxels.
        patch_size: R1 in voxels, odd.
        from_least: subtract the smallest D of each voxel first.
        variance_floor: least V as a fraction of its mean over the image.
    """

    edges: Edges
    distance: int
    patch_size: int
    from_least: bool = False
    variance_floor: float = VARIANCE_FLOOR

    def __post_init__(self) -> None:
        check_odd(self.patch_size, "patch_size")
        if self.distance < 1:
            raise ValueError(f"distance is at least one voxel, found {self.distance}")

    @property
    def reach(self) -> int:
        """Voxels beyond its own that a channel reads along each axis."""
        return self.distance + self.patch_size // 2

    def channels(self, padded: Tensor, weight: Tensor) -> Tensor:
        """B channels *inner, shorter than ``padded`` by ``reach`` at each end.

        ``weight`` (B 1 *spatial, summing to one) says where V is averaged; it lies in the middle of the inner grid.
        """
        differences, variance, _, _ = self._parts(padded, weight)
        for start, stop in row_blocks(variance):
            d, v = (x.narrow(2, start, stop - start) for x in (differences, variance))
            for channel in d.split(1, dim=1):
                channel.div_(v).neg_().exp_()
        return differences

    def adjoint(self, padded: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """Gradient in ``padded`` of the sum of ``channels * gradient``."""
        differences, variance, floored, least = self._parts(padded, weight)
        for start, stop in row_blocks(variance):
            rows = [x.narrow(2, start, stop - start) for x in (differences, gradient, variance, floored)]
            self._differentiate(*rows)
            if least is not None:
                d, least_rows = rows[0], least.narrow(2, start, stop - start)
                total = d.sum(1, keepdim=True)
                for c, channel in enumerate(d.split(1, dim=1)):
                    channel.sub_(total * (least_rows == c))
        return self._differences_adjoint(padded, differences)

    def _differentiate(self, differences: Tensor, gradient: Tensor, variance: Tensor, floored: Tensor) -> None:
        """Replace D by the gradient in D of the sum of ``exp(-D/V) * gradient``; V is the mean of D unless floored."""
        channels = list(zip(differences.split(1, dim=1), gradient.split(1, dim=1), strict=True))
        through_variance = torch.zeros_like(variance)
        for d, g in channels:
            through_variance.addcmul_(torch.exp(-d / variance).mul_(g), d)
        through_variance.div_(variance).div_(variance).div_(len(channels)).masked_fill_(floored, 0)
        for d, g in channels:
            d.div_(variance).neg_().exp_().mul_(g).div_(variance).neg_().add_(through_variance)

    def _parts(self, padded: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """D (B channels *inner), V (B 1 *inner), where V was floored, and the channel that was subtracted, if any."""
        differences, least = self._differences(padded), None
        if self.from_least:
            smallest = differences[:, :1].clone()
            least = torch.zeros_like(smallest, dtype=torch.uint8)
            for c, d in enumerate(differences.split(1, dim=1)):
                least.masked_fill_(d < smallest, c)
                torch.minimum(smallest, d, out=smallest)
            differences.sub_(smallest)
        variance = differences.mean(1, keepdim=True)
        middle = cropped(variance, (variance.shape[2] - weight.shape[2]) // 2)
        mean = (middle * weight).sum(tuple(range(1, middle.ndim)), keepdim=True)
        floor = (self.variance_floor * mean).clamp_min(TINY)
        return differences, torch.maximum(variance, floor), variance < floor, least

    def _differences(self, padded: Tensor) -> Tensor:
        """D, one channel an edge."""
        inner = [n - 2 * self.reach for n in padded.shape[2:]]
        differences = padded.new_empty(len(padded), len(self.edges), *inner)
        for pair in self._pairs(padded):
            means = pair.means(self.patch_size)
            for channel, corner in pair.members:
                differences[:, channel : channel + 1] = _part(means, corner, inner)
        return differences

    def _differences_adjoint(self, padded: Tensor, gradient: Tensor) -> Tensor:
        result, scale = torch.zeros_like(padded), 2 / self.patch_size ** (padded.ndim - 2)
        for pair, target in zip(self._pairs(padded), self._pairs(result), strict=True):
            # Zeros all around, as far as patches reach: the adjoint of a sum inside is a sum over the same window.
            margin = self.patch_size - 1
            of_means = padded.new_zeros(len(padded), 1, *[n + margin for n in pair.here.shape[2:]])
            for channel, corner in pair.members:
                place = [margin + c for c in corner]
                _part(of_means, place, gradient.shape[2:]).add_(gradient[:, channel : channel + 1])
            for start, stop in row_blocks(pair.here):
                here, there = (x.narrow(2, start, stop - start) for x in (pair.here, pair.there))
                step = sum_inside(of_means.narrow(2, start, stop - start + margin), self.patch_size).mul_(here - there)
                target.here.narrow(2, start, stop - start).add_(step, alpha=scale)
                target.there.narrow(2, start, stop - start).sub_(step, alpha=scale)
        return result

    def _pairs(self, padded: Tensor) -> Iterator[_Pair]:
        """One pair of views for all edges of one direction."""
        ndim, radius = padded.ndim - 2, self.patch_size // 2
        directions: dict[Offset, list[tuple[int, Offset]]] = {}
        for channel, edge in enumerate(self.edges):
            start, end = sorted(edge)
            direction = tuple(self.distance * (j - i) for i, j in zip(start, end, strict=True))
            directions.setdefault(direction, []).append((channel, tuple(self.distance * i for i in start)))
        for direction, members in directions.items():
            low = [min(start[axis] for _, start in members) for axis in range(ndim)]
            high = [max(start[axis] for _, start in members) for axis in range(ndim)]
            size = [padded.shape[2 + a] - 2 * self.reach + high[a] - low[a] + 2 * radius for a in range(ndim)]
            corner = [self.reach + low[a] - radius for a in range(ndim)]
            yield _Pair(
                here=_part(padded, corner, size),
                there=_part(padded, [corner[a] + direction[a] for a in range(ndim)], size),
                members=[(channel, [start[a] - low[a] for a in range(ndim)]) for channel, start in members],
            )


@dataclass(frozen=True)
class _Pair:
    """An image and the same displaced; for each edge its channel and the corner of its part of ``means``."""

    here: Tensor
    there: Tensor
    members: list[tuple[int, list[int]]]

    def means(self, patch_size: int) -> Tensor:
        """Mean over each patch of the squared difference."""
        means = self.here.new_empty(len(self.here), 1, *[n - patch_size + 1 for n in self.here.shape[2:]])
        for start, stop in row_blocks(means):
            here, there = (x.narrow(2, start, stop - start + patch_size - 1) for x in (self.here, self.there))
            block = sum_inside((here - there).square_(), patch_size)
            torch.div(block, patch_size ** (block.ndim - 2), out=means.narrow(2, start, stop - start))
        return means


def _part(x: Tensor, corner: list[int], size: list[int] | torch.Size) -> Tensor:
    """View of ``size`` voxels that begins at ``corner``."""
    for axis, (start, length) in enumerate(zip(corner, size, strict=True), start=2):
        x = x.narrow(axis, start, length)
    return x


def cropped(x: Tensor, margin: int) -> Tensor:
    """View without ``margin`` voxels at each end of each spatial axis."""
    return _part(x, [margin] * (x.ndim - 2), [n - 2 * margin for n in x.shape[2:]])


def extended(image: Tensor, margin: int) -> Tensor:
    """Each channel an item of its own (B*C 1 *spatial), gone on with its outermost values for ``margin`` voxels."""
    return F.pad(image.flatten(0, 1).unsqueeze(1), [margin] * (2 * (image.ndim - 2)), mode="replicate")


def uniform(image: Tensor) -> Tensor:
    """The weight of every voxel where there is no mask, 1 1 *spatial, summing to one."""
    return share(image.new_ones(1, 1, *image.shape[2:]))
