"""Numbers over the epochs of a training, as lines in a chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anamorph.report.axes import axis_of, whole_numbers
from anamorph.report.tables import format_value

MOST_POINTS = 400
PERCENT = 100.0


@dataclass(frozen=True)
class Curve:
    """One quantity.

    Args:
        name: what it is.
        points: of an SVG polyline, 100 wide and 100 high.
        x_ticks, y_ticks: (place in percent, text).
        mark: where the kept weights are from, in percent; None where that is not known.
        last: the last value as text.
        missing: epochs whose value is not finite.
    """

    name: str
    points: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    mark: float | None
    last: str
    missing: int = 0


def curve(name: str, values: Mapping[int, float], epochs: Sequence[int], kept: int | None = None) -> Curve:
    """The line of one quantity.

    Args:
        name: what it is.
        values: by epoch.
        epochs: all of the run, so that curves share their axis.
        kept: epoch of the kept weights.
    """
    first, last = min(epochs, default=1), max(epochs, default=1)
    finite = {epoch: value for epoch, value in values.items() if math.isfinite(value)}
    chosen = sorted(finite)
    if len(chosen) > MOST_POINTS:
        chosen = [chosen[place] for place in np.linspace(0, len(chosen) - 1, MOST_POINTS).astype(int)]
    axis = axis_of(finite.values(), most_ticks=4)

    def across(epoch: int) -> float:
        return PERCENT * (epoch - first) / (last - first) if last > first else PERCENT / 2

    points = " ".join(f"{across(epoch):.2f},{PERCENT * (1 - axis.at(finite[epoch])):.2f}" for epoch in chosen)
    return Curve(
        name,
        points,
        tuple((across(tick), str(tick)) for tick in whole_numbers(first, last)),
        tuple((PERCENT * (1 - place), text) for place, text in axis.named),
        across(kept) if kept is not None and first <= kept <= last else None,
        format_value(finite[chosen[-1]]) if chosen else "",
        len(values) - len(finite),
    )
