"""The algebra of transforms on world points, and its agreement with whole grids, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anamorph.spatial import transform as transform_module
from anamorph.spatial.field import sample
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Transform, Velocity, resample
from anamorph.types import WorldPoints

dimensions = st.sampled_from([2, 3])
seeds = st.integers(0, 10_000)
few = settings(max_examples=20)


class Swirl(Transform):
    """A kind of transform that the library does not know: turns about the last axis, ever more away from the origin."""

    def __init__(self, ndim: int, strength: float = 1e-3) -> None:
        self._ndim, self.strength = ndim, strength

    @property
    def ndim(self) -> int:
        return self._ndim

    def __call__(self, points: WorldPoints) -> WorldPoints:
        angle = self.strength * np.linalg.norm(points[:, :2], axis=1)
        x, y = points[:, 0], points[:, 1]
        turned = [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y]
        return np.column_stack([*turned, points[:, 2:]])

    def inverse(self) -> Transform:
        return Swirl(self.ndim, -self.strength)


def random_affine(ndim: int, seed: int) -> Affine:
    random = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += random.uniform(-0.2, 0.2, (ndim, ndim))
    matrix[:-1, -1] = random.uniform(-5, 5, ndim)
    return Affine(matrix)


@pytest.fixture(scope="session")
def random_transform(smooth_field: Callable, oblique_grid: Callable) -> Callable[[str, int, int], Transform]:
    """One of ``kind`` in some dimension: smooth, on a grid of its own."""

    def make(kind: str, ndim: int, seed: int) -> Transform:
        if kind == "affine":
            return random_affine(ndim, seed)
        if kind == "unknown":
            return Swirl(ndim)
        if kind == "chain":
            return Chain((make("field", ndim, seed + 1), make("affine", ndim, seed + 2)))
        shape = (12, 14, 13)[:ndim]
        vectors = smooth_field(shape, seed, 0.5)[0]  # mm, on voxels of half a millimetre at least: never folds
        grid = oblique_grid(shape, seed + 1)
        return Field(vectors, grid) if kind == "field" else Velocity(vectors, grid)

    return make


kinds = st.sampled_from(["affine", "field", "velocity", "chain", "unknown"])


def some_points(ndim: int, seed: int) -> np.ndarray:
    """Inside and outside of the random grids."""
    return np.random.default_rng(seed).uniform(-30, 30, (60, ndim))


@few
@given(kinds_of=st.tuples(kinds, kinds, kinds), ndim=dimensions, seed=seeds)
def test_products_and_chains_apply_in_their_order(random_transform: Callable, kinds_of, ndim, seed) -> None:
    f, g, h = (random_transform(kind, ndim, seed + 10 * n) for n, kind in enumerate(kinds_of))
    points = some_points(ndim, seed)
    np.testing.assert_array_equal((f @ g)(points), f(g(points)))
    np.testing.assert_array_equal(Chain((f, g))(points), g(f(points)))
    np.testing.assert_array_equal((f @ g @ h)(points), f(g(h(points))))
    np.testing.assert_array_equal((f @ (g @ h))(points), f(g(h(points))))
    assert all(not isinstance(step, Chain) for step in (f @ g @ h).transforms)


@few
@given(kinds_of=st.tuples(kinds, kinds), ndim=dimensions, seed=seeds)
def test_the_inverse_of_a_product_is_the_product_of_inverses(random_transform: Callable, kinds_of, ndim, seed) -> None:
    f, g = (random_transform(kind, ndim, seed + 10 * n) for n, kind in enumerate(kinds_of))
    points = some_points(ndim, seed)
    np.testing.assert_array_equal((f @ g).inverse()(points), (g.inverse() @ f.inverse())(points))


@few
@given(kind=kinds, ndim=dimensions, seed=seeds)
def test_there_and_back_again(random_transform: Callable, kind, ndim, seed) -> None:
    f = random_transform(kind, ndim, seed)
    points = some_points(ndim, seed)
    if isinstance(f, Field | Velocity):
        points = f.grid.to_world(np.random.default_rng(seed).uniform(0, 11, (60, ndim)))
    tolerance = 1e-9 if kind in ("affine", "unknown") else 0.3
    np.testing.assert_allclose(f.inverse()(f(points)), points, rtol=0, atol=tolerance)
    residual = f.inverse_residual_mm(points)
    np.testing.assert_allclose(residual, np.linalg.norm(f(f.inverse()(points)) - points, axis=1))
    assert residual.max() < tolerance


@few
@given(kinds_of=st.lists(kinds, min_size=1, max_size=4), ndim=dimensions, seed=seeds, at_once=st.integers(1, 400))
def test_whole_grids_move_as_their_points_do(
    random_transform: Callable, oblique_grid: Callable, kinds_of, ndim, seed, at_once
) -> None:
    chain = Chain(tuple(random_transform(kind, ndim, seed + 10 * n) for n, kind in enumerate(kinds_of)))
    target, source = oblique_grid((6, 7, 5)[:ndim], seed + 1), oblique_grid((9, 8, 7)[:ndim], seed + 2)
    points = target.to_world(target.voxels())
    moved = chain(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform_module, "POINTS_AT_ONCE", at_once)
        displacement = chain.displacement_on(target)
        data = torch.tensor(np.random.default_rng(seed).normal(size=(2, *source.shape)))
        resampled = resample(data, source, target, chain, outside="border")
    np.testing.assert_allclose(displacement.reshape(ndim, -1).T, moved - points, atol=1e-4)
    voxels = torch.tensor(source.to_voxel(moved).T)[None]
    expected = sample(data[None], voxels, outside="border")[0].view(2, *target.shape)
    torch.testing.assert_close(resampled, expected, rtol=0, atol=1e-9)


@few
@given(kind=st.sampled_from(["field", "velocity"]), ndim=dimensions, seed=seeds, data=st.data())
def test_a_field_is_read_off_where_the_voxels_are_its_own(random_transform: Callable, kind, ndim, seed, data) -> None:
    transform = random_transform(kind, ndim, seed)
    field = transform if isinstance(transform, Field) else transform.field
    single = Field(field.displacement.float(), field.grid)
    own = single.displacement_on(field.grid)
    np.testing.assert_array_equal(own, single.displacement.numpy())
    own[:] = 0  # a copy
    assert float(single.displacement.abs().max()) > 0

    start = [data.draw(st.integers(-4, 9)) for _ in range(ndim)]
    for shift in (0.0, 0.01):
        part = field.grid.cropped(start, [5] * ndim)
        part = Grid(part.shape, part.affine @ (np.eye(ndim + 1) + shift * np.eye(ndim + 1, k=1)))
        points = part.to_world(part.voxels())
        expected = (transform(points) - points).T.reshape(ndim, *part.shape)
        np.testing.assert_allclose(transform.displacement_on(part), expected, atol=1e-6)


@few
@given(ndim=dimensions, seed=seeds)
def test_a_linear_field_moves_as_its_affine_map(oblique_grid: Callable, ndim, seed) -> None:
    affine = random_affine(ndim, seed)
    grid = oblique_grid((7, 9, 8)[:ndim], seed)
    field = Field(torch.tensor(affine.displacement_on(grid), dtype=torch.float64), grid)
    inside = grid.to_world(np.random.default_rng(seed).uniform(0, 6, (50, ndim)))
    np.testing.assert_allclose(field(inside), affine(inside), atol=1e-4)


@few
@given(ndim=dimensions, seed=seeds)
def test_a_velocity_flows_the_same_whatever_its_grid_is(
    smooth_field: Callable, oblique_grid: Callable, ndim, seed
) -> None:
    """Units are converted with the grid: the same velocity in mm on axes swapped and flipped gives the same map."""
    shape = (12, 14, 13)[:ndim]
    grid = oblique_grid(shape, seed, shear=0.2)
    vectors = smooth_field(shape, seed, 0.5)[0]  # mm, on voxels of half a millimetre at least: never folds
    swap = np.eye(ndim + 1)[[1, 0, *range(2, ndim + 1)]]
    swap[0, 1], swap[0, -1] = -1, shape[0] - 1  # axis 0 backwards
    other = Grid((shape[1], shape[0], *shape[2:]), grid.affine @ swap)
    turned = vectors.transpose(1, 2).flip(2)
    points = grid.to_world(np.random.default_rng(seed).uniform(-1, 13, (60, ndim)))
    np.testing.assert_allclose(Velocity(vectors, grid)(points), Velocity(turned, other)(points), atol=1e-9)


@few
@given(ndim=dimensions, seed=seeds)
def test_one_affine_does_what_a_chain_of_affines_does(oblique_grid: Callable, ndim, seed) -> None:
    affines = tuple(random_affine(ndim, seed + n) for n in range(5))
    whole = Affine(np.linalg.multi_dot([affine.matrix for affine in reversed(affines)]))
    target, source = oblique_grid((6, 5, 4)[:ndim], seed), oblique_grid((5, 6, 7)[:ndim], seed + 1)
    data = torch.tensor(np.random.default_rng(seed).normal(size=(1, *source.shape)))
    torch.testing.assert_close(
        resample(data, source, target, Chain(affines)), resample(data, source, target, whole), rtol=0, atol=1e-9
    )


@few
@given(ndim=dimensions, seed=seeds, data=st.data())
def test_resampling_onto_the_same_voxels_changes_nothing(oblique_grid: Callable, ndim, seed, data) -> None:
    shape = (5, 6, 4)[:ndim]
    grid = oblique_grid(shape, seed, shear=0.4)
    image = torch.tensor(np.random.default_rng(seed).normal(size=(2, *shape)))
    torch.testing.assert_close(resample(image, grid, grid), image, rtol=0, atol=1e-9)
    start = [data.draw(st.integers(-2, 2)) for _ in shape]
    cut = resample(image, grid, grid.cropped(start, shape))
    expected = torch.zeros_like(image)
    here = [slice(max(0, -n), min(size, size - n)) for n, size in zip(start, shape, strict=True)]
    there = [slice(max(0, n), min(size, size + n)) for n, size in zip(start, shape, strict=True)]
    expected[:, *here] = image[:, *there]
    torch.testing.assert_close(cut, expected, rtol=0, atol=1e-9)
