"""The tidy table of scores, and how it becomes a data frame, CSV and JSON.

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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

FORMULA_STARTS = ("=", "+", "-", "@")


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


def mean_score(scores: Iterable[Score], metric: str) -> Score:
    """The mean of scores of one metric over those that exist, infinite ones included, as a score named ``metric``."""
    rows = list(scores)
    values = [row.value for row in rows if not math.isnan(row.value)]
    if not values:
        return Score(metric, math.nan, rows[0].unit if rows else "", reason="no score to take the mean of")
    missing = [row.label for row in rows if math.isinf(row.value)]
    reason = f"infinite for {', '.join(missing)}" if missing else ""
    return Score(metric, sum(values) / len(values), rows[0].unit, reason=reason)


def to_frame(scores: Iterable[Score]) -> pandas.DataFrame:
    """One row a score, columns case, method, label, metric, unit, value, reason."""
    import pandas

    return pandas.DataFrame([asdict(score) for score in scores], columns=list(COLUMNS))


def to_csv(scores: Iterable[Score]) -> str:
    """The table as CSV, full precision; a number that does not exist is an empty cell.

    Text becomes one line, and what a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for score in scores:
        row: dict[str, Any] = {name: _as_text(cell) for name, cell in asdict(score).items() if name != "value"}
        row["value"] = repr(score.value) if math.isfinite(score.value) else ""
        table.writerow(row)
    return text.getvalue()


def to_json(scores: Iterable[Score]) -> list[dict[str, str | float | None]]:
    """The table as what ``json.dumps(..., allow_nan=False)`` accepts: null where a number does not exist."""
    rows = []
    for score in scores:
        row: dict[str, str | float | None] = {f.name: getattr(score, f.name) for f in fields(score)}
        if not math.isfinite(score.value):
            row["value"] = None
        rows.append({name: row[name] for name in COLUMNS})
    return rows


def _as_text(cell: str) -> str:
    one_line = re.sub(r"[\t\r\n]+", " ", cell).strip()
    return f"'{one_line}" if one_line.startswith(FORMULA_STARTS) else one_line
