"""From the tidy scores of several methods to one table: means, what is missing, who is best, and who is better.

A value may be missing in three ways, which are kept apart. A structure that is empty in both images leaves nothing to
measure (*absent*). A number that is infinite or undefined for any other reason is a *failure*, and so is a case for
which other methods have a score and this one has none. A failure is worse than any value: methods are ranked by the
number of their failures first, then by their mean. Means are over finite values, with failures told beside them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from anamorph.errors import ConfigurationError
from anamorph.evaluation.arrangement import Arrangement, arrange
from anamorph.evaluation.metrics import LEADING, OF_IMAGE, Metric, metric_of
from anamorph.evaluation.overlap import EMPTY_IN_BOTH
from anamorph.evaluation.scores import Score, mean_name
from anamorph.evaluation.statistics import (
    LEVEL,
    REPETITIONS,
    PairedTest,
    Pairing,
    Summary,
    holm,
    pair,
    paired_tests,
    summarise,
)

Question = Literal["best", "second", "reference", "above"]
"""best, second, reference: is that one better than this method? above: is this method better than the reference?"""
SUPERSCRIPTS: dict[Question, str] = {"best": "*", "second": "†", "reference": "*", "above": "‡"}
NO_SCORE = "no score"
"""Why a case is a failure for which other methods have a score."""


@dataclass(frozen=True)
class Challenge:
    """A test between a method and a rival."""

    question: Question
    rival: str
    test: PairedTest


@dataclass(frozen=True)
class Cell:
    """One method in one column.

    Args:
        values: case -> finite value.
        summary: of them.
        absent: cases without the structure.
        failed: case -> why it has no value.
        place: 1 the best, 2 the second best, 0 neither.
        challenges: tests against the best and the second best, or the reference, unless this method is that one itself.
    """

    values: Mapping[str, float]
    summary: Summary
    absent: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    place: int = 0
    challenges: tuple[Challenge, ...] = ()

    @property
    def superscript(self) -> str:
        """``*`` the best (or the reference) is better, ``†`` the second best is, ``‡`` better than the reference."""
        return "".join(SUPERSCRIPTS[one.question] for one in self.challenges if one.test.significant)


@dataclass(frozen=True)
class Column:
    """One metric of one label, or of the whole image where ``label`` is empty; methods without a row have no cell."""

    metric: str
    label: str
    unit: str
    about: Metric
    cells: Mapping[str, Cell]

    @property
    def title(self) -> str:
        """As a reader calls it, label included."""
        return f"{self.about.title}, {self.label}" if self.label else self.about.title

    @property
    def alone(self) -> bool:
        """Whether it stands for itself: of the whole image, or of a part of it that no mean stands for."""
        return not self.label or self.metric in OF_IMAGE


@dataclass(frozen=True)
class Comparison:
    """Methods on the same cases.

    Args:
        methods: in the order of their first appearance.
        cases: likewise.
        columns: every metric of every label.
        leading: what the table shows, in order.
        failures: (method, case) -> why there is no result at all.
        reference: method that every other is tested against; the best and the second best of a column if empty.
        level: of the tests.
        corrected: whether p values are corrected for the number of methods.
        repetitions, seed: of the bootstrap.
    """

    methods: tuple[str, ...]
    cases: tuple[str, ...]
    columns: tuple[Column, ...]
    leading: tuple[Column, ...]
    failures: Mapping[tuple[str, str], str]
    reference: str
    level: float
    corrected: bool
    repetitions: int
    seed: int

    def by_label(self, metric: str) -> tuple[Column, ...]:
        """The columns of a metric that are about one label each."""
        return tuple(column for column in self.columns if column.metric == metric and column.label)


def compare(
    scores: Iterable[Score],
    *,
    metrics: Sequence[str] = (),
    labels: Sequence[str] = (),
    reference: str = "",
    level: float = LEVEL,
    correct: bool = False,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Comparison:
    """The comparison of every method that the scores speak of.

    Args:
        scores: with case and method.
        metrics: what to compare, in this order; everything if empty, the table then showing the leading ones.
        labels: which labels the table shows one by one; if empty it shows means over labels.
        reference: method to test every other against, rather than the best and the second best of each column.
        level: of the one-sided tests.
        correct: correct p values for the number of methods tested in a column (Holm).
        repetitions: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ConfigurationError: E-EVA-004, a metric, label or method that the scores do not have.
        InputError: E-EVA-003, there are no scores, or two for one thing.
    """
    found = arrange(scores)
    _require("metric", metrics, {metric for metric, _ in found.rows})
    _require("label", labels, {label for _, label in found.rows} - {""})
    _require("method", [reference] if reference else [], set(found.methods))
    chosen = {*metrics, *map(mean_name, metrics)}
    scoring = {method for method, _, _ in found.scored}
    columns = [_column(key, found, scoring) for key in found.rows if not metrics or key[0] in chosen]
    columns = _tested(columns, reference, level, correct, repetitions, seed)
    return Comparison(
        tuple(found.methods), tuple(found.cases), tuple(columns), tuple(_leading(columns, metrics, labels)),
        found.failures, reference, level, correct, repetitions, seed,
    )  # fmt: skip


def _require(what: str, wanted: Iterable[str], known: set[str]) -> None:
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            do = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(known)[:40])}"
            raise ConfigurationError("E-EVA-004", f"the scores have no {what} {name!r}", do=do)


def _column(key: tuple[str, str], found: Arrangement, scoring: Collection[str]) -> Column:
    """What was scored under a metric and label; ``scoring`` are the methods that have a score of anything."""
    metric, label = key
    rows, about = found.rows[key], metric_of(metric)
    expected = [case for case in found.cases if any(case in by_case for by_case in rows.values())]
    unit = next((score.unit for by_case in rows.values() for score in by_case.values() if score.unit), "")
    cells = {
        method: _cell(method, key, expected, found)
        for method in found.methods
        if method in rows or (method in scoring and all((method, case) in found.failures for case in expected))
    }
    if about.higher_is_better is not None:
        ranked = _ranked(cells, about)
        places = _places([_rank(cells[method], about) for method in ranked])
        cells |= {method: replace(cells[method], place=place) for method, place in zip(ranked, places, strict=True)}
    return Column(metric, label, unit, about, cells)


def _cell(method: str, key: tuple[str, str], expected: Sequence[str], found: Arrangement) -> Cell:
    values: dict[str, float] = {}
    absent: list[str] = []
    failed: dict[str, str] = {}
    for case in expected:
        score = found.rows[key].get(method, {}).get(case)
        if score is None and (method, case, key[0]) in found.scored:  # with other labels, so this one is in neither
            absent.append(case)
        elif score is None:
            failed[case] = found.failures.get((method, case), NO_SCORE)
        elif math.isfinite(score.value):
            values[case] = score.value
        elif score.reason == EMPTY_IN_BOTH:
            absent.append(case)
        else:
            failed[case] = score.reason
    return Cell(values, summarise(values.values()), tuple(absent), failed)


def _ranked(cells: Mapping[str, Cell], about: Metric) -> list[str]:
    """The methods that have a value, best first."""
    return sorted((method for method, cell in cells.items() if cell.values), key=lambda m: _rank(cells[m], about))


def _rank(cell: Cell, about: Metric) -> tuple[int, float]:
    """Lower is better: failures first, then the mean."""
    return len(cell.failed), -cell.summary.mean if about.higher_is_better else cell.summary.mean


def _places(ranks: Sequence[tuple[int, float]]) -> list[int]:
    """1 for the best, 2 for the second best, equals alike; nothing where all are equal or there is only one."""
    different = sorted(set(ranks))
    if len(different) < 2:
        return [0] * len(ranks)
    second = different[1] if ranks.count(different[0]) == 1 else None
    return [1 if rank == different[0] else 2 if rank == second else 0 for rank in ranks]


def _tested(
    columns: Sequence[Column], reference: str, level: float, correct: bool, repetitions: int, seed: int
) -> list[Column]:
    """The same columns with their tests, all of which share the resamples of the bootstrap."""
    asked = [(place, *question) for place, column in enumerate(columns) for question in _questions(column, reference)]
    found = paired_tests([pairing for *_, pairing in asked], level, repetitions, seed)
    if correct:
        found = _corrected([(place, question) for place, _, question, *_ in asked], found, level)
    cells = [dict(column.cells) for column in columns]
    for (place, method, question, rival, _), test in zip(asked, found, strict=True):
        cell = cells[place][method]
        cells[place][method] = replace(cell, challenges=(*cell.challenges, Challenge(question, rival, test)))
    return [replace(column, cells=own) for column, own in zip(columns, cells, strict=True)]


def _questions(column: Column, reference: str) -> Iterator[tuple[str, Question, str, Pairing]]:
    """(method, question, rival, cases side by side)."""
    higher, cells = column.about.higher_is_better, column.cells
    if higher is None:
        return
    if reference:
        for method in cells:
            if reference in cells and method != reference:
                yield method, "reference", reference, pair(cells[reference].values, cells[method].values, higher)
                yield method, "above", reference, pair(cells[method].values, cells[reference].values, higher)
        return
    ranked = _ranked(cells, column.about)
    champions: list[tuple[Question, str]] = list(zip(("best", "second"), ranked[:2], strict=False))
    for rank, (question, champion) in enumerate(champions):
        for method in cells:
            if method not in ranked[: rank + 1]:
                yield method, question, champion, pair(cells[champion].values, cells[method].values, higher)


def _corrected(families: Sequence[tuple[int, str]], tests: Sequence[PairedTest], level: float) -> list[PairedTest]:
    """Holm's correction within each column and question."""
    result = list(tests)
    members: dict[tuple[int, str], list[int]] = {}
    for place, family in enumerate(families):
        members.setdefault(family, []).append(place)
    for places in members.values():
        for place, p in zip(places, holm([tests[place].p for place in places]), strict=True):
            result[place] = replace(tests[place], p=p, significant=p <= level)
    return result


def _leading(columns: Sequence[Column], metrics: Sequence[str], labels: Sequence[str]) -> Iterator[Column]:
    """The columns of the table: each metric asked for, or each leading one, of the labels asked for or as a mean.

    What has no mean is told part by part.
    """
    by_key = {(column.metric, column.label): column for column in columns}
    alone = dict.fromkeys(column.metric for column in columns if column.alone)
    wanted = list(metrics) or [metric for name in LEADING for metric in alone if fnmatchcase(metric, name)]
    for metric in wanted or alone:
        stem = metric if metrics else _labelled_name(metric, by_key)
        named = [by_key[stem, label] for label in labels if (stem, label) in by_key]
        whole = by_key.get((metric, ""), by_key.get((mean_name(metric), "")))
        yield from named or (_parts(columns, metric) if whole is None else [whole])


def _parts(columns: Sequence[Column], metric: str) -> list[Column]:
    """The columns of a metric but for parts of parts: "to ct", not "to ct, inside the mask"."""
    found = [column for column in columns if column.metric == metric]
    return [one for one in found if not any(one.label.startswith(f"{other.label}, ") for other in found)]


def _labelled_name(mean: str, known: Iterable[tuple[str, str]]) -> str:
    """The metric by label that a mean is of."""
    return next((metric for metric, label in known if label and mean_name(metric) == mean), mean)
