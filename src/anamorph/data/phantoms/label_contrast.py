"""Images from labelmaps: a mean and a texture for every label, mixed where labels meet, then a scanner."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from anamorph.data.files import read_labels
from anamorph.data.image import Labelmap, Landmarks
from anamorph.data.phantoms.texture import smooth_noise
from anamorph.errors import InputError
from anamorph.spatial.field import sample
from anamorph.spatial.grid import Grid

MOST_LABEL = 65535
MARGIN_MM = 10.0
"""About the content of a labelmap, so that subjects stay in view."""
Contrast = Mapping[int, tuple[float, float]]
"""Label -> mean signal and standard deviation of its texture; labels that are not in it have neither."""


def fine_grid(labels: Grid, spacing: float) -> Grid:
    """Cubic voxels over the field of view of a labelmap, along its axes."""
    shape = np.ceil(np.array(labels.shape) * labels.spacing / spacing - 1e-6).astype(int)
    affine = np.eye(labels.ndim + 1)
    affine[:-1, :-1] = labels.affine[:-1, :-1] / labels.spacing * spacing
    affine[:-1, -1] = labels.centre - affine[:-1, :-1] @ ((shape - 1) / 2)
    return Grid(tuple(shape.tolist()), affine)


def read_labelmap(path: Path, dimensions: Collection[int]) -> Labelmap:
    """The content of a labelmap and a margin about it; what is below 0 counts as background.

    Raises:
        InputError: E-SYN-004, no labels, labels beyond 65535, or another dimension; and whatever the reader refuses.
    """
    labels = read_labels(path)
    highest = int(labels.data.max())
    if not 0 < highest <= MOST_LABEL or labels.grid.ndim not in dimensions:
        found = f"{labels.grid.ndim}-D labels up to {highest}"
        expected = f"{' or '.join(f'{ndim}-D' for ndim in dimensions)} labels, at most {MOST_LABEL}"
        raise InputError("E-SYN-004", found, file=path, expected=expected)
    return cropped(replace(labels, data=labels.data.clamp(min=0).to(torch.int32)))


def cropped(labels: Labelmap) -> Labelmap:
    """The content of a labelmap and a margin about it, which may reach beyond what there is."""
    found = np.argwhere(labels.data.numpy() > 0)
    margin = np.ceil(MARGIN_MM / labels.grid.spacing).astype(int)
    start, stop = found.min(axis=0) - margin, found.max(axis=0) + 1 + margin
    padded = np.pad(labels.data.numpy(), [(int(m), int(m)) for m in margin])
    inside = padded[tuple(slice(first + m, last + m) for first, last, m in zip(start, stop, margin, strict=True))]
    grid = labels.grid.cropped(start.tolist(), inside.shape)
    return replace(labels, data=torch.from_numpy(inside.copy()), grid=grid)


def labels_at(labels: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """The label that linear interpolation gives the largest share at world points; 0 beyond half a voxel outside.

    Args:
        labels: integers, I J (K).
        grid: where they are.
        points: N d.

    Returns:
        N, of the type of ``labels``.
    """
    voxels = grid.to_voxel(points)
    last = np.array(grid.shape) - 1
    outside = ((voxels < -0.5) | (voxels > last + 0.5)).any(axis=1)
    voxels = np.clip(voxels, 0, last)
    first = np.minimum(voxels.astype(np.int64), np.maximum(last - 1, 0))
    share = (voxels - first).astype(np.float32)
    corners, weights = [], []
    for corner in product((0, 1), repeat=grid.ndim):
        corners.append(labels[tuple(np.minimum(first + corner, last).T)])
        weights.append(np.prod([share[:, k] if bit else 1 - share[:, k] for k, bit in enumerate(corner)], axis=0))
    best, largest = corners[0], np.full(len(points), -1.0, np.float32)
    for candidate in corners:
        total = np.zeros(len(points), np.float32)
        for corner, weight in zip(corners, weights, strict=True):
            total += weight * (corner == candidate)
        better = total > largest
        best, largest = np.where(better, candidate, best), np.where(better, total, largest)
    return np.where(outside, 0, best).astype(labels.dtype)


def signal_at(
    labels: np.ndarray, grid: Grid, points: np.ndarray, contrast: Contrast, rng: np.random.Generator, blur_mm: float
) -> np.ndarray:
    """Signal at world points: means mixed as by voxels of about ``blur_mm``, and texture on two scales.

    Args:
        labels: integers, I J (K).
        grid: where they are.
        points: N d.
        contrast: of the labels.
        rng: for the texture.
        blur_mm: standard deviation of the mixing.

    Returns:
        N, float32.
    """
    table = np.zeros((2, int(labels.max()) + 1), np.float32)
    for label, pair in contrast.items():
        if label < table.shape[1]:
            table[:, label] = pair
    width = blur_mm / grid.spacing
    volumes = [gaussian_filter(values[labels], width) for values in table]
    voxels = torch.from_numpy(np.ascontiguousarray(grid.to_voxel(points).T))
    mean, sd = sample(torch.from_numpy(np.stack(volumes))[None], voxels[None])[0].numpy()
    from_centre = (points - grid.centre).T
    extent = np.ptp(grid.corners, axis=0) * 1.2 + grid.spacing.max()
    scales = (2.5 * float(grid.spacing.mean()), 10 * float(grid.spacing.mean()))
    grain = sum(smooth_noise(rng, extent, scale)(from_centre) for scale in scales)
    return (mean + sd * np.asarray(grain) / np.sqrt(2)).astype(np.float32)


def random_contrast(
    labels: np.ndarray, rng: np.random.Generator, *, background: bool = False
) -> dict[int, tuple[float, float]]:
    """A mean between 25 and 1000 and a texture of 10 to 60 for every label; nothing for label 0, unless asked.

    Source: B. Billot et al. (2023), SynthSeg, doi:10.1016/j.media.2023.102789, in other units.
    """
    present = [int(label) for label in np.flatnonzero(np.bincount(labels.ravel())) if label or background]
    return {label: (float(rng.uniform(25, 1000)), float(rng.uniform(10, 60))) for label in present}


def outermost_points(labels: Labelmap) -> Landmarks:
    """The outermost voxels of the content towards both ends of every world axis."""
    points = labels.grid.to_world(np.argwhere(labels.data.numpy() > 0).astype(float))
    ends = [points[pick(points[:, axis])] for axis in range(labels.grid.ndim) for pick in (np.argmin, np.argmax)]
    names = ("leftmost", "rightmost", "rearmost", "foremost", "lowest", "topmost")
    return Landmarks(np.array(ends), names[: len(ends)])
