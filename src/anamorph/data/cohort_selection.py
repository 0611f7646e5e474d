"""Parts of a cohort, and a cohort whose labels are fewer: what is decided before its cases are divided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.files import read, read_labels, write
from anamorph.data.network_grid import counted_as
from anamorph.errors import InputError


def of_modalities(cohort: Cohort, modalities: Sequence[str]) -> Cohort:
    """The scans of some modalities.

    Raises:
        InputError: E-COH-056, one of them has no scan.
    """
    if unknown := [modality for modality in modalities if modality not in cohort.modalities]:
        raise _no_modality(cohort, unknown[0])
    return _those(cohort, lambda scan: scan.modality in modalities)


def without(cohort: Cohort, patterns: Sequence[str]) -> Cohort:
    """The same without the cases that shell patterns name, as those whose images are too poor.

    Raises:
        InputError: E-COH-037, nothing fits a pattern; E-COH-054, no case is left.
    """
    for pattern in patterns:
        if not any(fnmatchcase(case, pattern) for case in cohort.cases):
            do = f"the first of {len(cohort.cases)} is {cohort.cases[0]}"
            raise InputError("E-COH-037", f"no case that {pattern!r} names", expected="one at least", do=do)
    return _those(cohort, lambda scan: not any(fnmatchcase(scan.case, pattern) for pattern in patterns))


def of_usual_contrast(cohort: Cohort, modality: str, share: float = 0.5) -> Cohort:
    """The cases in the middle, ranked by the standard deviation of the values of one modality's image.

    All voxels count, those of the background as well. What is left out is divided evenly between both ends, the odd one
    at the upper; a share of 0.5 leaves 114 of 229 cases, as Lian et al. 2022, doi:10.1016/j.neucom.2022.05.113.

    Args:
        cohort: whose images are read.
        modality: by whose images; cases without one are left out.
        share: of the ranked cases that stay, rounded down, one at least.

    Raises:
        InputError: E-COH-056, no scan has this modality.
    """
    scans = [scan for scan in cohort.scans if scan.modality == modality]
    if not scans:
        raise _no_modality(cohort, modality)
    spread = {scan.case: float(read(scan.image).data.double().std(correction=0)) for scan in scans}
    ranked = sorted(spread, key=lambda case: (spread[case], case))
    kept = max(1, int(len(ranked) * share))
    first = (len(ranked) - kept) // 2
    usual = set(ranked[first : first + kept])
    return _those(cohort, lambda scan: scan.case in usual)


def with_merged_labels(cohort: Cohort, merge: Mapping[int, int], folder: Path) -> Cohort:
    """The same with labels that count as others, in files of its own.

    Args:
        cohort: which; scans that share a file go on to do so.
        merge: label -> the label that it becomes; a name of its own becomes part of that label's.
        folder: of the new files, CASE_MODALITY.nii.gz; it is made.

    Raises:
        InputError: E-COH-055, a label that is merged into another that is itself merged, or that no file has.
    """
    if chained := [target for target in merge.values() if target in merge]:
        found = f"label {chained[0]} both merged and merged into"
        raise InputError("E-COH-055", found, expected="labels that are merged into ones that stay")
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[Path, Path] = {}
    present: set[int] = set()
    for scan in cohort.scans:
        if scan.labels is not None and scan.labels not in written:
            labels = read_labels(scan.labels)
            present.update(labels.values())
            data = torch.from_numpy(counted_as(labels.data.numpy(), merge)).to(labels.data.dtype)
            written[scan.labels] = folder / f"{scan.name}.nii.gz"
            write(replace(labels, data=data, names={}), written[scan.labels])
    if absent := sorted(merge.keys() - present):
        found = f"label {absent[0]} in none of {len(written)} files"
        raise InputError("E-COH-055", found, expected=f"some of {', '.join(map(str, sorted(present - {0})))}")
    merged = {scan.name: replace(scan, labels=scan.labels and written[scan.labels]) for scan in cohort.scans}
    pairs = [replace(pair, fixed=merged[pair.fixed.name], moving=merged[pair.moving.name]) for pair in cohort.listed]
    return replace(
        cohort, scans=tuple(merged.values()), listed=tuple(pairs), label_names=_merged_names(cohort.label_names, merge)
    )


def _merged_names(names: Mapping[int, str], merge: Mapping[int, int]) -> dict[int, str]:
    """Names of the labels that stay; one that others are merged into is called by all of their names."""
    parts: dict[int, list[str]] = {}
    for label, name in sorted(names.items()):
        parts.setdefault(merge.get(label, label), []).append(name)
    return {label: ", ".join(dict.fromkeys(of_label)) for label, of_label in sorted(parts.items())}


def _those(cohort: Cohort, stays: Callable[[Scan], bool]) -> Cohort:
    """The scans that stay, and the listed pairs of which both do.

    Raises:
        InputError: E-COH-054, none does.
    """
    scans = tuple(filter(stays, cohort.scans))
    if not scans:
        raise InputError(
            "E-COH-054", f"none of {len(cohort.scans)} scans is left", expected="some", do="leave out fewer"
        )
    listed = tuple(pair for pair in cohort.listed if stays(pair.fixed) and stays(pair.moving))
    return replace(cohort, scans=scans, listed=listed)


def _no_modality(cohort: Cohort, modality: str) -> InputError:
    found = f"no scan of modality {modality!r}"
    return InputError("E-COH-056", found, expected=f"one of {', '.join(cohort.modalities)}")
