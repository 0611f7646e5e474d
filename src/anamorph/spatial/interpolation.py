"""Values between voxels: multilinear and nearest, with one rule at the border. ``spatial.field`` is the public face.

A point up to half a voxel outside the outer voxel centres reads the nearest border value, in every mode; a point
farther out reads 0 (``"zeros"``) or goes on reading the border value (``"border"``). The half voxel is ITK's rule, so
other tools see the same image edges. It is widened by a millionth of the image, so that rounding takes no edge away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from anamorph.types import Outside, Points

POINTS_AT_ONCE = 2**17
"""Points that a CPU thread interpolates in one go, so that what is made for them stays in its cache."""

COPIES_AT_MOST = 4
"""Threads that sum the gradient of one image, each in its own copy."""

EDGE = 1 + 1e-6
"""Distance of the field of view's edge from its middle, in halves of its width."""


def nearest(
    image: Shaped[Tensor, "batch channels *spatial"], points: Points, outside: Outside
) -> Shaped[Tensor, "batch channels *points"]:
    """The value of the nearest voxel, of any type; from the middle between two, the one of higher index (as ITK)."""
    flat = points.reshape(*points.shape[:2], -1)
    index = torch.zeros_like(flat[:, 0], dtype=torch.long)
    inside = torch.ones_like(index, dtype=torch.bool)
    for axis, n in enumerate(image.shape[2:]):
        # In single precision the rounding of an affine in double is gone, so a middle is a middle.
        along = flat[:, axis].float()
        inside &= (along - (n - 1) / 2).abs() <= n / 2 * EDGE
        index = index * n + (along + 0.5).floor().nan_to_num(0).clamp(0, n - 1).long()
    values = image.flatten(2).gather(2, index.unsqueeze(1).expand(-1, image.shape[1], -1))
    if outside == "zeros":
        values = values.masked_fill(~inside.unsqueeze(1), 0)
    return values.view(*image.shape[:2], *points.shape[2:])


def linear(
    image: Float[Tensor, "batch channels *spatial"], points: Points, outside: Outside, *, relative: bool = False
) -> Float[Tensor, "batch channels *points"]:
    """Bilinear or trilinear values, differentiable once by image and points.

    Args:
        image: B C I J (K).
        points: voxel coordinates, B d and any arrangement of points; or, where ``relative``, displacements of the
            voxels of a grid of that arrangement.
        outside: what holds beyond half a voxel.
        relative: whether ``points`` are displacements.
    """
    if points.numel() == 0 or image.shape[1] == 0:
        return image.new_zeros(*image.shape[:2], *points.shape[2:])
    arranged = points if points.dim() > 2 else points.unsqueeze(-1)
    # Half precision holds no coordinate: at voxel 500 its step is half a voxel.
    precise = image.to(torch.promote_types(image.dtype, torch.float32))
    values: Any = _Linear.apply(precise, arranged, relative, outside == "zeros")
    return values.view(*image.shape[:2], *points.shape[2:]).to(image.dtype)


class _Part(NamedTuple):
    """Rows ``start`` to ``stop`` of the first axis of the points, dealt out to ``threads``."""

    start: int
    stop: int
    threads: int


class _Linear(torch.autograd.Function):
    """``grid_sample`` part by part: its only caller in the project, which owns the order of axes and the border rule.

    Compared with one call for everything this keeps nothing but the inputs for the gradient, makes coordinates and
    masks in the cache, and occupies every CPU thread, where ``grid_sample`` takes one for each element of the batch.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, points: Tensor, relative: bool, zeros: bool) -> Tensor:
        ctx.save_for_backward(image, points)
        ctx.relative, ctx.zeros = relative, zeros
        values = image.new_empty(*image.shape[:2], *points.shape[2:])
        origins = _origins(image, points, relative)
        for part in _parts(points, torch.get_num_threads(), POINTS_AT_ONCE):
            where = _normalised(points, origins, image, part)
            sampled = functional.grid_sample(
                _for_each_thread(image, part), _as_grid(where, part), "bilinear", "border", align_corners=False
            )
            target = values[:, :, part.start : part.stop]
            target.copy_(sampled.unflatten(0, (-1, part.threads)).transpose(1, 2).reshape(target.shape))
            if zeros:
                target.masked_fill_(_beyond(where, target), 0)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (gradient,) = gradients
        image, points = ctx.saved_tensors
        for_image, for_points = ctx.needs_input_grad[:2]
        image_gradient = None
        points_gradient = torch.empty_like(points) if for_points else None
        origins = _origins(image, points, ctx.relative)
        ndim, threads = points.shape[1], torch.get_num_threads()
        derive = torch.ops.aten.grid_sampler_3d_backward if ndim == 3 else torch.ops.aten.grid_sampler_2d_backward
        # Each call makes a whole image's gradient anew, so where that is wanted there are few calls.
        parts = _parts(points, min(threads, COPIES_AT_MOST)) if for_image else _parts(points, threads, POINTS_AT_ONCE)
        for part in parts:
            # torch's backward in 2-D writes beyond its memory where a coordinate is NaN.
            where = _normalised(points, origins, image, part).nan_to_num_()
            above = gradient[:, :, part.start : part.stop]
            if ctx.zeros:
                above = above.masked_fill(_beyond(where, above), 0)
            above = above.flatten(2).unflatten(2, (part.threads, -1)).transpose(1, 2).flatten(0, 1)
            above = above.view(*above.shape[:2], *[1] * (ndim - 1), -1)
            to_image, to_grid = derive(  # 0: linear, 1: border
                above, _for_each_thread(image, part), _as_grid(where, part), 0, 1, False, (for_image, for_points)
            )
            if for_image:
                to_image = to_image if part.threads == 1 else to_image.sum(0, keepdim=True)
                image_gradient = to_image if image_gradient is None else image_gradient.add_(to_image)
            if points_gradient is not None:
                target = points_gradient[:, :, part.start : part.stop]
                to_grid = to_grid.view(len(image), *target.shape[2:], ndim)
                for axis, n in enumerate(image.shape[2:]):
                    torch.mul(to_grid[..., ndim - 1 - axis], 2 / n, out=target[:, axis])
        return image_gradient, points_gradient, None, None


def _parts(points: Tensor, threads: int, points_at_once: int | None = None) -> Iterator[_Part]:
    """Rows of the points, as many at once as give each thread ``points_at_once`` (by default all of them)."""
    batch, _, rows = points.shape[:3]
    if points.device.type != "cpu":
        yield _Part(0, rows, 1)
        return
    threads = min(threads, rows) if batch == 1 else 1
    rows_each = rows // threads
    if points_at_once is not None:
        rows_each = min(rows_each, max(1, points_at_once // (batch * math.prod(points.shape[3:]))))
    start = 0
    while rows - start >= threads:
        stop = start + min(rows_each, (rows - start) // threads) * threads
        yield _Part(start, stop, threads)
        start = stop
    if start < rows:
        yield _Part(start, rows, 1)


def _origins(image: Tensor, points: Tensor, relative: bool) -> list[Tensor]:
    """What the points are counted from along each axis, in the units of ``grid_sample``: voxel *edges* at -1 and 1."""
    ndim = points.shape[1]
    options: dict[str, Any] = {"dtype": torch.promote_types(points.dtype, torch.float32), "device": points.device}
    shape = [*points.shape[2:]] if relative else [1] * ndim
    return [
        torch.linspace(1 / n - 1, (2 * rows - 1) / n - 1, rows, **options).view(
            -1, *[1] * (ndim - 1 - axis if relative else 0)
        )
        for axis, (rows, n) in enumerate(zip(shape, image.shape[2:], strict=True))
    ]


def _normalised(points: Tensor, origins: list[Tensor], image: Tensor, part: _Part) -> Tensor:
    """Coordinates as ``grid_sample`` wants them, with its order of axes, from the last to the first: B d points."""
    chunk = points[:, :, part.start : part.stop]
    result = image.new_empty(chunk.shape)
    for axis, (origin, n) in enumerate(zip(origins, image.shape[2:], strict=True)):
        if axis == 0 and len(origin) > 1:
            origin = origin[part.start : part.stop]
        torch.add(origin, chunk[:, axis], alpha=2 / n, out=result[:, -1 - axis])
    return result.flatten(2)


def _for_each_thread(image: Tensor, part: _Part) -> Tensor:
    """The image once a thread, without a copy (there are several threads for a batch of one only)."""
    return image if part.threads == 1 else image.expand(part.threads, *image.shape[1:])


def _as_grid(where: Tensor, part: _Part) -> Tensor:
    """B d points -> B x threads, 1, (1,) points, d; a view."""
    ndim = where.shape[1]
    dealt = where.unflatten(2, (part.threads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
    return dealt.view(len(dealt), *[1] * (ndim - 1), *dealt.shape[1:])


def _beyond(where: Tensor, like: Tensor) -> Tensor:
    """Which points lie more than half a voxel outside, or nowhere (NaN): B 1 and the arrangement of ``like``."""
    return ~(where.abs().amax(1, keepdim=True) <= EDGE).view(len(where), 1, *like.shape[2:])
