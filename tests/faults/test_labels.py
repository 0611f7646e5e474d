"""Group L of the fault catalogue: labels and masks as files."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.files import read, read_labels, read_mask, write
from anamorph.data.image import Labelmap
from anamorph.spatial.grid import Grid


def with_labels(head, values, dtype=None):
    return head.save(nib.Nifti1Image(values, head.affine, dtype=dtype or values.dtype), "labels.nii.gz")


def three_labels(head):
    return (head.values > 150).astype(np.int16) + (head.values > 450) + 3 * (head.values > 700)


@pytest.mark.parametrize("row", ["L01"])
def test_integers_stored_as_floats(row, head):
    expected = three_labels(head)
    labels = read_labels(with_labels(head, expected.astype(np.float64)))
    np.testing.assert_array_equal(labels.data.numpy(), expected)
    assert not labels.data.is_floating_point()
    write(labels, head.folder / "again.nii.gz")
    assert nib.load(head.folder / "again.nii.gz").get_data_dtype() == np.uint8


@pytest.mark.parametrize("row", ["L02"])
def test_nearly_integers(row, head, refuses, warns):
    expected = three_labels(head)
    nearly = expected.astype(np.float32)
    nearly[nearly == 2] = 2.0000457
    with warns("W-LAB-002"):
        labels = read_labels(with_labels(head, nearly))
    np.testing.assert_array_equal(labels.data.numpy(), expected)
    nearly[0, 0, 0] = 0.01
    path = with_labels(head, nearly)
    with refuses("E-LAB-002", 3, head.folder):
        read_labels(path)


LARGE = [
    pytest.param([0, 2035, 70000, 16777217], np.int32, id="L03"),
    pytest.param([0, 2035, 70000, 2**31 - 1], np.int64, id="L03-int64"),
    pytest.param([0, 3_000_000_000], np.uint32, id="L03-uint32"),
    pytest.param([0, 2**40 + 1], np.int64, id="L03-beyond-int32"),
    pytest.param([0, 16777217], np.float64, id="L03-float64"),
    pytest.param([-3, 0, 255], np.int16, id="L06"),
]


@pytest.mark.parametrize(("ids", "dtype"), LARGE)
@pytest.mark.parametrize("name", ["again.nii.gz", "again.nrrd", "again.mha"])
def test_label_values_survive(ids, dtype, name, head):
    values = np.array(ids, dtype=dtype)[np.arange(head.values.size).reshape(head.values.shape) % len(ids)]
    labels = read_labels(with_labels(head, values))
    np.testing.assert_array_equal(labels.data.numpy(), values.astype(np.int64))
    assert labels.values() == sorted(ids)
    write(labels, head.folder / name)
    again = read_labels(head.folder / name)
    np.testing.assert_array_equal(again.data.numpy(), values.astype(np.int64))
    if np.dtype(dtype).kind in "iu":
        assert again.dtype == dtype


@pytest.mark.parametrize("row", ["L03-nonfinite"])
def test_nan_among_labels(row, head, refuses):
    values = three_labels(head).astype(np.float32)
    values[1, 1, 1] = np.nan
    path = with_labels(head, values)
    with refuses("E-LAB-001", 3, head.folder):
        read_labels(path)


@pytest.mark.parametrize("row", ["L04"])
def test_scaled_labels(row, head, refuses):
    path = head.patch(112, "<2f", 0.1, 0).plain()
    with refuses("E-LAB-004", 3, head.folder):
        read_labels(path)


@pytest.mark.parametrize("row", ["L04-whole"])
def test_labels_scaled_by_a_whole_number(row, head):
    labels = read_labels(head.patch(112, "<2f", 2, 1).plain())
    np.testing.assert_array_equal(labels.data.numpy(), 2 * head.values + 1)


@pytest.mark.parametrize("row", ["L05"])
def test_type_is_chosen_from_the_values(row, head):
    labels = read_labels(with_labels(head, three_labels(head).astype(np.uint8)))
    labels.data[0, 0, 0] = 2035
    write(labels, head.folder / "again.nii.gz")
    stored = nib.load(head.folder / "again.nii.gz")
    assert stored.get_data_dtype() == np.int16
    assert (stored.dataobj.slope, stored.dataobj.inter) == (1, 0)
    assert np.asarray(stored.dataobj)[0, 0, 0] == 2035


def inside(head):
    return (head.values > 300).astype(np.uint8)


@pytest.mark.parametrize("row", ["L13"])
def test_empty_mask(row, head, refuses):
    path = with_labels(head, np.zeros_like(head.values))
    with refuses("E-MSK-013", 3, head.folder):
        read_mask(path)


@pytest.mark.parametrize("row", ["L14"])
def test_mask_of_13_voxels(row, head, refuses):
    mask = np.zeros(head.values.shape, np.uint8)
    mask.ravel()[1000:1013] = 1
    path = with_labels(head, mask)
    with refuses("E-MSK-014", 5, head.folder, "13 voxels"):
        read_mask(path)


@pytest.mark.parametrize("row", ["L13-nonfinite"])
def test_nan_in_mask(row, head, refuses):
    mask = inside(head).astype(np.float32)
    mask[0, 0, 0] = np.nan
    path = with_labels(head, mask)
    with refuses("E-MSK-001", 3, head.folder):
        read_mask(path)


BINARY = [
    pytest.param(lambda mask: mask, id="L15-one"),
    pytest.param(lambda mask: mask * np.uint8(255), id="L15-255"),
    pytest.param(lambda mask: mask.astype(np.float32), id="L15-float"),
]


@pytest.mark.parametrize("form", BINARY)
def test_forms_of_a_mask(form, head):
    mask = read_mask(with_labels(head, form(inside(head))))
    np.testing.assert_array_equal(mask.data.numpy(), inside(head).astype(bool))


@pytest.mark.parametrize("row", ["L15-soft"])
def test_soft_mask(row, head, warns):
    soft = 0.9 * inside(head).astype(np.float32)
    soft[0, 0, 0] = 0.4
    with warns("W-MSK-015"):
        mask = read_mask(with_labels(head, soft))
    np.testing.assert_array_equal(mask.data.numpy(), inside(head).astype(bool))


@pytest.mark.parametrize("row", ["L15-inverted"])
def test_inverted_mask(row, head, warns):
    with warns("W-MSK-015"):
        read_mask(with_labels(head, 1 - inside(head)))


@pytest.mark.parametrize("row", ["L15-full"])
def test_mask_of_nearly_everything(row, head, warns):
    mask = np.ones((40, 40, 40), np.uint8)
    mask[0] = 0
    with warns("W-MSK-015"):
        read_mask(with_labels(head, mask))


@pytest.mark.parametrize("row", ["L16"])
def test_mask_on_another_grid(row, head, warns, refuses):
    path = with_labels(head, inside(head))
    flipped = Grid((20, 18, 16), head.affine @ np.array([[0, 0, -1, 15], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]))
    with warns("W-MSK-016"):
        mask = read_mask(path, flipped)
    assert mask.grid is flipped
    np.testing.assert_array_equal(mask.data.numpy(), inside(head).astype(bool)[::-1].transpose(2, 1, 0))
    away = head.affine.copy()
    away[0, 3] += 500
    with warns("W-MSK-016"), refuses("E-MSK-016", 3, head.folder):
        read_mask(path, Grid((16, 18, 20), away))


@pytest.mark.parametrize("row", ["L16-same"])
def test_mask_on_the_same_grid(row, head):
    path = with_labels(head, inside(head))
    mask = read_mask(path, read(head.zipped()).grid)
    np.testing.assert_array_equal(mask.data.numpy(), inside(head).astype(bool))


@pytest.mark.parametrize("row", ["L03-array"])
def test_labels_of_an_array_keep_their_type(row, head):
    labels = Labelmap.from_array(three_labels(head).astype(">u2"), head.affine, {1: "skull"})
    write(labels, head.folder / "again.nii.gz")
    assert nib.load(head.folder / "again.nii.gz").get_data_dtype() == np.uint16
