"""Maps that are off by a length that a ruler would show."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.evaluation.map_error import map_error_mm, map_error_scores


def shifted(*rows):
    """A 2-D map on 4 x 1 voxels that moves each by its own vector."""
    return np.array(rows, float).T[:, :, None]


TRUTH = shifted((0, 0), (1, 1), (2, 2), (3, 3))
FOUND = TRUTH + shifted((3, 4), (0, 0), (0, 1), (0, 0))


def test_lengths_voxel_by_voxel():
    np.testing.assert_allclose(map_error_mm(FOUND, TRUTH)[:, 0], [5, 0, 1, 0])


def test_summary():
    found = {row.metric: row.value for row in map_error_scores(FOUND, TRUTH)}
    assert found["map_error_mean_mm"] == 1.5
    assert found["map_error_median_mm"] == 0.5
    assert found["map_error_p95_mm"] == pytest.approx(1 + 0.85 * 4)


def test_only_where_the_truth_is_known_and_the_mask_looks():
    partly = TRUTH.copy()
    partly[:, 0] = np.nan
    assert {row.value for row in map_error_scores(FOUND, partly, np.array([[True], [False], [True], [False]]))} == {1}
    nowhere = map_error_scores(FOUND, partly, np.array([[True], [False], [False], [False]]))
    assert {row.reason for row in nowhere} == {"the true map is known nowhere in the mask"}


def test_a_map_that_is_not_finite_has_no_error():
    broken = FOUND.copy()
    broken[0, 2] = np.inf
    assert {row.reason for row in map_error_scores(broken, TRUTH)} == {"the displacement is not finite"}
    assert all(np.isfinite(row.value) for row in map_error_scores(broken, TRUTH, np.array([[1], [1], [0], [1]], bool)))
    with pytest.raises(ValueError, match="one shape"):
        map_error_mm(FOUND, TRUTH[:, 1:])
