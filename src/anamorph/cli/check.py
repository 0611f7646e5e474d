"""``anamorph check``: what files hold and where it lies, what would be refused and why; clean copies of the rest.

A whole cohort is looked at in ``check_cohort``.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from anamorph.cli.arguments import Form
from anamorph.cli.reading import VOXEL_FLAGS, VoxelReading, make_folder
from anamorph.errors import AnamorphError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anamorph.cli.screen import Screen
    from anamorph.data.diagnosis import FileFacts
    from anamorph.data.image import ReadPolicy
    from anamorph.spatial.grid import Grid

REFUSED = 3
LANDMARK_SUFFIXES = (".csv", ".fcsv", ".json")
TRANSFORM_SUFFIXES = (".h5", ".tfm", ".txt", ".mat")
DISPLACEMENT_AS_IMAGE, SEVERAL_VOLUMES = "E-GEO-018", "E-GEO-017"
PROBES_PER_AXIS = 17
COLOURS = {"ok": "green", "warning": "yellow", "refused": "red"}


class CheckRequest(VoxelReading):
    """Which files to look at, and as what."""

    files: tuple[Path, ...] = Field(min_length=1)
    """Images, labels, masks, transforms or landmarks; or a cohort: cohort.csv or its folder."""
    kind: Literal["image", "labels", "mask"] = "image"
    """What the voxels of these files are meant to be."""
    against: Path | None = None
    """Image to compare with: how far each file covers it; labels have to lie on its grid."""
    fix: Path | None = None
    """Folder for clean NIfTI copies of files that are read with a repair; of a cohort, with tables that name them."""
    root: Path | None = None
    """Folder that no file of a cohort may lie outside of."""


FORM = Form(
    CheckRequest,
    positional=("files",),
    groups={"reading": VOXEL_FLAGS},
    metavars={
        "files": "FILE [FILE ...]",
        "against": "FIXED",
        "fix": "FOLDER",
        "root": "FOLDER",
        "max_memory": "SIZE",
    },
    example="anamorph check mr.nii.gz labels.nii.gz --against ct.nii.gz --fix clean",
)


@dataclass(frozen=True)
class Reference:
    """The image given with ``--against``."""

    name: str
    grid: Grid


@dataclass
class Row:
    """What the table says of one file.

    Args:
        cells: voxels, spacing, axes, and the distance between its two forms.
        remarks: lines below, no problems.
        problems: (severity, line).
        repaired: whether a clean copy would have fewer of them.
    """

    file: Path
    cells: tuple[str, str, str, str] = ("", "", "", "")
    remarks: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    repaired: bool = False

    @property
    def verdict(self) -> str:
        """ok, warning or refused."""
        severities = {severity for severity, _ in self.problems}
        return "refused" if "refused" in severities else "warning" if severities else "ok"


def run(request: CheckRequest, screen: Screen) -> int:
    """Look at every file; 3 where one of them would be refused."""
    from anamorph.data.cohort_files import is_cohort
    from anamorph.data.files import read_volume

    if any(map(is_cohort, request.files)):
        from anamorph.cli.check_cohort import run_cohort

        _refuse_idle_flags({"kind": request.kind != "image", "against": request.against is not None}, "a cohort")
        if len(request.files) > 1:
            found = f"a cohort among {len(request.files)} files"
            raise ConfigurationError("E-CFG-010", found, expected="a cohort alone")
        return REFUSED if run_cohort(request, screen) else 0
    _refuse_idle_flags({"root": request.root is not None}, "single files")
    reference = None
    if request.against is not None:
        reference = Reference(request.against.name, read_volume(request.against, request.policy()).grid)
    rows = [_row(path, request, reference) for path in request.files]
    _show(rows, screen)
    if request.fix is not None:
        _fix(request, request.fix, rows, screen)
    refused = sum(row.verdict == "refused" for row in rows)
    if refused:
        screen.say(f"\n{refused} of {len(rows)} would be refused")
    return REFUSED if refused else 0


def _refuse_idle_flags(given: Mapping[str, bool], what: str) -> None:
    """Refuse flags that would do nothing."""
    for name, is_given in given.items():
        if is_given:
            raise ConfigurationError("E-CFG-007", f"--{name} does nothing for {what}", do="leave it out")


def _row(path: Path, request: CheckRequest, reference: Reference | None) -> Row:
    """What is known of one file, by what it holds."""
    row = Row(path)
    if path.suffix in LANDMARK_SUFFIXES:
        _guard(row, lambda: _add_landmarks(row, reference))
    elif path.suffix in TRANSFORM_SUFFIXES:
        _guard(row, lambda: _add_transform(row, request.policy(), reference))
    else:
        _add_volume(row, request, reference)
    return row


def _guard(row: Row, fill: Callable[[], None]) -> None:
    """Fill a row; the warnings and the refusal met on the way become its problems."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fill()
        except AnamorphError as error:
            row.problems.append(("refused", str(error)))
    row.problems += [("warning", str(warning.message)) for warning in caught]


def _add_volume(row: Row, request: CheckRequest, reference: Reference | None) -> None:
    from anamorph.data.diagnosis import describe

    facts = describe(row.file, request.voxel_policy(), request.kind)
    if any(problem.code == DISPLACEMENT_AS_IMAGE for problem in facts.problems):
        _guard(row, lambda: _add_transform(row, request.policy(), reference))
        return
    row.cells = _cells(facts)
    row.remarks += _remarks(facts)
    if len(facts.shape) > 3 and any(problem.code == SEVERAL_VOLUMES for problem in facts.problems):
        row.remarks.append("one volume of it is read: by --volume here and in warp, by")
        row.remarks.append("--fixed-volume or --moving-volume in register")
    row.problems += [(problem.severity, problem.message) for problem in facts.problems]
    row.repaired = facts.readable and any(problem.fixable for problem in facts.problems)
    grid = facts.grid
    if reference is not None and grid is not None:
        _guard(row, lambda: _compare(row, grid, request, reference))


def _cells(facts: FileFacts) -> tuple[str, str, str, str]:
    apart = "" if facts.forms_apart is None else _rounded(facts.forms_apart[0])
    if facts.grid is None:
        return " x ".join(map(str, facts.shape)), "", "", apart
    return *_size(facts.grid), facts.orientation, apart


def _size(grid: Grid) -> tuple[str, str]:
    return " x ".join(map(str, grid.shape)), " x ".join(f"{length:.3g}" for length in grid.spacing)


def _remarks(facts: FileFacts) -> Iterator[str]:
    holds = [facts.format, "" if facts.dtype is None else str(facts.dtype)]
    if facts.value_range is not None:
        holds.append("values {:.6g} to {:.6g}".format(*facts.value_range))
    if facts.nonfinite:
        holds.append(f"{facts.nonfinite} NaN or Inf")
    if any(holds):
        yield ", ".join(part for part in holds if part)
    if facts.forms:
        forms = " and ".join(f"{form.name} (code {form.code})" for form in facts.forms)
        if facts.forms_apart is not None:
            forms += ": {} mm and {} degrees apart".format(*map(_rounded, facts.forms_apart))
        yield forms


def _rounded(value: float) -> str:
    """Three digits, and nothing below a thousandth."""
    return f"{value:.3g}" if value >= 0.001 else "0"


def _add_landmarks(row: Row, reference: Reference | None) -> None:
    from anamorph.data.landmark_files import read_landmarks

    landmarks = read_landmarks(row.file, reference.grid if reference else None)
    row.remarks.append(f"{len(landmarks)} landmarks in {landmarks.points.shape[1]}-D")


def _add_transform(row: Row, policy: ReadPolicy, reference: Reference | None) -> None:
    from anamorph.data.transform_files import read_transform
    from anamorph.spatial.transform import Chain, Field, Velocity

    transform = read_transform(row.file, policy, grid=reference.grid if reference else None)
    steps = transform.transforms if isinstance(transform, Chain) else (transform,)
    row.remarks.append(f"transform in {transform.ndim}-D: {' then '.join(type(step).__name__ for step in steps)}")
    grid = next((step.grid for step in steps if isinstance(step, Field | Velocity)), None)
    if grid is not None:
        row.cells = *_size(grid), "", ""
        if reference is not None:
            row.remarks.append(_overlap(grid, reference))


def _compare(row: Row, grid: Grid, request: CheckRequest, reference: Reference) -> None:
    """How a field of view lies to that of ``--against``."""
    from anamorph.data.files import check_same_space

    row.remarks.append(_overlap(grid, reference))
    if request.kind == "labels":
        check_same_space(reference.grid, grid, row.file)


def _overlap(grid: Grid, reference: Reference) -> str:
    """The share of the reference that ``grid`` covers, by a lattice of probes, and how far the centres lie apart."""
    import numpy as np

    fixed = reference.grid
    if grid.ndim != fixed.ndim:
        return f"{grid.ndim}-D, while {reference.name} is {fixed.ndim}-D"
    along = [np.linspace(0, n - 1, PROBES_PER_AXIS) for n in fixed.shape]
    probes = fixed.to_world(np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, fixed.ndim))
    apart = _rounded(float(np.linalg.norm(grid.centre - fixed.centre)))
    return f"covers {grid.contains(probes).mean():.0%} of {reference.name}, centres {apart} mm apart"


def _show(rows: Sequence[Row], screen: Screen) -> None:
    """One line a file, then what there is to say of each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from anamorph.cli.screen import printable

    names = _names([row.file for row in rows])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("File", overflow="fold")
    for heading in ("Voxels", "Spacing mm", "Axes"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Forms\nmm apart", justify="right")
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_row(printable(names[row.file]), *row.cells, Text(row.verdict, COLOURS[row.verdict]))
    screen.say(table)
    for row in rows:
        screen.say(f"\n{printable(names[row.file])}", "bold")
        for remark in row.remarks:
            screen.say(f"  {remark}")
        for severity, line in row.problems:
            screen.say(f"  {severity}: {line}", COLOURS[severity])
            if screen.quiet:
                (screen.error if severity == "refused" else screen.warning)(line)


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """File names; where two files share one, or there is none, the path as it was given."""
    counts = Counter(file.name for file in files)
    return {file: file.name if file.name and counts[file.name] == 1 else str(file) for file in files}


def _fix(request: CheckRequest, folder: Path, rows: Sequence[Row], screen: Screen) -> None:
    """Clean copies of the files that are read with a repair; what cannot be cleaned says why."""
    from anamorph.data.diagnosis import fix
    from anamorph.data.files import EXTENSIONS

    make_folder(folder)
    screen.say()
    suffixes = sorted((suffix for known in EXTENSIONS.values() for suffix in known), key=len, reverse=True)
    for row in rows:
        if not row.repaired:
            continue
        stem = next((row.file.name[: -len(s)] for s in suffixes if row.file.name.lower().endswith(s)), row.file.name)
        try:
            mended = fix(row.file, folder / f"{stem}.nii.gz", request.voxel_policy(), request.kind)
        except AnamorphError as error:
            screen.say(f"not fixed: {error}", "yellow")
        else:
            screen.say(f"written: {stem}.nii.gz, without {', '.join(problem.code for problem in mended)}")
