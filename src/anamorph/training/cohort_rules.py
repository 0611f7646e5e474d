"""What a cohort has to keep to before anything is learnt from it, whoever made it."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import PurePath

from anamorph.data.cohort import Cohort, subject_of
from anamorph.data.files import read_labels
from anamorph.data.image import ReadPolicy
from anamorph.data.landmark_formats import listed
from anamorph.data.plan import Plan
from anamorph.errors import AnamorphError, AnamorphWarning, InputError, warn

NAMED = 3
"""Scans that one message names."""


def check_cohort(cohort: Cohort) -> None:
    """Names that files can have and that tell scans apart; every subject in one split; something to validate on.

    Raises:
        InputError: E-COH-050.

    Warns:
        W-COH-047: no validation scans, or one training case.
    """
    counts = Counter(scan.name for scan in cohort.scans)
    for name, count in counts.items():
        if count > 1:
            raise _contradiction(f"{count} scans named {name}", "one of each case and modality")
        if name.startswith(".") or PurePath(name).name != name or not name.isprintable():
            raise _contradiction(f"a scan named {name!r}", "a case and modality that make a file name")
    splits: dict[str, set[str]] = defaultdict(set)
    for scan in cohort.scans:
        splits[subject_of(scan.case)].add(scan.split)
    for subject, found in splits.items():
        if len(found) > 1:
            raise _contradiction(f"subject {subject} in {' and '.join(sorted(found))}", "one split for each subject")
    train, validation = cohort.of_split("train"), cohort.of_split("validation")
    if len(train.cases) == 1 and not cohort.of_split("extra").scans:
        warn("W-COH-047", f"one training case ({train.cases[0]}): what is learnt holds for it alone")
    if train.scans and not validation.scans:
        warn("W-COH-047", "no validation scans: a training cannot tell which epoch is best")


def refuse_leaks(cohort: Cohort, hashes: Mapping[str, str]) -> None:
    """Refuse an image that is in two splits under different names.

    Args:
        cohort: whose scans.
        hashes: sha256 of each scan's image, by its name.

    Raises:
        InputError: E-COH-051.

    Warns:
        W-COH-049: one image twice in one split.
    """
    first = {}
    for scan in cohort.scans:
        if scan.name not in hashes:
            continue
        other = first.setdefault(hashes[scan.name], scan)
        if other.split != scan.split:
            found = f"{scan.name} ({scan.split}) is the very image of {other.name} ({other.split})"
            raise InputError(
                "E-COH-051", found, file=scan.image, expected="different images", do="leave one of them out"
            )
        if other is not scan:
            warn("W-COH-049", f"{scan.name} is the very image of {other.name}", file=scan.image)


def without_unlabelled(
    plan: Plan, cohort: Cohort, policy: ReadPolicy, progress: Callable[[str, float], None] | None
) -> Plan:
    """The plan without labels that no extra scan has: those would be learnt as background wherever they are in them.

    Extra scans without labels decide nothing, nor do labels that cannot be read.

    Args:
        plan: with the labels of the training scans.
        cohort: whose extra scans.
        policy: how to read files.
        progress: told the stage and how much of it is done.

    Warns:
        W-COH-053: labels that are left out.
    """
    files = [scan.labels for scan in cohort.of_split("extra").scans if scan.labels is not None]
    absent, count = dict(plan.labels), 0
    with warnings.catch_warnings():  # what is odd about a file is told when it is prepared
        warnings.simplefilter("ignore", AnamorphWarning)
        for done, file in enumerate(files if absent else ()):
            if progress is not None:
                progress("labels of extra scans", done / len(files))
            with suppress(AnamorphError):
                present = {plan.learn_as.get(label, label) for label in read_labels(file, policy).values()}
                absent = {label: name for label, name in absent.items() if label not in present}
                count += 1
            if not absent:
                break
    if not count or not absent:
        return plan
    named = listed([f"{label} ({name})" for label, name in absent.items()])
    found = f"label {named} of the training scans in none of {count} labelled extra scans"
    warn("W-COH-053", f"{found}: left out of the plan, since extra scans would teach that it is background")
    labels = {label: name for label, name in plan.labels.items() if label not in absent}
    learn_as = {label: counted for label, counted in plan.learn_as.items() if counted in labels}
    return plan.model_copy(update={"labels": labels, "learn_as": learn_as})


def refuse_or_warn(cohort: Cohort, failed: Mapping[str, AnamorphError], skip_bad: bool) -> None:
    """Scans that cannot be used: refused, or left out where that is wanted and training scans are left.

    Raises:
        InputError: E-COH-052.

    Warns:
        W-COH-048: a scan left out.
    """
    bad = [scan for scan in cohort.scans if scan.name in failed]
    if not bad:
        return
    left = [scan for scan in cohort.of_split("train").scans if scan.name not in failed]
    if skip_bad and left:
        for scan in bad:
            warn("W-COH-048", f"{scan.case} ({scan.modality}) left out: {failed[scan.name]}")
        return
    reasons = "; ".join(f"{scan.case} ({scan.modality}): {failed[scan.name]}" for scan in bad[:NAMED])
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    found = f"{len(bad)} of {len(cohort.scans)} scans cannot be used: {reasons}{more}"
    do = "mend them, or leave them out with --skip-bad" if left else "mend them"
    raise InputError("E-COH-052", found, do=do)


def _contradiction(found: str, expected: str) -> InputError:
    return InputError("E-COH-050", found, file="cohort.csv", expected=expected)
