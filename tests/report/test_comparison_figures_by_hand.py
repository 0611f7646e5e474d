"""Boxes, scatters, hard cases and heat of cases that were chosen to show where each belongs."""

from __future__ import annotations

import math

import pytest

from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.report.comparison_figures import (
    HEAT_STEPS,
    MOST_DOTS,
    PERCENT,
    SCATTER_SIZE,
    box_plot,
    champion_of,
    heat_rows,
    scatters,
    worst_cases,
)


def rows_of(values: dict[str, list[float]], metric: str = "dice_mean", label: str = "") -> list[Score]:
    return [
        Score(metric, value, label=label, case=f"c{k}", method=method, reason="" if math.isfinite(value) else "lost")
        for method, column in values.items()
        for k, value in enumerate(column)
    ]


TWO = {"a": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], "b": [0.2, 0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}


def test_a_box_and_its_whiskers() -> None:
    found = compare(rows_of({"a": [0.0, 1.0, 2.0, 3.0, 4.0, 100.0]}, "jacobian_max"))
    plot = box_plot(found, found.columns[0])
    (box,) = plot.boxes
    ticks = {text: place for place, text in plot.ticks}
    scale = (ticks["100"] - ticks["0"]) / 100

    def value(place: float) -> float:
        return (place - ticks["0"]) / scale

    assert [value(place) for place in (box.low, box.q1, box.median, box.q3, box.high)] == pytest.approx(
        [0, 1.25, 2.5, 3.75, 4], abs=1e-9
    )
    assert value(box.mean) == pytest.approx(110 / 6)
    assert [dot.title for dot in box.dots] == ["c0: 0", "c1: 1.00", "c2: 2.00", "c3: 3.00", "c4: 4.00", "c5: 100.0"]
    assert all(0 < dot.x < PERCENT and 0 < dot.y < PERCENT for dot in box.dots)
    assert len({dot.y for dot in box.dots}) == 6


def test_what_is_missing_is_told_beside_the_box() -> None:
    found = compare(rows_of({"a": [0.5, math.nan, 0.6], "b": [math.inf] * 3}))
    a, b = box_plot(found, found.columns[0]).boxes
    assert a.note == "1 failed"
    assert (b.note, b.empty, a.empty) == ("3 failed", True, False)


def test_many_cases_show_only_those_beyond_the_whiskers() -> None:
    values = [0.5 + 0.001 * (k % 10) for k in range(MOST_DOTS + 10)] + [0.9, 0.1]
    found = compare(rows_of({"a": values}))
    (box,) = box_plot(found, found.columns[0]).boxes
    assert {dot.title.split(": ")[1] for dot in box.dots} == {"0.900", "0.100"}


def test_every_method_against_the_best() -> None:
    found = compare(rows_of(TWO))
    assert champion_of(found, found.columns[0]) == "b"
    (plot,) = scatters(found, found.columns[0])
    assert (plot.method, plot.champion, plot.better, plot.cases) == ("a", "b", 7, 8)
    first, second = plot.dots[:2]
    assert first.title == "c0: 0.100 against 0.200"
    assert (first.tone, second.tone) == ("better", "worse")
    assert SCATTER_SIZE - first.y > first.x  # the better one is upwards, and heights are counted from above
    assert SCATTER_SIZE - second.y < second.x


def test_lower_is_better_below_the_line() -> None:
    found = compare(rows_of(TWO, "hd95_mm"))
    (plot,) = scatters(found, found.columns[0])
    assert (plot.champion, plot.better) == ("a", 7)


def test_against_a_reference_and_against_nobody() -> None:
    found = compare(rows_of(TWO), reference="a")
    assert champion_of(found, found.columns[0]) == "a"
    equal = compare(rows_of({"a": [0.5] * 4, "b": [0.5] * 4}))
    assert list(scatters(equal, equal.columns[0])) == []
    assert list(worst_cases(equal, equal.columns[0])) == []
    two_cases = compare(rows_of({"a": [0.5, 0.6], "b": [0.6, 0.7]}))
    assert list(scatters(two_cases, two_cases.columns[0])) == []


def test_many_dots_are_thinned_out_but_the_farthest_stay() -> None:
    many = {"a": [0.4 + 0.0001 * k for k in range(900)], "b": [0.5 + 0.0001 * k for k in range(900)]}
    many["b"][450] = 0.99
    found = compare(rows_of(many))
    (plot,) = scatters(found, found.columns[0])
    assert plot.cases == 900
    assert len(plot.dots) <= MOST_DOTS
    assert any(dot.title.startswith("c450:") for dot in plot.dots)


def test_the_hardest_cases_come_first_and_failures_before_them() -> None:
    found = compare(rows_of({**TWO, "c": [0.95, 0.94, math.nan, 0.5, 0.9, 0.9, 0.9, 0.9]}), reference="c")
    worst = list(worst_cases(found, found.columns[0]))
    assert [row.case for row in worst] == ["c2", "c3", "c4", "c5", "c6"]
    assert worst[0].values == ("0.300", "0.400", "failed")
    assert worst[1].values == ("0.400", "0.500", "0.500")


def test_labels_by_colour_the_hardest_first() -> None:
    rows = rows_of({"a": [0.9], "b": [0.8]}, "dice", "liver") + rows_of({"a": [0.1], "b": [0.5]}, "dice", "cyst")
    found = compare(rows)
    heat = heat_rows(found, found.by_label("dice"))
    assert [row.label for row in heat] == ["cyst", "liver"]
    assert heat[0].cells == (("0.100", 0), ("0.500", 4))
    assert heat[1].cells == (("0.900", HEAT_STEPS - 1), ("0.800", 7))
    distances = rows_of({"a": [9.0], "b": [1.0]}, "hd_mm", "liver") + rows_of({"a": [2.0]}, "hd_mm", "cyst")
    found = compare(distances)
    assert [row.label for row in heat_rows(found, found.by_label("hd_mm"))] == ["liver", "cyst"]
    assert heat_rows(found, found.by_label("hd_mm"))[1].cells[1] == ("", None)
    assert heat_rows(found, found.by_label("hd_mm"))[0].cells[0][1] == 0
