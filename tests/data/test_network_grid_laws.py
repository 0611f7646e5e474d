"""There and back: what is seen on the network's grid is what is true in the world."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from anamorph.data.image import Image, Labelmap
from anamorph.data.network_grid import labels_to_native, labels_to_network, network_grid, network_transform
from anamorph.data.plan import Intensity, Plan
from anamorph.spatial.field import exponential, sample, warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, resample

few = settings(max_examples=25)
dimensions = st.sampled_from([2, 3])
seeds = st.integers(0, 10_000)


def random_matrix(ndim: int, rng: np.random.Generator, strength: float = 0.2) -> np.ndarray:
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += rng.uniform(-strength, strength, (ndim, ndim))
    matrix[:-1, -1] = rng.uniform(-20, 20, ndim)
    return matrix


def random_grid(shape: tuple[int, ...], rng: np.random.Generator) -> Grid:
    return Grid(shape, random_matrix(len(shape), rng) @ np.diag([*rng.uniform(0.7, 2, len(shape)), 1]))


def plan_of(ndim: int, shape, spacing, labels=(3, 70000, 5)) -> Plan:
    return Plan(
        orientation="RAS"[:ndim],
        shape=tuple(shape),
        spacing=tuple(float(length) for length in spacing),
        modalities={"t1": Intensity()},
        labels={value: "" for value in labels},
    )


@few
@given(
    ndim=dimensions,
    turn=st.integers(0, 47),
    orientation=st.integers(0, 47),
    extra=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    seed=seeds,
)
def test_labels_come_back_exactly_at_equal_spacing(ndim, turn, orientation, extra, seed) -> None:
    rng = np.random.default_rng(seed)
    turns = list(product(permutations(range(ndim)), product((1, -1), repeat=ndim)))
    order, signs = turns[turn % len(turns)]
    spacing = rng.uniform(0.5, 3, ndim)  # of the world's axes
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = 0
    for axis, world in enumerate(order):
        affine[world, axis] = signs[axis] * spacing[world]
    affine[:-1, -1] = rng.uniform(-50, 50, ndim)
    shape = tuple(int(n) for n in rng.integers(2, 9, ndim))
    labels = Labelmap.from_array(rng.choice([0, 3, 5, 70000], size=shape), affine)
    image = Image.from_array(np.zeros(shape), affine, "t1")

    order, signs = turns[orientation % len(turns)]
    letters = [("LR", "PA", "IS")[world][(sign + 1) // 2] for world, sign in zip(order, signs, strict=True)]
    longest = max(shape)
    plan = plan_of(ndim, [longest + extra[axis] for axis in range(ndim)], spacing[list(order)])
    plan = plan.model_copy(update={"orientation": "".join(letters)})
    grid = network_grid(image, plan)
    classes = labels_to_network(labels, plan, grid)
    back = labels_to_native(one_hot(classes, 4).movedim(-1, 0).float(), plan, grid, image.grid)
    assert torch.equal(back.data, labels.data)


@few
@given(ndim=dimensions, seed=seeds)
def test_each_class_is_interpolated_alone_and_the_largest_wins(ndim, seed) -> None:
    rng = np.random.default_rng(seed)
    source = random_grid((9, 8, 7)[:ndim], rng)
    # Finer, so that nothing is smoothed and the shares are those of plain interpolation.
    change = random_matrix(ndim, rng) @ np.diag([*[0.5] * ndim, 1])
    change[:-1, -1] = rng.uniform(-2, 3, ndim)
    target = Grid((14, 13, 12)[:ndim], source.affine @ change)
    blocks = rng.choice([0, 3, 5, 70000], size=[4] * ndim)
    blobs = blocks.repeat(3, 0).repeat(3, 1) if ndim == 2 else blocks.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    values = blobs[tuple(slice(0, n) for n in source.shape)]
    plan = plan_of(ndim, target.shape, [1] * ndim)
    classes = labels_to_network(Labelmap.from_array(values, source.affine), plan, target)
    table = {0: 0, 3: 1, 70000: 2, 5: 3}
    layers = one_hot(torch.from_numpy(np.vectorize(table.get)(values)), 4).movedim(-1, 0).double()
    shares = resample(layers, source, target)
    highest = shares.max(0).values
    clear = (shares >= highest - 1e-4).sum(0) == 1
    expected = torch.where(highest > 0, shares.argmax(0), 0)
    assert torch.equal(classes[clear], expected[clear])


@few
@given(ndim=dimensions, seed=seeds)
def test_landmarks_move_as_the_voxels_do(ndim, seed) -> None:
    rng = np.random.default_rng(seed)
    shape = (9, 8, 7)[:ndim]
    fixed, moving = random_grid(shape, rng), random_grid(shape, rng)
    displacement = torch.from_numpy(rng.normal(size=(ndim, *shape)))
    chain = network_transform(displacement, fixed, moving)
    voxels = rng.uniform(0, np.array(shape) - 1, (40, ndim))
    moved = voxels + sample(displacement[None], torch.from_numpy(voxels.T.copy())[None])[0].numpy().T
    np.testing.assert_allclose(chain(fixed.to_world(voxels)), moving.to_world(moved), atol=1e-8)


@few
@given(ndim=dimensions, seed=seeds)
def test_warping_among_voxels_is_warping_in_the_world(ndim, seed) -> None:
    rng = np.random.default_rng(seed)
    shape = (9, 8, 7)[:ndim]
    fixed, moving = random_grid(shape, rng), random_grid(shape, rng)
    image = torch.from_numpy(rng.normal(size=(2, *shape)))
    displacement = torch.from_numpy(rng.normal(size=(ndim, *shape)))
    seen = resample(image, moving, fixed, network_transform(displacement, fixed, moving), outside="border")
    torch.testing.assert_close(seen, warp(image[None], displacement[None], outside="border")[0], rtol=0, atol=1e-8)


@few
@given(ndim=dimensions, seed=seeds)
def test_a_velocity_flows_in_the_world_as_among_voxels_and_back(ndim, seed) -> None:
    rng = np.random.default_rng(seed)
    shape = (12, 11, 10)[:ndim]
    fixed, moving = random_grid(shape, rng), random_grid(shape, rng)
    window = torch.ones(1)
    for n in shape:
        window = window[..., None] * torch.sin(torch.linspace(0, torch.pi, n))
    direction = torch.from_numpy(rng.uniform(-1, 1, (ndim, *[1] * ndim)))
    velocity = direction * window[0].double()
    displacement = exponential(velocity[None], 6)[0]
    chain = network_transform(displacement, fixed, moving, velocity, 6)
    plain = network_transform(displacement, fixed, moving)
    points = fixed.to_world(rng.uniform(1, np.array(shape) - 2, (40, ndim)))
    np.testing.assert_allclose(chain(points), plain(points), atol=1e-8)
    assert np.abs(chain.inverse()(chain(points)) - points).max() < 0.1


@few
@given(ndim=dimensions, seed=seeds)
def test_an_alignment_carries_the_references_grid_along(ndim, seed) -> None:
    rng = np.random.default_rng(seed)
    reference, image = (
        Image.from_array(np.zeros(shape[:ndim]), random_grid(shape[:ndim], rng).affine, "t1")
        for shape in ((9, 8, 7), (6, 7, 9))
    )
    plan = plan_of(ndim, (8, 6, 5)[:ndim], rng.uniform(1, 2, ndim))
    base = network_grid(reference, plan)
    alignment = Affine(random_matrix(ndim, rng))
    grid = network_grid(image, plan, alignment, middle=base.centre)
    np.testing.assert_allclose(grid.affine, alignment.matrix @ base.affine, atol=1e-9)
    points = base.to_world(rng.uniform(0, 5, (10, ndim)))
    np.testing.assert_allclose(grid.to_voxel(alignment(points)), base.to_voxel(points), atol=1e-9)
    own = network_grid(image, plan, alignment)  # nothing said about the middle: that of the image
    np.testing.assert_allclose(own.centre, image.grid.centre, atol=1e-9)
