"""The results of ``known_maps`` as Markdown: targets, means over seeds, every run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.tables import markdown_table, provenance_lines, shown

Row = dict[str, Any]

COLUMNS: tuple[tuple[str, str, int, float], ...] = (
    ("error_mean_mm", "error, mm", 2, 1),
    ("error_median_mm", "median", 2, 1),
    ("error_p95_mm", "p95", 2, 1),
    ("dice_mean", "Dice", 3, 1),
    ("hd95_mean_mm", "HD95, mm", 2, 1),
    ("folded_share", "folded, %", 4, 100),
    ("folded_share_mask", "folded in mask, %", 4, 100),
    ("sd_log_jacobian", "SD log J", 3, 1),
    ("seconds_registration", "s", 1, 1),
    ("seconds_process", "s in all", 1, 1),
    ("peak_mib", "MiB", 0, 1),
)
"""Key, heading, decimals, factor."""

MOST_TIMES_ANTS = 2.0
MOST_MOVED_MM = 0.5
WITHOUT_TARGET = "ct_t1"
"""A population average of CT says little about where things are: reported, but asked for nothing at seed 0."""


def page(results: dict[str, Any]) -> str:
    rows: list[Row] = results["rows"]
    parts = [
        "# Pairs whose true map is known",
        "Written by `python -m benchmarks.known_maps`; what each number means stands in `benchmarks/README.md`. "
        "**Bold**: best of a column. `none`: the images as their headers place them.",
        provenance_lines(results["hardware"], rows),
        "## Targets",
        *_targets(rows),
        "## Mean ± SD over seeds",
    ]
    moved = [row for row in rows if row["seed"]]
    for group in _ordered(row["group"] for row in moved):
        parts += [f"### {group}", _table([row for row in moved if row["group"] == group])]
    aligned = [row for row in rows if not row["seed"] and row["method"] != "none"]
    if aligned:
        parts += ["## Aligned already (seed 0): mean displacement, mm", _by_case(aligned, "displacement_mean_mm", 2)]
    parts += ["## Every case: mean error of the map, mm", _by_case(moved, "error_mean_mm", 2)]
    parts += ["## Seconds of registration", _by_case([row for row in rows if row["method"] != "none"], *SECONDS)]
    parts += ["## Seconds of Anamorph over those of ANTsPy SyN", _time_ratios(rows)]
    failures = [row for row in rows if row["failure"]]
    parts += ["## Failures", *([f"- {r['case']}, {r['method']}: {r['failure']}" for r in failures] or ["None."])]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


SECONDS = ("seconds_registration", 1)


def _targets(rows: list[Row]) -> list[str]:
    """The questions that the benchmark is there to answer, with their numbers."""
    moved, aligned = ([row for row in rows if bool(row["seed"]) is wanted] for wanted in (True, False))
    lines = [
        _verdict(
            f"mean error of the map below that of {peer}",
            [_less(_paired(moved, case, peer, "error_mean_mm")) for case in _ordered(row["case"] for row in moved)],
        )
        for peer in ("ants_syn", "elastix")
    ]
    ours = [row for row in rows if row["method"] == "anamorph"]
    lines.append(_verdict("no folded voxel", [_checked(row, "folded_voxels", lambda n: n == 0) for row in ours]))
    cases = _ordered(row["case"] for row in rows)
    limits = [_paired(rows, case, "ants_syn", "seconds_registration") for case in cases]
    lines.append(
        _verdict(
            f"at most {MOST_TIMES_ANTS:g} times the seconds of ants_syn", [_less(p, MOST_TIMES_ANTS) for p in limits]
        )
    )
    still = [row for row in aligned if row["method"] == "anamorph" and row["group"] != WITHOUT_TARGET]
    question = f"aligned pairs move by less than {MOST_MOVED_MM} mm on average ({WITHOUT_TARGET} apart)"
    lines.append(
        _verdict(question, [_checked(row, "displacement_mean_mm", lambda x: x < MOST_MOVED_MM) for row in still])
    )
    return lines


Answer = tuple[bool | None, str]
"""Whether it holds, None where it was not measured, and the numbers."""


def _verdict(question: str, answers: Sequence[Answer]) -> str:
    missed = [text for holds, text in answers if holds is False]
    unknown = [text for holds, text in answers if holds is None]
    met = len(answers) - len(missed) - len(unknown)
    word = "NO" if missed else "not measured" if unknown or not answers else "yes"
    details = [f"missed: {', '.join(missed)}"] if missed else []
    details += [f"not measured: {', '.join(unknown)}"] if unknown else []
    return f"- {question}: **{word}**, {met} of {len(answers)} cases" + "".join(f"; {text}" for text in details)


def _paired(rows: Iterable[Row], case: str, peer: str, key: str) -> tuple[str, float | None, float | None]:
    of = {row["method"]: row.get(key) for row in rows if row["case"] == case}
    return case, of.get("anamorph"), of.get(peer)


def _less(pair: tuple[str, float | None, float | None], factor: float = 1.0) -> Answer:
    case, ours, theirs = pair
    if ours is None or theirs is None:
        return None, case
    holds = ours < theirs if factor == 1.0 else ours <= factor * theirs
    return holds, f"{case} ({ours:.2f} against {theirs:.2f})"


def _checked(row: Row, key: str, accepts: Callable[[float], bool]) -> Answer:
    value = row.get(key)
    return (None, row["case"]) if value is None else (accepts(value), f"{row['case']} ({value:.4g})")


def _table(rows: list[Row]) -> str:
    """Every method's mean ± SD over the seeds of one group."""
    body: list[list[str]] = []
    methods = _ordered(row["method"] for row in rows)
    means: list[list[float | None]] = []
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        cells, numbers = [], []
        for key, _, decimals, factor in COLUMNS:
            values = [row[key] * factor for row in own if row.get(key) is not None]
            spread = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
            short = f" ({len(values)} of {len(own)})" if 0 < len(values) < len(own) else ""
            cells.append(f"{statistics.mean(values):.{decimals}f}{spread}{short}" if values else "")
            numbers.append(round(statistics.mean(values), decimals) if len(values) == len(own) else None)
        means.append(numbers)
        failed = sum(row["failure"] is not None for row in own)
        body.append([method, *cells, str(failed) if failed else ""])
    for column, (key, *_) in enumerate(COLUMNS):
        entries = [m[column] for m, method in zip(means, methods, strict=True) if method != "none"]
        measured = [value for value in entries if value is not None]
        if key == "sd_log_jacobian" or len(set(measured)) < 2:
            continue
        best = max(measured) if key == "dice_mean" else min(measured)
        for line, numbers, method in zip(body, means, methods, strict=True):
            if numbers[column] == best and method != "none":
                line[column + 1] = f"**{line[column + 1]}**"
    return markdown_table(["method", *(heading for _, heading, *_ in COLUMNS), "failed"], body)


def _by_case(rows: list[Row], key: str, decimals: int) -> str:
    methods = _ordered(row["method"] for row in rows)
    body = []
    for case in _ordered(row["case"] for row in rows):
        of = {row["method"]: row for row in rows if row["case"] == case}
        values = {method: of[method].get(key) for method in methods if method in of}
        rounded = [round(v, decimals) for method, v in values.items() if v is not None and method != "none"]
        cells = []
        for method in methods:
            text = "failed" if method in of and of[method]["failure"] else shown(values.get(method), decimals)
            value = values.get(method)
            best = (
                len(rounded) > 1 and value is not None and method != "none" and round(value, decimals) == min(rounded)
            )
            cells.append(f"**{text}**" if best else text)
        body.append([case, *cells])
    return markdown_table(["case", *methods], body)


def _time_ratios(rows: list[Row]) -> str:
    body = []
    for case in _ordered(row["case"] for row in rows):
        _, ours, theirs = _paired(rows, case, "ants_syn", "seconds_registration")
        body.append([case, shown(ours, 1), shown(theirs, 1), shown(ours / theirs if ours and theirs else None, 2)])
    return markdown_table(["case", "anamorph, s", "ants_syn, s", "ratio"], body)


def _ordered(names: Iterable[str]) -> list[str]:
    """Each once, as they first come."""
    return list(dict.fromkeys(names))
