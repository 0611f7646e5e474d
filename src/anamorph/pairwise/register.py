"""One pair, from start to diffeomorphism: initialise > rigid > (similarity >) affine > velocity.

A pair that is aligned already is better left alone, since noise always offers something to fit. So the linear result
has to raise an independent NMI by the share ``least_gain``, unless the search had to move the images first; so has the
deformable one where no linear result was kept, and where one was it has to raise it at all. A share of the NMI, not of
the loss 1 - NMI: noise makes the NMI small as a whole, but not what alignment multiplies it by.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from anamorph.errors import NumericalError
from anamorph.pairwise.comparison import comparison
from anamorph.pairwise.initialise import Start, find_start, given_start
from anamorph.pairwise.linear import refine_linear
from anamorph.pairwise.preparation import (
    Scene,
    cropped_to_content,
    halved,
    prepare,
    pulled,
    shape_with_edge,
    shape_with_voxels,
)
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.pairwise.velocity import SplineVelocity, Step, estimate_velocity
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform, Velocity, resample
from anamorph.types import AffineKind

LINEAR_VOXELS = (60_000, 250_000)
"""Most voxels of the fixed image in the linear stages, coarse to fine; the coarse one halves a small image, too."""

SURROUNDINGS = 1.5
"""Width of the border around the field of view, in node distances of the coarsest lattice."""

INTEGRATED_SHARE = 4
"""The velocity is integrated on a grid of the working voxels divided by this: still several voxels a lattice node."""

JUDGE_BINS = 32

ANY_GAIN = 1e-6
"""What the deformable stage has to gain where the images were out of place to begin with."""

Progress = Callable[[str, float], None]
"""Told the stage's name and how much of it is done, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One side of a pair: finite intensities I J (K) on a grid, a bool mask (True = use), and the modality if known."""

    data: Tensor
    grid: Grid
    mask: Tensor | None = None
    modality: str | None = None


@dataclass(frozen=True, eq=False)
class PairwiseResult:
    """What a registration found.

    Args:
        transform: fixed world -> moving world, with an inverse.
        linear: its linear part, applied last.
        start: where the search began.
        kept: the most general stage whose result was kept: "start", "rigid", ... or "deformable".
        steps: every step of the deformable stage.
        seconds: time spent, by stage.
        working_grid: where the deformable stage compared.
    """

    transform: Transform
    linear: Affine
    start: Start
    kept: str
    steps: tuple[Step, ...]
    seconds: dict[str, float]
    working_grid: Grid


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, progress: Progress | None) -> Iterator[None]:
        begin = time.perf_counter()
        if progress is not None:
            progress(name, 0.0)
        yield
        self.seconds[name] = time.perf_counter() - begin
        if progress is not None:
            progress(name, 1.0)


def register_pair(
    fixed: Volume,
    moving: Volume,
    settings: PairwiseSettings | None = None,
    *,
    initial: Affine | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> PairwiseResult:
    """Find the transform that carries fixed world points to moving world points.

    Args:
        fixed: the image whose space the result lives in.
        moving: the image that is brought there.
        settings: ``PairwiseSettings()`` if absent.
        initial: a linear map to start from, instead of the search.
        device: where to compute.
        progress: told of stages and steps.

    Raises:
        NumericalError: E-VAL-004 no contrast, E-REG-013 no overlap, E-REG-002 the similarity is not finite.
    """
    settings = settings or PairwiseSettings()
    clock = _Clock()
    with clock.stage("prepare", progress):
        fixed_scene, moving_scene = (
            prepare(
                v.data.to(device), v.grid, None if v.mask is None else v.mask.to(device), v.modality, settings.ct_window
            )
            for v in (fixed, moving)
        )
        fixed_scene, moving_scene = cropped_to_content(fixed_scene), cropped_to_content(moving_scene)
    compare = comparison(settings.linear_similarity, settings.bins)
    with clock.stage("initialise", progress), _one_thread():
        if initial is None:
            start = find_start(
                fixed_scene, moving_scene, compare, settings.search, settings.least_overlap, settings.seed
            )
        else:
            start = given_start(fixed_scene, moving_scene, compare, initial.matrix, settings.least_overlap)
    matrix = start.matrix
    kinds: tuple[AffineKind, ...] = {
        "rigid": ("rigid",),
        "similarity": ("rigid", "similarity"),
    }.get(settings.transform, ("rigid", "affine"))
    for kind in kinds:
        with clock.stage(kind, progress), _one_thread():
            coarse, fine = min(LINEAR_VOXELS[0], halved(fixed_scene.grid)), LINEAR_VOXELS[1]
            for count in (coarse, fine) if kind == kinds[-1] else (coarse,):
                near, far = _at_same_resolution(fixed_scene, moving_scene, count)
                matrix, _ = refine_linear(near, far, matrix, kind, compare)
    working = fixed_scene.with_voxels(settings.working_voxels)
    judge = partial(_independent_nmi, working, moving_scene)
    placed = Affine.identity(fixed.grid.ndim) if initial is None else initial
    linear, kept = Affine(matrix), settings.transform
    with clock.stage("judge linear", progress):
        nmi_linear, nmi_placed = judge(linear), judge(placed)
        if start.origin in ("header", "given") and not _keeps(nmi_placed, nmi_linear, settings.least_gain):
            linear, nmi_linear, kept = placed, nmi_placed, "start"
    if settings.transform != "deformable":
        return PairwiseResult(linear, linear, start, kept, (), clock.seconds, working.grid)
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        if progress is not None:
            done = sum(settings.iterations[: step.level]) + step.iteration + 1
            progress("deformable", done / sum(settings.iterations))

    with clock.stage("deformable", progress):
        warped = pulled(moving_scene, working.grid, linear.matrix)
        view = _with_surroundings(fixed.grid, working.grid, settings)
        spline = estimate_velocity(working, warped, view, settings, on_step)
    with clock.stage("judge deformable", progress):
        velocity = _in_world(spline, settings)
        transform = Chain((velocity, linear))
        least = settings.least_gain if kept == "start" or settings.least_gain == 0 else ANY_GAIN
        if not _keeps(nmi_linear, judge(transform), least):
            kept = "start" if kept == "start" else kinds[-1]
            return PairwiseResult(linear, linear, start, kept, tuple(steps), clock.seconds, working.grid)
    return PairwiseResult(transform, linear, start, "deformable", tuple(steps), clock.seconds, working.grid)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tensors as small as the linear stages' lose more time where threads meet than they gain in between."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _independent_nmi(fixed: Scene, moving: Scene, transform: Transform) -> float:
    """NMI at the working resolution: not what the deformable stage minimises, nor where the linear stages do."""
    images = torch.cat([moving.image[0], torch.ones_like(moving.image[0]) if moving.mask is None else moving.mask[0]])
    warped, seen = resample(images.cpu(), moving.grid, fixed.grid, transform).to(fixed.image)[:, None, None]
    return 1 - float(comparison("nmi", JUDGE_BINS)(fixed.image, warped, fixed.mask, seen))


def _keeps(before: float, after: float, least_gain: float) -> bool:
    return least_gain == 0 or after > before * (1 + least_gain)


def _at_same_resolution(fixed: Scene, moving: Scene, voxels: int) -> tuple[Scene, Scene]:
    near = fixed.with_voxels(voxels)
    edge = float(near.grid.voxel_volume ** (1 / near.grid.ndim))
    return near, moving.resized(shape_with_edge(moving.grid, edge))


def _with_surroundings(grid: Grid, working: Grid, settings: PairwiseSettings) -> Grid:
    """The field of view and what lies around it, where the velocity fades out.

    Points that move out of the view, and the inverse, which starts from there, would else meet the edge of the field.
    """
    reach_mm = SURROUNDINGS * settings.control_spacing * settings.levels[0] * working.voxel_volume ** (1 / grid.ndim)
    margin = [math.ceil(reach_mm / spacing) for spacing in grid.spacing]
    return grid.cropped([-m for m in margin], [n + 2 * m for n, m in zip(grid.shape, margin, strict=True)])


def _in_world(spline: SplineVelocity, settings: PairwiseSettings) -> Velocity:
    grid = spline.grid.resized(shape_with_voxels(spline.grid, settings.working_voxels // INTEGRATED_SHARE))
    directions = grid.affine[:-1, :-1] / grid.spacing
    along = spline.on(grid)[0].cpu()
    if not bool(torch.isfinite(along).all()):
        raise NumericalError("E-REG-002", "the velocity is not finite", do="report it, with the images' value ranges")
    world = torch.tensordot(torch.from_numpy(directions).to(along), along, dims=1)
    return Velocity(world, grid, settings.squarings)
