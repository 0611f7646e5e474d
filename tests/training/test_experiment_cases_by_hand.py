"""Which cases of an experiment are looked at, and whose images may be shown."""

from __future__ import annotations

import math
from typing import Any

import pytest

from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.training.cohort_recipe import CohortRecipe
from anamorph.training.experiment_cases import evenly, is_real, telling_cases, telling_methods

PHANTOM = {"synthesise": {"kind": "letter_b"}}
REAL = {"gather": {"layout": "splits", "folder": "letters"}}


def judged(values: dict[str, float], metric: str = "dice") -> list[Score]:
    return [Score(metric, value, case=case, method="ours") for case, value in values.items()]


@pytest.mark.parametrize(
    ("metric", "best", "worst"), [("dice", "c", "a"), ("hd_mm", "a", "c")], ids=["higher is better", "lower is better"]
)
def test_best_median_and_worst_of_the_last_method(metric: str, best: str, worst: str) -> None:
    others = [
        Score(metric, value, case=case, method="theirs") for case, value in {"a": 9.0, "b": 8.0, "c": 7.0}.items()
    ]
    found = compare([*others, *judged({"a": 0.1, "b": 0.5, "c": 0.9}, metric)])
    assert telling_cases(found) == {"best": best, "median": "b", "worst": worst}


def test_a_reference_is_shown_wherever_its_row_stands() -> None:
    rows = {"none": (0.1, 0.2), "a": (0.9, 0.8), "ours": (0.3, 0.4), "b": (0.5, 0.6), "c": (0.7, 0.6)}
    scores = [
        Score("dice", value, case=case, method=name)
        for name, values in rows.items()
        for case, value in zip("xy", values, strict=True)
    ]
    assert telling_cases(compare(scores, reference="ours")) == {"best": "y", "worst": "x"}
    assert telling_cases(compare(scores)) == {"best": "x", "worst": "y"}
    assert telling_methods(compare(scores, reference="ours"), 3) == ["a", "ours", "c"]
    assert telling_methods(compare(scores), 6) == ["a", "ours", "b", "c"]


def test_of_few_cases_each_is_shown_once() -> None:
    assert telling_cases(compare(judged({"a": 0.1, "b": 0.5}))) == {"best": "b", "worst": "a"}
    assert telling_cases(compare(judged({"a": 0.1}))) == {"best": "a"}


def test_failures_are_not_among_them() -> None:
    scores = [*judged({"a": 0.1, "b": 0.5}), Score("dice", math.nan, reason="why not", case="c", method="ours")]
    assert telling_cases(compare(scores)) == {"best": "b", "worst": "a"}
    assert telling_cases(compare(scores[2:])) == {}


@pytest.mark.parametrize(
    ("recipe", "real"),
    [
        (PHANTOM, False),
        (REAL, True),
        ({**PHANTOM, "more": {"other": REAL}}, True),
        ({**REAL, "more": {"other": PHANTOM}}, True),
        ({**PHANTOM, "more": {"other": PHANTOM}}, False),
        ({**REAL, "remap": PHANTOM["synthesise"]}, True),
    ],
)
def test_whose_images_they_are(recipe: dict[str, Any], real: bool) -> None:
    assert is_real(CohortRecipe.model_validate(recipe)) is real


def test_names_from_the_first_to_the_last() -> None:
    assert evenly(["a", "b"], 3) == ["a", "b"]
    assert evenly([str(number) for number in range(9)], 3) == ["0", "4", "8"]
