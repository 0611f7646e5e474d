"""Whether a map folds, how unevenly it stretches, and how well its inverse undoes it.

Maps are given as files hold them: a displacement in RAS mm at the voxels of a grid. What is judged is always the whole
map x -> x + u(x), affine part included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import map_coordinates

from anamorph.evaluation.scores import Score
from anamorph.types import WorldPoints

SMALLEST_DETERMINANT = 1e-3
"""Smaller and negative determinants count as this in the logarithm."""

VOXELS_AT_ONCE = 1_000_000

Displacement = Float[np.ndarray, "ndim ..."]


@dataclass(frozen=True)
class Folding:
    """What the Jacobian determinants of a map say.

    Args:
        voxels: how many were looked at.
        folded_voxels: how many have a determinant of zero or less.
        sd_log_jacobian: standard deviation of the logarithm of the determinant.
        smallest: determinant.
        largest: determinant.
    """

    voxels: int
    folded_voxels: int
    sd_log_jacobian: float
    smallest: float
    largest: float

    @property
    def folded_fraction(self) -> float:
        """Share of voxels with a determinant of zero or less; NaN where there are none."""
        return self.folded_voxels / self.voxels if self.voxels else float("nan")


def jacobian_determinant(displacement_mm: Displacement, affine: np.ndarray) -> Float[np.ndarray, "..."]:
    """The determinant of the derivative of x -> x + u(x) at every voxel, in world axes.

    Central differences, one-sided at the border of the grid, zero along an axis of one voxel.

    Args:
        displacement_mm: d I J (K), RAS mm.
        affine: voxel index -> RAS mm of its grid, oblique and sheared ones included.
    """
    shape = displacement_mm.shape[1:]
    if len(displacement_mm) != len(shape) or affine.shape != (len(shape) + 1,) * 2:
        raise ValueError(f"a displacement of shape {displacement_mm.shape} does not fit an affine of {affine.shape}")
    to_voxels = np.linalg.inv(affine[:-1, :-1])
    result = np.empty(shape)
    for rows, block in _blocks(shape):
        part = np.asarray(displacement_mm[:, block], dtype=np.float64)
        by_voxel = np.stack([_difference(part, axis + 1) for axis in range(len(shape))], axis=-1)
        inner = by_voxel[:, rows.start - block.start : rows.stop - block.start]
        derivative = np.moveaxis(inner @ to_voxels, 0, -2) + np.eye(len(shape))
        with np.errstate(invalid="ignore"):  # a NaN stays a NaN, and ``folding_scores`` says so
            result[rows] = np.linalg.det(derivative)
    return result


def folding(displacement_mm: Displacement, affine: np.ndarray, mask: Bool[np.ndarray, "..."] | None = None) -> Folding:
    """Folding and unevenness of a map, inside a mask if one is given."""
    determinant = jacobian_determinant(displacement_mm, affine)
    inside = determinant.ravel() if mask is None else determinant[mask]
    if not inside.size:
        return Folding(0, 0, float("nan"), float("nan"), float("nan"))
    logarithm = np.log(np.maximum(inside, SMALLEST_DETERMINANT))
    folded = int(np.count_nonzero(~(inside > 0)))
    return Folding(inside.size, folded, float(logarithm.std()), float(inside.min()), float(inside.max()))


def folding_scores(
    displacement_mm: Displacement, affine: np.ndarray, mask: Bool[np.ndarray, "..."] | None = None
) -> list[Score]:
    """The rows of ``folding``."""
    found = folding(displacement_mm, affine, mask)
    reason = "" if found.voxels else "the mask is empty"
    if found.voxels and not np.isfinite([found.smallest, found.largest]).all():
        reason = "the displacement is not finite"
    return [
        Score("folded_voxels", float(found.folded_voxels), "voxels", reason=reason),
        Score("folded_fraction", found.folded_fraction, reason=reason),
        Score("sd_log_jacobian", found.sd_log_jacobian, reason=reason),
        Score("jacobian_min", found.smallest, reason=reason),
        Score("jacobian_max", found.largest, reason=reason),
    ]


def inverse_miss_mm(
    points: WorldPoints,
    forward_mm: Displacement,
    forward_affine: np.ndarray,
    backward_mm: Displacement,
    backward_affine: np.ndarray,
) -> WorldPoints:
    """Where the backward map brings forward-mapped points, less where they were: N d, RAS mm.

    Both displacements are interpolated linearly. NaN where a point, or its image, is outside the grid that it needs.

    Args:
        points: N d, world points of the space in which the forward map starts.
        forward_mm: d I J (K), RAS mm.
        forward_affine: of its grid.
        backward_mm: d I J (K), RAS mm, on a grid of its own.
        backward_affine: of that grid.
    """
    there = points + _interpolated(forward_mm, forward_affine, points)
    return there + _interpolated(backward_mm, backward_affine, there) - points


def inverse_residual_mm(
    points: WorldPoints,
    forward_mm: Displacement,
    forward_affine: np.ndarray,
    backward_mm: Displacement,
    backward_affine: np.ndarray,
) -> Float[np.ndarray, " points"]:
    """The lengths of ``inverse_miss_mm``, mm."""
    return np.linalg.norm(inverse_miss_mm(points, forward_mm, forward_affine, backward_mm, backward_affine), axis=1)


def inverse_residual_scores(
    forward_mm: Displacement,
    forward_affine: np.ndarray,
    backward_mm: Displacement,
    backward_affine: np.ndarray,
    most_points: int = 200_000,
    metric: str = "inverse_residual",
) -> list[Score]:
    """Mean, 95th percentile and maximum of the inverse residual over voxels of the forward grid, evenly thinned out.

    Args:
        forward_mm, forward_affine, backward_mm, backward_affine: as for ``inverse_miss_mm``.
        most_points: at most about so many voxels.
        metric: inverse_residual of a map and the inverse computed of it; inverse_consistency of two maps that were
            found each by itself.
    """
    if not (np.isfinite(forward_mm).all() and np.isfinite(backward_mm).all()):
        return no_inverse_residual("a displacement is not finite", metric)
    shape = forward_mm.shape[1:]
    every = max(1, int(np.ceil((np.prod(shape) / most_points) ** (1 / len(shape)))))
    index = np.stack(np.meshgrid(*[np.arange(0, n, every) for n in shape], indexing="ij"), -1).reshape(-1, len(shape))
    points = index @ forward_affine[:-1, :-1].T + forward_affine[:-1, -1]
    residual = inverse_residual_mm(points, forward_mm, forward_affine, backward_mm, backward_affine)
    residual = residual[np.isfinite(residual)]
    if not residual.size:
        return no_inverse_residual("no point stays inside both grids", metric)
    values = (residual.mean(), np.percentile(residual, 95), residual.max())
    return [Score(name, float(value), "mm") for name, value in zip(_residual_names(metric), values, strict=True)]


def no_inverse_residual(reason: str, metric: str = "inverse_residual") -> list[Score]:
    """The rows of ``inverse_residual_scores`` where there is nothing to measure, and why."""
    return [Score(name, np.nan, "mm", reason=reason) for name in _residual_names(metric)]


def _residual_names(metric: str) -> list[str]:
    return [f"{metric}_{summary}_mm" for summary in ("mean", "p95", "max")]


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Rows of the first axis, and the same rows with a neighbour on each side."""
    step = max(1, VOXELS_AT_ONCE // int(np.prod(shape[1:])))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        yield slice(start, stop), slice(max(start - 1, 0), min(stop + 1, shape[0]))


def _difference(values: np.ndarray, axis: int) -> np.ndarray:
    return np.gradient(values, axis=axis) if values.shape[axis] > 1 else np.zeros_like(values)


def _interpolated(displacement_mm: Displacement, affine: np.ndarray, points: WorldPoints) -> WorldPoints:
    """The displacement at world points, N d; NaN outside the outer voxel centres."""
    inverse = np.linalg.inv(affine)
    where = (points @ inverse[:-1, :-1].T + inverse[:-1, -1]).T
    edge = np.array(displacement_mm.shape[1:])[:, None] - 1
    nearest = np.clip(where, 0, edge)
    inside = np.all(np.abs(where - nearest) <= 1e-6, axis=0)
    values = [map_coordinates(component, nearest, order=1, output=np.float64) for component in displacement_mm]
    return np.where(inside[:, None], np.stack(values, axis=1), np.nan)
