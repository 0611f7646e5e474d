"""What a file becomes at the boundary: values on a grid. Methods and losses see the tensors only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped
from torch import Tensor

from anamorph.errors import InputError, warn
from anamorph.spatial.grid import Grid

MOST_CHANNELS_LAST = 4
"""A last axis this short behind a longer first one is taken for misplaced channels."""

MOST_ROUNDING = 1e-3
"""How far a label stored as a float may lie from its integer."""


@dataclass(frozen=True)
class ReadPolicy:
    """How to answer what a file leaves open.

    Args:
        xform: which NIfTI form places the voxels where the two disagree; "auto" takes the sform and refuses above 1 mm.
        strict: refuse what would otherwise be a guess (no orientation at all, an implausible unit).
        nonfinite: "mask" excludes NaN and Inf voxels from an image, "refuse" refuses the image.
        volume: which volume of a 4-D file, counted from 0.
        max_bytes: most memory that reading one file may take; None stands for the memory of the machine.
    """

    xform: Literal["auto", "sform", "qform"] = "auto"
    strict: bool = False
    nonfinite: Literal["mask", "refuse"] = "mask"
    volume: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Image:
    """Intensities on a grid.

    Args:
        data: float32, channels first: C I J (K). Finite everywhere.
        grid: where the voxels are.
        modality: "ct", "t1", ... where it is known.
        valid: I J (K), False where the source had NaN or Inf; ``data`` holds the finite minimum there.
        name: file name without its folder.

    Raises:
        InputError: shape, type or values do not fit the above.
    """

    data: Float32[Tensor, "channels *spatial"]
    grid: Grid
    modality: str | None = None
    valid: Bool[Tensor, "*spatial"] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        _check_axes(tuple(self.data.shape), self.grid, channels=True)
        if self.data.dtype != torch.float32:
            raise InputError("E-VAL-008", f"image data of type {self.data.dtype}", expected="torch.float32")
        if not _all_finite(self.data):
            raise InputError(
                "E-VAL-001",
                "NaN or Inf in image data",
                expected="finite values",
                do="use Image.from_array to mask them",
            )
        if self.valid is not None and tuple(self.valid.shape) != self.grid.shape:
            raise InputError("E-VAL-015", f"valid of shape {tuple(self.valid.shape)}", expected=str(self.grid.shape))

    def __repr__(self) -> str:
        return f"Image({self.name or 'unnamed'}, {self.modality or 'any modality'}, {self.grid!r})"

    @classmethod
    def from_array(
        cls,
        array: Shaped[np.ndarray, "..."],
        affine: np.ndarray,
        modality: str | None = None,
        *,
        nonfinite: Literal["mask", "refuse"] = "mask",
        name: str = "",
    ) -> Image:
        """An image from any real array: read-only, memory-mapped and negative-stride ones included; always a copy.

        Args:
            array: I J (K), or C I J (K).
            affine: (d+1) x (d+1), voxel index -> RAS+ mm; its size says whether the image is 2-D or 3-D.
            modality: "ct", "t1", ...
            nonfinite: whether NaN and Inf are masked out, with a warning, or refused.
            name: shown in messages.

        Raises:
            InputError: complex or non-numeric values, an axis too many, no finite value at all.
        """
        grid = _grid_of(array, affine)
        channels = array if array.ndim == grid.ndim + 1 else array[None]
        _check_axes(channels.shape, grid, channels=True)
        _check_real(channels, name)
        with np.errstate(over="ignore"):  # beyond float32's range becomes Inf, which is then masked
            values = np.array(channels, dtype=np.float32, order="C")
        return cls.from_values(values, grid, modality, nonfinite=nonfinite, name=name)

    @classmethod
    def from_values(
        cls,
        values: Float32[np.ndarray, "channels *spatial"],
        grid: Grid,
        modality: str | None = None,
        *,
        nonfinite: Literal["mask", "refuse"] = "mask",
        name: str = "",
    ) -> Image:
        """An image that takes over ``values`` (C I J (K), writeable) without a copy; the rest as in ``from_array``."""
        data = torch.from_numpy(values)
        valid = None if _all_finite(data) else _mask_nonfinite(values, nonfinite, name)
        return cls(data, grid, modality, valid, name)


@dataclass(frozen=True, eq=False)
class Labelmap:
    """Integer labels on a grid; never interpolated linearly, never blended.

    Args:
        data: int32 or int64, I J (K).
        grid: where the voxels are.
        dtype: type of the file, kept for writing.
        names: what a label is called, where it is known.
        name: file name without its folder.
    """

    data: Int[Tensor, "*spatial"]
    grid: Grid
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.int32))
    names: Mapping[int, str] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        _check_axes(tuple(self.data.shape), self.grid, channels=False)
        if self.data.dtype not in (torch.int32, torch.int64):
            raise InputError("E-LAB-003", f"labels of type {self.data.dtype}", expected="int32 or int64")

    @classmethod
    def from_array(
        cls,
        array: Shaped[np.ndarray, "..."],
        affine: np.ndarray,
        names: Mapping[int, str] | None = None,
        *,
        name: str = "",
    ) -> Labelmap:
        """A label map from an array I J (K) of integers, or of floats that hold integers to 1e-3.

        Raises:
            InputError: values that are no integers, or beyond int64.
        """
        grid = _grid_of(array, affine)
        _check_axes(array.shape, grid, channels=False)
        _check_real(array, name)
        return cls(
            torch.from_numpy(_integers(array, name)), grid, array.dtype.newbyteorder("="), dict(names or {}), name
        )

    def __repr__(self) -> str:
        return f"Labelmap({self.name or 'unnamed'}, {self.dtype}, {self.grid!r})"

    def values(self) -> list[int]:
        """The labels present, in rising order, background 0 included."""
        return [int(value) for value in torch.unique(self.data)]


@dataclass(frozen=True, eq=False)
class Mask:
    """Where to look: True = use.

    Args:
        data: bool, I J (K).
        grid: where the voxels are.
        name: file name without its folder.
    """

    data: Bool[Tensor, "*spatial"]
    grid: Grid
    name: str = ""

    def __post_init__(self) -> None:
        _check_axes(tuple(self.data.shape), self.grid, channels=False)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Named world points.

    Args:
        points: N d, RAS+ mm, float64.
        names: N names, in the order of the points.
    """

    points: Float[np.ndarray, "points ndim"]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        points = np.array(self.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] not in (2, 3):
            raise InputError("E-LMK-018", f"landmarks of shape {points.shape}", expected="N x 2 or N x 3")
        if not np.isfinite(points).all():
            row = int(np.argmin(np.isfinite(points).all(axis=1)))
            raise InputError("E-LMK-018", f"landmark {row} is not finite", expected="finite coordinates in mm")
        names = tuple(self.names) or tuple(str(n + 1) for n in range(len(points)))
        if len(names) != len(points):
            raise InputError("E-LMK-020", f"{len(names)} names for {len(points)} landmarks", expected="one name each")
        points.flags.writeable = False
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "names", names)

    def __len__(self) -> int:
        return len(self.points)


def _grid_of(array: np.ndarray, affine: np.ndarray) -> Grid:
    """The grid of an array whose last axes are spatial, as many as the affine has."""
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape not in ((3, 3), (4, 4)):
        raise InputError("E-GEO-006", f"an affine of shape {affine.shape}", expected="3 x 3 (2-D) or 4 x 4 (3-D)")
    ndim = len(affine) - 1
    if array.ndim < ndim:
        raise InputError("E-VAL-015", f"an array of {array.ndim} axes for a {ndim}-D affine", expected=f"{ndim} axes")
    _refuse_misplaced_axis(array.shape, ndim)
    try:
        return Grid(array.shape[array.ndim - ndim :], affine)
    except ValueError as error:
        raise InputError("E-GEO-006", str(error)) from error


def _refuse_misplaced_axis(shape: tuple[int, ...], ndim: int) -> None:
    if len(shape) > ndim + 1:
        raise InputError(
            "E-VAL-015",
            f"{len(shape)} axes of shape {shape} for a {ndim}-D image: axis 0 (length {shape[0]}) looks like a batch",
            expected=f"{ndim} spatial axes after one optional channel axis",
            do="pass one image at a time",
        )
    if len(shape) == ndim + 1 and shape[-1] <= MOST_CHANNELS_LAST < shape[0]:
        raise InputError(
            "E-VAL-015",
            f"shape {shape} for a {ndim}-D image: axis {ndim} (length {shape[-1]}) looks like channels",
            expected="channels first",
            do=f"use numpy.moveaxis(array, {ndim}, 0)",
        )


def _check_axes(shape: tuple[int, ...], grid: Grid, *, channels: bool) -> None:
    """Whether values of ``shape`` lie on ``grid``, after one channel axis where ``channels``."""
    spatial = shape[1:] if channels else shape
    if spatial == grid.shape and (not channels or shape[0] > 0):
        return
    _refuse_misplaced_axis(shape, grid.ndim)
    expected = f"(channels, {', '.join(map(str, grid.shape))})" if channels else str(grid.shape)
    raise InputError("E-VAL-015", f"values of shape {shape} on a grid of shape {grid.shape}", expected=expected)


def _check_real(array: np.ndarray, name: str) -> None:
    if array.dtype.kind == "c":
        raise InputError(
            "E-VAL-006", "complex values", file=name or None, expected="real ones", do="take the magnitude first"
        )
    if array.dtype.fields is not None:
        raise InputError(
            "E-VAL-007", "colour (RGB) voxels", file=name or None, expected="one number a voxel", do="convert to grey"
        )
    if array.dtype.kind not in "buif":
        raise InputError("E-VAL-008", f"values of type {array.dtype}", file=name or None, expected="numbers")


def _all_finite(data: Tensor) -> bool:
    """Without a copy: the least and the greatest value show every NaN and Inf."""
    low, high = torch.aminmax(data)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _mask_nonfinite(
    values: Float32[np.ndarray, "channels *spatial"], nonfinite: str, name: str
) -> Bool[Tensor, "*spatial"]:
    """Fills NaN and Inf with the finite minimum, in place, and says where they were not."""
    finite = np.isfinite(values)
    count = finite.size - int(np.count_nonzero(finite))
    found = f"{count} of {finite.size} values are NaN or Inf"
    if count == finite.size:
        raise InputError("E-VAL-003", "every value is NaN or Inf", file=name or None, expected="an image")
    if nonfinite == "refuse":
        raise InputError("E-VAL-001", found, file=name or None, expected="finite values", do="or mask them out")
    values[~finite] = values.min(where=finite, initial=np.inf)
    warn("W-VAL-001", f"{found}; masked out", file=name or None)
    return torch.from_numpy(finite.all(axis=0))


def _integers(array: np.ndarray, name: str) -> Int[np.ndarray, "*spatial"]:
    """Exact labels, as int32 where they fit and int64 otherwise."""
    is_float = array.dtype.kind == "f"
    if is_float:
        _check_whole(array, name)
    low, high = array.min(), array.max()
    low, high = (round(float(low)), round(float(high))) if is_float else (int(low), int(high))
    if low < -(2**63) or high >= 2**63:
        raise InputError("E-LAB-003", f"labels from {low} to {high}", file=name or None, expected="values within int64")
    fits_int32 = low >= -(2**31) and high < 2**31
    labels = np.empty(array.shape, dtype=np.int32 if fits_int32 else np.int64)
    for place, slab in zip(labels, array, strict=True):  # slab by slab, so that rounding needs no second volume
        place[...] = np.rint(slab) if is_float else slab
    return labels


def _check_whole(array: np.ndarray, name: str) -> None:
    """Whether floats hold integers: exactly, or rounded to 1e-3 with a warning."""
    worst = 0.0
    for slab in array:
        with np.errstate(invalid="ignore"):
            worst = max(worst, float(np.nan_to_num(np.abs(slab - np.rint(slab)), nan=np.inf).max()))
    if worst == np.inf:
        raise InputError("E-LAB-001", "NaN or Inf in a label map", file=name or None, expected="integers")
    if worst > MOST_ROUNDING:
        found = f"values up to {worst:.3g} away from an integer"
        raise InputError("E-LAB-002", found, file=name or None, expected="integer labels")
    if worst > 0:
        warn("W-LAB-002", f"labels up to {worst:.3g} away from an integer were rounded", file=name or None)
