"""Maps between worlds: callables on points in RAS+ mm that carry a fixed point to its moving point.

``(f @ g)(x) = f(g(x))``. Every transform has an ``inverse()``; ``inverse_residual_mm`` tells how good it is.
Networks never see these objects: files, the command line and evaluation do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.errors import NumericalError, warn
from anamorph.spatial.field import exponential, invert, sample
from anamorph.spatial.grid import Grid
from anamorph.types import Interpolation, Matrix, Outside, WorldPoints

POINTS_AT_ONCE = 2**18
"""Points mapped in one go: bounds the memory of a whole-grid evaluation to some tens of MB."""


class Transform(ABC):
    """A map from fixed world points to moving world points, RAS+ mm."""

    ndim: int

    @abstractmethod
    def __call__(self, points: WorldPoints) -> WorldPoints:
        """Map world points: N d -> N d, mm, float64."""

    @abstractmethod
    def inverse(self) -> Transform:
        """The map back."""

    def __matmul__(self, other: Transform) -> Transform:
        """``(f @ g)(x) = f(g(x))``."""
        return Chain((*_steps(other), *_steps(self)))

    def inverse_residual_mm(self, points: WorldPoints) -> Float[np.ndarray, " points"]:
        """How far T(T^-1(p)) misses p at moving world points, in mm."""
        return np.linalg.norm(self(self.inverse()(points)) - points, axis=1)

    def displacement_on(self, grid: Grid) -> Float[np.ndarray, "ndim *spatial"]:
        """T(x) - x at every voxel of ``grid``: d I J (K), RAS mm, float32."""
        result = np.empty((grid.ndim, *grid.shape), dtype=np.float32)
        for rows, voxels in _slabs(grid):
            points = grid.to_world(voxels)
            moved = self(points) - points
            result[:, rows] = moved.T.reshape(grid.ndim, -1, *grid.shape[1:])
        return result


@dataclass(frozen=True, eq=False)
class Affine(Transform):
    """A linear map: ``matrix`` is (d+1) x (d+1), float64, fixed world -> moving world.

    Raises:
        ValueError: the matrix is not finite, not square or singular.
    """

    matrix: Matrix

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape not in ((3, 3), (4, 4)) or not np.isfinite(matrix).all():
            raise ValueError(f"an affine map is a finite 3 x 3 or 4 x 4 matrix, found shape {matrix.shape}")
        if np.linalg.det(matrix) == 0:
            raise ValueError("a singular matrix is no map with an inverse")
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def identity(cls, ndim: int) -> Affine:
        """The map that moves nothing."""
        return cls(np.eye(ndim + 1))

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """2 or 3."""
        return len(self.matrix) - 1

    def __call__(self, points: WorldPoints) -> WorldPoints:
        return points @ self.matrix[:-1, :-1].T + self.matrix[:-1, -1]

    def inverse(self) -> Affine:
        """The inverse matrix."""
        return Affine(np.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False)
class Field(Transform):
    """A displacement in mm sampled on a grid: x -> x + u(x), linear between voxels.

    Up to half a voxel outside the outer voxel centres the border displacement holds, beyond it the displacement is
    zero: what ITK, and so ANTs, SimpleITK and elastix, do with the same file.

    Args:
        displacement: d I J (K), RAS mm, float32 or float64.
        grid: where its voxels are.
    """

    displacement: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        displacement = torch.as_tensor(self.displacement).detach().cpu()
        if displacement.dtype not in (torch.float32, torch.float64):
            displacement = displacement.to(torch.float64)
        if tuple(displacement.shape) != (self.grid.ndim, *self.grid.shape):
            expected = (self.grid.ndim, *self.grid.shape)
            raise ValueError(f"the displacement has shape {tuple(displacement.shape)}, its grid asks for {expected}")
        object.__setattr__(self, "displacement", displacement)

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """2 or 3."""
        return self.grid.ndim

    def __call__(self, points: WorldPoints) -> WorldPoints:
        voxels = torch.from_numpy(self.grid.to_voxel(points).T[None].copy())
        return points + sample(self.displacement[None], voxels)[0].numpy().T

    def displacement_on(self, grid: Grid) -> Float[np.ndarray, "ndim *spatial"]:
        """u at every voxel of ``grid``; read off directly where it is the field's own grid."""
        if self.grid.same_as(grid, tolerance_mm=1e-9):
            return self.displacement.to(torch.float32).numpy()
        return super().displacement_on(grid)

    def inverse(self) -> Field:
        """The inverse sampled on the same grid, by fixed-point iteration.

        Warns (W-TRF-010) where it misses by more than a tenth of a voxel.

        Raises:
            NumericalError: E-TRF-010, one voxel in twenty misses by more than a voxel: the field folds.
        """
        linear = self.grid.affine[:-1, :-1]
        result = invert(_times(np.linalg.inv(linear), self.displacement)[None])
        reached = _inside(result.displacement)
        residual = result.residual[reached] if bool(reached.any()) else torch.zeros(1)
        largest, p95 = float(residual.max()), float(np.quantile(residual.numpy(), 0.95))
        found = f"the inverse of the displacement misses by {p95:.2f} voxels (95 %), {largest:.2f} at most"
        if p95 > 1:
            raise NumericalError(
                "E-TRF-010", found, expected="less than 1 voxel (95 %)", do="use a transform that does not fold"
            )
        if largest > 0.1:
            warn("W-TRF-010", found)
        return Field(_times(linear, result.displacement[0]), self.grid)


@dataclass(frozen=True, eq=False)
class Velocity(Transform):
    """A diffeomorphism: the unit-time flow of a stationary velocity, and its inverse the flow of the negative one.

    Args:
        velocity: d I J (K), RAS mm per unit time.
        grid: where its voxels are.
        steps: squarings of the integration.
    """

    velocity: Tensor
    grid: Grid
    steps: int = 7

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """2 or 3."""
        return self.grid.ndim

    @cached_property
    def field(self) -> Field:
        """The flow as a displacement on the velocity's own grid."""
        linear = self.grid.affine[:-1, :-1]
        flow = exponential(_times(np.linalg.inv(linear), self.velocity)[None], self.steps)[0]
        return Field(_times(linear, flow), self.grid)

    def __call__(self, points: WorldPoints) -> WorldPoints:
        return self.field(points)

    def displacement_on(self, grid: Grid) -> Float[np.ndarray, "ndim *spatial"]:
        """The flow's displacement at every voxel of ``grid``."""
        return self.field.displacement_on(grid)

    def inverse(self) -> Velocity:
        """The flow of the negative velocity."""
        return Velocity(-self.velocity, self.grid, self.steps)


@dataclass(frozen=True, eq=False)
class Chain(Transform):
    """Several maps, applied first to last: ``Chain((f, g))(x) = g(f(x))``."""

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        steps = tuple(step for transform in self.transforms for step in _steps(transform))
        if not steps or len({step.ndim for step in steps}) > 1:
            raise ValueError("a chain joins at least one transform, all of the same dimension")
        object.__setattr__(self, "transforms", steps)

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """2 or 3."""
        return self.transforms[0].ndim

    def __call__(self, points: WorldPoints) -> WorldPoints:
        for transform in self.transforms:
            points = transform(points)
        return points

    def inverse(self) -> Chain:
        """The inverses in reverse order."""
        return Chain(tuple(transform.inverse() for transform in reversed(self.transforms)))


def resample(
    data: Float[Tensor, "channels *source"],
    source: Grid,
    target: Grid,
    transform: Transform | None = None,
    mode: Interpolation = "linear",
    outside: Outside = "zeros",
) -> Float[Tensor, "channels *target"]:
    """Bring data onto another grid through a transform: one interpolation, whatever the length of the chain.

    Args:
        data: C I J (K) on ``source``, floating point.
        transform: target world -> source world; the identity if absent.
        outside: value where the target looks beyond the source (see ``spatial.field.sample``).
    """
    result = torch.empty((len(data), *target.shape), dtype=data.dtype)
    linear = transform is None or isinstance(transform, Affine)
    for rows, voxels in _slabs(target):
        if linear:
            matrix = np.eye(target.ndim + 1) if transform is None else transform.matrix  # pyright: ignore
            between = source.inverse_affine @ matrix @ target.affine
            points = voxels @ between[:-1, :-1].T + between[:-1, -1]
        else:
            points = source.to_voxel(transform(target.to_world(voxels)))
        where = torch.from_numpy(points.T[None].copy())
        values = sample(data[None], where.to(data.dtype), mode, outside)
        result[:, rows] = values[0].reshape(len(data), -1, *target.shape[1:])
    return result


def _steps(transform: Transform) -> tuple[Transform, ...]:
    return transform.transforms if isinstance(transform, Chain) else (transform,)


def _times(matrix: np.ndarray, vectors: Tensor) -> Tensor:
    """A d x d matrix applied to every vector of a field d I J (K)."""
    return torch.tensordot(torch.from_numpy(np.ascontiguousarray(matrix)).to(vectors), vectors, dims=1)


def _inside(displacement: Tensor) -> Tensor:
    """Where x + u(x) stays on the grid: B I J (K)."""
    shape = displacement.shape[2:]
    inside = torch.ones_like(displacement[:, 0], dtype=torch.bool)
    for axis, n in enumerate(shape):
        along = torch.arange(n, dtype=displacement.dtype).view(-1, *[1] * (len(shape) - axis - 1))
        where = displacement[:, axis] + along
        inside &= (where >= 0) & (where <= n - 1)
    return inside


def _slabs(grid: Grid):
    """Rows of the first axis and their voxel indices, a bounded number of points at a time."""
    per_row = int(np.prod(grid.shape[1:]))
    step = max(1, POINTS_AT_ONCE // per_row)
    row = np.stack(np.meshgrid(*map(np.arange, grid.shape[1:]), indexing="ij"), -1).reshape(per_row, -1).astype(float)
    for start in range(0, grid.shape[0], step):
        stop = min(start + step, grid.shape[0])
        first = np.repeat(np.arange(start, stop, dtype=float), per_row)[:, None]
        yield slice(start, stop), np.concatenate([first, np.tile(row, (stop - start, 1))], 1)
