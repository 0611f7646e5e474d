"""The page of a comparison: its table, the cases behind it, the labels, and every test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anamorph.evaluation.comparison import Column, Comparison
from anamorph.evaluation.notes import notes_on, shortened
from anamorph.report.comparison_csv import tests_of
from anamorph.report.comparison_figures import MOST_DOTS, box_plot, champion_of, heat_rows, scatters, worst_cases
from anamorph.report.comparison_text import alike, heading, key, shown
from anamorph.report.document import render_document, render_figure
from anamorph.report.sheet import Sheet
from anamorph.report.tables import format_value
from anamorph.report.verdict import Tile

MOST_LABELS_WITH_BOXES = 6
MOST_TILES = 6
STYLES = ("report.css", "charts.css", "comparison.css", "figure.css")


def render_comparison(
    found: Comparison,
    sources: Mapping[str, str] | None = None,
    title: str = "",
    pictures: Mapping[str, Sheet] | None = None,
) -> str:
    """The comparison as one HTML document that loads nothing.

    Args:
        found: what to show.
        sources: name -> hash of the files that the scores came from.
        title: of the page; by default how many methods and cases there are.
        pictures: of single cases, by what they show.
    """
    by_label = list(_by_label(found))
    charts = [_chart(found, column) for column in found.leading if _drawable(column)]
    sections = {
        "table": "Table",
        **({"pictures": "Pictures"} if pictures else {}),
        **({"cases": "Cases"} if charts else {}),
        **({"labels": "Labels"} if by_label else {}),
        **{"tests": "Tests", "everything": "Every metric", "run": "Run"},
    }
    size = f"{_count(len(found.methods), 'method')} on {_count(len(found.cases), 'case')}"
    return render_document(
        "comparison.html.j2",
        STYLES,
        title=title or size,
        sections=sections,
        lead=f"{f'{size}: ' if title else ''}{', '.join(found.methods)}",
        tiles=list(_tiles(found)),
        notes=list(notes_on(found)),
        headings=[heading(column) for column in found.leading],
        rows=[(method, [shown(found, column, method) for column in found.leading]) for method in found.methods],
        key=key(found),
        methods=found.methods,
        pictures={
            name: render_figure("sheet.svg.j2", alone=False, sheet=sheet, prefix=f"pictures-{number}-")
            for number, (name, sheet) in enumerate((pictures or {}).items())
        },
        charts=charts,
        by_label=by_label,
        tests=list(_tests(found)),
        everything=[
            (heading(column), [shown(found, column, method) for method in found.methods])
            for column in found.columns
            if column.alone
        ],
        settings=list(_settings(found).items()),
        sources=[(name, f"sha256 {digest[:12]}") for name, digest in (sources or {}).items()],
    )


def _tiles(found: Comparison) -> Iterator[Tile]:
    """Who is best by each of the first metrics."""
    for column in found.leading[:MOST_TILES]:
        best = [method for method, cell in column.cells.items() if cell.place == 1]
        if best:
            value = format_value(column.cells[best[0]].summary.mean, column.unit)
            yield Tile(f"Best {column.title}", value, column.unit, ", ".join(best))


def _drawable(column: Column) -> bool:
    return any(cell.values for cell in column.cells.values())


def _chart(found: Comparison, column: Column) -> dict[str, Any]:
    return {
        "heading": heading(column),
        "boxes": box_plot(found, column),
        "many": any(len(cell.values) > MOST_DOTS for cell in column.cells.values()),
        "scatters": list(scatters(found, column)),
        "better_above": bool(column.about.higher_is_better),
        "worst": list(worst_cases(found, column)),
        "champion": champion_of(found, column),
    }


def _by_label(found: Comparison) -> Iterator[dict[str, Any]]:
    """The labels of each metric that the table shows as a mean over them, or one by one unless that is all of it."""
    shown_alone = {column.metric for column in found.leading if column.label and column.alone}
    stems = {column.metric.replace("_mean", "", 1) for column in found.leading} | {c.metric for c in found.leading}
    for metric in dict.fromkeys(c.metric for c in found.columns if c.label and c.metric in stems - shown_alone):
        columns = found.by_label(metric)
        few = len(columns) <= MOST_LABELS_WITH_BOXES
        yield {
            "heading": heading(columns[0]).replace(f", {columns[0].label}", "", 1),
            "heat": heat_rows(found, columns),
            "boxes": [(c.label, box_plot(found, c)) for c in columns if _drawable(c)] if few else [],
        }


def _tests(found: Comparison) -> Iterator[dict[str, Any]]:
    titles = {(column.metric, column.label): heading(column) for column in found.leading}
    for about, test in tests_of(found.leading):
        gain, low, high = alike([test.gain, test.low, test.high])
        yield {
            "metric": titles[about["metric"], about["label"]],
            "better": about["better"],
            "worse": about["worse"],
            "n": test.n,
            "left_out": f"without {', '.join(test.left_out)}" if test.left_out else "",
            "gain": gain,
            "untested": test.untested,
            "interval": f"{low} to {high}",
            "significant": test.significant,
            "p": _probability(test.p),
            "p_wilcoxon": _probability(test.p_wilcoxon),
        }


def _probability(p: float) -> str:
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


def _settings(found: Comparison) -> dict[str, str]:
    return {
        "tested against": found.reference or "the best and the second best of each metric",
        "level": f"{found.level:g}",
        "correction": "Holm, within a metric" if found.corrected else "none",
        "bootstrap": f"{found.repetitions} repetitions, seed {found.seed}",
        "cases": shortened(found.cases, 30),
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
