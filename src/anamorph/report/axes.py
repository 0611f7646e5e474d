"""Scales and ticks of the charts in a page: from values to places along a line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

SPREAD_OF_LOGARITHM = 50
"""Ratio of the largest to the smallest value from which an axis of positive values is logarithmic."""
MARGIN = 0.04


@dataclass(frozen=True)
class Axis:
    """A scale from ``low`` to ``high``, linear or logarithmic.

    Args:
        low, high: ends, in the values' own unit.
        logarithmic: base 10.
        ticks: values to name.
    """

    low: float
    high: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one; beyond the ends it stays at them."""
        low, high, value = (self._scaled(number) for number in (self.low, self.high, value))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.logarithmic else value

    @property
    def named(self) -> tuple[tuple[float, str], ...]:
        """Place and text of each tick."""
        return tuple((self.at(tick), f"{tick:.4g}") for tick in self.ticks)


def whole_numbers(low: int, high: int, most: int = 6) -> tuple[int, ...]:
    """Round whole numbers from ``low`` to ``high``, few enough to be told apart."""
    locator = MaxNLocator(nbins=max(1, most - 1), integer=True)
    return tuple(int(tick) for tick in locator.tick_values(low, high) if low <= tick <= high) if high > low else (low,)


def axis_of(values: Iterable[float], most_ticks: int = 6) -> Axis:
    """The axis that holds all finite values, with a little room; logarithmic where they span orders of magnitude.

    No tick is below 0 where no value is.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    lowest_tick = 0.0 if low >= 0 else -math.inf
    if low > 0 and high > SPREAD_OF_LOGARITHM * low:
        room = MARGIN * math.log10(high / low)
        low, high = low / 10**room, high * 10**room
        ticks = LogLocator(subs=(1.0,), numticks=most_ticks).tick_values(low, high)
        logarithmic = True
    else:
        room = MARGIN * (high - low) or 0.1 * abs(high) or 1.0
        locator = MaxNLocator(nbins=most_ticks - 1, steps=[1, 2, 2.5, 5, 10])
        low, high, logarithmic = low - room, high + room, False
        ticks = locator.tick_values(low, high)
    return Axis(low, high, logarithmic, tuple(float(tick) for tick in ticks if max(low, lowest_tick) <= tick <= high))
