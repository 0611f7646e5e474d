"""Slices: the right ones, the right way up, from any order of axes."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform

from anamorph.report.planes import Display, Plane, choose_planes

RAS = np.array([[0, 1], [1, 1], [2, 1]])
SHAPE = (4, 5, 6)
AFFINE = np.array([[2.0, 0, 0, -10], [0, 3, 0, 20], [0, 0, 4, 5], [0, 0, 0, 1]])
ORDERS = [
    np.array([[axis, flip] for axis, flip in zip(axes, flips, strict=True)])
    for axes in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def marked() -> np.ndarray:
    """RAS order; 1 at the right anterior superior corner, 2 at the left posterior inferior one."""
    volume = np.zeros(SHAPE, np.int16)
    volume[-1, -1, -1], volume[0, 0, 0] = 1, 2
    return volume


@pytest.mark.parametrize(
    ("axis", "index", "corner", "value"),
    [(2, 5, (0, 0), 1), (1, 4, (0, 0), 1), (0, 3, (0, 0), 1), (2, 0, (-1, -1), 2), (1, 0, (-1, -1), 2)],
)
def test_right_is_left_and_anterior_and_superior_are_on_top(
    axis: int, index: int, corner: tuple[int, int], value: int
) -> None:
    picture = Plane("any", axis, index, Display(SHAPE, AFFINE)).cut(marked())
    assert picture[corner] == value
    assert np.count_nonzero(picture) == 1


@pytest.mark.parametrize(
    ("axis", "letters", "size_mm"),
    [(2, "RLAP", (8, 15)), (1, "RLSI", (8, 24)), (0, "APSI", (15, 24))],
)
def test_letters_and_size(axis: int, letters: str, size_mm: tuple[int, int]) -> None:
    plane = Plane("any", axis, 0, Display(SHAPE, AFFINE))
    assert "".join(plane.letters or ()) == letters
    assert plane.size_mm == size_mm


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: str(order.tolist()))
def test_any_order_of_axes_gives_the_same_pictures(order: np.ndarray) -> None:
    reference = np.random.default_rng(0).integers(0, 99, SHAPE)
    stored = apply_orientation(reference, ornt_transform(RAS, order))
    affine = AFFINE @ inv_ornt_aff(ornt_transform(RAS, order), SHAPE)
    straight, turned = Display(SHAPE, AFFINE), Display(stored.shape, affine)
    np.testing.assert_allclose(turned.turned_affine, AFFINE, atol=1e-12)
    for axis in range(3):
        expected, found = Plane("any", axis, 2, straight), Plane("any", axis, 2, turned)
        np.testing.assert_array_equal(found.cut(stored), expected.cut(reference))
        assert found.caption == expected.caption


def test_the_caption_gives_the_world_position() -> None:
    assert Plane("Axial", 2, 3, Display(SHAPE, AFFINE)).caption == "z = 17.0 mm, slice 4 of 6"


def test_slices_go_where_the_labels_are() -> None:
    labels = np.zeros((30, 30, 30), int)
    labels[5:8, 4:20, 10:12] = 1
    labels[6, 10, 11] = 2
    planes = choose_planes(Display(labels.shape, np.eye(4)), [labels], None)
    assert [(plane.name, plane.index) for plane in planes] == [("Axial", 11), ("Coronal", 10), ("Sagittal", 6)]


def test_without_labels_slices_go_through_the_middle_of_what_is_bright() -> None:
    image = np.zeros((11, 12, 13), np.float32)
    image[2:5, 6:9, 4:7] = 100
    image[0, 0, 0] = np.nan
    planes = choose_planes(Display(image.shape, np.eye(4)), [], image)
    assert [plane.index for plane in planes] == [5, 7, 3]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_constant_image_is_cut_in_the_middle(value: float) -> None:
    image = np.full((11, 12, 13), value, np.float32)
    assert [p.index for p in choose_planes(Display(image.shape, np.eye(4)), [], image)] == [6, 6, 5]


def test_the_crop_keeps_positions_in_the_world() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[10:20, 15:25, 20:30] = True
    display = Display(mask.shape, np.diag([1, 1, 2.0, 1])).cropped_to([mask])
    assert display.crop == ((8, 21), (13, 26), (18, 31))
    assert display.turned_shape == (14, 14, 14)
    np.testing.assert_allclose(display.turned_affine[:3, 3], (8, 13, 36))
    assert Plane("Axial", 2, 2, display).caption == "z = 40.0 mm, slice 21 of 40"
    assert Plane("Axial", 2, 2, display).cut(mask).sum() == 100


def test_an_empty_mask_crops_nothing() -> None:
    display = Display(SHAPE, AFFINE).cropped_to([np.zeros(SHAPE, bool)])
    assert display.turned_shape == SHAPE


def test_2d_has_one_picture_without_sides() -> None:
    image = np.arange(12.0).reshape(3, 4)
    (plane,) = choose_planes(Display((3, 4), np.diag([2.0, 1, 1])), [], image)
    assert plane.letters is None
    assert plane.caption == ""
    assert plane.size_mm == (6, 4)
    np.testing.assert_array_equal(plane.cut(image), image[::-1, ::-1].T)
