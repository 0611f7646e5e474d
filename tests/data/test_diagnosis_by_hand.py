"""What is told of a file, and what a clean copy of it is."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.diagnosis import describe, fix
from anamorph.data.files import read, read_labels
from anamorph.data.image import ReadPolicy
from anamorph.errors import ConfigurationError, InputError

VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
AFFINE = np.diag([-1, 1.5, 2, 1])


def saved(tmp_path, values=VALUES, affine=AFFINE, name="scan.nii.gz", **fields):
    image = nib.Nifti1Image(values, affine)
    header = image.header
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header["scl_slope"], header["scl_inter"] = 1, 0
    for field, value in fields.items():
        header[field] = value
    raw = header.binaryblock + bytes(4) + values.astype(header.get_data_dtype()).tobytes("F")
    raw = raw[:108] + np.float32(352).tobytes() + raw[112:]
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return tmp_path / name


def codes(problems):
    return [problem.code for problem in problems]


def test_facts_of_a_healthy_file(tmp_path):
    facts = describe(saved(tmp_path))
    assert (facts.name, facts.format, facts.shape, facts.dtype) == ("scan.nii.gz", "NIfTI-1, gzip", (4, 5, 6), np.int16)
    assert facts.grid is not None
    np.testing.assert_allclose(facts.grid.spacing, [1, 1.5, 2])
    assert facts.orientation == "LAS"
    assert [(form.name, form.code) for form in facts.forms] == [("sform", 1), ("qform", 1)]
    assert facts.forms_apart == pytest.approx((0, 0), abs=1e-3)
    assert (facts.value_range, facts.nonfinite, facts.problems) == ((0.0, 119.0), 0, ())
    assert facts.readable


def test_refusal_is_told_with_what_is_known(tmp_path):
    facts = describe(saved(tmp_path, qoffset_x=30.0))
    assert codes(facts.problems) == ["E-GEO-001"]
    assert facts.problems[0].severity == "refused"
    assert not facts.readable
    assert facts.forms_apart == pytest.approx((30, 0), abs=1e-3)
    assert facts.shape == (4, 5, 6)
    assert facts.grid is None
    assert describe(tmp_path / "scan.nii.gz", ReadPolicy(xform="sform")).readable


def test_what_the_content_is_matters(tmp_path):
    values = VALUES + np.float32(0.25)
    path = saved(tmp_path, values)
    assert describe(path).readable
    assert codes(describe(path, content="labels").problems) == ["E-LAB-002"]
    assert codes(describe(path, content="mask").problems) == ["W-MSK-015", "W-MSK-015"]


def test_missing_file_is_told(tmp_path):
    facts = describe(tmp_path / "absent.nii")
    assert codes(facts.problems) == ["E-IO-001"]
    assert facts.shape == ()


def test_nonfinite_values_are_counted(tmp_path):
    values = VALUES.astype(np.float32)
    values[0, 0, :3] = np.nan
    facts = describe(saved(tmp_path, values))
    assert (facts.nonfinite, facts.value_range) == (3, (3.0, 119.0))
    assert codes(facts.problems) == ["W-VAL-001"]


FIXED = [
    ({"affine": np.diag([-0.001, 0.0015, 0.002, 1]), "xyzt_units": 1}, "W-NII-023"),
    ({"scl_slope": np.nan}, "W-NII-022"),
    ({"qoffset_x": 0.5}, "W-GEO-002"),
    ({"pixdim": [1, 0, 1.5, 2, 0, 0, 0, 0]}, "W-GEO-008"),
    ({"values": VALUES[..., None]}, "W-GEO-016"),
]


@pytest.mark.parametrize(("fault", "code"), FIXED, ids=[code for _, code in FIXED])
def test_clean_copy_has_no_problem_and_the_same_content(fault, code, tmp_path):
    path = saved(tmp_path, **fault)
    before = path.read_bytes()
    assert code in codes(describe(path).problems)
    assert code in codes(fix(path, tmp_path / "clean.nii.gz"))
    assert describe(tmp_path / "clean.nii.gz").problems == ()
    with pytest.warns(match=code):
        original = read(path)
    clean = read(tmp_path / "clean.nii.gz")
    assert clean.data.equal(original.data)
    assert clean.grid.same_as(original.grid)
    assert nib.load(tmp_path / "clean.nii.gz").get_data_dtype() == np.int16
    assert path.read_bytes() == before


def test_wrong_extension_and_trailing_bytes_are_fixed(tmp_path):
    path = saved(tmp_path, name="scan.nii")
    path.write_bytes(path.read_bytes() + b"rest")
    path = path.rename(tmp_path / "scan.nii.gz")
    assert codes(fix(path, tmp_path / "clean.nii.gz")) == ["W-NII-004", "W-NII-012"]
    assert describe(tmp_path / "clean.nii.gz").problems == ()


def test_labels_stored_as_floats_become_integers(tmp_path):
    fix(saved(tmp_path, VALUES.astype(np.float64)), tmp_path / "clean.nii.gz", content="labels")
    assert nib.load(tmp_path / "clean.nii.gz").get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_labels(tmp_path / "clean.nii.gz").data.numpy(), VALUES)


GUESSES = [
    pytest.param({"qform_code": 0, "sform_code": 0}, "E-OUT-006", id="no-orientation"),
    pytest.param({"affine": np.diag([-1e6, 1e6, 1e6, 1])}, "E-OUT-006", id="unit"),
    pytest.param({"qoffset_x": 30.0}, "E-GEO-001", id="two-places"),
    pytest.param({"values": VALUES[:, :, :1]}, "E-OUT-006", id="slice"),
]


@pytest.mark.parametrize(("fault", "code"), GUESSES)
def test_a_guess_is_never_made_a_fact(fault, code, tmp_path):
    path = saved(tmp_path, **fault)
    with pytest.raises(InputError) as caught:
        fix(path, tmp_path / "clean.nii.gz")
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_overwritten(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(ConfigurationError, match="E-OUT-016"):
        fix(path, path)
