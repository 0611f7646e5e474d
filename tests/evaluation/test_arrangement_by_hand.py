"""Scores of several files become one table, and nothing is mixed up or lost on the way."""

from __future__ import annotations

import math

import pytest

from anamorph.errors import AnamorphWarning, InputError
from anamorph.evaluation.arrangement import arrange, merge
from anamorph.evaluation.cases import failed_case
from anamorph.evaluation.scores import Score, of_case


def dice(value, case="c1", method="ours", label=""):
    return Score("dice", value, label=label, case=case, method=method, reason="" if math.isfinite(value) else "why")


def test_other_cases_and_other_methods_are_put_together():
    merged = merge([("a", [dice(0.5)]), ("b", [dice(0.6, "c2")]), ("c", [dice(0.7, method="theirs")])])
    assert merged == [dice(0.5), dice(0.6, "c2"), dice(0.7, method="theirs")]


def test_equal_scores_of_two_files_are_one():
    rows = [dice(0.5), dice(math.nan, "c2"), dice(math.inf, "c3")]
    assert len(merge([("a", rows), ("b", rows)])) == 3


def test_methods_of_one_name_with_other_scores_are_told_apart():
    with pytest.warns(AnamorphWarning, match="W-EVA-005: 'ours' has different scores of the same cases in a, b;"):
        merged = merge([("a", [dice(0.5), dice(0.2, method="none")]), ("b", [dice(0.6), dice(0.2, method="none")])])
    assert [score.method for score in merged] == ["ours (a)", "none", "ours (b)"]


def test_a_score_without_a_method_gets_the_name_of_its_file():
    assert [score.method for score in merge([("a", [dice(0.5, method="")]), ("b", [dice(0.6, method="")])])] == [
        "a",
        "b",
    ]


def test_two_scores_for_one_thing_are_refused():
    with pytest.raises(InputError, match="two scores of dice liver for case 'c1' of method 'ours'") as refusal:
        merge([("a", [dice(0.5, label="liver"), dice(0.5, label="liver")])])
    assert refusal.value.code == "E-EVA-003"
    with pytest.raises(InputError, match="E-EVA-003"):
        arrange([dice(0.5), dice(0.6)])
    with pytest.raises(InputError, match="no scores"):
        arrange(of_case(failed_case("E-REG-013: no overlap"), "c1", "ours"))


def test_means_over_labels_are_added_where_there_are_none():
    lost = Score("hd_mm", math.inf, "mm", "tumour", "empty in the result", "c1", "ours")
    rows = [
        dice(0.5, label="liver"),
        dice(0.7, label="tumour"),
        Score("hd_mm", 2.0, "mm", "liver", "", "c1", "ours"),
        lost,
    ]
    found = arrange(
        [*rows, Score("tre_mm", 1.0, "mm", "dome", "", "c1", "ours"), Score("tre_mm", 9.0, "mm", "", "", "c1", "ours")]
    )
    assert found.rows["dice_mean", ""]["ours"]["c1"].value == pytest.approx(0.6)
    distance = found.rows["hd_mean_mm", ""]["ours"]["c1"]
    assert (distance.value, distance.reason) == (math.inf, "infinite for tumour")
    assert ("tre_mean_mm", "") not in found.rows  # given for the whole image already


def test_a_mean_that_is_given_is_not_computed_again():
    given = Score("dice_mean", 0.123, case="c1", method="ours")
    assert arrange([dice(0.5, label="liver"), given]).rows["dice_mean", ""]["ours"]["c1"] == given


def test_a_mean_over_labels_that_are_nowhere_says_so():
    row = Score("dice", math.nan, "", "cyst", "empty in both images", "c1", "ours")
    assert arrange([row]).rows["dice_mean", ""]["ours"]["c1"].reason == "empty in both images"
