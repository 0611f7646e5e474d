"""Where voxels are: a shape and the affine that carries voxel indices to world points (RAS+ mm)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np


def require_affine(matrix: np.ndarray) -> None:
    """Accept a homogeneous matrix of a linear map with an inverse.

    Raises:
        ValueError: a number is not finite, the last row is not 0 ... 0 1, or the linear part is singular.
    """
    if not np.isfinite(matrix).all():
        raise ValueError("the affine has NaN or Inf, expected finite numbers")
    if not np.allclose(matrix[-1], np.eye(len(matrix))[-1], rtol=0, atol=1e-6):
        raise ValueError(f"the last row of the affine is {matrix[-1].tolist()}, expected 0 ... 0 1")
    if np.linalg.matrix_rank(matrix[:-1, :-1]) < len(matrix) - 1:
        raise ValueError("the affine is singular, expected one with an inverse")


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """A regular lattice in the world; 2-D and 3-D alike.

    Args:
        shape: voxels along each axis, in file order (I, J) or (I, J, K).
        affine: (d+1) x (d+1) float64, voxel index -> RAS+ mm. Any invertible affine is accepted, shear and left-handed
            axes included.

    Raises:
        ValueError: shape and affine disagree in dimension, or the affine is not finite, not invertible or no affine.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"a grid has two or three axes of at least one voxel, found shape {shape}")
        if affine.shape != (len(shape) + 1,) * 2:
            raise ValueError(f"shape {shape} needs a {len(shape) + 1} x {len(shape) + 1} affine, found {affine.shape}")
        require_affine(affine)
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __repr__(self) -> str:
        shape, spacing = (" x ".join(f"{n:.5g}" for n in numbers) for numbers in (self.shape, self.spacing))
        return f"Grid({shape} voxels of {spacing} mm)"

    @classmethod
    def from_spacing(cls, shape: Sequence[int], spacing: float | Sequence[float] = 1.0) -> Grid:
        """A grid with axes along the world's and its first voxel at the origin; ``spacing`` in mm."""
        diagonal = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (len(shape),))
        return cls(tuple(shape), np.diag([*diagonal, 1.0]))

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @cached_property
    def spacing(self) -> np.ndarray:
        """Distance in mm between neighbouring voxels, one number an axis."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0)

    @cached_property
    def inverse_affine(self) -> np.ndarray:
        """World -> voxel."""
        return np.linalg.inv(self.affine)

    @property
    def voxel_volume(self) -> float:
        """mm^d of one voxel."""
        return float(abs(np.linalg.det(self.affine[:-1, :-1])))

    @property
    def centre(self) -> np.ndarray:
        """World point in the middle of the field of view."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    @cached_property
    def corners(self) -> np.ndarray:
        """World points of the outermost voxel centres: 2^d x d."""
        return self.to_world(np.array(list(product(*[(0, n - 1) for n in self.shape])), dtype=np.float64))

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """Voxel coordinates (... d) to world points (... d), mm."""
        return np.asarray(voxels) @ self.affine[:-1, :-1].T + self.affine[:-1, -1]

    def to_voxel(self, points: np.ndarray) -> np.ndarray:
        """World points (... d), mm, to voxel coordinates (... d)."""
        return np.asarray(points) @ self.inverse_affine[:-1, :-1].T + self.inverse_affine[:-1, -1]

    def to_grid(self, other: Grid) -> np.ndarray:
        """Matrix from this grid's voxel coordinates to the other's."""
        return other.inverse_affine @ self.affine

    def voxels(self) -> np.ndarray:
        """Every voxel's index: prod(shape) x d, float64, in C order."""
        return np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1).reshape(-1, self.ndim) + 0.0

    def resized(self, shape: Sequence[int]) -> Grid:
        """The same field of view in other voxels: outer voxel *edges* stay, centres move."""
        factor = np.array(self.shape) / np.array(shape)
        change = np.diag([*factor, 1.0])
        change[:-1, -1] = (factor - 1) / 2
        return Grid(tuple(shape), self.affine @ change)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """The part of ``shape`` voxels that begins at voxel ``start``; a negative start pads."""
        change = np.eye(self.ndim + 1)
        change[:-1, -1] = start
        return Grid(tuple(shape), self.affine @ change)

    def distance_mm(self, other: Grid) -> float:
        """How far the two grids' corners lie apart at most; infinite where the shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners - other.corners, axis=1).max())

    def same_as(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids put every voxel at the same place, within ``tolerance_mm``."""
        return self.distance_mm(other) <= tolerance_mm

    def contains(self, points: np.ndarray, margin: float = 0.5) -> np.ndarray:
        """Which world points (N d) lie inside the field of view: up to ``margin`` voxels beyond the outer centres."""
        voxels = self.to_voxel(points)
        return np.all((voxels >= -margin) & (voxels <= np.array(self.shape) - 1 + margin), axis=-1)
