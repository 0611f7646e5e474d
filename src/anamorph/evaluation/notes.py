"""What a reader of a comparison has to know beside its numbers, a line each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from anamorph.evaluation.comparison import Comparison
from anamorph.evaluation.scores import label_in_words

FEW_PAIRS = 30
"""Below this many, the bootstrap's interval is too narrow: at 10 pairs it errs in 2.4 % of studies instead of 1 %."""
FILE = re.compile(r"^([EW]-[A-Z]{2,4}-\d{3}: )\S+\.\w+: ", re.ASCII)
"""A refusal's code and the name of its file."""


def notes_on(found: Comparison) -> Iterator[str]:
    """What the numbers do not say: failures, absent structures, and what could not be tested."""
    for method in found.methods:
        if not any(method in column.cells for column in found.columns):
            why = "; ".join(dict.fromkeys(_of_any(why) for (who, _), why in found.failures.items() if who == method))
            yield f"{_called(method)}: no scores at all" + (f" ({why})" if why else "")
    for (method, cases, why), titles in _failed(found).items():
        where = f"{len(cases)} of {len(found.cases)} cases ({shortened(cases)})"
        everywhere = len(titles) == sum(method in column.cells for column in found.columns)
        what = "any metric" if everywhere else shortened(titles, 3)
        yield f"{_called(method)}: no value in {where} for {what}: {why}"
    for label, cases in _absent(found).items():
        where = f"{len(cases)} of {len(found.cases)} cases ({shortened(cases)})"
        yield f"{label_in_words(label)}: nothing to measure in {where}, as neither image has it"
    unknown = [column.title for column in found.leading if column.about.higher_is_better is None]
    if unknown:
        yield f"{shortened(unknown)}: neither way is known to be better, so nothing is marked"
    cells = [cell for column in found.leading for cell in column.cells.values()]
    tests = [challenge.test for cell in cells for challenge in cell.challenges]
    untested = dict.fromkeys(test.untested for test in tests if test.untested)
    yield from (f"No test: {why}" for why in untested)
    smallest = min((test.n for test in tests if not test.untested), default=FEW_PAIRS)
    if smallest < FEW_PAIRS:
        yield f"With {smallest} pairs the bootstrap errs more often than its level says; {_by_ranks(found)}"


def shortened(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _by_ranks(found: Comparison) -> str:
    """Which marks of the table Wilcoxon's test does not share."""
    marked = [
        (column, method, challenge.test.p_wilcoxon)
        for column in found.leading
        for method, cell in column.cells.items()
        for challenge in cell.challenges
        if challenge.test.significant
    ]
    if not marked:
        return "nothing is marked"
    alone = [f"{column.title} of {_called(method)} ({p:.2g})" for column, method, p in marked if not p <= found.level]
    p_value = "Wilcoxon's p, uncorrected," if found.corrected else "Wilcoxon's p"
    if not alone:
        return f"{p_value} is at most {found.level:g} too where a mark stands"
    return f"{p_value} is above {found.level:g} for these marks: {', '.join(alone)}"


def _called(method: str) -> str:
    return method or "the method without a name"


def _of_any(why: str) -> str:
    """A reason without the name of a file, so that many cases may share it."""
    return FILE.sub(r"\1", why)


def _failed(found: Comparison) -> dict[tuple[str, tuple[str, ...], str], list[str]]:
    """(method, cases, why) -> titles of the columns that lack those values."""
    groups: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    first = {(column.metric, column.label) for column in found.leading}
    for column in sorted(found.columns, key=lambda column: (column.metric, column.label) not in first):
        for method, cell in column.cells.items():
            by_reason: dict[str, list[str]] = {}
            for case, why in cell.failed.items():
                by_reason.setdefault(_of_any(why), []).append(case)
            for why, cases in by_reason.items():
                what = column.title if column.alone else f"{column.about.title} of {label_in_words(column.label)}"
                groups.setdefault((method, tuple(cases), why), []).append(what)
    return groups


def _absent(found: Comparison) -> dict[str, list[str]]:
    """Label -> cases in which some method had nothing to measure."""
    labels: dict[str, dict[str, None]] = {}
    for column in found.columns:
        for cell in column.cells.values() if column.label else ():
            labels.setdefault(column.label, {}).update(dict.fromkeys(cell.absent))
    return {label: list(cases) for label, cases in labels.items() if cases}
