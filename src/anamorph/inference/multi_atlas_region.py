"""The part of a target where the atlases' structures are, and the part of an atlas that belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TypeVar

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from anamorph.data.image import Image, Labelmap
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Transform
from anamorph.types import Matrix

LATTICE_MM = 8.0
"""Raster that a region's sides lie on where they can, in whole voxels, so that another atlas seldom changes it."""
LEAST_VOXELS = 16
"""Voxels that a region has along an axis, if the image has as many."""
ROOM = 0.15
"""Share of its extent by which the part of an atlas reaches beyond the region, on each side."""

PROBES = 17
"""Points along each axis that tell where a map leads."""
SLACK = 0.05
"""Share by which it may lead further between them."""

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""First voxel and number of voxels along each axis."""


def region_about(mask: Bool[Tensor, "*spatial"], seen: Grid, grid: Grid, margin_mm: float) -> Box | None:
    """The box of a grid around what a mask marks.

    Args:
        mask: True = inside, on ``seen``.
        seen: the same field of view as ``grid``, in voxels of its own.
        grid: of the image.
        margin_mm: room on every side.

    Returns:
        None where nothing is marked.
    """
    if not bool(mask.any()):
        return None
    start, count = [], []
    for axis, (n, few, spacing) in enumerate(zip(grid.shape, seen.shape, grid.spacing, strict=True)):
        others = tuple(a for a in range(mask.dim()) if a != axis)
        where = np.flatnonzero(mask.numpy().any(axis=others))
        room = margin_mm / spacing
        low, high = where[0] * n / few - room, (where[-1] + 1) * n / few + room
        short = max(0.0, LEAST_VOXELS - (high - low)) / 2
        step = max(1, round(LATTICE_MM / spacing))
        first = max(0, int(np.floor((low - short) / step)) * step)
        last = min(n, int(np.ceil((high + short) / step)) * step)
        start.append(first)
        count.append(last - first)
    return tuple(start), tuple(count)


def part_seen(region: Grid, matrix: Matrix, grid: Grid) -> Box:
    """The box of another grid that a region of the target may look at, room for a deformation included.

    Args:
        region: in the target's world.
        matrix: target world -> the other world.
        grid: of the other image; all of it where the part would be too small to be registered.
    """
    ends = np.array(list(product(*[(-0.5 - ROOM * n, n - 0.5 + ROOM * n) for n in region.shape])))
    corners = region.to_world(ends) @ matrix[:-1, :-1].T + matrix[:-1, -1]
    voxels = grid.to_voxel(corners)
    shape = np.array(grid.shape)
    first = np.floor(voxels.min(0)).clip(0, shape).astype(int)
    stop = (np.ceil(voxels.max(0)) + 1).clip(0, shape).astype(int)
    if ((stop - first) < np.minimum(LEAST_VOXELS, shape)).any():
        first, stop = np.zeros_like(first), shape
    return tuple(first.tolist()), tuple((stop - first).tolist())


def part_met(region: Grid, transform: Transform, grid: Grid) -> Box:
    """The box of another grid that a region meets through a transform; all of it where they do not meet.

    Args:
        region: in the target's world.
        transform: target world -> the other world.
        grid: of the other image.
    """
    axes = [np.linspace(-0.5, n - 0.5, PROBES) for n in region.shape]
    probes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, region.ndim)
    voxels, shape = grid.to_voxel(transform(region.to_world(probes))), np.array(grid.shape)
    beyond = SLACK * np.ptp(voxels, axis=0) + 2
    first = np.floor(voxels.min(0) - beyond).clip(0, shape).astype(int)
    stop = np.ceil(voxels.max(0) + beyond).clip(0, shape).astype(int)
    if (stop <= first).any():
        first, stop = np.zeros_like(first), shape
    return tuple(first.tolist()), tuple((stop - first).tolist())


Croppable = TypeVar("Croppable", Image, Labelmap)


def cropped(item: Croppable, box: Box) -> Croppable:
    """A part of an image or of labels, where it was."""
    start, shape = box
    inside = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    grid = item.grid.cropped(start, shape)
    if isinstance(item, Labelmap):
        return replace(item, data=item.data[inside].contiguous(), grid=grid)
    valid = None if item.valid is None else item.valid[inside].contiguous()
    return replace(item, data=item.data[:, *inside].contiguous(), grid=grid, valid=valid)


def view_of_network(own: Grid, image: Grid, about: np.ndarray) -> Grid:
    """Where a network looks at an image: as in its training, unless the image is longer than what it sees.

    Along such an axis it looks at a region, and not beyond the image.

    Args:
        own: the network's grid as the plan places it.
        image: the image's.
        about: world point in the middle of the region.
    """
    ends = np.array(list(product(*[(-0.5, n - 0.5) for n in image.shape])))
    corners = own.to_voxel(image.to_world(ends))
    low, high, shape = corners.min(0), corners.max(0), np.array(own.shape)
    wished = own.to_voxel(about) - (shape - 1) / 2
    least, most = low + 0.5, np.maximum(high + 0.5 - shape, low + 0.5)
    shift = np.where(high - low > shape, np.clip(wished, least, most), 0.0)
    return own.cropped(np.rint(shift).astype(int).tolist(), own.shape)


def embedded(part: Tensor, box: Box, shape: Sequence[int], outside: float) -> Tensor:
    """A part's values in an array of the whole, ``outside`` elsewhere."""
    whole = part.new_full(tuple(shape), outside)
    whole[tuple(slice(a, a + n) for a, n in zip(*box, strict=True))] = part
    return whole
