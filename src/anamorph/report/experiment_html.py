"""The page of an experiment: tables, means as bars and lines, cases as pictures, and the trainings behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anamorph.evaluation.comparison import Comparison
from anamorph.evaluation.notes import notes_on
from anamorph.report.charts import Chart
from anamorph.report.comparison_text import heading, key, shown
from anamorph.report.document import render_document, render_figure
from anamorph.report.experiment import facts_in_words, trainings_in_words
from anamorph.report.sheet import Sheet

STYLES = ("report.css", "charts.css", "training.css", "comparison.css", "figure.css", "experiment.css")


@dataclass(frozen=True)
class ExperimentFigures:
    """What is drawn of an experiment; what there is nothing to draw of is None or empty.

    Args:
        bars, lines: the means.
        examples: cases with their truth.
        cases: group -> single cases and what methods find in them.
        atlases: training -> (name, data URI) of its atlas as it was learnt.
    """

    bars: Chart | None = None
    lines: Chart | None = None
    examples: Sheet | None = None
    cases: Mapping[str, Sheet] = field(default_factory=dict)
    atlases: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


def chart_file(chart: Chart) -> str:
    """A chart as an SVG file of its own."""
    return render_figure("chart.svg.j2", alone=True, chart=chart)


def sheet_file(sheet: Sheet) -> str:
    """Pictures as an SVG file of their own."""
    return render_figure("sheet.svg.j2", alone=True, sheet=sheet, prefix="")


def render_experiment(
    title: str,
    about: str,
    found: Mapping[str, Comparison],
    trained: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    figures: ExperimentFigures,
    tables: Mapping[str, str],
    runs: Mapping[str, str],
) -> str:
    """One HTML document that loads nothing; it leads to others in the experiment's folder.

    Args:
        title, about, found, trained, facts: as for ``experiment.experiment_page``.
        figures: what is drawn.
        tables: group -> page of its comparison, relative to this one.
        runs: training -> its page, likewise.
    """
    drawn = [chart for chart in (figures.bars, figures.lines) if chart is not None]
    cases = {group: _inline(sheet, number) for number, (group, sheet) in enumerate(figures.cases.items(), 1)}
    sections = {
        "tables": "Tables",
        **({"means": "Means"} if drawn else {}),
        **({"cases": "Cases"} if cases or figures.examples else {}),
        **({"trainings": "Trainings"} if trained else {}),
        "run": "Run",
    }
    names, rows = trainings_in_words(trained)
    return render_document(
        "experiment.html.j2",
        STYLES,
        title=title,
        about=about.strip(),
        sections=sections,
        tables=[_table(group, comparison, tables.get(group, "")) for group, comparison in found.items()],
        charts=[render_figure("chart.svg.j2", alone=False, chart=chart) for chart in drawn],
        examples="" if figures.examples is None else _inline(figures.examples, 0),
        cases=cases,
        facts_trained=names,
        trainings=[(name, runs.get(name, ""), cells) for name, cells in rows],
        atlases=figures.atlases,
        facts=facts_in_words(facts),
    )


def _inline(sheet: Sheet, number: int) -> str:
    return render_figure("sheet.svg.j2", alone=False, sheet=sheet, prefix=f"sheet-{number}-")


def _table(group: str, found: Comparison, link: str) -> dict[str, Any]:
    return {
        "group": group,
        "link": link,
        "headings": [heading(column) for column in found.leading],
        "rows": [(method, [shown(found, column, method) for column in found.leading]) for method in found.methods],
        "key": [*key(found), *notes_on(found)],
    }
