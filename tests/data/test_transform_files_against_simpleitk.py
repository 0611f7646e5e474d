"""SimpleITK applies the files written here, and its files are applied here: to points and to images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from anamorph.data.itk_linear import LINEAR
from anamorph.data.transform_files import read_transform, write_transform
from anamorph.errors import AnamorphWarning, InputError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Velocity, resample

TOLERANCE_MM = 1e-4
GRIDS = [(2, False), (2, True), (3, False), (3, True)]
GRID_NAMES = ["2d", "2d-left-handed", "3d", "3d-left-handed"]


def lps(points: np.ndarray) -> np.ndarray:
    return points * np.array([-1.0, -1.0, 1.0])[: points.shape[-1]]


def rotation(ndim: int, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(ndim, ndim)))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return q


def oblique_grid(ndim: int, left_handed: bool = False, seed: int = 0, shear: float = 0.0) -> Grid:
    """Oblique and anisotropic, somewhere off the origin."""
    affine = np.eye(ndim + 1)
    mirror = np.diag([-1.0 if left_handed else 1.0, *[1.0] * (ndim - 1)])
    sheared = np.eye(ndim)
    sheared[0, 1] = shear
    affine[:-1, :-1] = rotation(ndim, seed) @ mirror @ sheared @ np.diag([0.8, 1.1, 2.7][:ndim])
    affine[:-1, -1] = [-31.0, 17.0, 52.0][:ndim]
    return Grid((14, 12, 9)[:ndim], affine)


def random_field(grid: Grid, dtype: torch.dtype = torch.float64, size_mm: float = 2.0) -> Field:
    numbers = np.random.default_rng(1).normal(size=(grid.ndim, *grid.shape)) * size_mm
    return Field(torch.from_numpy(numbers).to(dtype), grid)


def random_affine(ndim: int) -> Affine:
    matrix = np.eye(ndim + 1)
    matrix[:-1] += np.random.default_rng(2).normal(size=(ndim, ndim + 1)) * 0.1
    matrix[:-1, -1] = [3.0, -2.0, 1.0][:ndim]
    return Affine(matrix)


def points_in(grid: Grid, count: int = 300) -> np.ndarray:
    """Between the voxels, into the outer half voxel, and beyond it."""
    rng = np.random.default_rng(3)
    return grid.to_world(rng.uniform(-1.5, np.array(grid.shape) + 0.5, (count, grid.ndim)))


def by_itk(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    return lps(np.array([transform.TransformPoint(point.tolist()) for point in lps(points)]))


def itk_image(values: np.ndarray, grid: Grid, vector: bool = False) -> sitk.Image:
    """``values`` I J (K), or I J (K) d for vectors."""
    axes = range(grid.ndim)
    image = sitk.GetImageFromArray(np.transpose(values, [*reversed(axes), *([grid.ndim] if vector else [])]), vector)
    image.SetOrigin(lps(grid.affine[:-1, -1]).tolist())
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(lps((grid.affine[:-1, :-1] / grid.spacing).T).T.ravel().tolist())
    return image


@pytest.mark.parametrize(("ndim", "left"), GRIDS, ids=GRID_NAMES)
def test_simpleitk_applies_our_composite_to_points(tmp_path: Path, ndim: int, left: bool):
    grid = oblique_grid(ndim, left)
    velocity = Velocity(random_field(grid, size_mm=1.0).displacement, grid)
    chain = Chain((random_affine(ndim), random_field(grid), random_affine(ndim), velocity))
    write_transform(chain, tmp_path / "chain.h5")

    points = random_affine(ndim).inverse()(points_in(grid))
    found = by_itk(sitk.ReadTransform(str(tmp_path / "chain.h5")), points)
    assert np.abs(found - chain(points)).max() < TOLERANCE_MM
    assert np.abs(chain(points) - points).max() > 1
    assert np.abs(read_transform(tmp_path / "chain.h5")(points) - chain(points)).max() < 1e-9


@pytest.mark.parametrize(("ndim", "left"), GRIDS, ids=GRID_NAMES)
def test_simpleitk_resamples_through_our_composite_as_we_do(tmp_path: Path, ndim: int, left: bool):
    fixed, moving = oblique_grid(ndim, left), oblique_grid(ndim, not left, seed=5)
    centred = np.eye(ndim + 1)
    centred[:-1, -1] = moving.centre - fixed.centre
    chain = Chain((random_field(fixed), Affine(centred)))
    write_transform(chain, tmp_path / "chain.h5")
    # A linear image makes the comparison one of places; its gradient is 1 a mm.
    slope = np.ones(ndim) / np.sqrt(ndim)
    values = (moving.to_world(moving.voxels()) @ slope).reshape(moving.shape)

    image = itk_image(values, moving)
    transform = sitk.ReadTransform(str(tmp_path / "chain.h5"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, itk_image(np.zeros(fixed.shape), fixed), transform)).T
    ours = resample(torch.from_numpy(values)[None], moving, fixed, chain)[0].numpy()
    seen = ours != 0
    assert seen.mean() > 0.3
    assert np.abs(ours - theirs)[seen & (theirs != 0)].max() < TOLERANCE_MM
    assert np.array_equal(seen, theirs != 0)


@pytest.mark.parametrize(("ndim", "left"), GRIDS, ids=GRID_NAMES)
def test_composite_of_simpleitk_is_applied_in_its_order(tmp_path: Path, ndim: int, left: bool):
    grid = oblique_grid(ndim, left)
    vectors = np.random.default_rng(4).normal(size=(*grid.shape, ndim))
    first_added = sitk.AffineTransform(ndim)
    first_added.SetMatrix((np.eye(ndim) * 1.2 + 0.05).ravel().tolist())
    first_added.SetCenter([5.0, -7.0, 11.0][:ndim])
    first_added.SetTranslation([1.0, 2.0, 3.0][:ndim])
    composite = sitk.CompositeTransform(ndim)
    composite.AddTransform(first_added)
    composite.AddTransform(sitk.DisplacementFieldTransform(itk_image(vectors, grid, vector=True)))
    points = points_in(grid)
    for name in ("c.h5", "c.tfm", "c.txt"):
        sitk.WriteTransform(composite, str(tmp_path / name))
        ours = read_transform(tmp_path / name)
        assert isinstance(ours, Chain)
        assert [type(step) for step in ours.transforms] == [Field, Affine]
        assert np.abs(ours(points) - by_itk(composite, points)).max() < TOLERANCE_MM


@pytest.mark.parametrize(("ndim", "left"), GRIDS, ids=GRID_NAMES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_displacement_nifti_goes_both_ways(tmp_path: Path, ndim: int, left: bool, suffix: str):
    grid = oblique_grid(ndim, left)
    field = random_field(grid)
    write_transform(field, tmp_path / f"ours{suffix}")
    points = points_in(grid)
    image = sitk.ReadImage(str(tmp_path / f"ours{suffix}"), sitk.sitkVectorFloat64)
    assert (image.GetSize(), image.GetNumberOfComponentsPerPixel()) == (grid.shape, ndim)
    transform = sitk.DisplacementFieldTransform(image)
    # Half a voxel outside the border ends the field: the header's float32 may decide differently just there.
    edge = np.abs(np.abs(grid.to_voxel(points) - (np.array(grid.shape) - 1) / 2) - np.array(grid.shape) / 2)
    points = points[edge.min(1) > 1e-3]
    assert np.abs(by_itk(transform, points) - field(points)).max() < TOLERANCE_MM

    vectors = lps(np.moveaxis(field.displacement.numpy(), 0, -1))
    for pixel in (np.float32, np.float64):
        sitk.WriteImage(itk_image(vectors.astype(pixel), grid, vector=True), str(tmp_path / f"theirs{suffix}"))
        read = read_transform(tmp_path / f"theirs{suffix}")
        assert np.abs(read(points) - field(points)).max() < TOLERANCE_MM


@pytest.mark.parametrize("ndim", [2, 3])
def test_sheared_grid_is_exact_in_h5_and_resampled_in_nifti(tmp_path: Path, ndim: int):
    grid = oblique_grid(ndim, shear=0.2)
    smooth = grid.to_world(grid.voxels()) @ np.random.default_rng(6).normal(size=(ndim, ndim)) * 0.05
    field = Field(torch.from_numpy(smooth.T.reshape(ndim, *grid.shape).copy()), grid)
    write_transform(field, tmp_path / "f.h5")
    points = points_in(grid)
    found = by_itk(sitk.ReadTransform(str(tmp_path / "f.h5")), points)
    assert np.abs(found - field(points)).max() < TOLERANCE_MM

    with pytest.warns(AnamorphWarning, match="W-GEO-004"):
        write_transform(field, tmp_path / "f.nii.gz")
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "f.nii.gz"), sitk.sitkVectorFloat64))
    # A linear displacement survives resampling, away from the edge beyond which it is zero.
    inside = grid.to_world(np.random.default_rng(7).uniform(3, np.array(grid.shape) - 4, (100, ndim)))
    assert np.abs(by_itk(transform, inside) - field(inside)).max() < TOLERANCE_MM


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("ndim", [2, 3])
def test_every_linear_class_means_what_itk_means(tmp_path: Path, kind: str, ndim: int):
    if LINEAR[kind].ndim not in (None, ndim):
        return
    rng = np.random.default_rng(8)
    parameters = rng.uniform(0.1, 0.4, LINEAR[kind].count(ndim))
    if kind in ("AffineTransform", "MatrixOffsetTransformBase"):
        parameters[: ndim**2] += np.eye(ndim).ravel()
    for order in (0, 1) if kind == "Euler3DTransform" else (0,):
        fixed = rng.uniform(-20, 20, ndim) if LINEAR[kind].centred else np.zeros(0)
        if kind == "Euler3DTransform":
            fixed = np.append(fixed, order)
        path = tmp_path / "t.tfm"
        path.write_text(
            f"#Insight Transform File V1.0\n#Transform 0\nTransform: {kind}_double_{ndim}_{ndim}\n"
            f"Parameters: {' '.join(map(repr, parameters.tolist()))}\n"
            f"FixedParameters: {' '.join(map(repr, fixed.tolist()))}\n"
        )
        if kind == "ComposeScaleSkewVersor3DTransform":  # SimpleITK has the class and does not read it
            theirs = sitk.ComposeScaleSkewVersor3DTransform()
            theirs.SetFixedParameters(fixed.tolist())
            theirs.SetParameters(parameters.tolist())
        else:
            theirs = sitk.ReadTransform(str(path))
        points = rng.uniform(-60, 60, (20, ndim))
        assert np.abs(read_transform(path)(points) - by_itk(theirs, points)).max() < 1e-10


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".mat", ".h5"])
def test_affine_goes_both_ways(tmp_path: Path, ndim: int, suffix: str):
    chain = Chain((random_affine(ndim), Affine(np.diag([*[1.1, 0.9, 1.3][:ndim], 1.0]))))
    points = np.random.default_rng(9).uniform(-100, 100, (50, ndim))
    write_transform(chain, tmp_path / f"ours{suffix}")
    theirs = sitk.ReadTransform(str(tmp_path / f"ours{suffix}"))
    assert np.abs(by_itk(theirs, points) - chain(points)).max() < 1e-10

    euler = sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3, (4, 5, 6)) if ndim == 3 else sitk.Euler2DTransform()
    sitk.WriteTransform(euler, str(tmp_path / f"theirs{suffix}"))
    assert np.abs(read_transform(tmp_path / f"theirs{suffix}")(points) - by_itk(euler, points)).max() < 1e-10


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_bspline_is_exact_on_the_voxels_of_the_grid(tmp_path: Path, ndim: int, order: int):
    grid = oblique_grid(ndim)
    bspline = sitk.BSplineTransform(ndim, order)
    bspline.SetTransformDomainOrigin((lps(grid.centre) - [4.0, 5.0, 6.0][:ndim]).tolist())
    bspline.SetTransformDomainPhysicalDimensions([10.0, 9.0, 14.0][:ndim])
    bspline.SetTransformDomainDirection(rotation(ndim, 11).ravel().tolist())
    bspline.SetTransformDomainMeshSize([3, 4, 2][:ndim])
    bspline.SetParameters(np.random.default_rng(10).normal(size=len(bspline.GetParameters())).tolist())
    composite = sitk.CompositeTransform([sitk.TranslationTransform(ndim, [1.0, 2.0, 3.0][:ndim]), bspline])
    sitk.WriteTransform(composite, str(tmp_path / "b.h5"))

    points = grid.to_world(grid.voxels())
    theirs = by_itk(composite, points)
    with pytest.raises(InputError, match="E-TRF-007"):
        read_transform(tmp_path / "b.h5", grid=oblique_grid(5 - ndim))
    assert (np.abs(by_itk(bspline, points) - points).max(1) > 0.1).mean() > 0.1
    assert np.abs(read_transform(tmp_path / "b.h5", grid=grid)(points) - theirs).max() < TOLERANCE_MM
