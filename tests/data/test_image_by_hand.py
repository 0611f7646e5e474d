"""What the boundary types promise, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anamorph.data.image import Image, Labelmap, Landmarks, Mask, ReadPolicy
from anamorph.errors import AnamorphError, InputError
from anamorph.spatial.grid import Grid

GRID = Grid((2, 3, 4), np.diag([1, 2, 3, 1]))


def test_array_becomes_channels_first_float32():
    image = Image.from_array(np.arange(24).reshape(2, 3, 4), GRID.affine, "ct", name="scan.nii")
    assert (image.data.shape, image.data.dtype) == ((1, 2, 3, 4), torch.float32)
    assert (image.grid.shape, image.modality, image.name, image.valid) == ((2, 3, 4), "ct", "scan.nii", None)
    two = Image.from_array(np.zeros((2, 2, 3, 4)), GRID.affine)
    assert two.data.shape == (2, 2, 3, 4)


def test_2d_follows_from_the_affine():
    assert Image.from_array(np.zeros((5, 6)), np.eye(3)).grid.shape == (5, 6)


def test_nonfinite_voxels_hold_the_finite_minimum():
    values = np.array([[1.0, np.nan], [np.inf, -3.0]])
    with pytest.warns(match="W-VAL-001: 2 of 4"):
        image = Image.from_array(values, np.eye(3))
    assert image.data.tolist() == [[[1, -3], [-3, -3]]]
    assert image.valid is not None
    assert image.valid.tolist() == [[True, False], [False, True]]


WRONG_IMAGES = [
    (lambda: Image(torch.zeros(1, 2, 3, 5), GRID), "E-VAL-015", "grid of shape"),
    (lambda: Image(torch.zeros(0, 2, 3, 4), GRID), "E-VAL-015", "channels"),
    (lambda: Image(torch.zeros(1, 1, 2, 3, 4), GRID), "E-VAL-015", "axis 0 .* batch"),
    (lambda: Image(torch.zeros(9, 3, 4, 2), Grid((9, 3, 4), np.eye(4))), "E-VAL-015", "axis 3 .* channels"),
    (lambda: Image(torch.full((1, 2, 3, 4), torch.nan), GRID), "E-VAL-001", "NaN"),
    (lambda: Image.from_array(np.zeros((2, 3)), np.eye(2)), "E-GEO-006", "3 x 3"),
    (lambda: Image.from_array(np.zeros((2, 3, 4)), np.diag([1, 1, 0, 1])), "E-GEO-006", "singular"),
    (lambda: Image.from_array(np.full((2, 3, 4), "a"), np.eye(4)), "E-VAL-008", "type"),
    (lambda: Labelmap(torch.zeros(2, 3, 4, dtype=torch.int32), Grid((2, 3), np.eye(3))), "E-VAL-015", "grid of shape"),
    (lambda: Labelmap.from_array(np.full((2, 2), 1e30), np.eye(3)), "E-LAB-003", "labels from"),
    (lambda: Mask(torch.zeros(2, 3, dtype=torch.bool), GRID), "E-VAL-015", "grid of shape"),
    (lambda: Landmarks(np.zeros((3, 4))), "E-LMK-018", "N x 2"),
    (lambda: Landmarks(np.array([[0.0, 0, 0], [np.nan, 0, 0]])), "E-LMK-018", "landmark 1 "),
    (lambda: Landmarks(np.zeros((3, 3)), ("a",)), "E-LMK-020", "1 names for 3"),
]


@pytest.mark.parametrize(("make", "code", "message"), WRONG_IMAGES)
def test_refused(make, code, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert caught.value.code == code
    assert isinstance(caught.value, AnamorphError)


@pytest.mark.parametrize(("top", "dtype"), [(2**31 - 1, torch.int32), (2**31, torch.int64), (2**63 - 1, torch.int64)])
def test_labels_take_the_narrower_type(top, dtype):
    labels = Labelmap.from_array(np.array([[0, top]], dtype=np.uint64), np.eye(3), {top: "last"})
    assert labels.data.dtype == dtype
    assert labels.values() == [0, top]
    assert labels.names == {top: "last"}


def test_landmarks_are_numbered_where_unnamed_and_never_change():
    source = np.array([[1, 2, 3], [4, 5, 6]])
    landmarks = Landmarks(source.astype(float))
    assert landmarks.names == ("1", "2")
    assert len(landmarks) == 2
    with pytest.raises(ValueError, match="read-only"):
        landmarks.points[0, 0] = 9


def test_policy_of_a_plain_read():
    policy = ReadPolicy()
    assert (policy.xform, policy.strict, policy.nonfinite, policy.volume, policy.max_bytes) == (
        "auto",
        False,
        "mask",
        None,
        None,
    )
