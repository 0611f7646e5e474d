"""From two images on any grids to what the stages compare: clean intensities, masks and grids of workable size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.errors import NumericalError
from anamorph.spatial.affine import affine_points
from anamorph.spatial.field import resize, sample
from anamorph.spatial.grid import Grid
from anamorph.types import ImageBatch, MaskBatch

LEAST_VOXELS = 4
"""Voxels an axis keeps however coarse the level."""
LEAST_HALF = 16
"""Voxels an axis keeps when a small image is halved."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One image as the stages see it.

    Args:
        image: 1 1 I J (K), in [0, 1].
        grid: where its voxels are.
        mask: 1 1 I J (K), 1 = use; None where every voxel counts.
        centre: world point in the middle of what is bright, mm.
    """

    image: ImageBatch
    grid: Grid
    mask: MaskBatch | None
    centre: np.ndarray

    def resized(self, shape: tuple[int, ...]) -> Scene:
        """The same field of view in other voxels."""
        if shape == self.grid.shape:
            return self
        mask = None if self.mask is None else resize(self.mask, shape)
        return replace(self, image=resize(self.image, shape), grid=self.grid.resized(shape), mask=mask)

    def with_voxels(self, count: int) -> Scene:
        """The same field of view in about ``count`` voxels, near to cubes, never finer than they are."""
        return self.resized(shape_with_voxels(self.grid, count))


def shape_with_voxels(grid: Grid, count: int) -> tuple[int, ...]:
    """Shape of at most about ``count`` voxels that are as near to cubes as the grid's own spacing allows."""
    if math.prod(grid.shape) <= count:
        return grid.shape
    extent = np.array(grid.shape) * grid.spacing
    low, high = float(grid.spacing.min()), float(extent.max())
    for _ in range(60):
        edge = math.sqrt(low * high)
        shape = np.minimum(np.maximum(np.round(extent / edge), 1), grid.shape)
        low, high = (edge, high) if shape.prod() > count else (low, edge)
    return shape_with_edge(grid, high)


def halved(grid: Grid) -> int:
    """Voxels of a grid with half the voxels along every axis, if each keeps enough to show something; else its own."""
    voxels = math.prod(grid.shape)
    return voxels // 2**grid.ndim if min(grid.shape) >= 2 * LEAST_HALF else voxels


def shape_with_edge(grid: Grid, edge_mm: float) -> tuple[int, ...]:
    """Shape whose voxels are about ``edge_mm`` long, never finer than the grid's own."""
    wished = np.round(np.array(grid.shape) * grid.spacing / edge_mm).astype(int)
    least = np.minimum(grid.shape, LEAST_VOXELS)
    return tuple(int(n) for n in np.clip(wished, least, grid.shape))


def prepare(
    data: Float[Tensor, "*spatial"],
    grid: Grid,
    mask: Tensor | None,
    modality: str | None,
    ct_window: tuple[float, float],
) -> Scene:
    """Map intensities to [0, 1] by robust limits.

    Args:
        data: finite intensities on ``grid``.
        grid: where the voxels are.
        mask: bool on the same grid, True = use.
        modality: "ct" applies the window in HU; so do values that look like HU.
        ct_window: low and high HU.

    Raises:
        NumericalError: E-VAL-004, no contrast.
    """
    values = data.float()
    used = values if mask is None else values[mask]
    low, high = (float(v) for v in torch.aminmax(used))
    if modality == "ct" or (modality is None and _looks_like_ct(used)):
        low, high = max(low, ct_window[0]), min(high, ct_window[1])
    else:
        thinned = used.flatten()[:: max(1, used.numel() // 200_000)]
        background, bright_end = (float(q) for q in torch.quantile(thinned, thinned.new_tensor([0.005, 0.999])))
        bright = thinned[thinned > background + 1e-3 * ((bright_end if bright_end > background else high) - background)]
        if len(bright):
            low, high = (min(low, 0.0) if low >= 0 else background), float(torch.quantile(bright, 0.995))
    if not high - low > 1e-6 * max(abs(high), abs(low), 1e-30):
        raise NumericalError(
            "E-VAL-004",
            f"no contrast: all values lie at {low:g}",
            expected="an image that shows something",
            do="check the file, or pass --allow-flat to get the identity",
        )
    image = ((values - low) / (high - low)).clamp(0, 1)
    weight = image if mask is None else image * mask
    if not bool((weight > 0).any()):
        raise NumericalError("E-VAL-005", "nothing brighter than the background in the mask", do="check image and mask")
    spatial = image[None, None]
    return Scene(spatial, grid, None if mask is None else mask.to(spatial)[None, None], _centre(weight, grid))


def _looks_like_ct(values: Tensor) -> bool:
    """Air far below zero and soft tissue near it: no MR or ultrasound image is like this."""
    low, high = torch.aminmax(values)
    return bool(low <= -900 and high >= 100 and ((values > -200) & (values < 300)).float().mean() > 0.01)


def _centre(weight: Tensor, grid: Grid) -> np.ndarray:
    total = weight.sum(dtype=torch.float64)
    voxel = []
    for axis, n in enumerate(grid.shape):
        others = [a for a in range(weight.dim()) if a != axis]
        along = torch.arange(n, dtype=torch.float64, device=weight.device)
        voxel.append(float((weight.sum(others, dtype=torch.float64) * along).sum() / total))
    return grid.to_world(np.array(voxel))


def cropped_to_content(scene: Scene, margin: float = 0.1, threshold: float = 0.02) -> Scene:
    """The box around what the mask allows and is brighter than the background, ``margin`` of its size on every side."""
    content = scene.image[0, 0] > threshold if scene.mask is None else scene.mask[0, 0] > 0
    start, stop = [], []
    for axis, n in enumerate(scene.grid.shape):
        others = tuple(a for a in range(content.dim()) if a != axis)
        where = torch.nonzero(content.any(dim=others) if len(others) == 1 else _any(content, others)).flatten()
        first, last = int(where[0]), int(where[-1])
        room = math.ceil(margin * (last - first + 1)) + 2
        start.append(max(0, first - room))
        stop.append(min(n, last + 1 + room))
    box = (slice(None), slice(None), *[slice(a, b) for a, b in zip(start, stop, strict=True)])
    shape = [b - a for a, b in zip(start, stop, strict=True)]
    mask = None if scene.mask is None else scene.mask[box].contiguous()
    return replace(scene, image=scene.image[box].contiguous(), mask=mask, grid=scene.grid.cropped(start, shape))


def _any(content: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in sorted(axes, reverse=True):
        content = content.any(dim=axis)
    return content


def pulled(moving: Scene, onto: Grid, matrix: np.ndarray) -> Scene:
    """The moving scene on another grid through a world matrix; its mask says where the moving image has voxels."""
    between = torch.from_numpy(moving.grid.inverse_affine @ matrix @ onto.affine).to(moving.image)
    points = affine_points(between[None], onto.shape)
    image = sample(moving.image, points)
    seen = moving.mask if moving.mask is not None else torch.ones_like(moving.image)
    mask = sample(seen, points)
    return Scene(image, onto, None if bool((mask == 1).all()) else mask, moving.centre)
