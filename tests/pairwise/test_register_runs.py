"""Whole registrations of small bodies whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from anamorph.errors import NumericalError
from anamorph.losses import SIMILARITIES
from anamorph.pairwise.register import Volume, register_pair
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine

QUICK = PairwiseSettings(levels=(2, 1), iterations=(20, 10))


def world(degrees: float, shift: float, ndim: int = 3) -> np.ndarray:
    matrix = np.eye(ndim + 1)
    if ndim == 3:
        matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.6, 0.64, 0.48])).as_matrix()
    else:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[:ndim, ndim] = shift / np.sqrt(ndim)
    return matrix


def moved_grid(grid: Grid, matrix: np.ndarray) -> Grid:
    return Grid(grid.shape, matrix @ grid.affine)


def error_mm(transform, truth: np.ndarray, grid: Grid) -> np.ndarray:
    points = grid.to_world(grid.voxels()[::17])
    inside = np.linalg.norm(points / [36, 28, 40][: grid.ndim], axis=1) < 1
    points = points[inside]
    return np.linalg.norm(transform(points) - (points @ truth[:-1, :-1].T + truth[:-1, -1]), axis=1)


@pytest.mark.parametrize(("degrees", "shift"), [(0, 0), (8, 12), (30, 60), (-25, 200)])
def test_finds_a_rotated_and_shifted_body(body, fixed_grid, moving_grid, degrees, shift):
    truth = world(degrees, shift)
    moving = body(moving_grid, "other")
    moving = Volume(moving.data, moved_grid(moving_grid, truth))
    found = register_pair(body(fixed_grid, "one"), moving, QUICK.model_copy(update={"transform": "rigid"}))
    assert error_mm(found.transform, truth, fixed_grid).mean() < 0.7


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_finds_a_stretched_body(body, fixed_grid, moving_grid, kind):
    stretch = np.diag([1.12, 1.12, 1.12, 1.0]) if kind == "similarity" else np.diag([1.15, 0.9, 1.05, 1.0])
    truth = stretch @ world(5, 10)
    moving = body(moving_grid, "other", lambda p: (p - truth[:3, 3]) @ np.linalg.inv(truth[:3, :3]).T)
    found = register_pair(body(fixed_grid, "one"), moving, QUICK.model_copy(update={"transform": kind}))
    assert error_mm(found.transform, truth, fixed_grid).mean() < 1.0


def bulge(points: np.ndarray) -> np.ndarray:
    """A smooth displacement of some mm, as fixed -> moving."""
    return points + 5 * np.sin(points[:, ::-1] / 14) * np.exp(-(points**2).sum(1, keepdims=True) / 2 / 25**2)


def unbulge(points: np.ndarray) -> np.ndarray:
    found = points.copy()
    for _ in range(40):
        found += points - bulge(found)
    return found


def share_misplaced(transform, grid: Grid, tissue_at) -> float:
    points = grid.to_world(grid.voxels())
    return float(np.mean(tissue_at(unbulge(transform(points))) != tissue_at(points)))


@pytest.mark.parametrize("similarity", ["mind_ssc", "mind"])
def test_descriptors_find_a_deformation(body, tissue_at, fixed_grid, similarity):
    settings = QUICK.model_copy(update={"similarity": similarity, "search": "header"})
    found = register_pair(body(fixed_grid, "one"), body(fixed_grid, "other", unbulge, seed=1), settings)
    assert found.kept == "deformable"
    linear = share_misplaced(found.linear, fixed_grid, tissue_at)
    assert share_misplaced(found.transform, fixed_grid, tissue_at) < 0.7 * linear


@pytest.mark.parametrize("similarity", list(SIMILARITIES))
def test_every_similarity_improves_and_keeps_topology(body, fixed_grid, similarity):
    settings = PairwiseSettings(
        levels=(1,), iterations=(15,), similarity=similarity, search="header", least_gain=0.0, linear_similarity="nmi"
    )
    contrast = "one" if similarity in ("mse", "l1", "ssim", "lncc") else "other"
    found = register_pair(body(fixed_grid, "one"), body(fixed_grid, contrast, unbulge, seed=1), settings)
    objective = [step.similarity for step in found.steps]
    assert min(objective[1:]) < objective[0]
    points = fixed_grid.to_world(fixed_grid.voxels())
    residual = np.linalg.norm(found.transform.inverse()(found.transform(points)) - points, axis=1)
    assert residual.max() < 0.3
    displacement = found.transform.displacement_on(fixed_grid)
    gradient = np.stack(np.gradient(displacement, *fixed_grid.spacing, axis=(1, 2, 3)), -1)
    assert np.linalg.det(np.moveaxis(gradient, 0, -2) + np.eye(3)).min() > 0


def test_an_aligned_pair_stays_aligned(body, fixed_grid):
    found = register_pair(body(fixed_grid, "one"), body(fixed_grid, "other", seed=1), QUICK)
    assert found.kept == "start"
    assert np.abs(found.transform.displacement_on(fixed_grid)).max() == 0


def test_two_dimensions(body):
    grid = Grid((48, 40), np.array([[1.8, 0, -42], [0, 1.8, -35], [0, 0, 1]]))
    truth = world(20, 15, ndim=2)
    moving = body(grid, "other")
    found = register_pair(
        body(grid, "one"), Volume(moving.data, moved_grid(grid, truth)), QUICK.model_copy(update={"least_gain": 0.0})
    )
    assert error_mm(found.transform, truth, grid).mean() < 1.2


def test_masked_trouble_does_not_matter(body, fixed_grid):
    truth = world(6, 8)
    moving = body(fixed_grid, "other")
    spoilt, mask = moving.data.clone(), torch.ones(fixed_grid.shape, dtype=torch.bool)
    spoilt[:, :8], mask[:, :9] = 900.0, False
    moving = Volume(spoilt, moved_grid(fixed_grid, truth), mask)
    found = register_pair(body(fixed_grid, "one"), moving, QUICK.model_copy(update={"transform": "rigid"}))
    assert error_mm(found.transform, truth, fixed_grid).mean() < 1.0


def test_part_of_the_body_is_enough(body, fixed_grid):
    truth = world(10, 14)
    part = fixed_grid.cropped((0, 0, 8), (32, 30, 14))
    moving = body(part, "other")
    found = register_pair(
        body(fixed_grid, "one"),
        Volume(moving.data, moved_grid(part, truth)),
        QUICK.model_copy(update={"transform": "rigid"}),
    )
    assert error_mm(found.transform, truth, part).mean() < 1.5


def test_a_full_search_undoes_a_flipped_axis_pair(body, fixed_grid):
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    moving = body(fixed_grid, "other")
    moving = Volume(moving.data, moved_grid(fixed_grid, turn))
    found = register_pair(
        body(fixed_grid, "one"), moving, QUICK.model_copy(update={"transform": "rigid", "search": "full"})
    )
    assert error_mm(found.transform, turn, fixed_grid).mean() < 0.7


def test_a_given_start_is_taken(body, fixed_grid):
    truth = world(0, 200)
    moving = body(fixed_grid, "other")
    moving = Volume(moving.data, moved_grid(fixed_grid, truth))
    found = register_pair(
        body(fixed_grid, "one"), moving, QUICK.model_copy(update={"transform": "rigid"}), initial=Affine(world(2, 203))
    )
    assert found.start.origin == "given"
    assert error_mm(found.transform, truth, fixed_grid).mean() < 0.7


def test_same_input_same_output_and_every_step_is_told(body, fixed_grid):
    pair = body(fixed_grid, "one"), body(fixed_grid, "other", unbulge, seed=1)
    told = []
    settings = QUICK.model_copy(update={"search": "header"})
    first = register_pair(*pair, settings, progress=lambda stage, done: told.append((stage, done)))
    second = register_pair(*pair, settings)
    assert np.array_equal(first.transform.displacement_on(fixed_grid), second.transform.displacement_on(fixed_grid))
    assert len(first.steps) == sum(QUICK.iterations)
    assert all(0 <= done <= 1 for _, done in told)
    assert {stage for stage, _ in told} == set(first.seconds)


def test_no_overlap_is_refused_when_the_headers_must_be_believed(body, fixed_grid):
    moving = body(fixed_grid, "other")
    moving = Volume(moving.data, moved_grid(fixed_grid, world(0, 900)))
    with pytest.raises(NumericalError, match=r"E-REG-013.*overlap by 0%"):
        register_pair(body(fixed_grid, "one"), moving, QUICK.model_copy(update={"search": "header"}))


def test_a_given_start_that_misses_is_refused(body, fixed_grid):
    pair = body(fixed_grid, "one"), body(fixed_grid, "other")
    with pytest.raises(NumericalError, match=r"E-REG-013.*overlap by 0%"):
        register_pair(*pair, QUICK, initial=Affine(world(0, 900)))
