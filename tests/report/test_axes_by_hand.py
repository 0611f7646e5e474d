"""Places of values along an axis, and curves made of them."""

from __future__ import annotations

import math

import pytest

from anamorph.report.axes import Axis, axis_of, whole_numbers
from anamorph.report.curves import FEW, MOST_POINTS, Line, Reference, curve, curves


def test_a_linear_axis_holds_everything_with_a_little_room() -> None:
    axis = axis_of([2.0, 4.0, math.nan, math.inf])
    assert not axis.logarithmic
    assert axis.low < 2 < 4 < axis.high
    assert axis.at(3.0) == pytest.approx(0.5)
    assert set(axis.ticks) >= {2, 3, 4}
    assert [text for _, text in Axis(0.0, 1.0, False, (0.5, 1.0)).named] == ["0.5", "1"]


def test_orders_of_magnitude_make_it_logarithmic() -> None:
    axis = axis_of([0.1, 100.0])
    assert axis.logarithmic
    assert axis.at(math.sqrt(10)) == pytest.approx(0.5)
    assert set(axis.ticks) == {0.1, 1, 10, 100}
    assert not axis_of([0.0, 100.0]).logarithmic
    assert not axis_of([-1.0, 100.0]).logarithmic


def test_beyond_the_ends_a_value_stays_at_them() -> None:
    axis = Axis(0.0, 10.0, False, ())
    assert (axis.at(-5.0), axis.at(20.0)) == (0, 1)
    assert Axis(1.0, 10.0, True, ()).at(-5.0) == 0


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0], [5.0], [-3.0], [1e-30], [math.nan]])
def test_one_value_or_none_has_an_axis(values: list[float]) -> None:
    axis = axis_of(values)
    assert axis.low < axis.high
    for value in values:
        assert math.isnan(value) or axis.at(value) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-30, 0.6148817791336385, 1e-4, 12345.0])
@pytest.mark.parametrize("most", [4, 6])
def test_the_axis_of_one_value_has_ticks_that_differ(value: float, most: int) -> None:
    axis = axis_of([value, value], most)
    assert 2 <= len({text for _, text in axis.named}) == len(axis.ticks) <= most
    assert value < 0 or min(axis.ticks) >= 0


def test_epochs_are_whole() -> None:
    assert whole_numbers(1, 3) == (1, 2, 3)
    assert whole_numbers(7, 7) == (7,)
    assert all(tick % 20 == 0 for tick in whole_numbers(1, 100))


def test_a_curve_goes_through_its_values() -> None:
    found = curve("loss", {1: 4.0, 2: math.nan, 3: 2.0}, [1, 2, 3], kept=3)
    points = [tuple(map(float, point.split(","))) for point in found.lines[0].points.split()]
    assert [x for x, _ in points] == [0, 100]
    assert points[0][1] < points[1][1]  # a larger value is higher, and heights are counted from above
    assert (found.mark, found.missing, found.lines[0].last) == (100, 1, "2.00")
    assert [text for _, text in found.x_ticks] == ["1", "2", "3"]


def test_curves_of_one_chart_share_its_axis() -> None:
    found = curves("answers", {"real": {1: 0.5, 2: 1.0}, "fake": {1: 0.5, 2: 0.0, 3: math.inf}}, [1, 2])
    real, fake = ([float(point.split(",")[1]) for point in line.points.split()] for line in found.lines)
    assert [(line.name, line.last) for line in found.lines] == [("real", "1.00"), ("fake", "0")]
    assert real[0] == fake[0] == pytest.approx(50)
    assert real[1] + fake[1] == pytest.approx(100)
    assert found.missing == 1


def test_a_reference_lies_on_the_axis_that_makes_room_for_it() -> None:
    found = curves("contrast", {"": {1: 0.8, 2: 0.9}}, [1, 2], references=[Reference("true", 1.0)])
    points = [float(point.split(",")[1]) for point in found.lines[0].points.split()]
    ((place, reference),) = found.references
    assert reference.name == "true"
    assert place == pytest.approx(2 * points[1] - points[0], abs=0.02)
    assert curves("contrast", {"": {1: 0.8}}, [1]).references == ()


@pytest.mark.parametrize("side", [1, -1])
def test_a_limit_is_drawn_near_the_values_and_told_from_afar(side: int) -> None:
    values, nearest = {"": {1: 1.0, 2: 2.0}}, 2.0 if side > 0 else 1.0
    near, far = (Reference("fault", nearest * ratio**side, limit=True) for ratio in (0.99 * FEW, 1.01 * FEW))
    found = curves("contrast", values, [1, 2], references=[near], notes=["of each"])
    assert ([one for _, one in found.references], found.notes) == ([near], ("of each",))
    found, plain = curves("contrast", values, [1, 2], references=[far]), curves("contrast", values, [1, 2])
    assert (found.references, found.notes) == ((), ("fault",))
    assert found.lines == plain.lines
    assert curves("contrast", {"": {}}, [1, 2], references=[near]).notes == ("fault",)


def test_a_long_curve_is_thinned_out_and_an_empty_one_is_empty() -> None:
    long = curve("loss", {epoch: 1 / epoch for epoch in range(1, 5001)}, range(1, 5001))
    assert len(long.lines[0].points.split()) == MOST_POINTS
    assert long.lines[0].points.startswith("0.00,")
    assert long.lines[0].last == "0.0002"
    empty = curve("loss", {}, [1, 2])
    assert (empty.lines, empty.mark) == ((Line("", "", ""),), None)
    single = curve("loss", {1: 3.0}, [1], kept=1)
    assert single.lines[0].points == "50.00,50.00"
    assert single.mark == 50
