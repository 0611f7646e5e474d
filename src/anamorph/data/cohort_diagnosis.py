"""What a cohort holds, and what is wrong with it: in its files, between them, and as a whole.

A scan is compared with the others of its modality by medians, from three scans on; the labels of extra scans, which
may have only some, are compared among themselves. Images count as the same by their values, so that a copy in another
format, or under another header, is found as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from anamorph.data.cohort import SPLITS, Cohort, Pair, Scan, Split
from anamorph.data.cohort_facts import Reading, ScanFacts, describe_scan, warning
from anamorph.data.cohort_files import write_cohort
from anamorph.data.diagnosis import Content, Problem, fix, problems_of
from anamorph.data.image import ReadPolicy
from anamorph.data.landmark_formats import listed
from anamorph.data.transform_files import read_transform
from anamorph.errors import AnamorphError, InputError
from anamorph.spatial.grid import Grid

FEWEST = 3
"""Scans of a modality from which one can stand out."""
UNLIKE = 2.0
"""Ratio to the median from which voxel sizes and fields of view stand out."""
RANGES_UNLIKE = 10.0
"""The same for the range of the values, which in MR has no unit."""
FAR_MM, FAR_RATIO = 200.0, 4.0
"""A field of view stands out that is so far from where the others are, and so many times as far as is usual."""
FEW_SCANS = 0.1
"""Share of the labelled scans up to which having, or lacking, a label is an exception."""
LEAST_HU_RANGE = 100.0

Progress = Callable[[str, float], None]


@dataclass(eq=False)
class CohortFacts:
    """What is known of a cohort.

    Args:
        cohort: which.
        scans: in its order.
        problems: of the cohort as a whole, and of its listed pairs.
    """

    cohort: Cohort
    scans: tuple[ScanFacts, ...]
    problems: list[Problem] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether something of it would be."""
        whole = any(problem.severity == "refused" for problem in self.problems)
        return whole or any(facts.refused for facts in self.scans)

    def of_modality(self, modality: str) -> list[ScanFacts]:
        """Its scans of one modality."""
        return [facts for facts in self.scans if facts.scan.modality == modality]

    @property
    def labelled(self) -> list[ScanFacts]:
        """The scans that have labels which can be read."""
        return [facts for facts in self.scans if facts.volumes is not None]

    @property
    def label_volumes(self) -> dict[int, list[float]]:
        """mm^d of each label but 0, in the scans that have it."""
        found: dict[int, list[float]] = {}
        for facts in self.labelled:
            for label, volume in (facts.volumes or {}).items():
                found.setdefault(label, []).append(volume)
        return dict(sorted(found.items()))


def describe_cohort(cohort: Cohort, policy: ReadPolicy | None = None, progress: Progress | None = None) -> CohortFacts:
    """Reads every file of a cohort once, and tells everything about it; what would be refused is told, not raised.

    Args:
        cohort: as ``read_tables`` has it: its files need not be there.
        policy: how to answer what the files leave open.
        progress: told the stage and how much of it is done.
    """
    policy = policy or ReadPolicy()
    seen: dict[tuple[str, Path], Reading] = {}
    scans = []
    for done, scan in enumerate(cohort.scans):
        if progress is not None:
            progress("reading", done / len(cohort.scans))
        scans.append(describe_scan(scan, policy, seen))
    if progress is not None:
        progress("reading", 1.0)
    found = CohortFacts(cohort, tuple(scans))
    found.problems += _of_the_whole(found)
    found.problems += same_images([(facts.scan, facts.image.digest) for facts in scans if _has_contrast(facts)])
    grid_of = {facts.scan: facts.grid for facts in scans}
    found.problems += [problem for pair in cohort.listed for problem in _of_pair(pair, grid_of[pair.fixed], policy)]
    for modality in cohort.modalities:
        _add_outliers(found.of_modality(modality))
    for extra in (False, True):
        _add_label_exceptions([facts for facts in found.labelled if (facts.scan.split == "extra") is extra])
    return found


def same_images(digests: Sequence[tuple[Scan, str]]) -> list[Problem]:
    """Scans whose images hold the same values: refused (E-COH-024) where they are in different splits."""
    alike: dict[str, list[Scan]] = {}
    for scan, digest in digests:
        alike.setdefault(digest, []).append(scan)
    problems = []
    for scans in alike.values():
        first = scans[0]
        leak = next((scan for scan in scans if scan.split != first.split), None)
        more = f", as do {len(scans) - 2} more" if len(scans) > 2 else ""
        if leak is not None:
            found = f"{first.name} ({first.split}) and {leak.name} ({leak.split}) hold the same image{more}"
            error = InputError("E-COH-024", found, expected="no image in two splits", do="take one of them out")
            problems.append(Problem(error.code, "refused", str(error), False))
        elif len(scans) > 1:
            problems.append(warning("W-COH-023", f"{first.name} and {scans[1].name} hold the same image{more}"))
    return problems


def _has_contrast(facts: ScanFacts) -> bool:
    values = facts.image.facts.value_range
    return bool(facts.image.digest) and values is not None and values[0] < values[1]


def _of_the_whole(found: CohortFacts) -> Iterator[Problem]:
    cohort = found.cohort
    dimensions = Counter(facts.grid.ndim for facts in found.scans if facts.grid is not None)
    if len(dimensions) > 1:
        mixed = f"{dimensions[2]} images in 2-D and {dimensions[3]} in 3-D"
        error = InputError("E-COH-025", mixed, expected="one of them", do="make two cohorts")
        yield Problem(error.code, "refused", str(error), False)
    if len(cohort.cases) == 1:
        yield warning("W-COH-022", f"one case only ({cohort.cases[0]}): nothing can be learnt that holds for others")
    else:
        absent = [split for split in SPLITS if not cohort.of_split(split).scans]
        if absent:
            yield warning("W-COH-021", f"no {' and no '.join(absent)} cases")
        for modality in cohort.modalities:
            if len(found.of_modality(modality)) == 1:
                yield warning("W-COH-020", f"one scan only of modality {modality}")
    learnt, extra = (_labels_of(found, split) for split in ("train", "extra"))
    if extra and (absent := sorted(learnt - extra)):
        told = f"label {listed([str(label) for label in absent])} of the training scans in no extra scan"
        yield warning("W-COH-053", f"{told}: it would be left out of the plan")


def _labels_of(found: CohortFacts, split: Split) -> set[int]:
    return {label for facts in found.labelled if facts.scan.split == split for label in facts.volumes or ()}


def _of_pair(pair: Pair, grid: Grid | None, policy: ReadPolicy) -> list[Problem]:
    if pair.displacement is None:
        return []
    file = pair.displacement
    return problems_of(lambda: read_transform(file, policy, grid=grid))


def _add_outliers(scans: Sequence[ScanFacts]) -> None:
    """What stands out among the scans of one modality."""
    for facts in scans:
        facts.problems += _of_values(facts)
    located = [(facts, facts.grid) for facts in scans if facts.grid is not None]
    if not located:
        return
    ndim = Counter(grid.ndim for _, grid in located).most_common(1)[0][0]
    located = [(facts, grid) for facts, grid in located if grid.ndim == ndim]
    if len(located) < FEWEST:
        return
    _add_unlike("W-COH-014", "voxels of {} mm", {facts: np.sort(grid.spacing) for facts, grid in located}, UNLIKE)
    views = {facts: np.sort(grid.spacing * grid.shape) for facts, grid in located}
    _add_unlike("W-COH-015", "a field of view of {} mm", views, UNLIKE)
    limits = {facts: facts.image.limits for facts, _ in located if facts.image.limits is not None}
    ranges = {facts: np.array([high - low]) for facts, (low, high) in limits.items() if low < high}
    _add_unlike("W-COH-017", "values over a range of {} (1 % to 99 %)", ranges, RANGES_UNLIKE)
    centres = np.array([grid.centre for _, grid in located])
    apart = np.linalg.norm(centres - np.median(centres, axis=0), axis=1)
    limit = max(FAR_MM, FAR_RATIO * float(np.median(apart)))
    for (facts, _), millimetres in zip(located, apart, strict=True):
        if millimetres > limit:
            found = f"{_file(facts)}: its centre lies {millimetres:.0f} mm from where {facts.scan.modality} usually is"
            facts.problems.append(warning("W-COH-016", found))


def _add_unlike(code: str, what: str, sizes: Mapping[ScanFacts, np.ndarray], ratio: float) -> None:
    """Warn of the scans whose sizes (n, positive) differ from the medians by more than a ratio."""
    if len(sizes) < FEWEST:
        return
    usual = np.median(list(sizes.values()), axis=0)
    for facts, size in sizes.items():
        if (size > ratio * usual).any() or (size < usual / ratio).any():
            own, others = (" x ".join(f"{length:.3g}" for length in lengths) for lengths in (size, usual))
            found = f"{_file(facts)}: {what.format(own)}, where {facts.scan.modality} usually has {others}"
            facts.problems.append(warning(code, found))


def _of_values(facts: ScanFacts) -> Iterator[Problem]:
    values, limits = facts.image.facts.value_range, facts.image.limits
    if values is None or limits is None:
        return
    low, high = values
    if low == high:
        yield warning("W-COH-019", f"{_file(facts)}: no contrast, every value is {low:g}")
    elif facts.scan.modality.lower() == "ct" and (low >= 0 or limits[1] - limits[0] < LEAST_HU_RANGE):
        found = f"{_file(facts)}: values {low:g} to {high:g} ({limits[0]:g} to {limits[1]:g} from 1 % to 99 %)"
        yield warning("W-COH-018", f"{found} are hardly HU, where air is -1000 and soft tissue 0 to 100")


def _add_label_exceptions(labelled: Sequence[ScanFacts]) -> None:
    """Labels that hardly any scan lacks, or has."""
    counts = Counter(label for facts in labelled for label in facts.volumes or ())
    few = max(1.0, FEW_SCANS * len(labelled))
    usual = {label for label, count in counts.items() if len(labelled) - count <= few}
    rare = {label for label, count in counts.items() if count <= few} - usual
    for facts in labelled:
        own = set(facts.volumes or ())
        name = facts.scan.files["labels"].name
        for code, verb, labels in (("W-COH-012", "lacks", usual - own), ("W-COH-011", "has", rare & own)):
            if labels:
                each = [f"{label} ({counts[label]} of {len(labelled)} have it)" for label in sorted(labels)]
                facts.problems.append(warning(code, f"{name}: {verb} label {listed(each)}"))


def _file(facts: ScanFacts) -> str:
    return facts.scan.image.name


@dataclass(frozen=True)
class Copy:
    """A file that ``fix_cohort`` wrote anew, or could not.

    Args:
        name: of the copy, from the new cohort's folder.
        mended: what it no longer has.
        refusal: why there is none.
    """

    name: str
    mended: tuple[Problem, ...] = ()
    refusal: AnamorphError | None = None


def fix_cohort(
    found: CohortFacts, folder: Path, policy: ReadPolicy | None = None, progress: Progress | None = None
) -> list[Copy]:
    """Writes a cohort whose harmless faults are mended: clean copies of those files, and tables that name them.

    All other files stay where they are, and the new tables refer to them.

    Args:
        found: the cohort, described.
        folder: where to; it exists, and holds no cohort.
        policy: as the files were described with.
        progress: told the stage and how much of it is done.
    """
    done: dict[tuple[str, Path], tuple[Path, Copy]] = {}
    scans = {}
    for count, facts in enumerate(found.scans):
        if progress is not None:
            progress("mending", (count + 1) / len(found.scans))
        clean = {}
        for content, reading in facts.readings.items():
            source = facts.scan.files[content]
            if reading.facts.readable and any(problem.fixable for problem in reading.facts.problems):
                if (content, source) not in done:
                    done[content, source] = _copy(source, folder, f"{facts.scan.name}.nii.gz", content, policy)
                clean[content] = done[content, source][0]
        scans[facts.scan.name] = replace(facts.scan, **clean)
    listed = tuple(
        replace(pair, fixed=scans[pair.fixed.name], moving=scans[pair.moving.name]) for pair in found.cohort.listed
    )
    write_cohort(Cohort(folder, tuple(scans.values()), listed, found.cohort.label_names), folder)
    return [copy for _, copy in done.values()]


FOLDERS = {"image": "images", "labels": "labels", "mask": "masks"}


def _copy(source: Path, folder: Path, name: str, content: str, policy: ReadPolicy | None) -> tuple[Path, Copy]:
    """The file to refer to, and what became of it."""
    out = folder / FOLDERS[content] / name
    shown = f"{FOLDERS[content]}/{name}"
    try:
        out.parent.mkdir(exist_ok=True)
        mended = fix(source, out, policy, cast("Content", content))
    except AnamorphError as error:
        return source, Copy(shown, refusal=error)
    return out, Copy(shown, tuple(mended))
