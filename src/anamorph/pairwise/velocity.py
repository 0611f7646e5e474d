"""Deformable alignment by a stationary velocity field on a cubic B-spline lattice, coarse to fine.

    minimise over c    similarity( F, M o A o exp(v_c) ) + smoothness * bending(v_c)

    v_c(x) = sum_k c_k B(x / h - k)                  one coefficient vector a lattice node, h = ``control_spacing``
    exp    = scaling and squaring on the coarsest level's grid, enlarged linearly to the level's

The map is a diffeomorphism, and exp(-v) is its inverse. Coefficients are mm along the fixed grid's axes, so that a
level starts where the one before it ended. Descriptors are computed once, at the working resolution, and *averaged* to
the level: fine texture then speaks at coarse levels too, which descriptors of a shrunken image cannot do. Other
similarities compare the warped image itself.

Sources: D. Rueckert et al. (1999), doi:10.1109/42.796284 (B-spline lattice, bending energy); V. Arsigny et al. (2006),
doi:10.1007/11866565_113 (scaling and squaring); M. Heinrich et al. (2012), doi:10.1016/j.media.2012.05.008 (MIND);
D. Kingma and J. Ba (2015), arXiv:1412.6980 (Adam).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anamorph import losses
from anamorph.pairwise.comparison import comparison
from anamorph.pairwise.preparation import Scene, shape_with_edge
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.field import exponential, resize, resize_displacement, warp
from anamorph.spatial.grid import Grid

DESCRIPTORS = {"mind": losses.mind, "mind_ssc": losses.mind_ssc}
"""Compared channel by channel after warping; every other similarity sees the warped image."""


NATURAL_SCALE = {"macmind": 3.0, "mi": 15.0, "nmi": 15.0, "local_mi": 15.0, "lncc": 50.0, "ssim": 50.0}
"""How much larger than a descriptor distance a loss is over the same misalignment, roughly; 1 where not listed. The
smoothness is multiplied by it, so that one weight means about the same whatever is compared."""


@dataclass(frozen=True, eq=False)
class SplineVelocity:
    """Coefficients 1 d *lattice, mm along the axes of ``grid``, whose field of view the lattice fills."""

    coefficients: Tensor
    grid: Grid

    def on(self, grid: Grid) -> Tensor:
        """Velocity 1 d *shape in mm along the axes, at the voxels of a grid with the same axes (cropped or resized)."""
        return along_axes(self.coefficients, lattice_matrices(self.coefficients.shape[2:], self.grid, grid))


@dataclass(frozen=True)
class Step:
    """One optimiser step, for progress and the report."""

    level: int
    iteration: int
    iterations: int
    similarity: float
    smoothness: float


def spline_matrix(nodes: int, positions: np.ndarray) -> np.ndarray:
    """Cubic B-spline weights of ``nodes`` coefficients at positions in node units: positions x nodes, rows sum to one.

    Beyond the outermost node its value goes on.
    """
    weights = np.zeros((len(positions), nodes))
    rows = np.arange(len(positions))
    for offset in range(-1, 3):
        node = np.floor(positions) + offset
        u = np.abs(positions - node)
        value = np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, (2 - np.minimum(u, 2)) ** 3 / 6)
        np.add.at(weights, (rows, np.clip(node, 0, nodes - 1).astype(int)), value)
    return weights


def lattice_matrices(nodes: Sequence[int], view: Grid, grid: Grid) -> list[Tensor]:
    """Spline weights an axis, from a lattice that fills the field of view of ``view`` to the voxels of ``grid``."""
    between = view.inverse_affine @ grid.affine
    matrices = []
    for axis, count in enumerate(nodes):
        voxel = between[axis, -1] + between[axis, axis] * np.arange(grid.shape[axis])
        position = (voxel + 0.5) * count / view.shape[axis] - 0.5
        matrices.append(torch.from_numpy(spline_matrix(count, position)).float())
    return matrices


def along_axes(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """One matrix product along each spatial axis."""
    for axis, matrix in enumerate(matrices, start=2):
        x = torch.movedim(torch.movedim(x, axis, -1) @ matrix.to(x).T, -1, axis)
    return x


def bending_energy(velocity: Tensor, spacing: np.ndarray) -> Tensor:
    """Bending energy of a velocity in voxels, times an edge squared: one weight serves a mouse and a man."""
    return losses.bending_energy(velocity, spacing=tuple(spacing)) * float(np.prod(spacing)) ** (2 / len(spacing))


def estimate_velocity(
    fixed: Scene,
    moving: Scene,
    view: Grid,
    settings: PairwiseSettings,
    on_step: Callable[[Step], None] | None = None,
) -> SplineVelocity:
    """Velocity that carries the fixed image to the moving one.

    Args:
        fixed: on the working grid.
        moving: pulled onto the same grid by the linear map; its mask is where it has voxels.
        view: the fixed image's whole field of view, which the lattice fills.
        settings: as chosen.
        on_step: told of every step.
    """
    edge = fixed.grid.voxel_volume ** (1 / fixed.grid.ndim)
    content = _Content(fixed, moving, settings)
    smoothness = settings.smoothness * NATURAL_SCALE.get(settings.similarity, 1.0)
    coefficients: Tensor | None = None
    for level, (factor, iterations) in enumerate(zip(settings.levels, settings.iterations, strict=True)):
        shape = shape_with_edge(fixed.grid, factor * edge)
        grid = fixed.grid.resized(shape)
        nodes = [max(4, math.ceil(n * s / (settings.control_spacing * factor * edge)))
                 for n, s in zip(view.shape, view.spacing, strict=True)]  # fmt: skip
        start = torch.zeros(1, len(shape), *nodes, device=fixed.image.device)
        if coefficients is not None:
            start = along_axes(
                coefficients, [_refit(old, new) for old, new in zip(coefficients.shape[2:], nodes, strict=True)]
            )
        coarse = grid.resized(shape_with_edge(fixed.grid, settings.levels[0] * edge))
        problem = _Level(content.at(shape), grid, coarse, lattice_matrices(nodes, view, coarse), smoothness)
        step = settings.step_size * edge * math.sqrt(factor / settings.levels[-1])

        def report(iteration: int, similarity: float, smoothness: float, level=level, iterations=iterations) -> None:
            if on_step is not None:
                on_step(Step(level, iteration, iterations, similarity, smoothness))

        coefficients = problem.minimise(start, iterations, step, report)
    assert coefficients is not None
    return SplineVelocity(coefficients, view)


def _refit(old: int, new: int) -> Tensor:
    """Coefficients on ``new`` nodes that best reproduce a spline on ``old`` ones over the same axis."""
    dense = 8 * max(old, new)
    at = (np.arange(dense) + 0.5) / dense
    before, after = (spline_matrix(n, at * n - 0.5) for n in (old, new))
    return torch.from_numpy(np.linalg.pinv(after) @ before).float()


class _Content:
    """What is compared, at the working resolution, and its averages at the levels."""

    def __init__(self, fixed: Scene, moving: Scene, settings: PairwiseSettings) -> None:
        self.masks = fixed.mask, moving.mask
        if settings.similarity in DESCRIPTORS:
            describe = DESCRIPTORS[settings.similarity]
            options = {
                "distance": settings.distance,
                "patch_size": settings.patch_size,
                "variance_floor": settings.variance_floor,
            }
            self.images = describe(fixed.image, **options), describe(moving.image, **options)
            self.compare = comparison("mse", settings.bins)
        else:
            self.images = fixed.image, moving.image
            self.compare = comparison(settings.similarity, settings.bins)

    def at(self, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """Similarity as a function of the displacement on a level's grid."""
        fixed, moving = (resize(image, shape) for image in self.images)
        fixed_mask, moving_mask = (None if mask is None else resize(mask, shape) for mask in self.masks)

        def similarity(displacement: Tensor) -> Tensor:
            warped = warp(moving, displacement, outside="border")
            seen = None if moving_mask is None else warp(moving_mask, displacement.detach())
            return self.compare(fixed, warped, fixed_mask, seen)

        return similarity


@dataclass(frozen=True, eq=False)
class _Level:
    similarity: Callable[[Tensor], Tensor]
    grid: Grid
    coarse: Grid
    matrices: list[Tensor]
    smoothness: float

    def minimise(
        self, coefficients: Tensor, iterations: int, step: float, report: Callable[[int, float, float], None]
    ) -> Tensor:
        c = coefficients.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([c], lr=step, betas=(0.9, 0.99))
        for iteration in range(iterations):
            for group in optimiser.param_groups:
                group["lr"] = step * (0.1 + 0.45 * (1 + math.cos(math.pi * iteration / iterations)))
            velocity = along_axes(c, self.matrices) / _per_axis(c, self.coarse.spacing)
            similarity = self.similarity(self._displacement(velocity))
            smoothness = bending_energy(velocity, self.coarse.spacing)
            optimiser.zero_grad()
            (similarity + self.smoothness * smoothness).backward()
            optimiser.step()
            report(iteration, float(similarity.detach()), float(smoothness.detach()))
        return c.detach()

    def _displacement(self, velocity: Tensor) -> Tensor:
        """exp(v) on the level's grid, in its voxels."""
        return resize_displacement(exponential(velocity, steps=5), self.grid.shape)


def _per_axis(like: Tensor, values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.dim() - 2))
