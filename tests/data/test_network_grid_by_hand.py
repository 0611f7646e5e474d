"""The network's grid, and images on it, worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from anamorph.data.image import Image, Labelmap, Mask
from anamorph.data.network_grid import (
    counted_as,
    image_to_network,
    labels_to_native,
    labels_to_network,
    mask_to_network,
    middle_of,
    network_grid,
    network_transform,
)
from anamorph.data.plan import Intensity, Plan
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine

AS_THEY_ARE = {"t1": Intensity(kind="none")}


def plan_of(shape: tuple[int, ...], spacing: tuple[float, ...], **more) -> Plan:
    given = {"orientation": "RAS"[: len(shape)], "modalities": AS_THEY_ARE} | more
    return Plan(shape=shape, spacing=spacing, **given)


def test_grid_is_centred_in_spacing_orientation_and_shape() -> None:
    image = Image.from_array(np.zeros((4, 6)), np.diag([3.0, 2, 1]), "t1")  # middle (4.5, 5)
    grid = network_grid(image, plan_of((5, 3), (1.0, 4.0)))
    np.testing.assert_allclose(grid.affine, [[1, 0, 2.5], [0, 4, 1], [0, 0, 1]])
    turned = network_grid(image, plan_of((5, 3), (1.0, 4.0), orientation="PR"))
    np.testing.assert_allclose(turned.affine, [[0, 4, 0.5], [-1, 0, 7], [0, 0, 1]])
    assert turned.shape == (5, 3)


def test_equal_spacing_meets_the_images_voxels() -> None:
    image = Image.from_array(np.arange(12.0).reshape(3, 4), np.diag([-1.0, 2, 1]), "t1")
    plan = plan_of((6, 5), (1.0, 2.0))
    grid = network_grid(image, plan)
    # Axis 0 runs the other way; three voxels in six leave two on one side and one on the other.
    expected = torch.zeros(6, 5)
    expected[1:4, 0:4] = torch.arange(12.0).view(3, 4).flip(0)
    found = image_to_network(image, plan, grid)[0]
    rows = [row for row in range(6) if found[row].max() > 1]
    assert len(rows) == 3
    corner = grid.to_voxel(image.grid.to_world(np.array([2, 0])))
    np.testing.assert_allclose(corner, np.rint(corner), atol=1e-9)
    start = [int(n) for n in np.rint(corner)]
    torch.testing.assert_close(
        found[start[0] : start[0] + 3, start[1] : start[1] + 4], torch.arange(12.0).view(3, 4).flip(0)
    )


def test_outside_the_image_is_its_background() -> None:
    values = np.full((4, 4), 100.0)
    values[0] = -1000
    image = Image.from_array(values, np.eye(3), "ct")
    for intensity, outside in ((Intensity(kind="none"), -1000), (Intensity(kind="window", low=-1000, high=100), 0)):
        plan = plan_of((8, 8), (1.0, 1.0), modalities={"ct": intensity})
        found = image_to_network(image, plan, network_grid(image, plan))[0]
        assert float(found[-1, -1]) == pytest.approx(outside)
        assert float(found[0, 0]) == pytest.approx(outside)


def test_voxels_that_are_not_valid_take_no_part() -> None:
    values = np.full((1, 6), 5.0)
    values[0, 2] = np.nan
    with pytest.warns(match="W-VAL-001"):
        image = Image.from_array(np.repeat(values, 6, 0), np.eye(3), "t1")
    plan = plan_of((3, 3), (2.0, 2.0))
    found = image_to_network(image, plan, network_grid(image, plan))
    torch.testing.assert_close(found, torch.full((1, 3, 3), 5.0))


def test_coarse_voxels_hold_means_rather_than_a_pattern() -> None:
    checkers = np.indices((32, 32)).sum(0) % 2 * 1.0
    image = Image.from_array(checkers, np.eye(3), "t1")
    plan = plan_of((7, 7), (4.0, 4.0))
    found = image_to_network(image, plan, network_grid(image, plan))
    assert float((found - 0.5).abs().max()) < 0.02


def test_content_stands_in_the_middle() -> None:
    values = np.zeros((80, 60))
    values[48:69, 6:21] = 100 + np.arange(15)
    values[0, 59] = 1e6
    image = Image.from_array(values, np.diag([2.0, 1, 1]), "t1")
    plan = plan_of((8, 8), (2.0, 1.0), centre="content")
    np.testing.assert_allclose(middle_of(image, plan), [116, 13])
    np.testing.assert_allclose(network_grid(image, plan).centre, [116, 13], atol=1.01)
    flat = Image.from_array(np.full((5, 5), 7.0), np.eye(3))
    np.testing.assert_allclose(middle_of(flat, plan), [2, 2])


def test_a_given_middle_wins() -> None:
    image = Image.from_array(np.zeros((4, 4)), np.eye(3), "t1")
    plan = plan_of((4, 4), (1.0, 1.0), middle=(10.25, -3.0), alignment="given")
    np.testing.assert_allclose(network_grid(image, plan).centre, [10.25, -3])
    shift = np.eye(3)
    shift[0, 2] = 100
    np.testing.assert_allclose(network_grid(image, plan, Affine(shift)).centre, [110.25, -3])
    np.testing.assert_allclose(network_grid(image, plan, Affine(shift), middle=np.zeros(2)).centre, [100, 0])


def test_an_offset_comes_on_top_of_any_middle_but_one_that_is_asked_for() -> None:
    image = Image.from_array(np.zeros((5, 5)), np.diag([2.0, 2, 1]), "t1")  # middle (4, 4)
    turned = Affine(np.array([[0.0, -1, 100], [1, 0, 0], [0, 0, 1]]))  # reference (x, y) -> image (100 - y, x)
    own, given = (
        plan_of((3, 3), (2.0, 2.0), offset=(20.0, -6.0), **more)
        for more in ({}, {"middle": (10.0, 3.0), "alignment": "given"})
    )
    np.testing.assert_allclose(network_grid(image, own).centre, [24, -2])
    np.testing.assert_allclose(network_grid(image, own, turned).centre, [4 + 6, 4 + 20])
    np.testing.assert_allclose(network_grid(image, given, turned).centre, [100 - (3 - 6), 10 + 20])
    np.testing.assert_allclose(network_grid(image, given, middle=np.ones(2)).centre, [1, 1])


def test_labels_become_classes_and_come_back_with_value_name_and_type() -> None:
    affine = np.eye(3)
    values = np.array([[0, 2035, 2035, 0], [7, 7, 0, 0], [9, 9, 0, 0]])
    labels = Labelmap.from_array(values.astype(np.uint16), affine)
    plan = plan_of((3, 4), (1.0, 1.0), labels={2035: "left", 7: "right"})
    grid = Grid((3, 4), affine)
    classes = labels_to_network(labels, plan, grid)
    assert classes.tolist() == [[0, 1, 1, 0], [2, 2, 0, 0], [0, 0, 0, 0]]  # 9 is none of the plan's
    probabilities = torch.nn.functional.one_hot(classes, 3).permute(2, 0, 1).float()
    back = labels_to_native(probabilities, plan, grid, Grid((5, 4), affine))
    assert back.data.tolist() == [[0, 2035, 2035, 0], [7, 7, 0, 0], [0, 0, 0, 0], [0] * 4, [0] * 4]
    assert (back.dtype, back.names) == (np.dtype(np.int16), {2035: "left", 7: "right"})
    small = labels_to_native(probabilities, plan_of((3, 4), (1.0, 1.0), labels={1: "a", 2: "b"}), grid, grid)
    assert small.dtype == np.dtype(np.uint8)
    with pytest.raises(ValueError, match="2 probabilities for 2 labels"):
        labels_to_native(probabilities[:2], plan, grid, grid)


def test_a_label_that_counts_as_another_is_one_with_it() -> None:
    """A hole of 2 in the 1: filled where 2 counts as 1, and without a seam where the network's voxels are larger."""
    values = np.ones((8, 8), np.uint8)
    values[2:6, 2:6] = 2
    values[:, 0] = 0
    labels = Labelmap.from_array(values, np.eye(3))
    whole = plan_of((8, 8), (1.0, 1.0), labels={1: "liver"}, learn_as={2: 1})
    assert torch.equal(labels_to_network(labels, whole, labels.grid), torch.from_numpy((values > 0).astype(np.int64)))
    hole = plan_of((8, 8), (1.0, 1.0), labels={1: "liver"})
    assert torch.equal(labels_to_network(labels, hole, labels.grid), torch.from_numpy((values == 1).astype(np.int64)))
    coarse = Grid((4, 4), np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]))
    filled = Labelmap.from_array((values > 0).astype(np.uint8), np.eye(3))
    assert torch.equal(labels_to_network(labels, whole, coarse), labels_to_network(filled, hole, coarse))


def test_values_that_count_as_others() -> None:
    values = np.array([0, 1, 2, 3, 200], np.uint8)
    assert counted_as(values, {}) is values
    assert counted_as(values, {2: 1, 200: 3}).tolist() == [0, 1, 1, 3, 3]
    assert counted_as(values, {2: 1000}).tolist() == [0, 1, 1000, 3, 200], "a value that bytes cannot hold"
    assert counted_as(values, {1: 2, 2: 3}).tolist() == [0, 2, 3, 3, 200], "once, and not one after the other"
    assert values.tolist() == [0, 1, 2, 3, 200]


def test_l03_labels_beyond_float32_and_int32_survive() -> None:
    big = [16777217, 2**40 + 1]
    labels = Labelmap.from_array(np.array([big, big[::-1]]), np.eye(3))
    plan = plan_of((2, 2), (1.0, 1.0), labels={value: "" for value in big})
    classes = labels_to_network(labels, plan, labels.grid)
    probabilities = torch.nn.functional.one_hot(classes, 3).permute(2, 0, 1).float()
    back = labels_to_native(probabilities, plan, labels.grid, labels.grid)
    assert torch.equal(back.data, labels.data)
    assert back.dtype == np.dtype(np.int64)


def test_a_tie_goes_to_the_lower_class_and_the_background() -> None:
    plan = plan_of((1, 1), (1.0, 1.0), labels={1: "", 2: ""})
    labels = Labelmap.from_array(np.array([[1, 2], [0, 0]]), np.eye(3))
    between = Grid((1, 1), np.array([[1, 0, 0], [0, 1, 0.5], [0, 0, 1.0]]))
    assert labels_to_network(labels, plan, between).item() == 1
    below = Grid((1, 1), np.array([[1, 0, 0.5], [0, 1, 1], [0, 0, 1.0]]))
    assert labels_to_network(labels, plan, below).item() == 0


def test_no_labels_in_the_plan_is_all_background() -> None:
    labels = Labelmap.from_array(np.array([[1, 2], [0, 3]]), np.eye(3))
    assert labels_to_network(labels, plan_of((2, 2), (1.0, 1.0)), labels.grid).tolist() == [[0, 0], [0, 0]]


def test_masks_keep_what_is_more_than_half_inside() -> None:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    found = mask_to_network(mask, Grid((8, 8), np.eye(3)), Grid((4, 4), np.diag([2.0, 2, 1])))
    assert found.sum(1).tolist() == [4, 4, 0, 0]


def test_mask_content_reaches_the_intensity() -> None:
    image = Image.from_array(np.arange(16.0).reshape(4, 4), np.eye(3), "t1")
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[1] = True  # 4 to 7
    plan = plan_of((4, 4), (1.0, 1.0), modalities={"t1": Intensity(low=0, high=100, content="mask")})
    found = image_to_network(image, plan, image.grid, Mask(inside, image.grid))[0]
    assert found[0].tolist() == [0] * 4
    assert found[1].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found[2].tolist() == [1] * 4


def test_transform_of_no_displacement_joins_the_two_grids() -> None:
    fixed, moving = Grid((3, 3), np.diag([2.0, 2, 1])), Grid((3, 3), np.array([[0, 3.0, 1], [-3, 0, 5], [0, 0, 1]]))
    chain = network_transform(torch.zeros(2, 3, 3), fixed, moving)
    voxels = np.array([[0.0, 0], [1, 2], [2, 0.5]])
    np.testing.assert_allclose(chain(fixed.to_world(voxels)), moving.to_world(voxels))


WRONG = [
    (plan_of((4, 4, 4), (1.0, 1.0, 1.0)), "E-COH-041", "a 2-D image"),
    (plan_of((4, 4), (1.0, 1.0), modalities={"ct": Intensity(), "t2": Intensity()}), "E-COH-042", "ct or t2"),
    (plan_of((4, 4), (1.0, 1.0), channels=2), "E-COH-043", "1 channels"),
]


@pytest.mark.parametrize(("plan", "code", "match"), WRONG)
def test_what_the_plan_was_not_made_for_is_refused(plan, code, match) -> None:
    image = Image.from_array(np.zeros((4, 4)), np.eye(3), "t1", name="scan.nii")
    with pytest.raises(InputError, match=match) as caught:
        image_to_network(image, plan, network_grid(image, plan))
    assert caught.value.code == code
    assert "scan.nii" in str(caught.value)


def test_without_a_modality_the_only_intensity_holds() -> None:
    image = Image.from_array(np.arange(4.0).reshape(2, 2), np.eye(3))
    plan = plan_of((2, 2), (1.0, 1.0))
    torch.testing.assert_close(image_to_network(image, plan, image.grid), image.data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"orientation": "RR"},
        {"orientation": "RS"},
        {"orientation": "RX"},
        {"middle": (1.0, 2.0, 3.0)},
        {"labels": {0: "air"}},
        {"alignment": "reference"},
        {"spacing": (0.0, 1.0)},
    ],
)
def test_impossible_plans_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        Plan(**({"orientation": "RA", "shape": (2, 2), "spacing": (1.0, 1.0), "modalities": AS_THEY_ARE} | wrong))
