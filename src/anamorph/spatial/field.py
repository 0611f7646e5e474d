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
    ``"border"`` goes on with the border value. This is ITK's rule, so other tools see the same image edges. A coordinate
    that is NaN counts as outside: it reads 0, or an arbitrary voxel with ``"border"``. Nothing here looks for it, the inner
    loop would pay for it; what comes from files is looked at where it enters (``Grid``, ``Affine``, ``Field``).

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


def invert(displacement: DisplacementBatch, iterations: int = 30) -> Inverse:
    """Inverse displacement w by the fixed point w <- -u(x + w), and its residual |w + u(x + w)| in voxels.

    Converges where u is a contraction; look at the residual where it may fold.

    Source: M. Chen et al. (2008), A simple fixed-point approach to invert a deformation field, doi:10.1118/1.2816107.
    """
    inverse = torch.zeros_like(displacement)
    for _ in range(iterations):
        inverse = -warp(displacement, inverse, outside="border")
    residual = inverse + warp(displacement, inverse, outside="border")
    return Inverse(inverse, residual.norm(dim=1))


def jacobian(displacement: DisplacementBatch) -> Float[Tensor, "batch ndim ndim *spatial"]:
    """Derivative of x + u(x): entry [a, b] is d(phi_a)/d(x_b). Central differences, one-sided at the border."""
    ndim = displacement.shape[1]
    columns = torch.gradient(displacement, dim=list(range(2, 2 + ndim)))
    unit = torch.eye(ndim, dtype=displacement.dtype, device=displacement.device)
    return torch.stack(columns, dim=2) + unit.view(1, ndim, ndim, *[1] * ndim)


def jacobian_determinant(displacement: DisplacementBatch) -> ScalarBatch:
    """Determinant of the derivative of x + u(x): 1 where nothing changes size, not above 0 where the map folds."""
    j = jacobian(displacement)
    if displacement.shape[1] == 2:
        return j[:, 0, 0] * j[:, 1, 1] - j[:, 0, 1] * j[:, 1, 0]
    return (
        j[:, 0, 0] * (j[:, 1, 1] * j[:, 2, 2] - j[:, 1, 2] * j[:, 2, 1])
        - j[:, 0, 1] * (j[:, 1, 0] * j[:, 2, 2] - j[:, 1, 2] * j[:, 2, 0])
        + j[:, 0, 2] * (j[:, 1, 0] * j[:, 2, 1] - j[:, 1, 1] * j[:, 2, 0])
    )


def resize(image: ImageBatch, shape: Sequence[int]) -> ImageBatch:
    """The same field of view in other voxels (as ``Grid.resized``): averages when shrinking, linear when growing.

    Each axis is one sparse matrix product, so the cost is that of reading the image once an axis.
    """
    ndim = image.dim() - 2
    if tuple(shape) == tuple(image.shape[2:]):
        return image
    if all(new <= old for new, old in zip(shape, image.shape[2:], strict=True)):
        pool = functional.adaptive_avg_pool3d if ndim == 3 else functional.adaptive_avg_pool2d
        divisible = all(old % new == 0 for new, old in zip(shape, image.shape[2:], strict=True))
        if divisible:
            return pool(image, tuple(shape))
    for axis, (new, old) in enumerate(zip(shape, image.shape[2:], strict=True), start=2):
        if new != old:
            image = torch.movedim(torch.movedim(image, axis, -1) @ _resizing_matrix(old, new, image).T, -1, axis)
    return image


def _resizing_matrix(old: int, new: int, like: Tensor) -> Float[Tensor, "new old"]:
    """Weights of a triangle filter as wide as the larger of the two voxels; rows sum to one."""
    factor = old / new
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * factor - 0.5
    distance = (centres[:, None].clamp(0, old - 1) - torch.arange(old, dtype=torch.float64)[None]).abs()
    weights = (1 - distance / max(factor, 1.0)).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).to(like)


def resize_displacement(displacement: DisplacementBatch, shape: Sequence[int]) -> DisplacementBatch:
    """A displacement on the resized grid, in that grid's voxels."""
    factor = [new / old for new, old in zip(shape, displacement.shape[2:], strict=True)]
    scale = torch.tensor(factor, dtype=displacement.dtype, device=displacement.device)
    return resize(displacement, shape) * scale.view(1, -1, *[1] * len(factor))
