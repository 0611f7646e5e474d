"""Surface distances of boxes whose surfaces can be counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anamorph.evaluation.surface import label_surface, normalised_surface_dice, region_distances, surface_distances

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


def test_averages_in_one_direction_and_balanced():
    truth = box((2, 2, 2), (5, 5, 5))  # 26 surface voxels
    predicted = truth | box((10, 3, 3), (11, 4, 4))  # and one that is 6 mm away
    distances = surface_distances(truth, predicted, (1.0, 1.0, 1.0))
    assert distances.asd_mm == pytest.approx(6 / 27)  # from the prediction to the truth
    assert distances.assd_mm == pytest.approx(6 / (26 + 27))
    assert distances.assd_balanced_mm == pytest.approx(6 / 27 / 2)
    assert surface_distances(predicted, truth, (1.0, 1.0, 1.0)).asd_mm == 0


def test_regions_do_not_count_depth():
    # A full cube and its shell share their surface, but the middle of the cube is 3 mm away from the shell.
    full, inner = box((2, 2, 2), (9, 9, 9)), box((3, 3, 3), (8, 8, 8))
    shell = full & ~inner
    regions = region_distances(full, shell, (1.0, 1.0, 1.0))
    assert regions.hd_mm == 3  # the centre voxel to the nearest of the shell
    depth = 1 * (5**3 - 3**3) + 2 * (3**3 - 1) + 3
    assert regions.average_hd_mm == pytest.approx(depth / 7**3 / 2)
    assert surface_distances(full, shell, (1.0, 1.0, 1.0)).hd_mm == 0


@pytest.mark.parametrize(("a", "b", "expected"), [(0, 0, math.nan), (1, 0, math.inf), (0, 1, math.inf), (1, 1, 0.0)])
def test_regions_that_are_empty(a, b, expected):
    masks = [np.full((3, 4), bool(filled)) for filled in (a, b)]
    regions, surfaces = region_distances(*masks, (1.0, 2.0)), surface_distances(*masks, (1.0, 2.0))
    for value in (regions.hd_mm, regions.average_hd_mm, surfaces.asd_mm, surfaces.assd_balanced_mm):
        assert value == pytest.approx(expected, nan_ok=True)


def test_every_distance_of_every_label_and_its_mean():
    labels = np.zeros((12, 12), np.int64)
    labels[2:4, 2:4], labels[8:10, 2:4] = 1, 2
    warped = np.where(labels == 1, 1, np.roll(labels, 2, 1) * (np.roll(labels, 2, 1) == 2))
    rows = label_surface(labels, warped, (1.0, 0.5), tolerance_mm=0.5, every=True)
    found = {(row.metric, row.label): row.value for row in rows}
    metrics = {metric for metric, label in found if label}
    for metric in metrics - {"nsd_0.5mm"}:
        assert found[metric, "1"] == 0
        assert found[metric, "2"] > 0
        assert found[metric.replace("_mm", "_mean_mm"), ""] == found[metric, "2"] / 2
    assert found["hd_mm", "2"] == found["hd95_mm", "2"] == found["region_hd_mm", "2"] == 1
    assert found["nsd_0.5mm_mean", ""] == (1 + found["nsd_0.5mm", "2"]) / 2


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
    with pytest.raises(ValueError, match="do not agree"):
        region_distances(a, a[1:], SPACING)
