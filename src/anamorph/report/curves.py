"""Numbers over the epochs of a training, as lines in charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anamorph.report.axes import axis_of, whole_numbers
from anamorph.report.tables import format_value

MOST_POINTS = 400
PERCENT = 100.0
FEW = 3.0
"""Ratio to the nearest of a chart's values up to which a limit is drawn."""


@dataclass(frozen=True)
class Line:
    """One of the quantities of a chart.

    Args:
        name: what it is; empty where the chart's name says it.
        points: of an SVG polyline, 100 wide and 100 high.
        last: the last value as text.
    """

    name: str
    points: str
    last: str


@dataclass(frozen=True)
class Reference:
    """A value that the lines of a chart are read against.

    Args:
        name: what it is.
        value: in the lines' unit, above 0.
        limit: whether something is wrong beyond it; drawn only near the lines, which it would squash from afar.
    """

    name: str
    value: float
    limit: bool = False


@dataclass(frozen=True)
class Curve:
    """A chart of one quantity, or of a few that are told apart best on one axis.

    Args:
        name: what it shows.
        lines: in the order of their colours.
        x_ticks, y_ticks: (place in percent, text).
        mark: where the kept weights are from, in percent; None where that is not known.
        missing: values that are not finite.
        references: (place in percent, reference) of those that are drawn.
        notes: what else its lines are read by.
    """

    name: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    mark: float | None
    missing: int = 0
    references: tuple[tuple[float, Reference], ...] = ()
    notes: tuple[str, ...] = ()


def curve(name: str, values: Mapping[int, float], epochs: Sequence[int], kept: int | None = None) -> Curve:
    """The chart of one quantity; arguments of ``curves``, and its values by epoch."""
    return curves(name, {"": values}, epochs, kept)


def curves(
    name: str,
    values: Mapping[str, Mapping[int, float]],
    epochs: Sequence[int],
    kept: int | None = None,
    references: Sequence[Reference] = (),
    notes: Sequence[str] = (),
) -> Curve:
    """The chart of a few quantities on one axis.

    Args:
        name: what it shows.
        values: of each quantity, by epoch.
        epochs: all of the run, so that charts share their axis.
        kept: epoch of the kept weights.
        references: values to draw; a limit that is far off becomes a note.
        notes: what else the lines are read by.
    """
    first, last = min(epochs, default=1), max(epochs, default=1)
    finite = {
        line: {epoch: value for epoch, value in sorted(own.items()) if math.isfinite(value)}
        for line, own in values.items()
    }
    known = [value for own in finite.values() for value in own.values()]
    near = [one for one in references if not one.limit or _near(one.value, known)]
    axis = axis_of([*known, *(one.value for one in near)], most_ticks=4)

    def across(epoch: int) -> float:
        return PERCENT * (epoch - first) / (last - first) if last > first else PERCENT / 2

    def drawn(line: str, own: Mapping[int, float]) -> Line:
        chosen = list(own)
        if len(chosen) > MOST_POINTS:
            chosen = [chosen[place] for place in np.linspace(0, len(chosen) - 1, MOST_POINTS).astype(int)]
        points = " ".join(f"{across(epoch):.2f},{PERCENT * (1 - axis.at(own[epoch])):.2f}" for epoch in chosen)
        return Line(line, points, format_value(own[chosen[-1]]) if chosen else "")

    return Curve(
        name,
        tuple(drawn(line, own) for line, own in finite.items()),
        tuple((across(tick), str(tick)) for tick in whole_numbers(first, last)),
        tuple((PERCENT * (1 - place), text) for place, text in axis.named),
        across(kept) if kept is not None and first <= kept <= last else None,
        sum(len(own) - len(finite[line]) for line, own in values.items()),
        tuple((PERCENT * (1 - axis.at(one.value)), one) for one in near),
        (*notes, *(one.name for one in references if one not in near)),
    )


def _near(value: float, others: Sequence[float]) -> bool:
    return bool(others) and min(others) / FEW <= value <= max(others) * FEW
