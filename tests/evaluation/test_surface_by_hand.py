"""Surface distances of boxes whose surfaces can be counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anamorph.evaluation.surface import label_surface, normalised_surface_dice, surface_distances

SPACING = (1.0, 2.0, 3.0)


def box(start, stop, shape=(14, 14, 14)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def test_single_voxels_are_apart_by_their_distance_in_mm():
    a, b = box((1, 1, 1), (2, 2, 2)), box((4, 3, 2), (5, 4, 3))
    distances = surface_distances(a, b, SPACING)
    expected = math.sqrt(3**2 + (2 * 2) ** 2 + (1 * 3) ** 2)
    assert distances.hd_mm == distances.hd95_mm == distances.assd_mm == pytest.approx(expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_plates_one_voxel_thick(axis):
    a = np.zeros((9, 9, 9), bool)
    a[(slice(None),) * axis + (2,)] = True
    b = np.roll(a, 4, axis)
    distances = surface_distances(a, b, SPACING)
    assert distances.hd_mm == distances.assd_mm == 4 * SPACING[axis]
    np.testing.assert_array_equal(distances.a_to_b_mm, np.full(81, 4 * SPACING[axis]))


def test_a_box_inside_another():
    outer, inner = box((2, 2, 2), (11, 11, 11)), box((4, 4, 4), (9, 9, 9))
    distances = surface_distances(outer, inner, (1.0, 1.0, 1.0))
    assert len(distances.a_to_b_mm) == 9**3 - 7**3
    assert len(distances.b_to_a_mm) == 5**3 - 3**3
    assert distances.hd_mm == pytest.approx(math.sqrt(3 * 2**2))  # corner to corner
    np.testing.assert_array_equal(distances.b_to_a_mm, 2)


def test_the_two_directions_are_kept_apart_until_the_end():
    a = box((2, 2, 2), (5, 5, 5))
    b = a | box((10, 3, 3), (11, 4, 4))
    distances = surface_distances(a, b, (1.0, 1.0, 1.0))
    assert distances.a_to_b_mm.max() == 0
    assert distances.hd_mm == 6
    assert distances.assd_mm == pytest.approx(6 / (26 + 27))
    assert distances.hd95_mm == 0


def test_a_mask_that_fills_the_image_has_its_surface_at_the_border():
    everything = np.ones((4, 5, 6), bool)
    assert len(surface_distances(everything, everything, SPACING).a_to_b_mm) == 120 - 2 * 3 * 4


def test_two_dimensions():
    a = box((2, 2), (6, 6), (12, 12))
    assert surface_distances(a, np.roll(a, 3, 1), (1.0, 0.5)).hd_mm == 1.5
    assert normalised_surface_dice(a, np.roll(a, 3, 1), (1.0, 0.5), 1.5) == 1


@pytest.mark.parametrize(("tolerance", "low", "high"), [(0.5, 0.55, 0.67), (1.5, 0.67, 0.8), (2.0, 1.0, 1.0)])
def test_normalised_surface_dice_of_a_shifted_cube(tolerance, low, high):
    # Two of six faces are 2 mm away, the four others slide along themselves but for a strip beyond the edge.
    a = box((2, 2, 2), (10, 10, 10))
    assert low <= normalised_surface_dice(a, np.roll(a, 2, 0), (1.0, 1.0, 1.0), tolerance) <= high


def test_labels_are_scored_one_by_one():
    labels = np.zeros((12, 12, 12), np.int64)
    labels[2:5, 2:5, 2:5], labels[7:10, 7:10, 7:10] = 3, 70000
    warped = np.where(labels == 3, 3, np.roll(labels, 1, 2) * (np.roll(labels, 1, 2) == 70000))
    found = {(row.label, row.metric): row.value for row in label_surface(labels, warped, SPACING, tolerance_mm=3.0)}
    assert found["3", "hd95_mm"] == 0
    assert found["70000", "hd95_mm"] == 3
    assert found["70000", "nsd_3mm"] == 1
    assert found["", "hd95_mean_mm"] == 1.5


def test_shapes_that_differ_are_refused():
    a = box((1, 1, 1), (2, 2, 2))
    with pytest.raises(ValueError, match="do not agree"):
        surface_distances(a, a[1:], SPACING)
    with pytest.raises(ValueError, match="do not agree"):
        surface_distances(a, a, (1.0, 1.0))
