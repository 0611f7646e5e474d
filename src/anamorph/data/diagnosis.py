"""What is wrong with a file, what would be refused and why, and what can be put right without a guess."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from anamorph.data.files import read_volume, write, write_values
from anamorph.data.guard import sniff
from anamorph.data.image import Image, Labelmap, Mask, ReadPolicy
from anamorph.data.itk import ItkFile
from anamorph.data.metaimage import open_metaimage
from anamorph.data.mgh import MghFile, open_mgh
from anamorph.data.nifti import Form, NiftiFile, form_difference, header_of_pair, open_nifti
from anamorph.data.nrrd import open_nrrd
from anamorph.data.volume import Volume
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError, InputError
from anamorph.spatial.grid import Grid

Content = Literal["image", "labels", "mask"]

HARMLESS = (
    "W-NII-004",
    "W-NII-005",
    "W-NII-012",
    "W-NII-022",
    "W-NII-023",
    "W-FMT-012",
    "W-FMT-013",
    "W-GEO-002",
    "W-GEO-006",
    "W-GEO-008",
    "W-GEO-016",
    "W-LAB-002",
)
"""Warnings whose cause a clean copy does away with, the meaning being certain."""
LEFT_ALONE = ("W-VAL-001",)
"""Warnings about voxels, which a clean copy keeps as they are."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file.

    Args:
        code: stable, such as "E-NII-006" or "W-GEO-002".
        severity: "refused", or "warning" where the file is read all the same.
        message: one line.
        fixable: whether ``fix`` writes a copy without it.
    """

    code: str
    severity: Literal["refused", "warning"]
    message: str
    fixable: bool


@dataclass(eq=False)
class FileFacts:
    """What is known of a file; absent where the file does not let it be known.

    Args:
        name: without its folder.
        format: "NIfTI-1, gzip", ...
        shape: every axis of the file.
        dtype: of the stored voxels.
        forms: NIfTI's sform and qform, with their codes.
        forms_apart: the largest distance between corners by the two forms in mm, and the angle in degrees.
        grid: where the voxels are, as ``read`` has it.
        orientation: where each axis points, such as "RAS"; in 2-D the two world coordinates of the slice.
        value_range: least and greatest finite value, rescaled.
        nonfinite: how many values are NaN or Inf.
        problems: refusals first.
    """

    name: str
    format: str = ""
    shape: tuple[int, ...] = ()
    dtype: np.dtype | None = None
    forms: tuple[Form, ...] = ()
    forms_apart: tuple[float, float] | None = None
    grid: Grid | None = None
    orientation: str = ""
    value_range: tuple[float, float] | None = None
    nonfinite: int = 0
    problems: tuple[Problem, ...] = field(default_factory=tuple)

    @property
    def readable(self) -> bool:
        """Whether nothing is refused."""
        return all(problem.severity != "refused" for problem in self.problems)


def describe(
    path: str | Path,
    policy: ReadPolicy | None = None,
    content: Content = "image",
    look: Callable[[Image | Labelmap | Mask], object] | None = None,
) -> FileFacts:
    """Reads a file as ``content`` and tells everything about it; what would be refused is told, not raised.

    Args:
        path: the file.
        policy: how to answer what it leaves open.
        content: what its voxels are meant to be.
        look: given what was read, so that more can be told without reading it again.
    """
    path, policy = Path(path), policy or ReadPolicy()
    facts = FileFacts(path.name)

    def read_it() -> None:
        _add_header(path, facts)
        volume = read_volume(path, policy)
        _add_values(volume, facts)
        item = _interpret(volume, policy, content)
        if look is not None:
            look(item)

    facts.problems = tuple(problems_of(read_it))
    return facts


def problems_of(action: Callable[[], object]) -> list[Problem]:
    """What an action is refused for, and then what it warns of."""
    refused: list[Problem] = []
    with _collected_warnings() as issued:
        try:
            action()
        except AnamorphError as error:
            refused.append(Problem(error.code, "refused", str(error), False))
    return [*refused, *issued]


def fix(
    path: str | Path, out: str | Path, policy: ReadPolicy | None = None, content: Content = "image"
) -> list[Problem]:
    """Writes a clean copy: both forms equal, mm, one volume, integer labels, the right extension; never in place.

    Returns:
        What the copy no longer has.

    Raises:
        InputError: the file is refused, or a clean copy would have to guess.
        ConfigurationError: ``out`` exists.
    """
    path, out, policy = Path(path), Path(out), policy or ReadPolicy()
    if out.exists():
        raise ConfigurationError("E-OUT-016", "exists already", file=out, do="choose another name")
    with _collected_warnings() as issued:
        volume = read_volume(path, policy)
        item = _interpret(volume, policy, content)
    guesses = [problem for problem in issued if not problem.fixable and problem.code not in LEFT_ALONE]
    if guesses:
        found = f"a clean copy would make a guess a fact ({guesses[0].code})"
        raise InputError("E-OUT-006", found, file=path, do="correct it yourself")
    if volume.grid.ndim == 2:
        raise InputError("E-OUT-006", "a 2-D image", file=path, expected="3-D", do="keep the original")
    if volume.scaled or not isinstance(item, Image):
        write(item, out)
    else:
        write_values(volume.values.astype(volume.values.dtype.newbyteorder("="), copy=False), volume.grid, out)
    return [problem for problem in issued if problem.fixable]


def _add_header(path: Path, facts: FileFacts) -> None:
    path = header_of_pair(path)
    sniffed = sniff(path)
    facts.format = sniffed.kind
    header: NiftiFile | ItkFile | MghFile
    match sniffed.kind:
        case "nifti":
            header = open_nifti(path, sniffed)
            facts.format = header.version + (", gzip" if sniffed.compressed else "")
            _add_forms(header, facts)
        case "nrrd":
            header = open_nrrd(path)
            facts.format = header.format
        case "metaimage":
            header = open_metaimage(path)
            facts.format = header.format
        case "mgh":
            header = open_mgh(path, sniffed)
            facts.format = "MGH" + (", gzip" if sniffed.compressed else "")
        case _:
            return
    facts.shape, facts.dtype = header.shape, header.dtype


def _add_forms(header: NiftiFile, facts: FileFacts) -> None:
    facts.forms = header.forms
    sform, qform = header.forms
    axes = tuple(axis for axis, length in enumerate(header.spatial) if length > 1)
    if sform.code > 0 and qform.code > 0 and not sform.problem and not qform.problem and len(axes) > 1:
        facts.forms_apart = form_difference(sform, qform, header.spatial, axes)


def _add_values(volume: Volume, facts: FileFacts) -> None:
    facts.grid = volume.grid
    facts.shape, facts.dtype = facts.shape or volume.values.shape, facts.dtype or volume.values.dtype
    facts.orientation = _orientation(volume.grid)
    values = volume.intensities() if volume.scaled else volume.values
    finite = np.isfinite(values)
    facts.nonfinite = int(finite.size - np.count_nonzero(finite))
    if finite.any():
        facts.value_range = float(values[finite].min()), float(values[finite].max())


def _orientation(grid: Grid) -> str:
    affine = np.eye(4)
    if grid.ndim == 3:
        return "".join(str(axis) for axis in nib.aff2axcodes(grid.affine))
    affine[np.ix_([0, 1, 3], [0, 1, 3])] = grid.affine
    ends = nib.aff2axcodes(affine, labels=(("-x", "+x"), ("-y", "+y"), ("", "")))
    return " ".join(str(end) for end in ends[:2])


def _interpret(volume: Volume, policy: ReadPolicy, content: Content) -> Image | Labelmap | Mask:
    if content == "image":
        return volume.image(policy)
    return volume.labels() if content == "labels" else volume.mask()


@contextmanager
def _collected_warnings() -> Iterator[list[Problem]]:
    """Our warnings of the block, each once; others go on their way."""
    problems: list[Problem] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield problems
    for warning in caught:
        text = str(warning.message)
        code = text.partition(":")[0]
        if not isinstance(warning.message, AnamorphWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif all(problem.message != text for problem in problems):
            problems.append(Problem(code, "warning", text, code in HARMLESS))
