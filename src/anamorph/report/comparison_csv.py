"""A comparison as tables for other programs: one row a cell, one row a method, one row a test."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from anamorph.evaluation.comparison import Column, Comparison
from anamorph.evaluation.scores import plain_cell
from anamorph.evaluation.statistics import PairedTest

NUMBERS = ("mean", "sd", "median", "q1", "q3", "smallest", "largest")
LONG = ("method", "metric", "label", "unit", "better", "cases", "n", "absent", "failed", *NUMBERS, "place", "marks")
TESTS = (
    *("metric", "label", "better", "worse", "n", "gain", "low", "high", "p", "p_wilcoxon", "significant"),
    *("left_out", "untested"),
)
DIRECTIONS = {True: "higher", False: "lower", None: ""}


def as_csv(found: Comparison) -> str:
    """Every method in every column: how many cases, what is missing, mean, spread, place and marks."""
    rows = []
    for column in found.columns:
        for method, cell in column.cells.items():
            row: dict[str, Any] = {"method": method, "metric": column.metric, "label": column.label}
            row |= {"unit": column.unit, "better": DIRECTIONS[column.about.higher_is_better]}
            row |= {"cases": len(found.cases), "n": cell.summary.n, "absent": len(cell.absent)}
            row |= {"failed": len(cell.failed), "place": cell.place or "", "marks": cell.superscript}
            rows.append(row | {name: getattr(cell.summary, name) for name in NUMBERS})
    return _written(LONG, rows)


def as_wide_csv(found: Comparison) -> str:
    """One row a method; mean, standard deviation and number of cases of every metric of the whole image.

    Of what is told part by part: of each.
    """
    columns = {_name(column): column for column in found.columns if column.alone}
    rows = []
    for method in found.methods:
        row: dict[str, Any] = {"method": method}
        for name, column in columns.items():
            if (cell := column.cells.get(method)) is not None:
                row |= {f"{name} mean": cell.summary.mean, f"{name} sd": cell.summary.sd, f"{name} n": cell.summary.n}
        rows.append(row)
    names = [f"{name} {what}" for name in columns for what in ("mean", "sd", "n")]
    return _written(("method", *names), rows)


def as_tests_csv(found: Comparison) -> str:
    """Every test that was made, or could not be made: the rival that may be better, the method that may be worse."""
    rows = []
    for about, test in tests_of(found.columns):
        row = {name: getattr(test, name) for name in ("n", "gain", "low", "high", "p", "p_wilcoxon", "untested")}
        row |= {"significant": "yes" if test.significant else "no", "left_out": "; ".join(test.left_out)}
        rows.append(about | row)
    return _written(TESTS, rows)


def tests_of(columns: Iterable[Column]) -> Iterator[tuple[dict[str, str], PairedTest]]:
    """Each test with the names of what it is about."""
    for column in columns:
        for method, cell in column.cells.items():
            for challenge in cell.challenges:
                sides = (method, challenge.rival) if challenge.question == "above" else (challenge.rival, method)
                about = {"metric": column.metric, "label": column.label}
                yield about | dict(zip(("better", "worse"), sides, strict=True)), challenge.test


def _name(column: Column) -> str:
    return f"{column.metric} {column.label}".strip()


def _written(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, names, restval="", lineterminator="\n")
    table.writerow({name: plain_cell(name) for name in names})
    for row in rows:
        table.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return plain_cell(value) if isinstance(value, str) else value
