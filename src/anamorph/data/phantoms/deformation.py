"""Random smooth maps with a known inverse."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter

from anamorph.data.phantoms.options import Pairs, Subjects
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform, Velocity
from anamorph.types import WorldPoints


def random_diffeomorphism(
    grid: Grid,
    seed: int,
    *,
    mean_mm: float = 5.0,
    smoothness_mm: float = 30.0,
    rotation_degrees: float = 0.0,
    stretch: float = 0.0,
    translation_mm: float = 0.0,
) -> Chain:
    """The flow of a random stationary velocity, then a random affine map about the centre of a grid.

    Args:
        grid: whose field of view is deformed; the velocity fades to zero ``smoothness_mm`` outside it.
        seed: the same seed gives the same map.
        mean_mm: mean length of the velocity in the field of view, so about that of the displacement.
        smoothness_mm: standard deviation of the Gaussian that smooths the velocity.
        rotation_degrees: largest angle about each axis.
        stretch: largest logarithm of the scale along, and shear between, the axes.
        translation_mm: largest shift along each axis.
    """
    rng = np.random.default_rng(seed)
    velocity = random_velocity(grid, rng, mean_mm, smoothness_mm)
    return Chain((velocity, random_affine(grid.centre, rng, rotation_degrees, stretch, translation_mm)))


def random_velocity(grid: Grid, rng: np.random.Generator, mean_mm: float, smoothness_mm: float) -> Velocity:
    """A Gaussian random velocity on a lattice of its own that reaches beyond ``grid`` and is zero on its border."""
    lattice = enclosing_lattice(grid, margin_mm=2 * smoothness_mm, spacing_mm=smoothness_mm / 6)
    noise = rng.standard_normal((grid.ndim, *lattice.shape))
    width = smoothness_mm / lattice.spacing
    velocity = np.stack([gaussian_filter(component, width) for component in noise]) * fading(lattice, smoothness_mm)
    inside = grid.contains(lattice.to_world(lattice.voxels())).reshape(lattice.shape)
    length = np.linalg.norm(velocity[:, inside], axis=0).mean()
    return Velocity(torch.from_numpy(velocity * (mean_mm / length)), lattice)


def enclosing_lattice(grid: Grid, margin_mm: float, spacing_mm: float) -> Grid:
    """A lattice along the world's axes that holds ``grid`` and a margin on every side."""
    lower, upper = grid.corners.min(0) - margin_mm, grid.corners.max(0) + margin_mm
    shape = np.ceil((upper - lower) / spacing_mm).astype(int) + 1
    affine = np.diag([*[spacing_mm] * grid.ndim, 1.0])
    affine[:-1, -1] = lower
    return Grid(tuple(shape.tolist()), affine)


def fading(lattice: Grid, width_mm: float) -> np.ndarray:
    """One in the middle of a lattice, falling to zero over the outermost ``width_mm``."""
    result = np.ones(lattice.shape)
    for axis, (n, spacing) in enumerate(zip(lattice.shape, lattice.spacing, strict=True)):
        from_border = np.minimum(np.arange(n), np.arange(n)[::-1]) * spacing
        ramp = np.sin(np.clip(from_border / width_mm, 0, 1) * np.pi / 2) ** 2
        result *= ramp.reshape(-1, *[1] * (lattice.ndim - axis - 1))
    return result


def random_affine(
    centre: np.ndarray, rng: np.random.Generator, rotation_degrees: float, stretch: float, translation_mm: float
) -> Affine:
    """A rotation after a stretch about ``centre``, then a shift; the ranges are those of ``random_diffeomorphism``."""
    ndim = len(centre)
    turn = np.triu(np.radians(rng.uniform(-rotation_degrees, rotation_degrees, (ndim, ndim))), 1)
    strain = rng.uniform(-stretch, stretch, (ndim, ndim))
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = expm(turn - turn.T) @ expm((strain + strain.T) / 2)
    matrix[:-1, -1] = centre - matrix[:-1, :-1] @ centre + rng.uniform(-translation_mm, translation_mm, ndim)
    return Affine(matrix)


def preimages(transform: Transform, points: WorldPoints) -> WorldPoints:
    """The points that ``transform`` takes to ``points`` (N d), to 0.01 mm.

    Flows there and back are interpolated and miss each other by up to 0.1 mm; aiming beside the points makes up for it.
    """
    inverse = transform.inverse()
    return inverse(2 * points - transform(inverse(points)))


def subject_map(grid: Grid, rng: np.random.Generator, options: Subjects) -> Chain:
    """From a subject's world to its template's: a random flow over ``grid``, then an affine map about its middle."""
    velocity = random_velocity(grid, rng, options.subject_mm, options.subject_smoothness_mm)
    affine = random_affine(grid.centre, rng, options.subject_degrees, options.subject_stretch, options.subject_shift_mm)
    return Chain((velocity, affine))


def pair_map(grid: Grid, rng: np.random.Generator, options: Pairs) -> Chain:
    """From the world of a case's first scan, on ``grid``, to that of another: a random flow, then a new position."""
    velocity = random_velocity(grid, rng, options.mean_mm, options.smoothness_mm)
    return Chain((velocity, random_affine(grid.centre, rng, options.degrees, 0.0, options.shift_mm)))
