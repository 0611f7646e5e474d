"""Maps between worlds: callables on points in RAS+ mm that carry a fixed point to its moving point.

``(f @ g)(x) = f(g(x))``. Every transform has an ``inverse()``; ``inverse_residual_mm`` tells how good it is.
Networks never see these objects: files, the command line and evaluation do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from anamorph.errors import InputError, NumericalError, warn
from anamorph.spatial.affine import affine_points
from anamorph.spatial.field import exponential, invert, sample
from anamorph.spatial.grid import Grid, require_affine
from anamorph.types import Interpolation, Matrix, Outside, WorldPoints

POINTS_AT_ONCE = 2**18
"""Points mapped in one go: bounds the memory of a whole-grid evaluation to some tens of MB."""


class Transform(ABC):
    """A map from fixed world points to moving world points, RAS+ mm."""

    @property
    @abstractmethod
    def ndim(self) -> int:
        """2 or 3."""

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
        for rows, slab in _slabs(grid):
            result[:, rows] = _moved(slab, self) - _lattice(slab.affine, slab)
        return result


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Transform):
    """A linear map: ``matrix`` is (d+1) x (d+1), float64, fixed world -> moving world.

    Raises:
        ValueError: the matrix is not finite, of another shape, singular, or its last row is not 0 ... 0 1.
    """

    matrix: Matrix

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape not in ((3, 3), (4, 4)):
            raise ValueError(f"an affine map is a 3 x 3 or 4 x 4 matrix, found shape {matrix.shape}")
        require_affine(matrix)
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)

    def __repr__(self) -> str:
        rows = "; ".join(" ".join(f"{number:.4g}" for number in row) for row in self.matrix[:-1])
        return f"Affine([{rows}])"

    @classmethod
    def identity(cls, ndim: int) -> Affine:
        """The map that moves nothing."""
        return cls(np.eye(ndim + 1))

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.matrix) - 1

    def __call__(self, points: WorldPoints) -> WorldPoints:
        """Map world points: N d -> N d, mm, float64."""
        return points @ self.matrix[:-1, :-1].T + self.matrix[:-1, -1]

    def inverse(self) -> Affine:
        """The inverse matrix."""
        return Affine(np.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False, repr=False)
class Field(Transform):
    """A displacement in mm sampled on a grid: x -> x + u(x), linear between voxels.

    Up to half a voxel outside the outer voxel centres the border displacement holds, beyond it the displacement is
    zero: what ITK, and so ANTs, SimpleITK and elastix, do with the same file.

    Args:
        displacement: d I J (K), RAS mm; kept on the CPU as float32 or float64.
        grid: where its voxels are.

    Raises:
        ValueError: the shape does not fit the grid.
        InputError: E-TRF-004, NaN or Inf in the displacement.
    """

    displacement: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        object.__setattr__(self, "displacement", _vectors(self.displacement, self.grid))

    def __repr__(self) -> str:
        return f"Field({self.grid})"

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.grid.ndim

    def __call__(self, points: WorldPoints) -> WorldPoints:
        """Map world points: N d -> N d, mm, float64."""
        voxels = torch.from_numpy(np.ascontiguousarray(self.grid.to_voxel(points).T))
        return points + sample(self.displacement[None], voxels[None])[0].numpy().T

    def displacement_on(self, grid: Grid) -> Float[np.ndarray, "ndim *spatial"]:
        """The displacement at every voxel of ``grid``; read off directly where it is the field's own grid."""
        if self.grid.same_as(grid, tolerance_mm=1e-9):
            return self.displacement.numpy().astype(np.float32)
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

    def _at_lattice(self, matrix: Matrix, lattice: Grid) -> Float[Tensor, "ndim *spatial"]:
        """The displacement where ``matrix`` puts a lattice's voxels; read off directly where they meet its own."""
        voxel = self.grid.inverse_affine @ matrix
        start = np.rint(voxel[:-1, -1])
        stop = start + lattice.shape
        straying = np.abs(voxel[:-1] - np.column_stack([np.eye(self.ndim), start])) @ [*lattice.shape, 1]
        if straying.max() < 1e-6 and start.min() >= 0 and (stop <= self.grid.shape).all():
            own = [slice(int(first), int(last)) for first, last in zip(start, stop, strict=True)]
            return self.displacement[:, *own]
        return sample(self.displacement[None], _lattice(voxel, lattice)[None])[0]

    def _at(self, points: Float[Tensor, "ndim *points"]) -> Float[Tensor, "ndim *points"]:
        """The displacement at world points."""
        return sample(self.displacement[None], _mapped(self.grid.inverse_affine, points)[None])[0]


@dataclass(frozen=True, eq=False, repr=False)
class Velocity(Transform):
    """A diffeomorphism: the unit-time flow of a stationary velocity, and its inverse the flow of the negative one.

    Args:
        velocity: d I J (K), RAS mm per unit time; kept on the CPU as float32 or float64.
        grid: where its voxels are.
        steps: squarings of the integration.

    Raises:
        ValueError: the shape does not fit the grid.
        InputError: E-TRF-004, NaN or Inf in the velocity.
    """

    velocity: Tensor
    grid: Grid
    steps: int = 7

    def __post_init__(self) -> None:
        object.__setattr__(self, "velocity", _vectors(self.velocity, self.grid))

    def __repr__(self) -> str:
        return f"Velocity({self.grid}, {self.steps} steps)"

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.grid.ndim

    @cached_property
    def field(self) -> Field:
        """The flow as a displacement on the velocity's own grid."""
        linear = self.grid.affine[:-1, :-1]
        flow = exponential(_times(np.linalg.inv(linear), self.velocity)[None], self.steps)[0]
        return Field(_times(linear, flow), self.grid)

    def __call__(self, points: WorldPoints) -> WorldPoints:
        """Map world points: N d -> N d, mm, float64."""
        return self.field(points)

    def displacement_on(self, grid: Grid) -> Float[np.ndarray, "ndim *spatial"]:
        """The flow's displacement at every voxel of ``grid``."""
        return self.field.displacement_on(grid)

    def inverse(self) -> Velocity:
        """The flow of the negative velocity."""
        return Velocity(-self.velocity, self.grid, self.steps)


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Transform):
    """Several maps, applied first to last: ``Chain((f, g))(x) = g(f(x))``."""

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        steps = tuple(step for transform in self.transforms for step in _steps(transform))
        if not steps or len({step.ndim for step in steps}) > 1:
            raise ValueError("a chain joins at least one transform, all of the same dimension")
        object.__setattr__(self, "transforms", steps)

    def __repr__(self) -> str:
        return f"Chain({' then '.join(map(repr, self.transforms))})"

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.transforms[0].ndim

    def __call__(self, points: WorldPoints) -> WorldPoints:
        """Map world points: N d -> N d, mm, float64."""
        for transform in self.transforms:
            points = transform(points)
        return points

    def inverse(self) -> Chain:
        """The inverses in reverse order."""
        return Chain(tuple(transform.inverse() for transform in reversed(self.transforms)))


def resample(
    data: Shaped[Tensor, "channels *source"],
    source: Grid,
    target: Grid,
    transform: Transform | None = None,
    mode: Interpolation = "linear",
    outside: Outside = "zeros",
) -> Shaped[Tensor, "channels *target"]:
    """Bring data onto another grid through a transform: one interpolation, whatever the length of the chain.

    Args:
        data: C I J (K) on ``source``, floating point; any type where mode is "nearest".
        source: where the voxels of ``data`` are.
        target: where they are wanted.
        transform: target world -> source world; the identity if absent.
        mode: "linear", or "nearest" for labels.
        outside: value where the target looks beyond the source (see ``spatial.field.sample``).

    Raises:
        ValueError: data, grids and transform do not fit each other.
    """
    if tuple(data.shape[1:]) != source.shape:
        raise ValueError(f"data of shape {tuple(data.shape)}, its grid asks for (channels, {source.shape})")
    result = data.new_empty((len(data), *target.shape))
    for rows, slab in _slabs(target):
        voxels = _moved(slab, transform or Affine.identity(target.ndim), onto=source)
        result[:, rows] = sample(data[None], voxels[None].to(data.device), mode, outside)[0]
    return result


def _steps(transform: Transform) -> tuple[Transform, ...]:
    return transform.transforms if isinstance(transform, Chain) else (transform,)


def _slabs(grid: Grid) -> Iterator[tuple[slice, Grid]]:
    """The grid cut along its first axis, a bounded number of voxels at a time."""
    step = max(1, POINTS_AT_ONCE // math.prod(grid.shape[1:]))
    for start in range(0, grid.shape[0], step):
        stop = min(start + step, grid.shape[0])
        yield slice(start, stop), grid.cropped((start, *[0] * (grid.ndim - 1)), (stop - start, *grid.shape[1:]))


def _moved(grid: Grid, transform: Transform, onto: Grid | None = None) -> Float[Tensor, "ndim *spatial"]:
    """Where the voxels of ``grid`` go, as world points, or as voxel coordinates ``onto`` another grid; float64.

    Linear maps that follow each other become one matrix, and a lattice under a matrix is never written out as indices.
    """
    if {transform.ndim, grid.ndim, (onto or grid).ndim} != {grid.ndim}:
        raise ValueError(f"a {transform.ndim}-D transform between {grid.ndim}-D and {(onto or grid).ndim}-D grids")
    matrix, points = grid.affine, None  # points of None stand for the voxel indices of the grid
    for step in _steps(transform):
        if isinstance(step, Affine):
            matrix = step.matrix @ matrix
            continue
        start = _lattice(matrix, grid) if points is None else _mapped(matrix, points)
        if isinstance(step, Field | Velocity):
            field = step if isinstance(step, Field) else step.field
            points = start + (field._at_lattice(matrix, grid) if points is None else field._at(start))
        else:
            moved = step(start.flatten(1).T.numpy())
            points = torch.from_numpy(np.ascontiguousarray(moved.T)).view_as(start)
        matrix = np.eye(grid.ndim + 1)
    if onto is not None:
        matrix = onto.inverse_affine @ matrix
    return _lattice(matrix, grid) if points is None else _mapped(matrix, points)


def _lattice(matrix: Matrix, grid: Grid) -> Float[Tensor, "ndim *spatial"]:
    """Where a matrix puts the voxel indices of a grid; float64."""
    return affine_points(torch.tensor(matrix)[None], grid.shape)[0]


def _mapped(matrix: Matrix, points: Float[Tensor, "ndim *points"]) -> Float[Tensor, "ndim *points"]:
    """Points under a homogeneous matrix; float64."""
    if np.array_equal(matrix, np.eye(len(matrix))):
        return points
    m = torch.tensor(matrix)
    return torch.addmm(m[:-1, -1:], m[:-1, :-1], points.flatten(1)).view_as(points)


def _times(matrix: np.ndarray, vectors: Tensor) -> Tensor:
    """A d x d matrix applied to every vector of a field d I J (K)."""
    return torch.tensordot(torch.tensor(matrix).to(vectors), vectors, dims=1)


def _vectors(values: Tensor, grid: Grid) -> Float[Tensor, "ndim *spatial"]:
    """A field of vectors that fits its grid and is finite, on the CPU, float32 or float64."""
    values = values.detach().cpu()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.to(torch.float64)
    if tuple(values.shape) != (grid.ndim, *grid.shape):
        raise ValueError(f"vectors of shape {tuple(values.shape)}, their grid asks for {(grid.ndim, *grid.shape)}")
    if not bool(torch.isfinite(values.sum())):  # the sum of huge numbers may overflow, so look again
        missing = int((~torch.isfinite(values)).sum())
        if missing:
            found = f"{missing} of {values.numel()} components of vectors are NaN or Inf"
            raise InputError("E-TRF-004", found, expected="finite numbers")
    return values


def _inside(displacement: Tensor) -> Tensor:
    """Where x + u(x) stays on the grid, half a voxel off its edge, where clamping leaves no inverse: B I J (K)."""
    shape = displacement.shape[2:]
    inside = torch.ones_like(displacement[:, 0], dtype=torch.bool)
    for axis, n in enumerate(shape):
        along = torch.arange(n, dtype=displacement.dtype).view(-1, *[1] * (len(shape) - axis - 1))
        where = displacement[:, axis] + along
        margin = min(0.5, (n - 1) / 2)
        inside &= (where >= margin) & (where <= n - 1 - margin)
    return inside
