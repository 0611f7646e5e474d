"""A grid dealt into boxes, so that memory does not grow with the images, and the voxels of a box that are contested."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

Box = tuple[slice, ...]
"""First voxel and the one after the last, axis by axis."""

IN_FLIGHT = 2**25
"""Numbers that all atlases together may keep in memory for one box."""

LEAST_EDGE = 8
"""Voxels below which no edge of a box is cut."""


def boxes(shape: Sequence[int], per_voxel: int, halo: int) -> list[Box]:
    """Boxes that tile a grid, first axis first, since a file is read fastest so.

    Args:
        shape: of the grid.
        per_voxel: numbers kept for a voxel of a box and of its halo.
        halo: voxels around a box that are read too. No edge is cut shorter than twice that, so a box is at most eight
            times (in 2-D four times) larger with its halo than without.
    """
    pieces = [1] * len(shape)
    least = max(LEAST_EDGE, 2 * halo)
    while True:
        edges = [math.ceil(n / p) for n, p in zip(shape, pieces, strict=True)]
        held = math.prod(min(edge + 2 * halo, n) for edge, n in zip(edges, shape, strict=True)) * per_voxel
        axis = next((axis for axis, edge in enumerate(edges) if edge > least), None)
        if held <= IN_FLIGHT or axis is None:
            break
        pieces[axis] += 1
    cuts = [
        [slice(start, min(start + edge, n)) for start in range(0, n, edge)]
        for n, edge in zip(shape, edges, strict=True)
    ]
    return list(product(*cuts))


def read(item: Tensor, box: Box, margin: int = 0) -> Tensor:
    """The last axes of ``item`` in a box and ``margin`` voxels around it.

    Beyond the border the outermost values go on. Nothing outside is touched, so an item may be mapped from disk.
    """
    first = item.ndim - len(box)
    for axis, edge in enumerate(box, start=first):
        length = item.shape[axis]
        low, high = max(edge.start - margin, 0), min(edge.stop + margin, length)
        item = item.narrow(axis, low, high - low)
    for axis, edge in enumerate(box, start=first):
        before = max(margin - edge.start, 0)
        wanted = edge.stop - edge.start + 2 * margin
        if wanted != item.shape[axis]:
            index = torch.arange(wanted, device=item.device).sub_(before).clamp_(0, item.shape[axis] - 1)
            item = item.index_select(axis, index)
    return item


@dataclass(frozen=True)
class Contest:
    """The voxels of a box where atlases disagree.

    Args:
        box: the smallest box around them.
        where: those voxels in the box.
        shape: of the whole grid.
    """

    box: Box
    where: Bool[Tensor, "*spatial"]
    shape: tuple[int, ...]

    def pick(self, values: Tensor) -> Tensor:
        """Values ``... *spatial`` of the box at the contested voxels, ``... voxels``."""
        return values[..., self.where]

    def coordinates(self) -> Int[Tensor, "ndim voxels"]:
        """Where the contested voxels are in the box."""
        return self.where.nonzero().T

    def labels(self, atlases: Sequence[Integer[Tensor, "*spatial"]]) -> Int[Tensor, "atlases voxels"]:
        """What each atlas proposes."""
        return torch.stack([self.pick(read(atlas, self.box)).long() for atlas in atlases])

    def shifted_inside(self, shift: Sequence[int]) -> Bool[Tensor, "*spatial"] | None:
        """Voxels of the box that ``shift`` leaves on the grid; ``None`` where it is all of them."""
        inside = None
        for axis, (edge, step, n) in enumerate(zip(self.box, shift, self.shape, strict=True)):
            if edge.start + step >= 0 and edge.stop - 1 + step < n:
                continue
            place = torch.arange(edge.start, edge.stop, device=self.where.device) + step
            along = ((place >= 0) & (place < n)).view(*[-1 if a == axis else 1 for a in range(len(self.box))])
            inside = along.expand(self.where.shape) if inside is None else inside & along
        return inside


def find_contest(
    atlases: Sequence[Integer[Tensor, "*spatial"]], shape: tuple[int, ...], box: Box, reach: int = 0
) -> tuple[Int[Tensor, "*box"], Contest | None]:
    """What the first atlas says in a box, and where any atlas, up to ``reach`` voxels away, says otherwise."""
    low = high = read(atlases[0], box, reach).long()
    first = low[tuple(slice(reach, n - reach) for n in low.shape)]
    for i in range(1, len(atlases)):
        labels = read(atlases[i], box, reach).long()
        low, high = torch.minimum(low, labels), torch.maximum(high, labels)
    for axis in range(len(box)):
        low, high = _extreme(torch.minimum, low, axis, reach), _extreme(torch.maximum, high, axis, reach)
    where = low != high
    if not bool(where.any()):
        return first, None
    places = where.nonzero()
    corners = zip(places.amin(0).tolist(), places.amax(0).tolist(), strict=True)
    inner = tuple(slice(start, last + 1) for start, last in corners)
    tight = tuple(slice(e.start + i.start, e.start + i.stop) for e, i in zip(box, inner, strict=True))
    return first, Contest(tight, where[inner], shape)


def _extreme(choose: Callable[[Tensor, Tensor], Tensor], x: Tensor, axis: int, reach: int) -> Tensor:
    """Smallest or largest of ``2 reach + 1`` neighbours along an axis, wherever they fit."""
    length = x.shape[axis] - 2 * reach
    result = x.narrow(axis, 0, length)
    for start in range(1, 2 * reach + 1):
        result = choose(result, x.narrow(axis, start, length))
    return result
