"""Overlap of label maps small enough to count."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.evaluation.overlap import (
    MEASURES,
    dice,
    jaccard,
    label_overlap,
    precision,
    recall,
    relative_volume_difference,
    volume_similarity,
    volumetric_overlap_error,
)

A = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
B = np.array([[0, 1, 1, 1], [0, 0, 1, 1]], bool)


def test_two_of_four_and_five():
    assert dice(A, B) == 4 / 9
    assert jaccard(A, B) == 2 / 7
    assert volume_similarity(A, B) == 8 / 9


def test_a_truth_of_four_and_a_prediction_of_five():
    assert recall(A, B) == 2 / 4
    assert precision(A, B) == 2 / 5
    assert relative_volume_difference(A, B) == 5 / 4 - 1
    assert relative_volume_difference(B, A) == pytest.approx(1 - 4 / 5)
    assert volumetric_overlap_error(A, B) == 1 - 2 / 7


def test_empty_masks():
    none = np.zeros_like(A)
    for measure in (recall, precision, relative_volume_difference, volumetric_overlap_error):
        assert np.isnan(measure(none, none))
    assert np.isnan(recall(none, A))
    assert precision(none, A) == 0
    assert relative_volume_difference(none, A) == np.inf
    assert recall(A, none) == 0
    assert np.isnan(precision(A, none))
    assert relative_volume_difference(A, none) == 1
    assert volumetric_overlap_error(A, none) == volumetric_overlap_error(none, A) == 1


def test_other_measures_and_their_means():
    truth, predicted = A.astype(np.int64), B.astype(np.int64)
    rows = label_overlap(truth, predicted, measures=tuple(MEASURES), averaged=("recall", "voe"))
    found = {(row.metric, row.label): row.value for row in rows}
    assert found["precision", "1"] == precision(A, B)
    assert found["recall_mean", ""] == recall(A, B)
    assert found["voe_mean", ""] == found["voe", "1"]
    assert ("precision_mean", "") not in found


def test_apart_and_equal():
    assert dice(A, ~A) == jaccard(A, ~A) == 0
    assert volume_similarity(A, ~A) == 1
    assert dice(A, A) == jaccard(A, A) == 1


def test_one_voxel():
    one = np.zeros((3, 3, 3), bool)
    one[1, 1, 1] = True
    assert dice(one, one) == 1
    assert dice(one, np.roll(one, 1, 0)) == 0


def test_every_label_is_scored_whatever_its_number():
    fixed = np.array([[0, 7, 7], [2**40, -3, -3]])
    warped = np.array([[7, 7, 0], [2**40, -3, 5]])
    found = {(row.label, row.metric): row.value for row in label_overlap(fixed, warped)}
    assert found["7", "dice"] == 0.5
    assert found[str(2**40), "dice"] == 1
    assert found["-3", "dice"] == pytest.approx(2 / 3)
    assert found["5", "dice"] == 0
    assert found["", "dice_mean"] == pytest.approx((0.5 + 1 + 2 / 3 + 0) / 4)
    assert ("0", "dice") not in found


def test_names_choose_the_labels():
    labels = np.array([[1, 2], [3, 0]])
    rows = label_overlap(labels, labels, {2: "spleen", 9: "absent"})
    assert {row.label for row in rows} == {"spleen", "absent", ""}
    assert rows[-1].value == 1  # what is absent from both images does not weigh on the mean


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        dice(A, A[:1])
    with pytest.raises(ValueError, match="one shape"):
        label_overlap(A.astype(int), A[:1].astype(int))
