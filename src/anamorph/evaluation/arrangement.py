"""The scores of several files as one table: methods of one name told apart, means over labels added."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from anamorph.errors import InputError, warn
from anamorph.evaluation.metrics import FAILED, OF_IMAGE
from anamorph.evaluation.overlap import EMPTY_IN_BOTH
from anamorph.evaluation.scores import Score, mean_name, mean_score

Rows = dict[str, dict[str, Score]]
"""Method -> case -> score."""


@dataclass(frozen=True)
class Arrangement:
    """Scores by what they are about.

    Args:
        rows: (metric, label) -> method -> case -> score.
        methods: in the order of their first appearance.
        cases: likewise.
        failures: (method, case) -> why there is no result at all.
        scored: (method, case, metric) of all scores.
    """

    rows: dict[tuple[str, str], Rows] = field(default_factory=dict)
    methods: dict[str, None] = field(default_factory=dict)
    cases: dict[str, None] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    scored: set[tuple[str, str, str]] = field(default_factory=set)


def arrange(scores: Iterable[Score]) -> Arrangement:
    """The scores by what they are about, means over labels included.

    Raises:
        InputError: E-EVA-003, there are no scores, or two for one thing.
    """
    found = Arrangement()
    for score in scores:
        found.methods.setdefault(score.method)
        found.cases.setdefault(score.case)
        if score.metric == FAILED:
            found.failures[score.method, score.case] = score.reason
            continue
        by_case = found.rows.setdefault((score.metric, score.label), {}).setdefault(score.method, {})
        if score.case in by_case:
            raise _twice(score)
        by_case[score.case] = score
        found.scored.add((score.method, score.case, score.metric))
    if not found.rows:
        raise InputError("E-EVA-003", "no scores", expected="at least one", do="evaluate a method first")
    found.rows.update(_means(found.rows))
    return found


def merge(files: Sequence[tuple[str, Sequence[Score]]]) -> list[Score]:
    """The scores of several files as one list.

    Methods of one name are one method as long as the files agree: they hold other cases, or the same values. Otherwise
    each gets the name of its file behind its own, with a warning (W-EVA-005). A score without a method gets the name
    of its file.

    Args:
        files: a short name, different for each, and its scores.

    Raises:
        InputError: E-EVA-003, two scores for one thing in a file.
    """
    named = [
        (name, [score if score.method else replace(score, method=name) for score in scores]) for name, scores in files
    ]
    at_odds = _at_odds(named)
    merged: dict[tuple[str, ...], Score] = {}
    for name, scores in named:
        own: set[tuple[str, ...]] = set()
        for score in scores:
            told_apart = replace(score, method=f"{score.method} ({name})") if score.method in at_odds else score
            key = _key(told_apart)
            if key in own:
                raise _twice(score)
            own.add(key)
            merged.setdefault(key, told_apart)
    return list(merged.values())


def _at_odds(files: Sequence[tuple[str, Sequence[Score]]]) -> set[str]:
    """Methods that have different values for the same thing in two files; says so."""
    seen: dict[tuple[str, ...], float] = {}
    found: dict[str, None] = {}
    for _, scores in files:
        here = {_key(score): score.value for score in scores}
        found |= {key[0]: None for key, value in here.items() if key in seen and not _same(seen[key], value)}
        seen |= here
    for method in found:
        names = ", ".join(name for name, scores in files if any(score.method == method for score in scores))
        warn("W-EVA-005", f"{method!r} has different scores of the same cases in {names}; told apart by the file")
    return set(found)


def _key(score: Score) -> tuple[str, ...]:
    return score.method, score.case, score.label, score.metric


def _means(rows: Mapping[tuple[str, str], Rows]) -> dict[tuple[str, str], Rows]:
    """The mean over labels of whatever is given by label alone, but of ``OF_IMAGE``."""
    labels_of: dict[str, list[str]] = {}
    for metric, label in rows:
        if label and metric not in OF_IMAGE:
            labels_of.setdefault(metric, []).append(label)
    result: dict[tuple[str, str], Rows] = {}
    for metric, labels in labels_of.items():
        name = mean_name(metric)
        if (name, "") in rows or (metric, "") in rows:
            continue
        parts: dict[str, dict[str, list[Score]]] = {}
        for label in labels:
            for method, by_case in rows[metric, label].items():
                for case, score in by_case.items():
                    parts.setdefault(method, {}).setdefault(case, []).append(score)
        result[name, ""] = {
            method: {case: _mean(some, name) for case, some in by_case.items()} for method, by_case in parts.items()
        }
    return result


def _mean(scores: list[Score], name: str) -> Score:
    """The mean over labels; where no label is in the images, that is why it has none."""
    mean = mean_score(scores, name)
    absent = all(score.reason == EMPTY_IN_BOTH for score in scores)
    return replace(mean, reason=EMPTY_IN_BOTH) if math.isnan(mean.value) and absent else mean


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _twice(score: Score) -> InputError:
    what = " ".join(filter(None, (score.metric, score.label)))
    found = f"two scores of {what} for case {score.case!r} of method {score.method!r}"
    return InputError("E-EVA-003", found, expected="one of each", do="give each pair of images a case of its own")
