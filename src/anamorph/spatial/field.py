"""Displacements and velocities on their own grid, in voxels: sample, warp, compose, integrate, invert.

Conventions (docs/conventions.md): a displacement u is B d I J (K), component d moves along axis d, and

    warp(image, u)(x)    = image(x + u(x))                       pull
    compose(u, v)        = displacement of phi_u o phi_v,        phi_u(x) = x + u(x)
    exponential(v)       = displacement of the flow of v at unit time

so that ``warp(warp(image, u), v) == warp(image, compose(u, v))`` up to interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from anamorph.spatial import interpolation
from anamorph.types import DisplacementBatch, ImageBatch, Interpolation, Outside, Points, ScalarBatch


def identity(
    shape: Sequence[int], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Float[Tensor, "ndim *spatial"]:
    """Voxel coordinates of every voxel: d I J (K)."""
    axes = [torch.arange(n, dtype=dtype, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def sample(
    image: Shaped[Tensor, "batch channels *spatial"],
    points: Points,
    mode: Interpolation = "linear",
    outside: Outside = "zeros",
) -> Shaped[Tensor, "batch channels *points"]:
    """Values of ``image`` at voxel coordinates.

    Within half a voxel outside the outer voxel centres the nearest border value holds; beyond, ``"zeros"`` gives 0 and
    ``"border"`` goes on with the border value. This is ITK's rule, so other tools see the same image edges.

    A coordinate that is NaN reads 0, or an arbitrary voxel with ``"border"``, and nothing here looks for one: the
    innermost loop would pay for it. ``Grid``, ``Affine``, ``Field`` and ``Velocity`` refuse what is not finite.

    Args:
        image: B C I J (K), floating point; any type where mode is "nearest".
        points: B d followed by any arrangement of points, in voxels of ``image``, component d along axis d.
        mode: "linear", or "nearest" for what must not be blended; of two equally near voxels the one of higher index.
        outside: what holds beyond half a voxel.
    """
    if mode == "nearest":
        return interpolation.nearest(image, points, outside)
    return interpolation.linear(image, points, outside)


def warp(
    image: Shaped[Tensor, "batch channels *spatial"],
    displacement: DisplacementBatch,
    mode: Interpolation = "linear",
    outside: Outside = "zeros",
) -> Shaped[Tensor, "batch channels *spatial"]:
    """``image`` pulled through a displacement on the same grid: ``warp(image, u)(x) = image(x + u(x))``."""
    if mode == "nearest":
        points = displacement + identity(displacement.shape[2:], displacement.dtype, displacement.device)
        return interpolation.nearest(image, points, outside)
    return interpolation.linear(image, displacement, outside, relative=True)


def compose(first: DisplacementBatch, second: DisplacementBatch) -> DisplacementBatch:
    """Displacement of phi_first o phi_second: x -> x + v(x) + u(x + v(x)), with u = first and v = second."""
    return warp(first, second, outside="border").add_(second)


def exponential(velocity: DisplacementBatch, steps: int = 7) -> DisplacementBatch:
    """Unit-time flow of a stationary velocity field by scaling and squaring (``steps`` squarings).

    Source: V. Arsigny et al. (2006), A log-Euclidean framework for statistics on diffeomorphisms,
    doi:10.1007/11866565_113.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


class Inverse(NamedTuple):
    """An inverse displacement, and how far phi(phi^-1(x)) misses x, in voxels."""

    displacement: DisplacementBatch
    residual: ScalarBatch


def invert(displacement: DisplacementBatch, iterations: int = 60) -> Inverse:
    """Inverse displacement w by the fixed point w <- (w - u(x + w)) / 2, and its residual |w + u(x + w)| in voxels.

    Half steps converge for every map that keeps its topology and stretches no more than fourfold; whole steps would
    need u to be a contraction. Stops when nothing moves any more; look at the residual where it may fold.

    Source: M. Chen et al. (2008), A simple fixed-point approach to invert a deformation field, doi:10.1118/1.2816107.
    """
    rounding = max(displacement.shape[2:]) * torch.finfo(displacement.dtype).eps
    inverse = torch.zeros_like(displacement)
    for _ in range(iterations):
        previous, inverse = inverse, warp(displacement, inverse, outside="border").neg_().add_(inverse).div_(2)
        if float((inverse - previous).abs().max()) <= rounding:
            break
    residual = warp(displacement, inverse, outside="border").add_(inverse)
    return Inverse(inverse, residual.norm(dim=1))


def jacobian(displacement: DisplacementBatch) -> Float[Tensor, "batch ndim ndim *spatial"]:
    """Derivative of x + u(x): entry [a, b] is d(phi_a)/d(x_b).

    Central differences, one-sided at the border; along an axis of one voxel u is taken to be constant.
    """
    return torch.stack(_jacobian_columns(displacement), dim=2)


def jacobian_determinant(displacement: DisplacementBatch) -> ScalarBatch:
    """Determinant of the derivative of x + u(x): 1 where nothing changes size, not above 0 where the map folds."""
    columns = [column.unbind(1) for column in _jacobian_columns(displacement)]
    if len(columns) == 2:
        (a, b), (c, d) = columns
        return a * d - c * b
    (a, b, c), (d, e, f), (g, h, i) = columns
    return a * (e * i - f * h) - d * (b * i - c * h) + g * (b * f - c * e)


def _jacobian_columns(displacement: Tensor) -> list[Tensor]:
    """The derivative of x + u(x) along each axis, B d I J (K)."""
    columns = []
    for axis, n in enumerate(displacement.shape[2:]):
        constant = n == 1
        column = torch.zeros_like(displacement) if constant else torch.gradient(displacement, dim=axis + 2)[0]
        column[:, axis] += 1
        columns.append(column)
    return columns


def resize(image: ImageBatch, shape: Sequence[int]) -> Float[Tensor, "batch channels *resized"]:
    """The same field of view in other voxels (as ``Grid.resized``): linear when growing, an average when shrinking.

    Along each axis a new voxel is the mean of the linear values at evenly spaced points, as many as old voxels fit in
    (rounded). So an axis of even length is halved by means of two, and growing equals ``sample`` at the new centres.
    """
    points_each = [max(1, int(old / new + 0.5)) for new, old in zip(shape, image.shape[2:], strict=True)]
    fine = [new * points for new, points in zip(shape, points_each, strict=True)]
    if fine != [*image.shape[2:]]:
        mode = "trilinear" if len(fine) == 3 else "bilinear"
        image = functional.interpolate(image, size=fine, mode=mode, align_corners=False)
    if max(points_each) > 1:
        pool = functional.avg_pool3d if len(fine) == 3 else functional.avg_pool2d
        image = pool(image, points_each)
    return image


def resize_displacement(displacement: DisplacementBatch, shape: Sequence[int]) -> Float[Tensor, "batch ndim *resized"]:
    """A displacement on the resized grid, in that grid's voxels."""
    factor = [new / old for new, old in zip(shape, displacement.shape[2:], strict=True)]
    scale = torch.tensor(factor, dtype=displacement.dtype, device=displacement.device)
    return resize(displacement, shape) * scale.view(1, -1, *[1] * len(factor))
