"""``resample`` against ``SimpleITK.Resample``: all 48 axis orders, oblique anisotropic grids, edges of the image.

SimpleITK works in LPS and numbers array axes backwards; both are converted here, apart from the code under test.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Velocity, resample

AXIS_ORDERS = [(order, flips) for order in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def lps(ndim: int) -> np.ndarray:
    return np.diag([-1.0, -1.0, 1.0, 1.0])[[*range(ndim), 3]][:, [*range(ndim), 3]]


def to_sitk(array: np.ndarray, grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(array.transpose())
    affine = lps(grid.ndim) @ grid.affine
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(affine[:-1, -1].tolist())
    image.SetDirection((affine[:-1, :-1] / grid.spacing).ravel().tolist())
    return image


def to_sitk_transform(affine: Affine) -> sitk.Transform:
    matrix = lps(affine.ndim) @ affine.matrix @ lps(affine.ndim)
    transform = sitk.AffineTransform(affine.ndim)
    transform.SetMatrix(matrix[:-1, :-1].ravel().tolist())
    transform.SetTranslation(matrix[:-1, -1].tolist())
    return transform


def to_sitk_field(field: Field) -> sitk.Transform:
    vectors = np.moveaxis(field.displacement.double().numpy(), 0, -1) * np.diag(lps(field.ndim))[:-1]
    image = sitk.GetImageFromArray(np.moveaxis(vectors, range(field.ndim), range(field.ndim)[::-1]), isVector=True)
    image.CopyInformation(to_sitk(np.zeros(field.grid.shape), field.grid))
    return sitk.DisplacementFieldTransform(image)


def by_sitk(
    image: np.ndarray, source: Grid, target: Grid, transform: sitk.Transform, interpolator: int = sitk.sitkLinear
) -> np.ndarray:
    reference = to_sitk(np.zeros(target.shape), target)
    resampled = sitk.Resample(to_sitk(image, source), reference, transform, interpolator, 0.0)
    return sitk.GetArrayFromImage(resampled).transpose()


def by_us(image: np.ndarray, source: Grid, target: Grid, transform: Affine | Chain | Field | None, mode="linear"):
    return resample(torch.from_numpy(image.copy())[None], source, target, transform, mode)[0].numpy()


def some_affine(ndim: int) -> Affine:
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += np.random.default_rng(5).uniform(-0.15, 0.15, (ndim, ndim))
    matrix[:-1, -1] = np.array([1.3, -2.1, 0.7])[:ndim]
    return Affine(matrix)


def reordered(image: np.ndarray, grid: Grid, order: tuple[int, ...], flips: tuple[int, ...]) -> tuple[np.ndarray, Grid]:
    """The same image in the world, stored along other axes and in other directions."""
    change = np.diag([0.0, 0, 0, 1])
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        change[old, new] = flip
        change[old, 3] = 0 if flip == 1 else grid.shape[old] - 1
    array = image.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
    return array, Grid(array.shape, grid.affine @ change)


@pytest.mark.parametrize("interpolator", [sitk.sitkLinear, sitk.sitkNearestNeighbor], ids=["linear", "nearest"])
@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS, ids=str)
def test_every_axis_order(oblique_grid: Callable, order, flips, interpolator) -> None:
    source, target = oblique_grid((7, 8, 9), 1), oblique_grid((10, 9, 8), 2)
    target = Grid(target.shape, target.affine + np.pad((source.centre - target.centre)[:, None], ((0, 1), (3, 0))))
    image = np.random.default_rng(0).normal(size=source.shape)
    stored, stored_grid = reordered(image, source, order, flips)
    affine = some_affine(3)
    mode = "linear" if interpolator == sitk.sitkLinear else "nearest"
    found = by_us(stored, stored_grid, target, affine, mode)
    np.testing.assert_allclose(
        found, by_sitk(stored, stored_grid, target, to_sitk_transform(affine), interpolator), atol=1e-9
    )
    np.testing.assert_allclose(found, by_us(image, source, target, affine, mode), atol=1e-9)
    assert 0.1 < (found == 0).mean() < 0.9

    onto, onto_grid = reordered(found, target, order, flips)
    np.testing.assert_allclose(by_us(image, source, onto_grid, affine, mode), onto, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ndim", [2, 3])
def test_oblique_anisotropic_grids(oblique_grid: Callable, ndim: int, seed: int) -> None:
    source, target = oblique_grid((12, 9, 11)[:ndim], seed), oblique_grid((9, 14, 8)[:ndim], seed + 100)
    image = np.random.default_rng(seed).normal(size=source.shape)
    for affine in (Affine.identity(ndim), some_affine(ndim)):
        expected = by_sitk(image, source, target, to_sitk_transform(affine))
        np.testing.assert_allclose(by_us(image, source, target, affine), expected, atol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("interpolator", [sitk.sitkLinear, sitk.sitkNearestNeighbor], ids=["linear", "nearest"])
def test_the_image_ends_half_a_voxel_beyond_its_outer_centres(ndim: int, interpolator: int) -> None:
    source = Grid.from_spacing((4, 3, 5)[:ndim], 2.0)
    image = np.random.default_rng(1).uniform(1, 2, source.shape)
    # Steps of 0.3 voxels from 2 voxels outside on: points on both sides of the edge, none upon it.
    affine = source.affine @ np.diag([*[0.3] * ndim, 1])
    affine[:-1, -1] = -4.02
    target = Grid((30, 26, 32)[:ndim], affine)
    found = by_us(image, source, target, None, "linear" if interpolator == sitk.sitkLinear else "nearest")
    np.testing.assert_allclose(
        found, by_sitk(image, source, target, sitk.Transform(ndim, sitk.sitkIdentity), interpolator), atol=1e-9
    )
    where = source.to_voxel(target.to_world(target.voxels())).reshape(*target.shape, ndim)
    inside = ((where > -0.5) & (where < np.array(source.shape) - 0.5)).all(-1)
    assert (found[inside] >= 1).all()
    assert (found[~inside] == 0).all()


def test_upon_the_edge_itk_is_lopsided_and_we_are_not() -> None:
    source = Grid.from_spacing((3, 2))
    target = Grid((3, 2), np.array([[1.5, 0, -0.5], [0, 1, 0], [0, 0, 1]]))  # at -0.5, 1 and 2.5
    image = np.array([[1.0, 2], [3, 4], [5, 6]])
    np.testing.assert_allclose(by_us(image, source, target, None), image)
    assert by_sitk(image, source, target, sitk.Transform(2, sitk.sitkIdentity)).tolist() == [[1, 2], [3, 4], [0, 0]]


@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_in_half_as_many_voxels(ndim: int) -> None:
    source = Grid.from_spacing((8, 6, 4)[:ndim], 0.7)
    target = source.resized(tuple(n // 2 for n in source.shape))
    labels = np.random.default_rng(2).integers(0, 9, source.shape)
    expected = by_sitk(labels, source, target, sitk.Transform(ndim, sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    np.testing.assert_array_equal(by_us(labels, source, target, None, "nearest"), expected)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_one_resampling_through_a_whole_chain(
    smooth_field: Callable, oblique_grid: Callable, ndim: int, seed: int
) -> None:
    source, target = oblique_grid((11, 12, 9)[:ndim], seed), oblique_grid((9, 10, 11)[:ndim], seed + 50)
    grids = [target, oblique_grid((8, 9, 10)[:ndim], seed + 20)]
    fields = [Field(smooth_field(g.shape, n, 2.0)[0] + 1.0, g) for n, g in enumerate(grids)]
    flow = Velocity(smooth_field(target.shape, 7, 2.0)[0], target)
    affine = some_affine(ndim)
    chain = Chain((flow, affine, fields[0], fields[1], affine.inverse()))
    # ITK applies the transform added last first.
    composite = sitk.CompositeTransform(ndim)
    for step in (affine.inverse(), fields[1], fields[0], affine, flow.field):
        composite.AddTransform(to_sitk_transform(step) if isinstance(step, Affine) else to_sitk_field(step))
    image = np.random.default_rng(seed).normal(size=source.shape)
    np.testing.assert_allclose(
        by_us(image, source, target, chain), by_sitk(image, source, target, composite), atol=1e-9
    )

    points = target.to_world(target.voxels())
    flip = np.diag(lps(ndim))[:-1]
    by_itk = np.array([composite.TransformPoint(p.tolist()) for p in points * flip]) * flip
    np.testing.assert_allclose(chain(points), by_itk, atol=1e-9)
    np.testing.assert_allclose(chain.displacement_on(target).reshape(ndim, -1).T, by_itk - points, atol=1e-5)
