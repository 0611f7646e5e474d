"""Methods that differ by a number alone, as their names tell: what makes a line over it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FEWEST_VALUES = 3
"""Of a number in the methods' names that make a line."""
NUMBERED = re.compile(
    r"(?:(?P<of>.*?)[\s,;:(]+)?(?P<number>[A-Za-z]\w*)(?:\s*=\s*|\s+)(?P<value>\d+(\.\d+)?(e[+-]?\d+)?)\)?"
)


@dataclass(frozen=True)
class Series:
    """Methods whose names differ by a number alone.

    Args:
        number: what the number is called.
        lines: name -> number -> method.
        constant: methods without the number.
    """

    number: str
    lines: Mapping[str, Mapping[float, str]]
    constant: tuple[str, ...]


def series_in(methods: Sequence[str]) -> Series | None:
    """The number that most methods' names end in, if any name has it three times."""
    found: dict[str, dict[str, dict[float, str]]] = {}
    for method in methods:
        if parts := NUMBERED.fullmatch(method):
            by_value = found.setdefault(parts["number"], {}).setdefault(parts["of"] or parts["number"], {})
            by_value[float(parts["value"])] = method
    kept = {
        number: {of: dict(sorted(by.items())) for of, by in lines.items() if len(by) >= FEWEST_VALUES}
        for number, lines in found.items()
    }
    number = max(kept, key=lambda name: sum(map(len, kept[name].values())), default="")
    if not number or not kept[number]:
        return None
    inside = {method for by in kept[number].values() for method in by.values()}
    return Series(number, kept[number], tuple(method for method in methods if method not in inside))
