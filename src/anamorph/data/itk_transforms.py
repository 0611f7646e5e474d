"""ITK transforms as ITK stores them (class name, parameters, fixed parameters) <-> ``Transform``.

ITK's world is LPS and ours RAS. Both map fixed points to moving points. A composite lists its parts last-applied first.

Source: M. McCormick et al. (2014), ITK: enabling reproducible research and open science, doi:10.3389/fninf.2014.00013.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from anamorph.data.itk import flip_lps
from anamorph.data.itk_linear import LINEAR, Numbers
from anamorph.errors import InputError, warn
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Transform, Velocity
from anamorph.types import Matrix, WorldPoints

LARGEST_NUMBER = 1e15


@dataclass(frozen=True, eq=False)
class ItkTransform:
    """One transform as stored: ``kind`` without its suffix, ``ndim``, parameters and fixed parameters (LPS, mm)."""

    kind: str
    ndim: int
    parameters: Numbers
    fixed: Numbers

    @classmethod
    def named(cls, name: str, parameters: Numbers, fixed: Numbers, file: Path) -> ItkTransform:
        """From a stored class name such as ``AffineTransform_double_3_3``.

        Raises:
            InputError: the name has another form (E-TRF-007), or a number is not finite or absurdly large (E-TRF-004).
        """
        match = re.fullmatch(r"(\w+?)_(?:double|float)_([23])_\2(_\d)?", name)
        if match is None:
            known = "a class such as AffineTransform_double_3_3"
            raise InputError("E-TRF-007", f"transform {name[:80]!r}", file=file, expected=known)
        for numbers in (parameters, fixed):
            # The extremes of an array with a NaN are NaN, which fails both comparisons.
            if numbers.size and not (numbers.min() > -LARGEST_NUMBER and numbers.max() < LARGEST_NUMBER):
                count = int(np.count_nonzero(~(np.abs(numbers) < LARGEST_NUMBER)))
                found = f"{count} of {numbers.size} numbers of {name} are NaN, Inf or beyond {LARGEST_NUMBER:g}"
                raise InputError("E-TRF-004", found, file=file, expected="finite numbers", do="compute it anew")
        return cls(match[1] + (match[3] or ""), int(match[2]), parameters, fixed)

    @property
    def name(self) -> str:
        """The class name ITK's readers know."""
        return f"{self.kind}_double_{self.ndim}_{self.ndim}"


def from_itk(parts: Sequence[ItkTransform], file: Path, grid: Grid | None = None) -> Transform:
    """The transform that a file's parts describe, in RAS mm.

    A B-spline has no counterpart among ours: a file with one becomes a displacement sampled on ``grid``, exact at
    its voxels.

    Raises:
        InputError: unknown class, wrong count of numbers, singular matrix, or a B-spline without ``grid``.
    """
    if not parts:
        raise InputError("E-TRF-007", "no transform", file=file, expected="at least one")
    if parts[0].kind != "CompositeTransform":
        if len(parts) > 1:
            found = f"{len(parts)} transforms in no stated order"
            raise InputError(
                "E-TRF-007", found, file=file, expected="one, or a CompositeTransform", do="split the file"
            )
        applied = list(parts)
    else:
        applied = list(parts[:0:-1])
    if any(part.ndim != parts[0].ndim for part in parts):
        raise InputError("E-TRF-007", "2-D and 3-D transforms in one file", file=file, expected="one dimension")
    if not applied:
        return Affine.identity(parts[0].ndim)
    steps = tuple(_step(part, file) for part in applied)
    if any(isinstance(step, _BSpline) for step in steps):
        return _sampled(steps, grid, file)
    return steps[0] if len(steps) == 1 else Chain(steps)


def to_itk(transform: Transform, *, composite: bool) -> list[ItkTransform]:
    """The parts to store, in the order of the file; ``composite`` heads them by a CompositeTransform.

    A ``Velocity`` is stored as its flow's displacement, a ``Field`` in its own precision on its own grid.
    """
    steps = transform.transforms if isinstance(transform, Chain) else (transform,)
    parts = [_part(step) for step in reversed(steps)]
    nothing = np.empty(0)
    return [ItkTransform("CompositeTransform", transform.ndim, nothing, nothing), *parts] if composite else parts


def _part(step: Transform) -> ItkTransform:
    if isinstance(step, Velocity):
        step = step.field
    if isinstance(step, Affine):
        matrix = _between_lps(step.matrix)
        numbers = np.concatenate([matrix[:-1, :-1].ravel(), matrix[:-1, -1]]) + 0.0  # no negative zeros
        return ItkTransform("AffineTransform", step.ndim, numbers, np.zeros(step.ndim))
    if not isinstance(step, Field):
        raise TypeError(f"{type(step).__name__} has no ITK counterpart")
    affine = flip_lps(step.grid.affine)
    spacing = step.grid.spacing
    fixed = [step.grid.shape, affine[:-1, -1], spacing, (affine[:-1, :-1] / spacing).ravel()]
    # ITK's vectors are interleaved and its first axis runs fastest, ours come last.
    vectors = np.array(step.displacement.numpy().T, order="C")
    vectors[..., :2] *= -1
    return ItkTransform("DisplacementFieldTransform", step.ndim, vectors.ravel(), np.concatenate(fixed).astype(float))


def _step(part: ItkTransform, file: Path) -> Transform:
    if part.kind == "DisplacementFieldTransform":
        return _field(part, file)
    if part.kind.startswith("BSplineTransform"):
        return _bspline(part, file)
    if part.kind not in LINEAR:
        known = ", ".join(sorted([*LINEAR, "BSplineTransform", "DisplacementFieldTransform"]))
        raise InputError("E-TRF-007", f"transform of class {part.kind[:80]}", file=file, expected=f"one of {known}")
    kind = LINEAR[part.kind]
    ndim = part.ndim
    count = kind.count(ndim)
    if len(part.parameters) != count or kind.ndim not in (None, ndim):
        found = f"{len(part.parameters)} parameters for {part.name}"
        raise InputError("E-TRF-007", found, file=file, expected=f"{count}", do="compute it anew")
    if kind.centred and len(part.fixed) < ndim:
        found = f"{len(part.fixed)} fixed parameters for {part.name}"
        raise InputError("E-TRF-007", found, file=file, expected=f"a centre of {ndim}", do="compute it anew")
    linear, translation, centre = kind.read(part.parameters, part.fixed, ndim)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = translation + centre - linear @ centre
    return _checked_affine(_between_lps(matrix), file)


def _between_lps(matrix: Matrix) -> Matrix:
    """A map between RAS worlds as a map between LPS worlds, and back."""
    return flip_lps(flip_lps(matrix).T).T


def _checked_affine(matrix: Matrix, file: Path) -> Affine:
    """An affine that can be inverted; one that mirrors is let through with a warning (W-TRF-009).

    Raises:
        InputError: E-TRF-009, singular to working precision.
    """
    linear = matrix[:-1, :-1]
    if np.linalg.cond(linear) > 1e12:
        raise InputError(
            "E-TRF-009", "a singular matrix", file=file, expected="a map with an inverse", do="compute it anew"
        )
    if np.linalg.det(linear) < 0:
        warn("W-TRF-009", "the affine mirrors (negative determinant): left and right may be exchanged", file=file)
    return Affine(matrix)


def _lattice(part: ItkTransform, file: Path) -> Grid:
    """The grid in the fixed parameters: size, origin, spacing, direction by rows."""
    ndim = part.ndim
    if len(part.fixed) != 3 * ndim + ndim**2:
        found = f"{len(part.fixed)} fixed parameters for {part.name}"
        raise InputError("E-TRF-007", found, file=file, expected=f"{3 * ndim + ndim**2}", do="compute it anew")
    size, origin, spacing = part.fixed[: 3 * ndim].reshape(3, ndim)
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = part.fixed[3 * ndim :].reshape(ndim, ndim) * spacing
    affine[:-1, -1] = origin
    if (size != np.rint(size)).any() or (size < 1).any() or (size > 2**31).any() or (spacing <= 0).any():
        found = f"a grid of {size.tolist()} voxels of {spacing.tolist()} mm"
        raise InputError("E-TRF-007", found, file=file, expected="whole voxels of positive size")
    count = ndim * prod(int(n) for n in size)
    if len(part.parameters) != count:
        found = f"{len(part.parameters)} parameters for a grid of {size.tolist()} voxels"
        raise InputError("E-TRF-007", found, file=file, expected=f"{count}", do="copy or compute it anew")
    try:
        return Grid(tuple(int(n) for n in size), flip_lps(affine))
    except ValueError as error:
        raise InputError("E-TRF-007", f"a grid that is none: {error}", file=file, do="compute it anew") from error


def _field(part: ItkTransform, file: Path) -> Field:
    grid = _lattice(part, file)
    vectors = part.parameters.reshape(*grid.shape[::-1], part.ndim)
    displacement = np.array(vectors.T, order="C")
    displacement[:2] *= -1
    return Field(torch.from_numpy(displacement), grid)


@dataclass(frozen=True, eq=False)
class _BSpline(Transform):
    """x -> x + sum of coefficients times B-splines; nothing moves where the support leaves the coefficient grid."""

    coefficients: Float[np.ndarray, "ndim *spatial"]
    grid: Grid
    order: int

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return self.grid.ndim

    def __call__(self, points: WorldPoints) -> WorldPoints:
        where = self.grid.to_voxel(points).T
        margin = (self.order - 1) / 2
        last = np.array(self.grid.shape)[:, None] - 1 - margin
        inside = ((where >= margin) & (where <= last)).all(0)
        moved = points.copy()
        for axis, coefficients in enumerate(self.coefficients):
            moved[inside, axis] += map_coordinates(
                coefficients, where[:, inside], order=self.order, mode="nearest", prefilter=False
            )
        return moved

    def inverse(self) -> Transform:
        raise NotImplementedError("sampled on a grid before it leaves this module")


def _bspline(part: ItkTransform, file: Path) -> _BSpline:
    order = int(part.kind.partition("_")[2] or 3)
    if part.kind not in ("BSplineTransform", "BSplineTransform_1", "BSplineTransform_2"):
        raise InputError("E-TRF-007", f"a B-spline of order {order}", file=file, expected="order 1, 2 or 3")
    grid = _lattice(part, file)
    coefficients = part.parameters.reshape(part.ndim, *grid.shape[::-1])
    coefficients = np.array([component.T for component in coefficients], dtype=np.float64)
    coefficients[:2] *= -1
    return _BSpline(coefficients, grid, order)


def _sampled(steps: tuple[Transform, ...], grid: Grid | None, file: Path) -> Field:
    if grid is None:
        found = "a B-spline, which is kept as a displacement sampled on a grid"
        raise InputError("E-TRF-007", found, file=file, expected="a grid", do="give the fixed image")
    if grid.ndim != steps[0].ndim:
        raise InputError("E-TRF-007", f"a {steps[0].ndim}-D transform for a {grid.ndim}-D grid", file=file)
    return Field(torch.from_numpy(Chain(steps).displacement_on(grid)), grid)
