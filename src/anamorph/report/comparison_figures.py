"""The charts of a comparison as coordinates: boxes over cases, one method against another, labels by colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from anamorph.evaluation.comparison import Cell, Column, Comparison
from anamorph.report.axes import Axis, axis_of
from anamorph.report.comparison_text import mean_and_sd
from anamorph.report.tables import format_value

PERCENT = 100.0
"""Boxes are placed in percent of their row, so that dots stay round and text keeps its size at any width."""
SCATTER_SIZE = 220.0
MOST_DOTS = 250
MOST_WORST = 5
FEWEST_FOR_SCATTER = 3
HEAT_STEPS = 9
WHISKER = 1.5


@dataclass(frozen=True)
class Dot:
    """One case: its place, what a pointer over it says, and whether it is better, worse or neither."""

    x: float
    y: float
    title: str
    tone: str = ""


@dataclass(frozen=True)
class Box:
    """One method's cases on a line.

    Args:
        method: whose they are.
        place: 1 best, 2 second best, 0 neither.
        note: how many cases are missing.
        low, q1, median, q3, high: whiskers reach to the last case within 1.5 interquartile ranges.
        mean: of the cases.
        dots: the cases, or where there are many, those beyond the whiskers.
    """

    method: str
    place: int
    note: str
    low: float = math.nan
    q1: float = math.nan
    median: float = math.nan
    q3: float = math.nan
    high: float = math.nan
    mean: float = math.nan
    dots: tuple[Dot, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is no case to draw."""
        return math.isnan(self.median)


@dataclass(frozen=True)
class BoxPlot:
    """The boxes of a column and their common axis: (place in percent, text) of each tick."""

    boxes: tuple[Box, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Scatter:
    """Case by case: one method against the champion, which is better above the line or below it."""

    method: str
    champion: str
    dots: tuple[Dot, ...]
    ticks: tuple[tuple[float, str], ...]
    better: int
    cases: int


@dataclass(frozen=True)
class Worst:
    """A case that went badly: its name, and each method's value as text."""

    case: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class HeatRow:
    """One label: mean and spread of each method as text, and how good it is from 0, the worst, to 8; None for none."""

    label: str
    cells: tuple[tuple[str, int | None], ...]


def box_plot(found: Comparison, column: Column) -> BoxPlot:
    """The boxes of every method that has a value."""
    cells = {method: column.cells[method] for method in found.methods if column.cells.get(method)}
    axis = axis_of(value for cell in cells.values() for value in cell.values.values())
    boxes = [_box(method, cell, axis, column.unit) for method, cell in cells.items()]
    return BoxPlot(tuple(boxes), tuple((place * PERCENT, text) for place, text in axis.named))


def champion_of(found: Comparison, column: Column) -> str:
    """The method that the others are drawn against: the reference, or the best; empty where there is neither."""
    if found.reference:
        return found.reference if column.cells.get(found.reference) else ""
    rivals = [challenge.rival for cell in column.cells.values() for challenge in cell.challenges]
    best = [method for method, cell in column.cells.items() if cell.place == 1]
    return next((rival for rival in rivals if rival in best), best[0] if best else "")


def scatters(found: Comparison, column: Column) -> Iterator[Scatter]:
    """Every other method against the champion, both on one axis."""
    champion = champion_of(found, column)
    if not champion:
        return
    best = column.cells[champion].values
    for method, cell in column.cells.items():
        both = [case for case in cell.values if case in best and method != champion]
        if len(both) < FEWEST_FOR_SCATTER:
            continue
        axis = axis_of((values[case] for case in both for values in (best, cell.values)), most_ticks=5)
        ticks = tuple((place * SCATTER_SIZE, text) for place, text in axis.named)
        dots = [_dot(case, cell.values[case], best[case], axis, column) for case in both]
        better = sum(dot.tone == "better" for dot in dots)
        yield Scatter(method, champion, tuple(_farthest(dots)), ticks, better, len(dots))


def worst_cases(found: Comparison, column: Column) -> Iterator[Worst]:
    """The cases in which the champion is worst, its failures first."""
    champion = champion_of(found, column)
    if not champion or len(found.cases) < 2:
        return
    cell = column.cells[champion]
    sign = 1 if column.about.higher_is_better else -1
    ranked = [*cell.failed, *sorted(cell.values, key=lambda case: sign * cell.values[case])]
    for case in ranked[:MOST_WORST]:
        yield Worst(case, tuple(_value(column.cells.get(method), case, column.unit) for method in found.methods))


def heat_rows(found: Comparison, columns: Sequence[Column]) -> list[HeatRow]:
    """Labels, the one that methods find hardest first."""
    means = [cell.summary.mean for column in columns for cell in column.cells.values() if cell.summary.n]
    low, high = (min(means), max(means)) if means else (0.0, 0.0)
    rows = []
    for column in columns:
        own = [cell.summary.mean for cell in column.cells.values() if cell.summary.n]
        badness = -math.inf if not own else float(np.mean(own)) * (-1 if column.about.higher_is_better else 1)
        cells = tuple(_heat(column, column.cells.get(method), low, high) for method in found.methods)
        rows.append((badness, HeatRow(column.label, cells)))
    return [row for _, row in sorted(rows, key=lambda item: -item[0])]


def _box(method: str, cell: Cell, axis: Axis, unit: str) -> Box:
    summary = cell.summary
    values = np.array(list(cell.values.values()))
    missing = [f"{len(cell.failed)} failed"] if cell.failed else []
    missing += [f"{len(cell.absent)} without the structure"] if cell.absent else []
    if not summary.n:
        return Box(method, 0, ", ".join(missing))
    reach = WHISKER * (summary.q3 - summary.q1)
    low = float(values[values >= summary.q1 - reach].min())
    high = float(values[values <= summary.q3 + reach].max())
    few = {case: v for case, v in cell.values.items() if len(values) <= MOST_DOTS or not low <= v <= high}
    dots = tuple(
        Dot(axis.at(value) * PERCENT, _jitter(rank), f"{case}: {format_value(value, unit)}")
        for rank, (case, value) in enumerate(few.items())
    )
    values_of = {"low": low, "high": high} | {n: getattr(summary, n) for n in ("q1", "median", "q3", "mean")}
    places = {name: axis.at(value) * PERCENT for name, value in values_of.items()}
    return Box(method, cell.place, ", ".join(missing), **places, dots=dots)


def _jitter(rank: int) -> float:
    """Heights that spread neighbours apart, the same in every page: multiples of the golden section."""
    return PERCENT * (0.22 + 0.56 * ((rank * 0.618034) % 1))


def _dot(case: str, value: float, champion: float, axis: Axis, column: Column) -> Dot:
    gain = (champion - value) * (1 if column.about.higher_is_better else -1)
    tone = "better" if gain > 0 else "worse" if gain < 0 else "equal"
    title = f"{case}: {format_value(value, column.unit)} against {format_value(champion, column.unit)}"
    return Dot(axis.at(value) * SCATTER_SIZE, SCATTER_SIZE * (1 - axis.at(champion)), title, tone)


def _farthest(dots: list[Dot]) -> list[Dot]:
    """All dots, or where there are many, the farthest from the line and an even choice of the others."""
    if len(dots) <= MOST_DOTS:
        return dots
    ranked = sorted(dots, key=lambda dot: -abs(dot.x + dot.y - SCATTER_SIZE))
    half = MOST_DOTS // 2
    rest = ranked[half:]
    return ranked[:half] + rest[:: math.ceil(len(rest) / half)]


def _value(cell: Cell | None, case: str, unit: str) -> str:
    if cell is None:
        return ""
    if case in cell.values:
        return format_value(cell.values[case], unit)
    return "failed" if case in cell.failed else "none"


def _heat(column: Column, cell: Cell | None, low: float, high: float) -> tuple[str, int | None]:
    if cell is None or not cell.summary.n:
        return "", None
    if high == low:
        return mean_and_sd(column, cell.summary), None
    share = (cell.summary.mean - low) / (high - low)
    good = share if column.about.higher_is_better else 1 - share
    return mean_and_sd(column, cell.summary), round(good * (HEAT_STEPS - 1))
