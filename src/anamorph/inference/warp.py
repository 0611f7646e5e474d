"""Bring images, labels, masks and landmarks from one space to the other by one call and one word.

A transform maps fixed points to moving points. An image therefore travels from moving to fixed by being *pulled*
through it, while a point travels the same way through its *inverse*. Nobody has to remember that here: ``direction``
says where the data goes, for every kind of data alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anamorph.data.image import Image, Labelmap, Landmarks, Mask
from anamorph.data.landmark_files import check_inside
from anamorph.data.landmark_formats import listed
from anamorph.data.transform_files import describe_grid
from anamorph.errors import ConfigurationError, InputError, warn
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Chain, Field, Transform, Velocity, resample
from anamorph.types import Interpolation, WorldPoints

Direction = Literal["moving_to_fixed", "fixed_to_moving"]
Warpable = TypeVar("Warpable", Image, Labelmap, Mask, Landmarks)

POINTS_AT_ONCE = 2**17
PROBES_PER_AXIS = 33
"""Voxels looked at along each axis to tell which share of a grid a displacement field covers."""
MOST_REFINEMENTS = 20
HIT_MM, MISS_MM = 1e-4, 0.1
"""An inverse this near is good enough; one this far is told."""


def warp(
    data: Warpable,
    transform: Transform,
    onto: Grid | None = None,
    *,
    direction: Direction = "moving_to_fixed",
    interpolation: Interpolation | None = None,
    fill: float | None = None,
) -> Warpable:
    """Warp once, however many steps the transform has.

    Outside a displacement field that step moves nothing (half a voxel beyond its border it still does), as in ITK.

    Args:
        data: of the moving side, or of the fixed side with ``direction="fixed_to_moving"``.
        transform: fixed -> moving world points.
        onto: grid of the other side's image; for landmarks it is optional and those outside it are listed (W-LMK-020).
        direction: where the data goes.
        interpolation: "linear" or "nearest"; by default linear for images and masks and nearest for labels. Labels
            are never blended: with "linear" each one is interpolated alone and the largest wins, the lower at a tie.
        fill: value of an image where it is not seen; its minimum by default. Labels and masks become background.

    Returns:
        The same kind of data; labels keep their values and dtype.

    Raises:
        ConfigurationError: E-CFG-005, an image without ``onto``.
        InputError: E-TRF-005, the transform is of another dimension or its field lies elsewhere altogether.
        NumericalError: E-TRF-010, the inverse is needed and the transform folds.

    Warns:
        W-TRF-006: part of the data lies outside a displacement field. W-TRF-010: the inverse misses a landmark by more
        than 0.1 mm. W-LAB-007: labels that were lost.
    """
    ndim = data.points.shape[1] if isinstance(data, Landmarks) else data.grid.ndim
    if ndim != transform.ndim or (onto is not None and onto.ndim != ndim):
        found = f"{ndim}-D data, a {transform.ndim}-D transform" + (f", a {onto.ndim}-D grid" if onto else "")
        raise InputError("E-TRF-005", found, expected="one dimension")
    if isinstance(data, Landmarks):
        return _landmarks(data, transform, onto, direction)
    if onto is None:
        raise ConfigurationError(
            "E-CFG-005", "no grid to warp onto", do="give the grid of the other side's image (onto, --onto)"
        )
    pull = transform if direction == "moving_to_fixed" else transform.inverse()
    _check_cover(pull, onto)
    if isinstance(data, Image):
        return _image(data, pull, onto, interpolation or "linear", fill)
    if isinstance(data, Labelmap):
        return _labels(data, pull, onto, interpolation or "nearest")
    return _mask(data, pull, onto, interpolation or "linear")


def comparable(fixed: Image, moving: Image, transform: Transform) -> Bool[np.ndarray, "*spatial"]:
    """Where on the fixed grid both images have values, the moving one brought over by the transform."""
    moving_valid, fixed_valid = (
        image.valid if image.valid is not None else torch.ones(image.grid.shape, dtype=torch.bool)
        for image in (moving, fixed)
    )
    return warp(Mask(moving_valid, moving.grid), transform, fixed.grid).data.numpy() & fixed_valid.numpy()


def _image(image: Image, pull: Transform, onto: Grid, interpolation: Interpolation, fill: float | None) -> Image:
    ground = float(image.data.min()) if fill is None else fill
    values = resample(image.data - ground, image.grid, onto, pull, interpolation) + ground
    valid = None
    if image.valid is not None:
        # A voxel counts only if nothing that was masked out took part in it.
        valid = resample(image.valid[None].float(), image.grid, onto, pull, interpolation, "border")[0] > 0.999
    return Image(values, onto, image.modality, valid, image.name)


def _mask(mask: Mask, pull: Transform, onto: Grid, interpolation: Interpolation) -> Mask:
    soft = resample(mask.data[None].float(), mask.grid, onto, pull, interpolation)
    return Mask(soft[0] > 0.5, onto, mask.name)


def _labels(labels: Labelmap, pull: Transform, onto: Grid, interpolation: Interpolation) -> Labelmap:
    values, rank = torch.unique(labels.data, return_inverse=True)
    if interpolation == "linear":
        data = _vote(labels, pull, onto)
    else:
        # Labels travel as their rank, which float32 holds exactly where it would not hold 16777217.
        table = torch.cat([torch.zeros_like(values[:1]), values])
        data = table[resample((rank[None] + 1).float(), labels.grid, onto, pull, "nearest")[0].long()]
    lost = sorted(set(values.tolist()) - set(torch.unique(data).tolist()) - {0})
    if lost:
        found = f"{len(lost)} labels have no voxel left: {listed([str(label) for label in lost])}"
        warn("W-LAB-007", found, file=labels.name or None)
    return Labelmap(data, onto, labels.dtype, labels.names, labels.name)


def _vote(labels: Labelmap, pull: Transform, onto: Grid) -> Tensor:
    """The label of the largest linear weight, from the 2^d neighbours at once: memory does not grow with labels."""
    source = labels.data.numpy()
    last = np.array(source.shape) - 1
    result = np.zeros(prod(onto.shape), dtype=source.dtype)
    for rows, points in _nodes(onto):
        where = labels.grid.to_voxel(pull(points))
        inside = ((where >= -0.5) & (where <= last + 0.5)).all(1)
        where = where[inside].clip(0, last)
        low = np.floor(where).astype(np.int64)
        neighbours, weights = [], []
        for corner in product((0, 1), repeat=onto.ndim):
            neighbours.append(source[tuple(np.minimum(low + corner, last).T)])
            weights.append(np.where(corner, where - low, 1 - where + low).prod(1))
        result[rows][inside] = _heaviest(np.array(neighbours), np.array(weights))
    return torch.from_numpy(result.reshape(onto.shape))


def _heaviest(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each column, the label with the largest sum of weights; the lower label where two are equal to 1e-6."""
    best, most = labels[0].copy(), np.zeros(labels.shape[1])
    for candidate in labels:
        weight = (weights * (labels == candidate)).sum(0)
        better = (weight > most + 1e-6) | ((weight > most - 1e-6) & (candidate < best))
        best[better], most[better] = candidate[better], weight[better]
    return best


def _nodes(grid: Grid) -> Iterator[tuple[slice, WorldPoints]]:
    """World points of all voxels in C order, a bounded number at a time."""
    for start in range(0, prod(grid.shape), POINTS_AT_ONCE):
        rows = slice(start, min(start + POINTS_AT_ONCE, prod(grid.shape)))
        voxels = np.unravel_index(np.arange(rows.start, rows.stop), grid.shape)
        yield rows, grid.to_world(np.stack(voxels, -1).astype(np.float64))


def _landmarks(landmarks: Landmarks, transform: Transform, onto: Grid | None, direction: Direction) -> Landmarks:
    if direction == "fixed_to_moving":
        fixed, moved = landmarks.points, transform(landmarks.points)
    else:
        fixed, missed = _inverse(transform, landmarks.points)
        moved = fixed
        far = [f"{landmarks.names[row]} by {missed[row]:.2g} mm" for row in np.flatnonzero(missed > MISS_MM)]
        if far:
            warn("W-TRF-010", f"the inverse misses {len(far)} of {len(landmarks)} landmarks: {listed(far)}")
    outside = _outside_fields(transform, fixed)
    if outside.any():
        names = listed([landmarks.names[row] for row in np.flatnonzero(outside)])
        found = f"{outside.sum()} of {len(landmarks)} landmarks lie outside the displacement field: {names}"
        warn("W-TRF-006", found)
    warped = Landmarks(moved, landmarks.names)
    if onto is not None:
        check_inside(warped, onto)
    return warped


def _inverse(transform: Transform, points: WorldPoints) -> tuple[WorldPoints, Float[np.ndarray, " points"]]:
    """Where ``transform`` is ``points``, and by how many mm it misses them.

    The inverse is known on a grid; started from it, y <- y + S(p) - S(T(y)) with S the gridded inverse removes what
    interpolation left.
    """
    inverse = transform.inverse()
    start = inverse(points)
    best, missed = start, np.linalg.norm(transform(start) - points, axis=1)
    found = start
    for _ in range(MOST_REFINEMENTS):
        if missed.max(initial=0) < HIT_MM:
            break
        found = found + start - inverse(transform(found))
        miss = np.linalg.norm(transform(found) - points, axis=1)
        nearer = miss < missed
        best, missed = np.where(nearer[:, None], found, best), np.where(nearer, miss, missed)
    return best, missed


def _check_cover(pull: Transform, onto: Grid) -> None:
    """Warn where part of ``onto`` lies outside a displacement field, refuse where all of it does.

    No file is named: the same holds for all that goes through that field onto that grid, and is then told once.
    """
    axes = [np.unique(np.linspace(0, n - 1, PROBES_PER_AXIS).round()) for n in onto.shape]
    probes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, onto.ndim)
    outside = _outside_fields(pull, onto.to_world(probes))
    if outside.all():
        fields = [describe_grid(step.grid) for step in _steps(pull) if isinstance(step, (Field, Velocity))]
        raise InputError(
            "E-TRF-005",
            f"its displacement lies on {' and '.join(fields)}, wholly outside {describe_grid(onto)}",
            expected="a transform made for these images",
        )
    if outside.any():
        share = max(1, round(100 * outside.mean()))
        warn("W-TRF-006", f"about {share} % of the voxels lie outside the displacement field")


def _outside_fields(transform: Transform, points: WorldPoints) -> Bool[np.ndarray, " points"]:
    """Which points meet a displacement field outside its grid on their way."""
    outside = np.zeros(len(points), dtype=bool)
    steps = _steps(transform)
    for number, step in enumerate(steps, 1):
        if isinstance(step, (Field, Velocity)):
            outside |= ~step.grid.contains(points, margin=0.5 + 1e-6)
        if number < len(steps):
            points = step(points)
    return outside


def _steps(transform: Transform) -> tuple[Transform, ...]:
    return transform.transforms if isinstance(transform, Chain) else (transform,)
