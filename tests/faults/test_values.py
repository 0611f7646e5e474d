"""Group V of the fault catalogue, as far as reading a file or an array goes."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from anamorph.data.files import read, write
from anamorph.data.image import Image, Labelmap, ReadPolicy

SLAB = np.s_[:, :, 4:6]


def with_values(head, values, name="head.nii.gz"):
    return head.save(nib.Nifti1Image(values, head.affine), name)


def spoilt(head, where, value):
    values = head.values.astype(np.float32)
    values[where] = value
    return values


SPOILT = [
    pytest.param(SLAB, np.nan, id="V01"),
    pytest.param((3, 4, 5), np.inf, id="V02"),
    pytest.param((3, 4, 5), -np.inf, id="V02-negative"),
]


@pytest.mark.parametrize(("where", "value"), SPOILT)
@pytest.mark.parametrize("name", ["head.nii.gz", "head.nrrd"])
def test_nonfinite_voxels_are_masked_and_counted(where, value, name, head, refuses, warns):
    values = spoilt(head, where, value)
    path = head.folder / name
    if name == "head.nrrd":
        lines = "NRRD0004\ntype: float\ndimension: 3\nspace: RAS\nsizes: 16 18 20\nendian: little\nencoding: raw\n"
        path.write_bytes((lines + "space directions: (1,0,0) (0,1,0) (0,0,1)\n\n").encode() + values.tobytes("F"))
    else:
        with_values(head, values)
    count = int((~np.isfinite(values)).sum())
    with warns("W-VAL-001", f"{count} of {values.size}"):
        image = read(path)
    assert image.valid is not None
    np.testing.assert_array_equal(image.valid.numpy(), np.isfinite(values))
    expected = np.where(np.isfinite(values), values, values[np.isfinite(values)].min())
    np.testing.assert_array_equal(image.data[0].numpy(), expected)
    with refuses("E-VAL-001", 3, head.folder):
        read(path, ReadPolicy(nonfinite="refuse"))


@pytest.mark.parametrize("row", ["V02-float64"])
def test_beyond_float32_counts_as_inf(row, head, warns):
    values = head.values.astype(np.float64)
    values[1, 2, 3] = 1e300
    with warns("W-VAL-001"):
        image = read(with_values(head, values))
    assert image.valid is not None
    assert not image.valid[1, 2, 3]
    assert int((~image.valid).sum()) == 1


@pytest.mark.parametrize("row", ["V03"])
def test_nothing_finite(row, head, refuses):
    path = with_values(head, np.full((16, 18, 20), np.nan, np.float32))
    with refuses("E-VAL-003", 3, head.folder):
        read(path)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
RGBA = np.dtype([*RGB.descr, ("A", "u1")])
KINDS = [
    pytest.param(np.complex64, "E-VAL-006", id="V06"),
    pytest.param(np.complex128, "E-VAL-006", id="V06-double"),
    pytest.param(RGB, "E-VAL-007", id="V07"),
    pytest.param(RGBA, "E-VAL-007", id="V07-alpha"),
]


@pytest.mark.parametrize(("dtype", "code"), KINDS)
def test_more_than_one_number_a_voxel(dtype, code, head, refuses):
    path = with_values(head, np.zeros((16, 18, 20), dtype))
    with refuses(code, 3, head.folder):
        read(path)
    with refuses(code, 3, head.folder):
        Image.from_array(np.zeros((16, 18, 20), dtype), head.affine)


FILE_TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


@pytest.mark.parametrize("dtype", [pytest.param(dtype, id=f"V08-{dtype}") for dtype in FILE_TYPES])
def test_every_type_of_a_file(dtype, head):
    values = np.clip(head.values, 0, 120).astype(dtype)
    image = nib.Nifti1Image(values, head.affine, dtype=values.dtype)
    data = read(head.save(image)).data
    assert data.dtype == torch.float32
    np.testing.assert_array_equal(data[0].numpy(), values.astype(np.float32))


@pytest.mark.parametrize(
    "dtype", [pytest.param(dtype, id=f"V08-{dtype}-array") for dtype in [*FILE_TYPES, "bool", "float16"]]
)
def test_every_type_of_an_array(dtype, head):
    values = np.clip(head.values, 0, 120).astype(dtype)
    image = Image.from_array(values, head.affine)
    np.testing.assert_array_equal(image.data[0].numpy(), values.astype(np.float32))
    write(image, head.folder / "again.nii.gz")
    assert read(head.folder / "again.nii.gz").data.equal(image.data)


def read_only(values, folder):
    values = values.copy()
    values.flags.writeable = False
    return values


def memory_mapped(values, folder):
    np.save(folder / "values.npy", values)
    return np.load(folder / "values.npy", mmap_mode="r")


ARRAYS = [
    pytest.param(lambda values, _: values[::-1, :, ::-1][::-1, :, ::-1], id="V14-strides"),
    pytest.param(lambda values, _: np.asfortranarray(values), id="V14-order"),
    pytest.param(lambda values, _: values.astype(">i2"), id="V14-byte-order"),
    pytest.param(read_only, id="V14-read-only"),
    pytest.param(memory_mapped, id="V14-memory-mapped"),
]


@pytest.mark.parametrize("kind", ARRAYS)
def test_awkward_arrays(kind, head):
    array = kind(head.values, head.folder)
    image = Image.from_array(array, head.affine)
    np.testing.assert_array_equal(image.data[0].numpy(), head.values)
    image.data.zero_()
    np.testing.assert_array_equal(array, head.values)
    np.testing.assert_array_equal(Labelmap.from_array(array, head.affine).data.numpy(), head.values)


SHAPES = [
    pytest.param((16, 18, 20, 3), "axis 3 ", id="V15-channels-last"),
    pytest.param((2, 1, 16, 18, 20), "axis 0 .*batch", id="V15-batch"),
    pytest.param((16, 18), "2 axes", id="V15-too-few"),
]


@pytest.mark.parametrize(("shape", "message"), SHAPES)
def test_misplaced_axis_is_named(shape, message, head):
    with pytest.raises(ValueError, match=message):
        Image.from_array(np.zeros(shape, np.float32), head.affine)


@pytest.mark.parametrize("row", ["V15-2d"])
def test_colour_picture_as_array(row):
    with pytest.raises(ValueError, match=r"axis 2 .*channels"):
        Image.from_array(np.zeros((32, 32, 3), np.uint8), np.eye(3))
