"""What NRRD and MetaImage share: both are a short text before the voxels, and both speak ITK's LPS+ mm.

They are read in plain Python: no C++ reader sees a file, every field that matters is checked, and what is not
understood is refused. Nothing but geometry and voxels is read or written, so that no name or date of a patient is
passed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from anamorph.data.guard import DataSection, file_beside, read_section
from anamorph.data.image import ReadPolicy
from anamorph.data.volume import SLICES_AT_ONCE, Volume, choose_volume, place
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid

MOST_HEADER_BYTES = 1 << 16
MOST_AXES = 7
ORTHOGONAL = 1e-4
"""Largest cosine between two axes that ITK's readers take for orthogonal."""


@dataclass(frozen=True, eq=False)
class TextHeader:
    """The fields of a header, each once.

    Args:
        path: of the header.
        fields: by name.
        end: offset of the first byte behind it.
    """

    path: Path
    fields: Mapping[str, str]
    end: int

    def refusal(self, found: str, expected: str = "") -> InputError:
        """What to raise where the header is not understood."""
        return InputError("E-FMT-003", found, file=self.path, expected=expected, do="convert it to NIfTI")

    def text(self, name: str, default: str | None = None) -> str:
        """A field as it is; without a default it must be there."""
        value = self.fields.get(name, default)
        if value is None:
            raise self.refusal(f"no {name}", "a whole header")
        return value

    def numbers(self, name: str, count: int, default: str | None = None) -> np.ndarray:
        """``count`` numbers, separated by spaces."""
        return self.parse(self.text(name, default), name, count)

    def parse(self, text: str, name: str, count: int) -> np.ndarray:
        """The ``count`` numbers of a part of field ``name``."""
        try:
            numbers = np.array([float(word) for word in text.split()])
        except ValueError as error:
            raise self.refusal(f"{name} {text[:40]!r}", "numbers") from error
        if len(numbers) != count:
            raise self.refusal(f"{len(numbers)} numbers in {name}", str(count))
        return numbers

    def lengths(self, name: str, count: int) -> tuple[int, ...]:
        """``count`` whole numbers from 1 on."""
        numbers = self.numbers(name, count)
        if not all(np.isfinite(n) and n == int(n) and 1 <= n < 2**31 for n in numbers):
            raise self.refusal(f"{name} {self.text(name)[:40]!r}", "whole numbers from 1 on")
        return tuple(int(n) for n in numbers)

    def axes(self, name: str) -> int:
        """The number of axes."""
        text = self.text(name)
        if not (len(text) == 1 and text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_AXES):
            raise self.refusal(f"{name} {text[:40]!r}", f"1 to {MOST_AXES}")
        return int(text)

    def section(self, name: str | None, dtype: np.dtype, *, inflate: bool, skip: int = 0) -> DataSection:
        """The voxels: behind the header, or in the one file beside it that the header names."""
        if name is None:
            return DataSection(self.path, (), dtype, self.end, inflate, skip)
        if name.upper().startswith("LIST") or "%" in name or not name:
            found = "voxels spread over several files"
            raise InputError("E-FMT-004", found, file=self.path, expected="one data file")
        return DataSection(file_beside(self.path, name), (), dtype, 0, inflate, skip)


@dataclass(frozen=True, eq=False)
class ItkFile:
    """A checked header, and where its voxels are.

    Args:
        path: of the header.
        format: which of the two.
        shape: every axis of the file, space first.
        affine: voxel index -> RAS+ mm of the spatial axes.
        section: the data; its volume is chosen when it is read.
    """

    path: Path
    format: Literal["NRRD", "MetaImage"]
    shape: tuple[int, ...]
    affine: np.ndarray
    section: DataSection

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored voxels."""
        return self.section.dtype


def read_itk(file: ItkFile, policy: ReadPolicy) -> Volume:
    """One volume of an NRRD or a MetaImage file."""
    spatial, volumes, volume = choose_volume(file.shape, policy, file.path)
    shape = spatial[: len(file.affine) - 1]
    section = replace(file.section, shape=shape, volumes=volumes, volume=volume)
    return place(read_section(section, max_bytes=policy.max_bytes, family="FMT"), file.affine, policy, file.path)


def flip_lps(matrix: np.ndarray) -> np.ndarray:
    """LPS+ to RAS+ and back: the first two world coordinates of a homogeneous matrix (in 2-D both) change sign."""
    signs = np.ones(len(matrix))
    signs[:2] = -1
    return signs[:, None] * matrix


def orthogonal_lps(grid: Grid, name: str) -> np.ndarray:
    """Voxel index -> LPS+ mm, refused where the axes are sheared: ITK does not read that."""
    axes = grid.affine[:-1, :-1] / grid.spacing
    cosine = np.abs(axes.T @ axes - np.eye(grid.ndim)).max()
    if cosine > ORTHOGONAL:
        found = f"sheared axes (cosine {cosine:.2g}) cannot be stored as {name}"
        raise InputError("E-GEO-004", found, do="write NIfTI, or resample first")
    return flip_lps(grid.affine)


def stored_type(dtype: np.dtype) -> str:
    """A type without its byte order, such as "i2"."""
    return dtype.newbyteorder("<").str[1:]


def stored_slabs(values: np.ndarray) -> Iterator[bytes]:
    """The voxels little-endian, first axis fastest, a few slices at a time so that no second volume is held."""
    little = values.dtype.newbyteorder("<")
    for start in range(0, values.shape[-1], SLICES_AT_ONCE):
        yield values[..., start : start + SLICES_AT_ONCE].astype(little, copy=False).tobytes(order="F")
