"""Bars and lines: places that follow from means, which names make a line, and files that anything can read."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from anamorph.evaluation.comparison import Comparison, compare
from anamorph.evaluation.scores import Score
from anamorph.report.charts import WIDTH, Chart, bars, lines
from anamorph.report.experiment_html import chart_file
from anamorph.report.series import series_in
from anamorph.report.tables import MISSING

SVG = "{http://www.w3.org/2000/svg}"


def compared(means: dict[str, float], metric: str = "dice", spread: float = 0.1) -> Comparison:
    """Three cases a method: mean - spread, mean, mean + spread; their standard deviation is the spread."""
    return compare([
        Score(metric, mean + (k - 1) * spread, "mm" if metric.endswith("_mm") else "", case=f"c{k}", method=method)
        for method, mean in means.items()
        for k in range(3)
    ])  # fmt: skip


def drawn(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


def test_bars_are_as_long_as_their_means() -> None:
    chart = drawn(bars({"clean": compared({"a": 0.8, "b": 0.4}), "corrupt": compared({"a": 0.6, "b": 0.2})}))
    (panel,) = chart.panels
    assert [bar.colour for bar in panel.bars] == [0, 1, 0, 1]
    unit = (panel.bars[0].end - panel.zero) / 0.8
    for bar, mean in zip(panel.bars, (0.8, 0.6, 0.4, 0.2), strict=True):
        assert bar.end - panel.zero == pytest.approx(unit * mean, abs=0.11)
        assert bar.low - panel.zero == pytest.approx(unit * (mean - 0.1), abs=0.11)
        assert bar.high - panel.zero == pytest.approx(unit * (mean + 0.1), abs=0.11)
    assert [bar.text for bar in panel.bars] == ["0.800", "0.600", "0.400", "0.200"]
    assert panel.bars[1].title == "a, corrupt: 0.600 ± 0.100, 3 cases"
    tops = [bar.y for bar in panel.bars]
    assert tops == sorted(tops)
    assert tops[1] - tops[0] < tops[2] - tops[1]  # a method's groups stand together
    assert [text for _, _, text in chart.names] == ["a", "b"]
    assert [text for *_, text in chart.key] == ["clean", "corrupt"]


def test_a_single_group_needs_no_key() -> None:
    assert drawn(bars({"": compared({"a": 0.8})})).key == ()


def test_bars_begin_at_zero_on_either_side() -> None:
    (panel,) = drawn(bars({"": compared({"up": 2.0, "down": -1.0}, "jacobian_min")})).panels
    up, down = panel.bars
    assert (up.end - panel.zero) / (panel.zero - down.end) == pytest.approx(2, rel=0.02)


def test_what_is_missing_or_failed_is_said() -> None:
    rows = [Score("hd_mm", 2.0, "mm", case=f"c{k}", method="whole") for k in range(2)]
    rows += [Score("hd_mm", 4.0, "mm", case="c0", method="half")]
    rows += [Score("hd_mm", math.inf, "mm", reason="empty in the result", case="c1", method="half")]
    rows += [Score("hd_mm", math.inf, "mm", reason="empty in the result", case=f"c{k}", method="none") for k in (0, 1)]
    whole, half, none = drawn(bars({"": compare(rows)})).panels[0].bars
    assert (whole.text, half.text, none.text) == ("2.00", "4.00 (1 failed)", MISSING)
    assert math.isnan(half.low)
    assert none.end == drawn(bars({"": compare(rows)})).panels[0].zero


def test_nothing_to_draw() -> None:
    failed = [Score("hd_mm", math.inf, "mm", reason="empty in the result", case="c", method="m")]
    assert bars({"": compare(failed)}) is None
    assert lines({"": compared({"a": 0.5, "b": 0.4})}) is None


def test_panels_stay_inside_the_drawing() -> None:
    rows = [
        Score(metric, 0.5, case=f"c{k}", method=method)
        for metric in ("dice", "recall", "precision", "jaccard", "volume_similarity", "voe", "rvd")
        for method in ("short", "a method of a very long name that goes on and on and on")
        for k in range(2)
    ]
    chart = drawn(bars({"": compare(rows, metrics=("dice", "recall", "precision", "jaccard", "voe", "rvd"))}))
    assert len(chart.panels) == 6
    assert all(panel.x + panel.width <= WIDTH for panel in chart.panels)
    assert all(panel.y + panel.height < chart.height for panel in chart.panels)
    assert chart.names[1][2].endswith("…")
    assert len(chart.names) == 2 * len({panel.y for panel in chart.panels})


@pytest.mark.parametrize(
    ("names", "number", "found", "constant"),
    [
        (("ITN", "refine, lambda 50", "refine, lambda 5", "refine, lambda 500"), "lambda", {"refine": 3}, ("ITN",)),
        (("k=1", "k=2", "k=4.5"), "k", {"k": 3}, ()),
        (("a (k 1)", "a (k 2)", "a (k 3)", "b (k 1)"), "k", {"a": 3}, ("b (k 1)",)),
        (("a k 1", "a k 2", "a k 3", "a m 1", "a m 2"), "k", {"a": 3}, ("a m 1", "a m 2")),
    ],
)
def test_names_that_make_a_line(
    names: tuple[str, ...], number: str, found: dict[str, int], constant: tuple[str, ...]
) -> None:
    series = series_in(names)
    assert series is not None
    assert series.number == number
    assert {name: len(by_number) for name, by_number in series.lines.items()} == found
    assert all(list(by_number) == sorted(by_number) for by_number in series.lines.values())
    assert series.constant == constant


@pytest.mark.parametrize(
    "names",
    [
        ("U-Net", "1-pass"),
        ("k 1", "k 2"),
        ("net 1a", "net 2a", "net 3a"),
        ("case0001", "case0002", "case0003"),
        ("U-Net 10", "U-Net 20", "U-Net 30"),
    ],
)
def test_names_that_make_none(names: tuple[str, ...]) -> None:
    assert series_in(names) is None


def test_lines_go_through_their_means_on_a_logarithmic_axis() -> None:
    means = {"net": 0.5, "k 1": 0.2, "k 10": 0.4, "k 100": 0.6}
    chart = drawn(lines({"": compared(means, spread=0.0)}))
    (panel,) = chart.panels
    line, constant = panel.lines
    (x0, y0, said), (x1, y1, _), (x2, y2, _) = line.dots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y1 > y2  # up is more
    assert said == "k 1: 0.200 ± 0.000"
    assert constant.dashed
    assert constant.dots[0][1] == pytest.approx((y1 + y2) / 2, abs=0.2)
    assert [text for _, text in panel.x_ticks] == ["1", "10", "100"]
    assert chart.about[1] == "mean over cases, by k; dashed: without it"


def test_lines_have_a_panel_for_each_group_and_metric() -> None:
    rows = [
        Score(metric, value, case=f"c{k}", method=f"k {number}")
        for metric in ("dice", "hd_mm")
        for number, value in ((1, 0.5), (2, 0.6), (4, 0.7))
        for k in range(2)
    ]
    one = compare(rows, metrics=("dice", "hd_mm"))
    panels = drawn(lines({"clean": one, "corrupt": one})).panels
    assert [panel.title for panel in panels] == ["Dice ↑, clean", "Dice ↑, corrupt", "HD ↓, clean", "HD ↓, corrupt"]
    assert panels[0].y == panels[1].y < panels[2].y


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_a_file_of_its_own(kind: str) -> None:
    found = {"a<b": compared({"k 1": 0.2, "k 2": 0.4, "k 3": 0.6, "<&>": 0.5}), "c": compared({"k 1": 0.2})}
    chart = drawn(bars(found) if kind == "bars" else lines(found))
    text = chart_file(chart)
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert any(node.text == "<&>" for node in root.iter(f"{SVG}text"))
    assert "prefers-color-scheme: dark" in text
    assert re.findall(r"https?:(?!//www.w3.org/2000/svg)|url\(|<script| on[a-z]+=", text) == []
    assert text == chart_file(chart)
