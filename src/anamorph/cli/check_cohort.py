"""``anamorph check COHORT``: a row for each scan, its problems in mm and values, and what the cohort amounts to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, SupportsFloat

from anamorph.cli.reading import make_folder
from anamorph.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from rich.table import Table

    from anamorph.cli.check import CheckRequest
    from anamorph.cli.screen import Screen
    from anamorph.data.cohort_diagnosis import CohortFacts
    from anamorph.data.cohort_facts import ScanFacts
    from anamorph.data.diagnosis import Problem

MANY = 30
"""Scans from which only those with problems are shown, scans that share a warning from which it is told once, and
labels that are listed."""
SHORT = {"train": "train", "validation": "valid.", "test": "test", "extra": "extra"}


def run_cohort(request: CheckRequest, screen: Screen) -> bool:
    """Look at every scan; whether one of them would be refused."""
    from anamorph.data.cohort_diagnosis import describe_cohort
    from anamorph.data.cohort_files import read_tables

    cohort = read_tables(request.files[0], request.root)
    if request.fix is not None:
        _refuse_a_cohort_there(request.fix)
    with screen.progress() as progress:
        found = describe_cohort(cohort, request.voxel_policy(), progress)
    _show(found, screen)
    if request.fix is not None:
        _fix(found, request, request.fix, screen)
    return found.refused


def _refuse_a_cohort_there(folder: Path) -> None:
    from anamorph.data.cohort_files import NAME

    if (folder / NAME).exists():
        raise ConfigurationError("E-OUT-016", "holds a cohort already", file=folder, do="choose another --fix")


def _show(found: CohortFacts, screen: Screen) -> None:
    """Rows, problems, summary."""
    shared = _shared(found)
    own = {facts: [problem for problem in facts.problems if problem.code not in shared] for facts in found.scans}
    shown = list(found.scans) if len(found.scans) <= MANY else [facts for facts in found.scans if own[facts]]
    if shown:
        screen.say(_rows(shown, own))
    if len(shown) < len(found.scans):
        screen.say(f"{len(found.scans) - len(shown)}{' more' if shown else ''} scans without problems of their own")
    for facts in shown:
        if own[facts]:
            screen.say(f"\n{facts.scan.name}", "bold")
            _tell(own[facts], screen)
    if shared or found.problems:
        screen.say("\ncohort", "bold")
    for code, scans in shared.items():
        example = next(problem for problem in scans[0].problems if problem.code == code)
        _tell([example], screen, f"{len(scans)} of {len(found.scans)} scans, as {scans[0].scan.name}: ")
    _tell(found.problems, screen)
    _summarise(found, screen)
    refused = sum(facts.refused for facts in found.scans)
    if found.refused:
        screen.say(f"\n{f'{refused} of {len(found.scans)} scans' if refused else 'the cohort'} would be refused")


def _shared(found: CohortFacts) -> dict[str, list[ScanFacts]]:
    """Codes of warnings that so many scans have that they are told once."""
    having: dict[str, list[ScanFacts]] = {}
    for facts in found.scans:
        for code in dict.fromkeys(problem.code for problem in facts.problems if problem.severity == "warning"):
            having.setdefault(code, []).append(facts)
    return {code: scans for code, scans in having.items() if len(scans) >= MANY}


def _tell(problems: Iterable[Problem], screen: Screen, before: str = "") -> None:
    from anamorph.cli.check import COLOURS

    for problem in problems:
        screen.say(f"  {problem.severity}: {before}{problem.message}", COLOURS[problem.severity])
        if screen.quiet:
            (screen.error if problem.severity == "refused" else screen.warning)(before + problem.message)


def _rows(shown: Sequence[ScanFacts], own: dict[ScanFacts, list[Problem]]) -> Table:
    from rich.text import Text

    from anamorph.cli.check import COLOURS
    from anamorph.cli.screen import printable

    table = _table("Scan", "Split", "Voxels", "Spacing mm", "Axes", "Labels", "")
    for facts in shown:
        severities = {problem.severity for problem in own[facts]}
        verdict = "refused" if "refused" in severities else "warning" if severities else "ok"
        grid = facts.grid
        cells = ("", "") if grid is None else (_by(grid.shape), _by(grid.spacing))
        labels = "" if facts.volumes is None else str(len(facts.volumes))
        name = printable(facts.scan.name)
        orientation = facts.image.facts.orientation
        table.add_row(name, SHORT[facts.scan.split], *cells, orientation, labels, Text(verdict, COLOURS[verdict]))
    return table


def _table(first: str, *headings: str, wrap: bool = False) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(heading, no_wrap=not wrap)
    return table


def _summarise(found: CohortFacts, screen: Screen) -> None:
    """A row for each modality, then one for each label."""
    from anamorph.cli.screen import printable

    parts = found.cohort.splits
    heads = [SHORT[split].capitalize() for split in parts]
    table = _table("Modality", *heads, "Voxels", "Spacing mm", "1 % to 99 %", wrap=True)
    for modality in found.cohort.modalities:
        scans = found.of_modality(modality)
        splits = Counter(facts.scan.split for facts in scans)
        table.add_row(printable(modality), *(str(splits[split]) for split in parts), *_ranges(scans))
    screen.say()
    screen.say(table)
    if volumes := found.label_volumes:
        screen.say()
        screen.say(_labels(found, volumes))
    if len(volumes) > MANY:
        screen.say(f"and {len(volumes) - MANY} more labels")


def _labels(found: CohortFacts, volumes: dict[int, list[float]]) -> Table:
    from statistics import median

    solid = all(facts.grid is None or facts.grid.ndim == 3 for facts in found.scans)
    unit, per_unit = ("ml", 1000.0) if solid else ("mm2", 1.0)
    table = _table("Label", "Scans that have it", f"Least {unit}", "Median", "Greatest")
    for label, sizes in list(volumes.items())[:MANY]:
        shown = [_short(size / per_unit) for size in (min(sizes), median(sizes), max(sizes))]
        table.add_row(str(label), f"{len(sizes)} of {len(found.labelled)}", *shown)
    return table


def _ranges(scans: Sequence[ScanFacts]) -> Iterator[str]:
    """Shapes and spacings of scans, from least to greatest, and what range their values usually have."""
    import numpy as np

    grids = [facts.grid for facts in scans if facts.grid is not None]
    grids = [grid for grid in grids if grid.ndim == grids[0].ndim]
    for sizes in (np.array([grid.shape for grid in grids]), np.array([grid.spacing for grid in grids])):
        yield _from_to(sizes.min(axis=0), sizes.max(axis=0)) if grids else ""
    limits = [facts.image.limits for facts in scans if facts.image.limits is not None]
    if limits:
        low, high = np.median(limits, axis=0)
        yield f"{_short(low)} to {_short(high)}"
    else:
        yield ""


def _from_to(low: np.ndarray, high: np.ndarray) -> str:
    """Both ends of each axis, or one number where they are equal."""
    pairs = [(_short(a), _short(b)) for a, b in zip(low, high, strict=True)]
    return " x ".join(a if a == b else f"{a}-{b}" for a, b in pairs)


def _by(lengths: Iterable[SupportsFloat]) -> str:
    return " x ".join(map(_short, lengths))


def _short(value: SupportsFloat) -> str:
    """Three digits, and all of those before the point."""
    value = float(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _fix(found: CohortFacts, request: CheckRequest, folder: Path, screen: Screen) -> None:
    """A cohort of clean copies; what cannot be cleaned says why."""
    from anamorph.data.cohort_diagnosis import fix_cohort
    from anamorph.data.cohort_files import NAME

    make_folder(folder)
    screen.say()
    with screen.progress() as progress:
        copies = fix_cohort(found, folder, request.voxel_policy(), progress)
    for copy in copies:
        if copy.refusal is not None:
            screen.say(f"not fixed: {copy.refusal}", "yellow")
        else:
            screen.say(f"written: {copy.name}, without {', '.join(problem.code for problem in copy.mended)}")
    screen.say(f"written: {NAME}; the files that needed nothing stay where they are")
