"""Smooth random functions of world points, and the noise of scanners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from anamorph.data.phantoms.shapes import Distance, Number


def smooth_noise(
    rng: np.random.Generator, extent_mm: Sequence[float] | np.ndarray, correlation_mm: Number, order: int = 1
) -> Distance:
    """A random function of points (d N, mm) with zero mean, unit variance and a correlation length.

    It is a smoothed random lattice, interpolated and repeated outside ``extent_mm`` (full width about the origin). The
    linear ``order`` 1 is fast; where the function draws an outline, 3 keeps its facets from showing.
    """
    step = correlation_mm / 1.5
    shape = [max(4, int(np.ceil(width / step))) for width in extent_mm]
    lattice = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.5, mode="wrap")
    lattice = (lattice - lattice.mean()) / lattice.std()
    middle = (np.array(shape, np.float32) / 2)[:, None]

    def noise(points: np.ndarray) -> np.ndarray:
        return map_coordinates(lattice, points / np.float32(step) + middle, order=order, mode="grid-wrap")

    return noise


def correlated_gaussian(
    rng: np.random.Generator, shape: Sequence[int], sd: float, width: Sequence[float]
) -> np.ndarray:
    """Gaussian noise with the grain of a reconstructed CT: standard deviation ``sd``, blurred by ``width`` voxels."""
    noise = gaussian_filter(rng.standard_normal(tuple(shape), dtype=np.float32), width)
    return noise * (sd / noise.std())


def rician(rng: np.random.Generator, signal: np.ndarray, sd: float) -> np.ndarray:
    """Magnitude of a complex signal with Gaussian noise ``sd`` in both of its parts.

    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sd)
    return np.hypot(signal + real, imaginary)
