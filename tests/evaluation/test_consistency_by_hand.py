"""Maps that undo each other up to a known miss, and Atlas-ISTN's twice deformed grid, written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from anamorph.evaluation.consistency import (
    inverse_consistency_scores,
    masked_inverse_consistency_error,
    there_and_back,
)

ATLAS, SUBJECT = np.diag([1.0, 2.0, 4.0, 1.0]), np.diag([1.5, 1.5, 1.5, 1.0])
SHIFT, MISS = np.array([2.0, -2.0, 4.0]), np.array([0.6, 0.0, 3.2])


def constant(vector, shape):
    return np.broadcast_to(np.reshape(vector, (-1, *[1] * len(shape))), (len(vector), *shape)).astype(float)


def ball(shape, radius=0.5):
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    return np.linalg.norm(place, axis=0) < radius


def maps(shape=(8, 8, 8), subject_shape=(40, 40, 60)):
    origin = SUBJECT.copy()
    origin[:3, 3] = -15
    return constant(SHIFT, shape), ATLAS, constant(MISS - SHIFT, subject_shape), origin


def test_a_known_miss_in_mm_and_in_voxels_of_the_atlas():
    voxels, mm, lost = masked_inverse_consistency_error(ball((8, 8, 8)), *maps())
    assert mm == pytest.approx(np.linalg.norm(MISS))
    assert voxels == pytest.approx(np.linalg.norm([0.6, 0.0, 0.8]))  # 3.2 mm along axis 2 are 0.8 voxels of 4 mm
    assert lost == 0


def test_oblique_axes_do_not_matter():
    turn = np.eye(4)
    turn[:3, :3] = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    forward, affine, backward, back_affine = maps()
    turned = [np.einsum("ab,b...->a...", turn[:3, :3], u) for u in (forward, backward)]
    found = masked_inverse_consistency_error(ball((8, 8, 8)), turned[0], turn @ affine, turned[1], turn @ back_affine)
    assert found == pytest.approx(masked_inverse_consistency_error(ball((8, 8, 8)), *maps()))


def test_voxels_that_leave_the_other_grid_are_counted_and_told():
    mask = np.zeros((6, 4), bool)
    mask[1:, 1] = True
    there, back = constant([2.0, 0.0], (6, 4)), constant([-2.0, 0.0], (6, 4))
    voxels, mm, lost = masked_inverse_consistency_error(mask, there, np.eye(3), back, np.eye(3))
    assert (voxels, mm, lost) == (0, 0, 2)  # from rows 4 and 5 one gets to 6 and 7, but the grid ends at 5
    rows = {row.metric: row for row in inverse_consistency_scores(mask.astype(int), there, np.eye(3), back, np.eye(3))}
    assert rows["mice_voxels"].reason == "2 of 5 voxels leave the other grid and are not counted"
    assert rows["mice_voxels"].value == 0


def test_nothing_to_look_at_and_nothing_finite():
    there = constant([0.0, 0.0], (4, 4))
    rows = inverse_consistency_scores(np.zeros((4, 4), int), there, np.eye(3), there, np.eye(3))
    assert {row.reason for row in rows if row.metric.startswith("mice")} == {"the structures are empty"}
    broken = there.copy()
    broken[0, 0, 0] = np.nan
    rows = inverse_consistency_scores(np.ones((4, 4), int), there, np.eye(3), broken, np.eye(3))
    assert {row.reason for row in rows} == {"a displacement is not finite"}
    with pytest.raises(ValueError, match="is not on the grid"):
        masked_inverse_consistency_error(np.ones((3, 4), bool), there, np.eye(3), there, np.eye(3))


@pytest.mark.parametrize("shape", [(16, 14), (10, 9, 8)])
def test_the_identity_changes_nothing(shape):
    atlas = ball(shape).astype(np.int64) * 7 + ball(shape, 0.3)
    there, affine = np.zeros((len(shape), *shape)), np.eye(len(shape) + 1)
    np.testing.assert_array_equal(there_and_back(atlas, there, affine, there, affine), atlas)
    rows = {
        (row.metric, row.label): row.value for row in inverse_consistency_scores(atlas, there, affine, there, affine)
    }
    assert rows["mice_voxels", ""] == rows["mice_mm", ""] == 0
    assert rows["ic_dice_mean", ""] == rows["ic_dice", "7"] == rows["ic_dice", "8"] == 1


def test_a_miss_of_whole_voxels_shifts_the_labels():
    atlas = np.zeros((12, 12), np.int64)
    atlas[4:8, 4:8] = 3
    there, back = constant([1.0, 0.0], (12, 12)), constant([1.0, 0.0], (12, 12))
    np.testing.assert_array_equal(there_and_back(atlas, there, np.eye(3), back, np.eye(3)), np.roll(atlas, -2, 0))
    rows = {(r.metric, r.label): r.value for r in inverse_consistency_scores(atlas, there, np.eye(3), back, np.eye(3))}
    assert rows["ic_dice", "3"] == 0.5
    assert rows["mice_voxels", ""] == 2
    only = inverse_consistency_scores(atlas, there, np.eye(3), back, np.eye(3), {3: "ball", 5: "absent"})
    assert {row.label for row in only} == {"ball", "absent", ""}


def test_the_grid_of_atlas_istn_deformed_twice():
    # G_IC = (G o inverse) o map on one grid in voxels, as the paper writes it; |G - G_IC| averaged inside the mask.
    rng, shape = np.random.default_rng(3), (14, 13, 12)
    there, back = (np.stack([gaussian_filter(rng.normal(size=shape), 2) * 8 for _ in range(3)]) for _ in range(2))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    mask = ball(shape, 0.4)
    once = np.stack([map_coordinates(g, grid + back, order=1, mode="nearest") for g in grid])
    unclamped = grid + back  # the grid is linear, so where nothing is clamped this is the same
    twice = np.stack([map_coordinates(g, grid + there, order=1, mode="nearest") for g in unclamped])
    inside = (slice(3, -3),) * 3
    np.testing.assert_allclose(once[(slice(None), *inside)], unclamped[(slice(None), *inside)])
    expected = np.linalg.norm(grid - twice, axis=0)[mask].mean()
    voxels, mm, lost = masked_inverse_consistency_error(mask, there, np.eye(4), back, np.eye(4))
    assert lost == 0
    assert voxels == mm == pytest.approx(expected)


def test_probabilities_give_the_labels_of_their_largest_class():
    shape = (16, 15)
    foreground = gaussian_filter(ball(shape).astype(float), 1.0)
    soft = np.stack([1 - foreground, 0.8 * foreground, 0.2 * foreground])
    rng = np.random.default_rng(0)
    there, back = (np.stack([gaussian_filter(rng.normal(size=shape), 2) * 6 for _ in range(2)]) for _ in range(2))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    found = there_and_back(soft, there, np.eye(3), back, np.eye(3))
    once = [map_coordinates(channel, grid + back, order=1, mode="nearest") for channel in soft]
    expected = np.argmax([map_coordinates(channel, grid + there, order=1, mode="nearest") for channel in once], 0)
    middle = (slice(3, -3),) * 2
    np.testing.assert_array_equal(found[middle], expected[middle])
    names = {row.label for row in inverse_consistency_scores(soft, there, np.eye(3), back, np.eye(3))}
    assert names == {"", "1"}  # the third class is nowhere the largest
