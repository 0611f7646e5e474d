"""The page and the record of an experiment: its table, what was trained, and where the numbers come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from anamorph.evaluation.comparison import Comparison
from anamorph.evaluation.notes import notes_on
from anamorph.report.comparison_text import as_markdown
from anamorph.report.tables import format_value


def experiment_page(
    title: str,
    about: str,
    found: Mapping[str, Comparison],
    trained: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    figures: Mapping[str, str] | None = None,
) -> str:
    """The page, as Markdown.

    Args:
        title, about: of the experiment.
        found: its methods compared, by group of cases; a group of the name "" has no heading.
        trained: training -> what its model card says of it.
        facts: where the numbers come from: command, scale, commit, date, hardware, versions.
        figures: files beside the page -> what they show.
    """
    parts = [f"# {title}", about.strip()]
    for group, comparison in found.items():
        parts += [f"## {group}" if group else "", as_markdown(comparison).strip()]
    parts += [f"![{shows}]({name})" for name, shows in (figures or {}).items()]
    if trained:
        parts += ["## Trainings", _trainings(trained)]
    parts += [
        "## Where the numbers come from",
        "\n".join(f"- {name}: {words}" for name, words in facts_in_words(facts)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def experiment_record(
    title: str,
    found: Mapping[str, Comparison],
    trained: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    experiment: Any,
) -> dict[str, Any]:
    """The same for programs, without a number that JSON does not have.

    Args:
        title, found, trained, facts: as for ``experiment_page``.
        experiment: the resolved experiment, as plain values.
    """
    return {
        "what": title,
        **facts,
        "experiment": experiment,
        "trained": {name: dict(about) for name, about in trained.items()},
        "tables": {group: _table(comparison) for group, comparison in found.items()},
    }


def _table(found: Comparison) -> dict[str, Any]:
    rows = [
        {
            "metric": column.metric,
            "label": column.label,
            "unit": column.unit,
            "method": method,
            "n": cell.summary.n,
            "absent": len(cell.absent),
            "failed": len(cell.failed),
            "marks": cell.superscript,
            **{name: _finite(getattr(cell.summary, name)) for name in ("mean", "sd", "median", "q1", "q3")},
        }
        for column in found.columns
        for method, cell in column.cells.items()
    ]
    return {"cases": len(found.cases), "notes": list(notes_on(found)), "rows": rows}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def trainings_in_words(trained: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """What is said of every training: facts that all or some have, and each training's words for them."""
    names = list(dict.fromkeys(fact for about in trained.values() for fact, value in about.items() if _is_plain(value)))
    rows = [(training, [_cell(about.get(name)) for name in names]) for training, about in trained.items()]
    return [name.replace("_", " ") for name in names], rows


def facts_in_words(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the numbers come from, one line a fact."""
    return [
        (
            name.replace("_", " "),
            ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value),
        )
        for name, value in facts.items()
    ]


def _trainings(trained: Mapping[str, Mapping[str, Any]]) -> str:
    names, rows = trainings_in_words(trained)
    lines = [f"| training | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return "\n".join([*lines, *(f"| {training} | {' | '.join(cells)} |" for training, cells in rows)])


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return format_value(value) if isinstance(value, float) else str(value)
