"""Lines over a picture, as SVG paths: edges, outlines and the deformed grid.

A line is an N x 2 array of (column, row), 0 at the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from contourpy import LineType, contour_generator
from scipy import ndimage

from anamorph.report.planes import Display, Plane

GRID_LINES_ACROSS = 22
MOST_GRID_LINES = 400
FAINTEST_EDGE = 0.02


def svg_path(lines: Iterable[np.ndarray], pixel: tuple[float, float]) -> str:
    """Lines in a frame where a pixel is ``pixel`` wide and high, rounded to half a unit."""
    parts = []
    for line in lines:
        halves = np.rint((line + 0.5) * pixel * 2).astype(int)
        steps = np.diff(halves, axis=0)
        steps = steps[np.any(steps != 0, axis=1)]
        if len(steps):
            moves = " ".join(f"{x / 2:g} {y / 2:g}" for x, y in steps)
            parts.append(f"M{halves[0, 0] / 2:g} {halves[0, 1] / 2:g}l{moves}")
    return "".join(parts).replace(" -", "-")


def outline(mask: np.ndarray) -> list[np.ndarray]:
    """The border of a mask (rows x columns), its corners rounded by half a pixel; closed at the picture's edge."""
    padded = np.pad(mask.astype(np.float32), 1)
    smooth = ndimage.gaussian_filter(padded, 0.6)
    return [line - 1 for line in _lines_at([0.5], smooth if smooth.max() > 0.5 else padded)]


def edges(grey: np.ndarray, pixel_mm: tuple[float, float]) -> list[np.ndarray]:
    """Edges with sub-pixel accuracy: zero crossings of the Laplacian of Gaussian where the gradient is strong.

    Marr and Hildreth, 1980, doi:10.1098/rspb.1980.0020. Pieces shorter than 2 % of the picture's longer side are left
    out.

    Args:
        grey: rows x columns in [0, 1].
        pixel_mm: width and height of a pixel.
    """
    blur_mm = max(1.5 * min(pixel_mm), 0.7 * max(pixel_mm))
    row_mm, column_mm = pixel_mm[1], pixel_mm[0]

    def derivative(along_rows: int, along_columns: int) -> np.ndarray:
        blurred = ndimage.gaussian_filter1d(grey, blur_mm / row_mm, axis=0, order=along_rows)
        blurred = ndimage.gaussian_filter1d(blurred, blur_mm / column_mm, axis=1, order=along_columns)
        return blurred * (blur_mm / row_mm) ** along_rows * (blur_mm / column_mm) ** along_columns

    strength = np.hypot(derivative(1, 0), derivative(0, 1))
    threshold = max(0.35 * float(np.percentile(strength, 98)), FAINTEST_EDGE)
    shortest = max(6, 0.02 * max(grey.shape))
    pieces = []
    for line in _lines_at([0.0], derivative(2, 0) + derivative(0, 2)):
        strong = ndimage.map_coordinates(strength, line.T[::-1], order=1, mode="nearest") > threshold
        changes = np.flatnonzero(np.diff(strong.astype(int))) + 1
        runs = zip(np.split(line, changes), np.split(strong, changes), strict=True)
        pieces += [run for run, kept in runs if kept[0] and len(run) > shortest]
    return pieces


def grid_step(display: Display) -> float:
    """Mm between grid lines: a round number that puts some twenty of them across the longest side."""
    sides = [n * size for n, size in zip(display.turned_shape, display.spacing, strict=True) if n > 1]
    wanted = max(sides, default=1.0) / GRID_LINES_ACROSS
    decade = 10.0 ** np.floor(np.log10(wanted))
    return float(next(decade * m for m in (1, 2, 5, 10) if decade * m >= wanted * 0.999))


def grid_lines(displacement_mm: np.ndarray, plane: Plane, step: float) -> list[np.ndarray]:
    """Where a regular grid of the moving image comes to lie in the fixed slice.

    The lines are level lines of the map's two in-plane coordinates, in mm along the fixed grid's axes.

    Args:
        displacement_mm: d I J (K), RAS mm, fixed -> moving, in file order.
        plane: the slice.
        step: mm between neighbouring lines.
    """
    affine = plane.display.turned_affine
    rows, columns = plane.cut(displacement_mm[0]).shape
    across, down = plane.in_plane
    index = np.empty((3, rows, columns))
    index[plane.axis] = plane.index
    index[across] = np.arange(columns)[::-1]
    index[down] = np.arange(rows)[::-1, None]
    moved = np.tensordot(affine[:3, :3], index, axes=1)
    for axis, component in enumerate(displacement_mm):
        moved[axis] += plane.cut(component)
    along = np.tensordot(np.linalg.inv(affine[:3, :3]), moved, axes=1) * plane.display.spacing[:, None, None]
    lines = []
    for axis in (across, down):
        values = np.nan_to_num(along[axis])
        levels = np.arange(np.ceil(values.min() / step), np.floor(values.max() / step) + 1) * step
        lines += _lines_at(levels[:MOST_GRID_LINES], values)
    return lines


def _lines_at(levels: Iterable[float], values: np.ndarray) -> list[np.ndarray]:
    if min(values.shape) < 2:
        return []
    generator = contour_generator(z=values, line_type=LineType.Separate)
    return [np.asarray(line) for level in levels for line in generator.lines(float(level))]
