"""The means of a comparison, group by group, as bars; and as lines over a number that the methods' names end in.

All places are in pixels of a drawing ``WIDTH`` wide; ``chart.svg.j2`` draws them, in a page or as a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from anamorph.evaluation.comparison import Cell, Column, Comparison
from anamorph.report.axes import Axis, axis_of
from anamorph.report.comparison_text import heading, mean_and_sd
from anamorph.report.series import Series, series_in
from anamorph.report.tables import MISSING

WIDTH = 980.0
NARROWEST_PANEL = 230.0
LETTER = 6.7
"""Mean width of a letter of the drawing's text; what decides how much room names get."""
WIDEST_NAMES = 290.0
HEAD, AXIS, GAP, KEY = 26.0, 24.0, 22.0, 30.0
"""Heights of a panel's title, of its axis, between panels, of the key."""
VALUE = 74.0
"""Room for a number behind a bar."""
BETWEEN_METHODS = 8.0
LINES_HEIGHT, Y_LABELS = 150.0, 52.0
SPREAD_OF_LOGARITHM = 10.0
"""Ratio of the largest number to the smallest from which its axis is logarithmic."""


@dataclass(frozen=True)
class Bar:
    """Mean and spread of one method's cases in one group.

    Args:
        y, height: where it lies; it begins at the panel's ``zero``.
        end: of the bar.
        low, high: of its error bar, NaN where there is none.
        text: the mean, and how many cases failed.
        title: what a pointer over it says.
        colour: number of the group.
    """

    y: float
    height: float
    end: float
    low: float
    high: float
    text: str
    title: str
    colour: int


@dataclass(frozen=True)
class Line:
    """One line: points as SVG wants them, and each with what a pointer over it says; dashed where it is constant."""

    points: str
    dots: tuple[tuple[float, float, str], ...]
    colour: int
    dashed: bool


@dataclass(frozen=True)
class Panel:
    """One metric, of one group where lines are drawn.

    Args:
        title: above it.
        x, y, width, height: of what is inside its axes.
        x_ticks, y_ticks: (place, text).
        zero: where bars begin.
        bars, lines: one of them is empty.
    """

    title: str
    x: float
    y: float
    width: float
    height: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...] = ()
    zero: float = 0.0
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Args:
        title: for those who cannot see it.
        height: of the drawing; it is ``WIDTH`` wide.
        panels: of it.
        names: (x, y, text) of the methods beside the bars, ends at x.
        key: (x, colour, dashed, text).
        about: what is drawn, beside the key, beginning at x.
    """

    title: str
    height: float
    panels: tuple[Panel, ...]
    names: tuple[tuple[float, float, str], ...]
    key: tuple[tuple[float, int, bool, str], ...]
    about: tuple[float, str]
    width: float = WIDTH


def bars(found: Mapping[str, Comparison]) -> Chart | None:
    """The means of every leading column; a bar a method and group.

    Args:
        found: the same methods compared, by group; they may have cases of their own.
    """
    groups, first = list(found), next(iter(found.values()))
    columns = [column for column in first.leading if any(cell.values for cell in column.cells.values())]
    if not columns:
        return None
    names_end = min(WIDEST_NAMES, LETTER * max(map(len, first.methods)) + 12)
    across = max(1, min(len(columns), int((WIDTH - names_end) // NARROWEST_PANEL)))
    thickness = {1: 14.0, 2: 12.0}.get(len(groups), 11.0)  # a number stands behind each bar
    block = len(groups) * thickness + BETWEEN_METHODS
    inside = len(first.methods) * block
    width = (WIDTH - names_end) / across - GAP
    panels, names = [], []
    for place, column in enumerate(columns):
        row, across_place = divmod(place, across)
        x = names_end + across_place * (width + GAP) + 8
        y = KEY + row * (HEAD + inside + AXIS + GAP) + HEAD
        if across_place == 0:
            names += [(names_end, y + (k + 0.5) * block, _short(m, names_end)) for k, m in enumerate(first.methods)]
        same = {group: _same_column(comparison, column) for group, comparison in found.items()}
        panels.append(_bar_panel(column, same, first.methods, (x, y, width, inside), thickness))
    key, about = _key([(number, False, group) for number, group in enumerate(groups) if len(groups) > 1])
    height = panels[-1].y + inside + AXIS + 6
    told = "mean over cases, with its standard deviation on either side"
    return Chart("Means of the methods", height, tuple(panels), tuple(names), key, (about, told))


def lines(found: Mapping[str, Comparison]) -> Chart | None:
    """The means over the number that names end in, a panel a metric and group; None where no names make a line."""
    first = next(iter(found.values()))
    series = series_in(first.methods)
    if series is None:
        return None
    drawn = [(column, group) for column in first.leading for group in found]
    drawn = [(c, g) for c, g in drawn if (same := _same_column(found[g], c)) and any(k.values for k in same.values())]
    if not drawn:
        return None
    across = len(found) if 1 < len(found) <= 3 else min(3, len(drawn))
    width = WIDTH / across - Y_LABELS - GAP
    panels = []
    for place, (column, group) in enumerate(drawn):
        row, across_place = divmod(place, across)
        x = Y_LABELS + across_place * (width + Y_LABELS + GAP)
        y = KEY + row * (HEAD + LINES_HEIGHT + AXIS + GAP) + HEAD
        title = f"{heading(column)}, {group}" if group else heading(column)
        panels.append(_line_panel(title, _same_column(found[group], column), column, series, (x, y, width)))
    names = [*series.lines, *series.constant]
    key, about = _key([(place, place >= len(series.lines), name) for place, name in enumerate(names)])
    height = panels[-1].y + LINES_HEIGHT + AXIS + 6
    told = f"mean over cases, by {series.number}" + ("; dashed: without it" if series.constant else "")
    return Chart(f"Means over {series.number}", height, tuple(panels), (), key, (about, told))


def _same_column(comparison: Comparison, column: Column) -> Mapping[str, Cell]:
    """Cells of the same metric and label in another group; none where it has no such column."""
    of = {(other.metric, other.label): other.cells for other in comparison.columns}
    return of.get((column.metric, column.label), {})


def _bar_panel(
    column: Column,
    same: Mapping[str, Mapping[str, Cell]],
    methods: Sequence[str],
    place: tuple[float, float, float, float],
    thickness: float,
) -> Panel:
    x, y, width, height = place
    cells = [cell for by_method in same.values() for cell in by_method.values() if cell.values]
    reach = [end for cell in cells for end in (cell.summary.mean, cell.summary.mean + _sd(cell))]
    reach += [cell.summary.mean - _sd(cell) for cell in cells if cell.summary.mean < 0]
    low, high = min(0.0, *reach), max(0.0, *reach)
    high = high if high > low else 1.0
    ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 4, 5, 10]).tick_values(low, high)
    axis = Axis(low, high, False, tuple(float(tick) for tick in ticks if low <= tick <= high))

    def at(value: float) -> float:
        return round(axis.at(value) * (width - VALUE), 1)

    found = []
    for number, method in enumerate(methods):
        top = number * (len(same) * thickness + BETWEEN_METHODS) + BETWEEN_METHODS / 2
        for colour, (group, by_method) in enumerate(same.items()):
            cell, begin = by_method.get(method), round(top + colour * thickness, 1)
            if cell is None or not cell.values:
                found.append(Bar(begin, thickness - 1, at(0.0), math.nan, math.nan, MISSING, f"{method}: none", colour))
                continue
            mean, sd = cell.summary.mean, _sd(cell)
            shown = mean_and_sd(column, cell.summary)
            failed = f", {len(cell.failed)} failed" if cell.failed else ""
            title = f"{method}{f', {group}' if group else ''}: {shown}, {cell.summary.n} cases{failed}"
            ends = (at(mean - sd), at(mean + sd)) if sd else (math.nan, math.nan)
            text = shown.partition(" ")[0] + (f" ({len(cell.failed)} failed)" if failed else "")
            found.append(Bar(begin, thickness - 1, at(mean), *ends, text, title, colour))
    x_ticks = tuple((round(place * (width - VALUE), 1), text) for place, text in axis.named)
    return Panel(heading(column), x, y, width, height, x_ticks, zero=at(0.0), bars=tuple(found))


def _sd(cell: Cell) -> float:
    return cell.summary.sd if math.isfinite(cell.summary.sd) else 0.0


def _line_panel(
    title: str,
    cells: Mapping[str, Cell],
    column: Column,
    series: Series,
    place: tuple[float, float, float],
) -> Panel:
    x, y, width = place
    numbers = sorted({number for by_number in series.lines.values() for number in by_number})
    axis = axis_of((cell.summary.mean for cell in cells.values() if cell.values), most_ticks=5)
    logarithmic = numbers[0] > 0 and numbers[-1] >= SPREAD_OF_LOGARITHM * numbers[0]

    def across(number: float) -> float:
        low, high, at = ((math.log(n) if logarithmic else n) for n in (numbers[0], numbers[-1], number))
        return round((0.04 + 0.92 * (at - low) / (high - low)) * width, 1)

    def down(value: float) -> float:
        return round((1 - axis.at(value)) * LINES_HEIGHT, 1)

    def said(method: str) -> str:
        return f"{method}: {mean_and_sd(column, cells[method].summary)}"

    drawn = []
    there = {method for method, cell in cells.items() if cell.values}
    for colour, by_number in enumerate(series.lines.values()):
        dots = [(across(n), down(cells[m].summary.mean), said(m)) for n, m in by_number.items() if m in there]
        drawn.append(Line(" ".join(f"{a:g},{b:g}" for a, b, _ in dots), tuple(dots), colour, False))
    for colour, method in enumerate(series.constant, len(series.lines)):
        if method in there:
            level = down(cells[method].summary.mean)
            drawn.append(Line(f"0,{level:g} {width:g},{level:g}", ((width / 2, level, said(method)),), colour, True))
    x_ticks = tuple((across(number), f"{number:g}") for number in numbers)
    y_ticks = tuple((round((1 - at) * LINES_HEIGHT, 1), text) for at, text in axis.named)
    return Panel(title, x, y, width, LINES_HEIGHT, x_ticks, y_ticks, lines=tuple(drawn))


def _key(entries: Sequence[tuple[int, bool, str]]) -> tuple[tuple[tuple[float, int, bool, str], ...], float]:
    """The key from left to right, and where there is room behind it."""
    found = list(_placed(entries))
    if not found:
        return (), 8.0
    x, _, _, text = found[-1]
    return tuple(found), x + 40 + LETTER * len(text)


def _placed(entries: Sequence[tuple[int, bool, str]]) -> Iterator[tuple[float, int, bool, str]]:
    x = 8.0
    for colour, dashed, text in entries:
        yield round(x, 1), colour, dashed, text
        x += 44 + LETTER * len(text)


def _short(name: str, width: float) -> str:
    most = round((width - 12) / LETTER)
    return name if len(name) <= most else f"{name[: most - 1]}…"
