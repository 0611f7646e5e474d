"""Markdown pieces that the result pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def markdown_table(headings: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, rule, *body))


def shown(value: float | None, decimals: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{value * factor:.{decimals}f}"


def provenance_lines(hardware: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Where the rows come from; several commits or versions are all named."""
    measured = [row for row in rows if row.get("commit")]
    versions: dict[str, set[str]] = {}
    for row in measured:
        for package, version in row.get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    dates = sorted(row["date"][:10] for row in measured) or ["never"]
    threads = sorted({str(row["threads"]) for row in measured})
    ours = sorted({row["commit"] for row in measured if row.get("method", "anamorph") == "anamorph"})
    machine = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_mib']} MiB"
    packages = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))
    return "\n".join(
        [
            f"- commit {', '.join(ours) or 'unknown'}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}",
            f"- {machine}; threads: {', '.join(threads)}",
            f"- {packages}",
        ]
    )
