"""From the tissue at every voxel to what a scanner stores: blur, shading, noise, and slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from anamorph.data.phantoms.texture import correlated_gaussian, rician, smooth_noise
from anamorph.spatial.grid import Grid


@dataclass(frozen=True)
class Quality:
    """How good a scanner is.

    Args:
        noise, shading: factors of the usual ones.
        blur: standard deviation of the point spread, voxels.
        slices: how many times as long as the others the voxels are along the last axis.
    """

    noise: float
    shading: float
    blur: float
    slices: int


QUALITIES = {"routine": Quality(1.0, 1.0, 0.4, 1), "hard": Quality(1.8, 1.6, 0.6, 3)}


@dataclass(frozen=True)
class Site:
    """A scanner and what is set on it.

    Args:
        quality: of its images.
        contrast: what is left of the differences between tissues.
        weighting: share of another sequence's signal in a sequence's.
    """

    quality: Quality
    contrast: float = 1.0
    weighting: float = 0.0


SITES = {
    "home": Site(QUALITIES["routine"]),
    "sister": Site(Quality(1.3, 1.2, 0.4, 1), 0.95),
    "contrast": Site(Quality(1.0, 1.5, 0.4, 1), 0.8, 0.2),
    "noisy": Site(Quality(2.2, 0.8, 0.5, 1), 0.8, 0.1),
    "thick": Site(Quality(1.6, 1.2, 0.6, 2), 0.7, 0.15),
}
"""Sites whose images differ more and more: the same sequence elsewhere, another weighting, a lower field, and that with
slices twice as thick."""


def sliced(grid: Grid, quality: Quality) -> Grid:
    """Thicker slices in the place of whole numbers of thin ones; a few thin ones at the end may be left over."""
    if quality.slices == 1:
        return grid
    shape = (*grid.shape[:-1], max(1, grid.shape[-1] // quality.slices))
    used = grid.cropped([0] * grid.ndim, (*shape[:-1], shape[-1] * quality.slices))
    return used.resized(shape)


def averaged(values: np.ndarray, quality: Quality) -> np.ndarray:
    """Values on a grid brought to its thicker slices."""
    number = max(1, values.shape[-1] // quality.slices)
    used = values[..., : number * quality.slices]
    return used.reshape(*values.shape[:-1], number, -1).mean(axis=-1)


def computed_tomography(value: np.ndarray, rng: np.random.Generator, sd: float, quality: Quality) -> np.ndarray:
    """HU with the correlated noise of a reconstruction, whole numbers as scanners give them."""
    image = gaussian_filter(value, quality.blur)
    if sd > 0:
        image = image + correlated_gaussian(rng, value.shape, sd * quality.noise, [0.7] * (value.ndim - 1) + [0.4])
    return np.clip(np.rint(image), -1024, 3071).astype(np.float32)


def magnetic_resonance(
    value: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    sd: float,
    shading: float,
    quality: Quality,
    towards: np.ndarray | None = None,
) -> np.ndarray:
    """Magnitude with the shading of coils and Rician noise.

    Args:
        value: signal at the voxels, I J (K).
        grid: where they are.
        rng: random numbers.
        sd: of the noise on a routine scanner.
        shading: standard deviation of the logarithm of the shading on a routine scanner.
        quality: of the scanner.
        towards: world direction in which the signal rises over the field of view, by ``exp(shading)`` from its middle
            to its end; none if absent.
    """
    from_centre = (grid.to_world(grid.voxels()) - grid.centre).T
    extent = np.ptp(grid.corners, axis=0) + grid.spacing.max()
    field = smooth_noise(rng, 1.5 * extent, 0.5 * float(extent.max()))(from_centre).astype(float)
    if towards is not None:
        field = 0.7 * field + 2 * (towards @ from_centre) / float(extent.max())
    factor = np.exp(shading * quality.shading * field).reshape(value.shape)
    image = gaussian_filter((value * factor).astype(np.float32), quality.blur)
    return rician(rng, image, sd * quality.noise)
