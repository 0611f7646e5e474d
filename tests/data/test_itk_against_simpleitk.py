"""NRRD and MetaImage: what SimpleITK writes we read, what we write SimpleITK reads; every point in the same place."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap

VALUES = np.random.default_rng(0).integers(0, 120, (5, 6, 7)).astype(np.int16)
LPS = np.array([-1.0, -1.0, 1.0])
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
AXES = [
    np.diag(signs)[:, order].astype(float) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]
CORNERS = np.array(list(product(*[(0, n - 1) for n in VALUES.shape])), dtype=float)
PIXELS = {
    "uint8": sitk.sitkUInt8,
    "int8": sitk.sitkInt8,
    "uint16": sitk.sitkUInt16,
    "int16": sitk.sitkInt16,
    "uint32": sitk.sitkUInt32,
    "int32": sitk.sitkInt32,
    "uint64": sitk.sitkUInt64,
    "int64": sitk.sitkInt64,
    "float32": sitk.sitkFloat32,
    "float64": sitk.sitkFloat64,
}


def peer_image(directions):
    image = sitk.GetImageFromArray(VALUES.T)
    image.SetDirection(directions.ravel())
    image.SetSpacing([0.7, 1.1, 3.0])
    image.SetOrigin([12.5, -40.25, 81.0])
    return image


def assert_same_place(ours, peer):
    theirs = np.array([peer.TransformContinuousIndexToPhysicalPoint(corner) for corner in CORNERS.tolist()]) * LPS
    np.testing.assert_allclose(ours.grid.to_world(CORNERS), theirs, atol=1e-4)


@pytest.mark.parametrize("axes", AXES, ids=range(48))
@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["straight", "oblique"])
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_there_and_back_over_48_axis_orders(suffix, turn, axes, tmp_path):
    peer = peer_image(turn @ axes)
    sitk.WriteImage(peer, tmp_path / f"theirs.{suffix}")
    ours = read(tmp_path / f"theirs.{suffix}")
    np.testing.assert_array_equal(ours.data[0].numpy(), VALUES)
    assert_same_place(ours, peer)
    write(ours, tmp_path / f"ours.{suffix}")
    again = sitk.ReadImage(tmp_path / f"ours.{suffix}")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again).T, VALUES)
    assert_same_place(ours, again)


@pytest.mark.parametrize("dtype", PIXELS)
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
@pytest.mark.parametrize("compress", [False, True], ids=["raw", "compressed"])
def test_every_type_and_container(dtype, name, compress, tmp_path):
    sitk.WriteImage(sitk.Cast(peer_image(np.eye(3)), PIXELS[dtype]), tmp_path / name, compress)
    np.testing.assert_array_equal(read(tmp_path / name).data[0].numpy(), VALUES.astype(np.float32))


@pytest.mark.parametrize("dtype", [dtype for dtype in PIXELS if not dtype.startswith("float")])
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_labels_keep_their_type(dtype, suffix, tmp_path):
    labels = Labelmap.from_array(VALUES.astype(dtype), np.diag([1, 2, 3, 1.0]))
    write(labels, tmp_path / f"labels.{suffix}")
    peer = sitk.ReadImage(tmp_path / f"labels.{suffix}")
    assert peer.GetPixelID() == PIXELS[dtype]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(peer).T, VALUES)
    assert read_labels(tmp_path / f"labels.{suffix}").dtype == dtype


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_2d(suffix, tmp_path):
    peer = sitk.GetImageFromArray(VALUES[0].T)
    peer.SetSpacing([0.5, 2.0])
    peer.SetOrigin([3.0, -4.0])
    peer.SetDirection([0.6, -0.8, 0.8, 0.6])
    sitk.WriteImage(peer, tmp_path / f"theirs.{suffix}")
    ours = read(tmp_path / f"theirs.{suffix}")
    index = np.array([[4.0, 2.0]])
    theirs = -np.array([peer.TransformContinuousIndexToPhysicalPoint(index[0].tolist())])
    np.testing.assert_allclose(ours.grid.to_world(index), theirs, atol=1e-5)
    write(ours, tmp_path / f"ours.{suffix}")
    again = sitk.ReadImage(tmp_path / f"ours.{suffix}")
    np.testing.assert_allclose(again.GetDirection(), peer.GetDirection(), atol=1e-12)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), VALUES[0].T)


@pytest.mark.parametrize("name", ["slice.png", "slice.tif", "slice.jpg"])
def test_pictures_lie_where_simpleitk_puts_them(name, tmp_path):
    pixels = np.tile(np.arange(0, 200, 4, dtype=np.uint8)[:, None], (1, 40))
    sitk.WriteImage(sitk.GetImageFromArray(pixels), tmp_path / name)
    peer = sitk.ReadImage(tmp_path / name)
    with pytest.warns(match="W-FMT-010"):
        ours = read(tmp_path / name)
    np.testing.assert_array_equal(ours.data[0].numpy(), sitk.GetArrayFromImage(peer).T)
    theirs = -np.array([peer.TransformIndexToPhysicalPoint([30, 10])]) / np.array(peer.GetSpacing())
    np.testing.assert_allclose(ours.grid.to_world(np.array([[30.0, 10.0]])), theirs)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_nearly_orthogonal_axes_are_written_so_that_itk_reads_them(suffix, tmp_path):
    affine = np.diag([0.7, 1.1, 3.0, 1.0])
    affine[0, 1] = 1e-4
    write(Image.from_array(VALUES, affine), tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"a.{suffix}")).T, VALUES)
