"""Solids given by signed distances, and how they combine.

A solid knows at any world point how far its surface is, so one anatomy can be evaluated on any grid, oblique or
deformed, without resampling an image. Points are ``3 N`` float arrays, RAS+ mm; distances are in mm, negative inside,
exact or first-order exact near the surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

Distance = Callable[[np.ndarray], np.ndarray]
Number = int | float
Vector = Sequence[Number] | np.ndarray

REACH_MM = 12.0
"""Beyond this, the distance to a union is only known to be larger."""

BEND_MM = 60.0
"""No bend moves a solid further than this."""


@dataclass(frozen=True, eq=False)
class Solid:
    """A signed distance and the box outside which it is positive.

    ``a | b`` is the union, ``a & b`` the intersection, ``a - b`` the difference.
    """

    distance: Distance
    lower: np.ndarray
    upper: np.ndarray

    def __or__(self, other: Solid) -> Solid:
        lower, upper = np.minimum(self.lower, other.lower), np.maximum(self.upper, other.upper)
        return Solid(lambda p: np.minimum(self.distance(p), other.distance(p)), lower, upper)

    def __and__(self, other: Solid) -> Solid:
        lower, upper = np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper)
        return Solid(lambda p: np.maximum(self.distance(p), other.distance(p)), lower, upper)

    def __sub__(self, other: Solid) -> Solid:
        return Solid(lambda p: np.maximum(self.distance(p), -other.distance(p)), self.lower, self.upper)

    def grown(self, mm: Number) -> Solid:
        """The surface moved outwards by ``mm`` (inwards if negative)."""
        return Solid(lambda p: self.distance(p) - mm, self.lower - mm, self.upper + mm)

    def shell(self, mm: Number) -> Solid:
        """A sheet of thickness ``mm`` about the surface."""
        return Solid(lambda p: np.abs(self.distance(p)) - mm / 2, self.lower - mm / 2, self.upper + mm / 2)

    def blended(self, other: Solid, radius_mm: Number) -> Solid:
        """The union with its crease filled by a fillet of about ``radius_mm``."""
        lower, upper = np.minimum(self.lower, other.lower), np.maximum(self.upper, other.upper)

        def distance(p: np.ndarray) -> np.ndarray:
            return smooth_minimum(self.distance(p), other.distance(p), radius_mm)

        return Solid(distance, lower - radius_mm / 4, upper + radius_mm / 4)

    def rounded_cut(self, other: Solid, radius_mm: Number) -> Solid:
        """The difference with a rounded edge."""
        return Solid(lambda p: -smooth_minimum(-self.distance(p), other.distance(p), radius_mm), self.lower, self.upper)

    def roughened(self, noise: Distance, mm: Number) -> Solid:
        """The surface moved by ``mm`` times a noise of unit variance."""
        return Solid(lambda p: self.distance(p) + mm * noise(p), self.lower - 3 * mm, self.upper + 3 * mm)

    def bent(self, shift: Distance) -> Solid:
        """Moved by ``shift(p)``, 3 N mm, which varies slowly."""
        return Solid(lambda p: self.distance(p - shift(p)), self.lower - BEND_MM, self.upper + BEND_MM)

    def repeated(self, period_mm: Number, offset_mm: Number) -> Solid:
        """Copies along z, one every ``period_mm``, the first at ``offset_mm``."""

        def distance(p: np.ndarray) -> np.ndarray:
            z = p[2] - np.float32(offset_mm)
            return self.distance(np.stack([p[0], p[1], z - np.float32(period_mm) * np.round(z / period_mm)]))

        return Solid(distance, np.array([*self.lower[:2], -np.inf]), np.array([*self.upper[:2], np.inf]))

    def remembered(self) -> Solid:
        """The same, worked out once for an array of points that several solids built from it share."""
        last: list[np.ndarray] = []

        def distance(p: np.ndarray) -> np.ndarray:
            if not last or last[0] is not p:
                last[:] = [p, self.distance(p)]
            return last[1]

        return Solid(distance, self.lower, self.upper)

    def placed(self, rotation: np.ndarray, centre: Vector) -> Solid:
        """A finite solid built at the origin, rotated by a 3 x 3 matrix and moved to ``centre``."""
        back, middle = rotation.T.astype(np.float32), np.asarray(centre, np.float32)[:, None]
        corners = np.array(list(product(*zip(self.lower, self.upper, strict=True)))) @ rotation.T + np.asarray(centre)
        return Solid(lambda p: self.distance(back @ (p - middle)), corners.min(axis=0), corners.max(axis=0))


def smooth_minimum(a: np.ndarray, b: np.ndarray, radius: Number) -> np.ndarray:
    """The minimum with its kink rounded where the two differ by less than ``radius``."""
    overlap = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - overlap**2 * np.float32(radius / 4)


def superellipsoid(centre: Vector, radii: Vector, exponent: Number = 2.0) -> Solid:
    """Points whose scaled coordinates have a p-norm under one; an infinite radius makes a prism along that axis."""
    middle, size = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    finite = np.flatnonzero(np.isfinite(size))

    def distance(p: np.ndarray) -> np.ndarray:
        scaled = np.abs(p[finite] - middle[finite, None]) / size[finite, None] + np.float32(1e-6)
        norm = power(power(scaled, exponent).sum(axis=0), 1 / exponent)
        slope = power(scaled / norm, exponent - 1) / size[finite, None]
        return (norm - 1) / np.sqrt((slope**2).sum(axis=0))

    return Solid(distance, middle - size, middle + size)


def power(x: np.ndarray, exponent: Number) -> np.ndarray:
    """``x ** exponent``, faster where the exponent is 1, 2 or a half."""
    if exponent == 1:
        return x
    if exponent == 2:
        return x * x
    return np.sqrt(x) if exponent == 0.5 else x ** np.float32(exponent)


def half_space(normal: Vector, point: Vector) -> Solid:
    """Everything behind the plane through ``point`` whose outward normal is ``normal``."""
    n = np.asarray(normal, np.float32) / np.float32(np.linalg.norm(normal))
    offset = np.float32(n @ np.asarray(point, np.float32))
    return Solid(lambda p: n @ p - offset, np.full(3, -np.inf), np.full(3, np.inf))


def tube(
    path: Sequence[Vector] | np.ndarray, *, step_mm: Number = 6.0, folds: tuple[float, float] | None = None
) -> Solid:
    """A tube of changing radius along a smooth curve.

    Args:
        path: the curve's nodes, each (x, y, z, radius) in mm.
        step_mm: the curve is made of straight pieces of about this length.
        folds: period in mm and relative depth of constrictions along the tube, such as the haustra of the colon.
    """
    centres, radii = sampled_curve(np.asarray(path, float), step_mm)
    if folds is not None:
        period, depth = folds
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(centres, axis=0), axis=1))])
        radii = radii * (1 - depth * np.abs(np.cos(np.pi * along / period)) ** 3)
    ends = list(zip(centres.astype(np.float32), radii.astype(np.float32), strict=True))
    return union([capsule(*ends[k], *ends[k + 1]) for k in range(len(ends) - 1)])


def sampled_curve(path: np.ndarray, step_mm: Number) -> tuple[np.ndarray, np.ndarray]:
    """Points (M x 3) and radii (M) along the cubic spline through ``path`` (nodes of x, y, z, radius)."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1))])
    where = np.linspace(0, along[-1], max(2, round(along[-1] / step_mm) + 1))
    if len(path) < 3:
        return np.stack([np.interp(where, along, c) for c in path[:, :3].T], axis=1), np.interp(
            where, along, path[:, 3]
        )
    return CubicSpline(along, path[:, :3])(where), PchipInterpolator(along, path[:, 3])(where)


def capsule(a: np.ndarray, radius_a: np.float32, b: np.ndarray, radius_b: np.float32) -> Solid:
    """A straight piece of tube with round ends."""
    lower, upper = np.minimum(a - radius_a, b - radius_b), np.maximum(a + radius_a, b + radius_b)
    return Solid(partial(distance_to_capsule, a, radius_a, b, radius_b), lower, upper)


def distance_to_capsule(
    a: np.ndarray, radius_a: np.float32, b: np.ndarray, radius_b: np.float32, p: np.ndarray
) -> np.ndarray:
    """From points (3 N) to the surface round the segment from a to b."""
    edge = b - a
    x, y, z = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    t = np.clip((x * edge[0] + y * edge[1] + z * edge[2]) / (edge @ edge), 0, 1)
    away = np.sqrt((x - t * edge[0]) ** 2 + (y - t * edge[1]) ** 2 + (z - t * edge[2]) ** 2)
    return away - (radius_a + t * (radius_b - radius_a))


def union(solids: Sequence[Solid]) -> Solid:
    """Many small solids as one. Only those near the points are evaluated: pass points a region at a time."""
    lower, upper = boxes(solids)

    def distance(p: np.ndarray) -> np.ndarray:
        nearest = np.full(p.shape[1], REACH_MM, np.float32)
        for k in meeting(lower, upper, p, REACH_MM):
            np.minimum(nearest, solids[k].distance(p), out=nearest)
        return nearest

    return Solid(distance, lower.min(axis=0), upper.max(axis=0))


def boxes(solids: Sequence[Solid]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corners of the boxes, N 3 each."""
    return np.stack([s.lower for s in solids]), np.stack([s.upper for s in solids])


def meeting(lower: np.ndarray, upper: np.ndarray, points: np.ndarray, margin_mm: float) -> np.ndarray:
    """Which boxes (corners N 3), grown by a margin, meet the box round the points (3 N)."""
    near = (points.min(axis=1) < upper + margin_mm) & (points.max(axis=1) > lower - margin_mm)
    return np.flatnonzero(near.all(axis=1))
