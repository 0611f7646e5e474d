"""The tidy table of scores, and how it becomes a data frame, CSV and JSON, and is read again.

A number that does not exist is NaN or infinite and says why: an organ that is empty in both images has no Dice, one
that is missing from one of them lies infinitely far away. JSON has neither NaN nor infinity, so there they become null,
with the reason beside them.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anamorph.errors import InputError

if TYPE_CHECKING:
    import pandas

FORMULA_STARTS = ("=", "+", "-", "@")
UNIT_SUFFIXES = ("_mm", "_voxels", "_db", "_mib")
NEEDED = ("metric", "value")
NO_REASON = "no reason given"


@dataclass(frozen=True)
class Score:
    """One row.

    Args:
        metric: what was measured; lengths end in ``_mm``.
        value: the number; NaN or infinite only together with a reason.
        unit: "mm", "nats", "voxels", ... or empty for a pure number.
        label: the structure or landmark it is about; empty for the whole image.
        reason: why the number does not exist.
        case: which pair of images.
        method: what produced the result.

    Raises:
        ValueError: the value is not finite and no reason is given.
    """

    metric: str
    value: float
    unit: str = ""
    label: str = ""
    reason: str = ""
    case: str = ""
    method: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if not math.isfinite(self.value) and not self.reason:
            raise ValueError(f"{self.metric} of {self.label or 'the image'} is {self.value} without a reason")


COLUMNS: tuple[str, ...] = ("case", "method", "label", "metric", "unit", "value", "reason")


def of_case(scores: Iterable[Score], case: str, method: str) -> list[Score]:
    """The same scores, said to belong to a case and a method."""
    return [replace(score, case=case, method=method) for score in scores]


def mean_name(metric: str) -> str:
    """What the mean of a metric over labels is called: ``dice_mean``, ``hd95_mean_mm``."""
    suffix = next((unit for unit in UNIT_SUFFIXES if metric.endswith(unit)), "")
    return f"{metric.removesuffix(suffix)}_mean{suffix}"


def label_in_words(name: str) -> str:
    """A label in a sentence: one that has no name but its value is told to be a label."""
    return f"label {name}" if name.isdecimal() else name


def mean_score(scores: Iterable[Score], metric: str) -> Score:
    """The mean of scores of one metric over those that exist, infinite ones included, as a score named ``metric``."""
    rows = list(scores)
    values = [row.value for row in rows if not math.isnan(row.value)]
    if not values:
        return Score(metric, math.nan, rows[0].unit if rows else "", reason="no score to take the mean of")
    missing = [row.label for row in rows if math.isinf(row.value)]
    reason = f"infinite for {', '.join(map(label_in_words, missing))}" if missing else ""
    return Score(metric, sum(values) / len(values), rows[0].unit, reason=reason)


def to_frame(scores: Iterable[Score]) -> pandas.DataFrame:
    """One row a score, columns case, method, label, metric, unit, value, reason."""
    import pandas

    return pandas.DataFrame([asdict(score) for score in scores], columns=list(COLUMNS))


def to_csv(scores: Iterable[Score]) -> str:
    """The table as CSV, full precision; NaN is an empty cell, and what is infinite says ``inf``.

    Text becomes one line, and what a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for score in scores:
        row: dict[str, Any] = {name: plain_cell(cell) for name, cell in asdict(score).items() if name != "value"}
        row["value"] = "" if math.isnan(score.value) else repr(score.value)
        table.writerow(row)
    return text.getvalue()


def from_csv(text: str, file: Path | None = None) -> list[Score]:
    """What ``to_csv`` wrote, or another program in the same columns; only ``metric`` and ``value`` must be there.

    Args:
        text: of the file.
        file: its name, for the refusal.

    Raises:
        InputError: E-EVA-001, no such table; E-EVA-002, a row that is cut off or whose value is no number.
    """
    table = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    scores = []
    try:
        missing = [name for name in NEEDED if name not in (table.fieldnames or ())]
        if missing:
            found = f"no column {' and no column '.join(missing)}"
            raise InputError("E-EVA-001", found, file=file, expected=", ".join(COLUMNS), do="give a scores.csv")
        for row in table:
            if None in row or None in row.values():
                found = f"line {table.line_num} has another number of cells than the header"
                raise InputError("E-EVA-002", found, file=file, do="write the file again")
            value = _number(row["value"], f"line {table.line_num}", file)
            words = {name: _as_given(row.get(name) or "") for name in COLUMNS if name != "value"}
            if not math.isfinite(value) and not words["reason"]:
                words["reason"] = NO_REASON
            scores.append(Score(value=value, **words))
    except csv.Error as error:
        raise InputError("E-EVA-001", f"no CSV ({error})", file=file, expected="a table of scores") from error
    return scores


def _number(cell: str, where: str, file: Path | None) -> float:
    try:
        return float(cell) if cell.strip() else math.nan
    except ValueError:
        found = f"{where} has the value {cell!r}"
        raise InputError("E-EVA-002", found, file=file, expected="a number or nothing") from None


def to_json(scores: Iterable[Score]) -> list[dict[str, str | float | None]]:
    """The table as what ``json.dumps(..., allow_nan=False)`` accepts: null where a number does not exist."""
    rows = []
    for score in scores:
        row: dict[str, str | float | None] = {f.name: getattr(score, f.name) for f in fields(score)}
        if not math.isfinite(score.value):
            row["value"] = None
        rows.append({name: row[name] for name in COLUMNS})
    return rows


def plain_cell(cell: str) -> str:
    """Text that is one line, and no formula to a spreadsheet."""
    one_line = re.sub(r"[\t\r\n]+", " ", cell).strip()
    return f"'{one_line}" if one_line.startswith(FORMULA_STARTS) else one_line


def _as_given(cell: str) -> str:
    """A cell without the apostrophe that ``plain_cell`` put before a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell
