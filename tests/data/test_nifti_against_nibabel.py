"""What we read is what nibabel reads, and what we write nibabel reads as it was."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap

VALUES = np.random.default_rng(0).integers(-1000, 3000, (5, 6, 7)).astype(np.int16)
TURN = nib.quaternions.quat2mat([0.8, 0.3, -0.2, 0.4])
DIRECTIONS = {
    "straight": np.diag([0.7, 1.1, 3.0]),
    "oblique": TURN @ np.diag([0.7, 1.1, 3.0]),
    "sheared": TURN @ np.array([[0.7, 0.3, 0], [0, 1.1, 0.2], [0, 0, 3.0]]),
}
AXES = [
    np.diag(signs)[:, order].astype(float) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def affine_of(direction, axes):
    return nib.affines.from_matvec(DIRECTIONS[direction] @ axes, [12.5, -40.25, 81.0])


@pytest.mark.parametrize("axes", AXES, ids=lambda axes: "".join(nib.aff2axcodes(nib.affines.from_matvec(axes))))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_there_and_back_over_48_axis_orders(direction, axes, tmp_path):
    theirs = nib.Nifti1Image(VALUES, affine_of(direction, axes))
    nib.save(theirs, tmp_path / "theirs.nii")
    ours = read(tmp_path / "theirs.nii")
    np.testing.assert_array_equal(ours.data[0].numpy(), VALUES)
    np.testing.assert_allclose(ours.grid.affine, nib.load(tmp_path / "theirs.nii").affine, atol=1e-6)
    write(ours, tmp_path / "ours.nii.gz")
    again = nib.load(tmp_path / "ours.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(), VALUES)
    np.testing.assert_allclose(again.affine, theirs.affine, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_header_that_is_written(direction, tmp_path):
    write(Image.from_array(VALUES, affine_of(direction, np.eye(3))), tmp_path / "image.nii.gz")
    header = nib.load(tmp_path / "image.nii.gz").header
    qform, qform_code = header.get_qform(coded=True)
    sform, sform_code = header.get_sform(coded=True)
    assert sform_code == 1
    if direction == "sheared":
        assert qform_code == 0
    else:
        assert qform_code == 1
        np.testing.assert_allclose(qform, sform, atol=1e-5)
    raw = nib.Nifti1Header.from_fileobj(nib.openers.ImageOpener(tmp_path / "image.nii.gz"), check=False)
    assert raw["descrip"] == raw["aux_file"] == raw["intent_name"] == b""
    assert (raw["scl_slope"], raw["scl_inter"]) == (1, 0)
    assert raw.get_xyzt_units()[0] == "mm"
    assert raw.get_data_dtype() == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_scaled_integers(dtype, tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    nib.save(
        nib.Nifti1Image(np.random.default_rng(1).normal(size=(4, 5, 40)) * 300, np.eye(4), header), tmp_path / "a.nii"
    )
    theirs = nib.load(tmp_path / "a.nii")
    assert theirs.dataobj.slope != 1
    np.testing.assert_array_equal(read(tmp_path / "a.nii").data[0].numpy(), theirs.get_fdata().astype(np.float32))


def test_long_axis_becomes_the_second_version(tmp_path):
    values = np.arange(40000 * 2 * 2, dtype=np.int32).reshape(40000, 2, 2)
    write(Labelmap.from_array(values, np.eye(4)), tmp_path / "long.nii.gz")
    theirs = nib.load(tmp_path / "long.nii.gz")
    assert isinstance(theirs, nib.Nifti2Image)
    np.testing.assert_array_equal(np.asarray(theirs.dataobj), values)
    np.testing.assert_array_equal(read_labels(tmp_path / "long.nii.gz").data.numpy(), values)
