"""Images and labels through a composite, equal to SimpleITK's resampling of the same data through the written file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from anamorph.data.image import Image, Labelmap
from anamorph.data.transform_files import write_transform
from anamorph.inference.warp import warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Transform


def oblique(ndim: int, seed: int) -> Grid:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(ndim, ndim)))[0]
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = turn @ np.diag([0.9, 1.2, 2.1][:ndim])
    affine[:-1, -1] = -(turn * [0.9, 1.2, 2.1][:ndim]) @ (np.array([16, 14, 11][:ndim]) / 2)
    return Grid((16, 14, 11)[:ndim], affine)


def as_itk(values: np.ndarray, grid: Grid) -> sitk.Image:
    sign = np.array([-1.0, -1.0, 1.0])[: grid.ndim]
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetOrigin((sign * grid.affine[:-1, -1]).tolist())
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection((sign[:, None] * grid.affine[:-1, :-1] / grid.spacing).ravel().tolist())
    return image


def chain_on(grid: Grid) -> Transform:
    phase = grid.voxels() @ np.random.default_rng(3).uniform(0.1, 0.4, (grid.ndim, grid.ndim))
    field = Field(torch.from_numpy((1.5 * np.sin(phase)).T.reshape(grid.ndim, *grid.shape).copy()), grid)
    matrix = np.eye(grid.ndim + 1)
    matrix[:-1] += np.random.default_rng(4).normal(size=(grid.ndim, grid.ndim + 1)) * 0.05
    return Chain((field, Affine(matrix)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_image(tmp_path: Path, ndim: int):
    fixed, moving = oblique(ndim, 1), oblique(ndim, 2)
    values = np.random.default_rng(5).uniform(1, 100, moving.shape).astype(np.float32)
    chain = chain_on(fixed)
    write_transform(chain, tmp_path / "t.h5")
    ours = warp(Image(torch.from_numpy(values)[None], moving), chain, fixed, fill=0.0).data[0].numpy()
    theirs = sitk.Resample(
        as_itk(values, moving), as_itk(np.zeros(fixed.shape), fixed), sitk.ReadTransform(str(tmp_path / "t.h5"))
    )
    found = sitk.GetArrayFromImage(theirs).T
    assert (found > 0).mean() > 0.4
    assert np.abs(ours - found).max() < 1e-2  # of 100: float32 coordinates of some 1e-5 voxels
    assert np.array_equal(ours > 0, found > 0)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_labels(tmp_path: Path, ndim: int, interpolation):
    fixed, moving = oblique(ndim, 1), oblique(ndim, 2)
    blocks = np.indices(moving.shape) // 4
    array = (blocks * np.array([1, 7, 49])[:ndim].reshape(ndim, *[1] * ndim)).sum(0).astype(np.int32) * 1000 + 5
    chain = chain_on(fixed)
    write_transform(chain, tmp_path / "t.h5")
    labels = Labelmap.from_array(array, moving.affine)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = warp(labels, chain, fixed, interpolation=interpolation).data.numpy()
    mode = sitk.sitkNearestNeighbor if interpolation == "nearest" else sitk.sitkLabelLinear
    transform = sitk.ReadTransform(str(tmp_path / "t.h5"))
    theirs = sitk.Resample(as_itk(array, moving), as_itk(np.zeros(fixed.shape), fixed), transform, mode, 0)
    found = sitk.GetArrayFromImage(theirs).T
    assert len(np.unique(found)) > 5
    # Both put a border where the shares are equal; only there rounding may decide.
    assert (ours != found).mean() < 2e-3
    assert set(np.unique(ours)) <= {0, *np.unique(array)}
