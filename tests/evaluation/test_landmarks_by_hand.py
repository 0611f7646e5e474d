"""Target registration errors of points that can be measured with a ruler."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.comparison import compare
from anamorph.evaluation.landmarks import landmark_scores, structure_errors, target_registration_error_mm
from anamorph.evaluation.scores import Score, of_case

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


def test_the_error_of_a_structure_is_the_mean_of_its_landmarks():
    names = ["dome", "hilum", "tip", "navel"]
    moved = {"still": OFF, "worse": OFF + np.array([0, 0, 6]), "lost": np.full((4, 3), np.nan)}
    rows = [
        row
        for method, off in moved.items()
        for case, known in (("a", 4), ("b", 1))  # b has the dome alone
        for row in of_case(
            landmark_scores(FIXED[:known], FIXED[:known] + np.nan_to_num(off)[:known],
                            lambda points, off=off: points * (np.nan if np.isnan(off).any() else 1), names[:known]),
            case, method,
        )
    ]  # fmt: skip
    found = structure_errors(rows, {"liver": ["dome", "tip"], "skin": ["navel"]})
    assert {(row.metric, row.unit) for row in found} == {("tre_mm", "mm")}
    values = {(row.method, row.case, row.label): row.value for row in found}
    assert values["still", "a", "liver"] == (5 + 1) / 2
    assert values["still", "b", "liver"] == 5
    assert ("still", "b", "skin") not in values
    assert values["worse", "a", "liver"] == pytest.approx((np.sqrt(61) + 7) / 2)
    assert np.isnan(values["lost", "a", "liver"])
    assert {row.reason for row in found if row.method == "lost"} == {"the transform maps it to no finite point"}
    (column,) = compare([*rows, *found], metrics=["tre_mm"], labels=["liver"], reference="worse").leading
    assert column.title.endswith(", liver")
    assert column.cells["still"].summary.mean == pytest.approx((3 + 5) / 2)
    assert column.cells["still"].challenges
    with pytest.raises(ConfigurationError, match=r"E-EVA-004: the scores have no landmark 'tail'.*dome, hilum"):
        structure_errors(rows, {"liver": ["dome", "tail"]})
    assert structure_errors([Score("dice", 1.0, case="a", method="still")], {}) == []
