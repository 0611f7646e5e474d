"""Target registration errors of points that can be measured with a ruler."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.errors import InputError
from anamorph.evaluation.landmarks import landmark_scores, target_registration_error_mm

FIXED = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])
OFF = np.array([[3.0, 4, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])


def test_distance_point_by_point():
    np.testing.assert_allclose(target_registration_error_mm(FIXED, FIXED + OFF), [5, 0, 1, 0])


def test_the_transform_carries_fixed_points_to_moving_points():
    shift = np.array([7.0, -2.0, 1.0])
    rows = landmark_scores(FIXED, FIXED + shift, lambda points: points + shift)
    assert all(row.value == 0 for row in rows)
    backwards = landmark_scores(FIXED, FIXED + shift, lambda points: points - shift)
    assert backwards[0].value == pytest.approx(2 * np.linalg.norm(shift))


def test_summary():
    names = ["dome", "hilum", "tip", "navel"]
    rows = landmark_scores(FIXED, FIXED + OFF, lambda points: points, names)
    found = {(row.metric, row.label): row.value for row in rows}
    assert [found["tre_mm", name] for name in names] == [5, 0, 1, 0]
    assert found["tre_mean_mm", ""] == 1.5
    assert found["tre_median_mm", ""] == 0.5
    assert found["tre_max_mm", ""] == 5
    assert found["tre_p95_mm", ""] == pytest.approx(1 + 0.85 * 4)
    assert {row.unit for row in rows} == {"mm"}


def test_one_landmark_in_two_dimensions():
    rows = landmark_scores(np.zeros((1, 2)), np.array([[3.0, 4.0]]), lambda points: points)
    assert {row.value for row in rows} == {5}


def test_lists_of_different_length_are_refused():
    with pytest.raises(InputError, match="E-LMK-020"):
        landmark_scores(FIXED, FIXED[:3], lambda points: points)
    with pytest.raises(InputError, match="E-LMK-020"):
        landmark_scores(FIXED, FIXED, lambda points: points, ["one"])
