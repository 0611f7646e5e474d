"""Displacement fields as NIfTI, as ITK and ANTs write them: shape (x, y, z, 1, 3), intent 1007, LPS mm.

Intent 1006 says RAS mm, and ITK honours it. Nothing else says what its vectors mean.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import nibabel as nib
import numpy as np
import torch
from nibabel.fileholders import FileHolder

from anamorph.data.guard import Sniffed, read_section
from anamorph.data.image import ReadPolicy
from anamorph.data.nifti import LARGEST_NIFTI1_AXIS, NiftiFile, choose_affine, open_nifti
from anamorph.errors import InputError, warn
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Field, Transform

RAS_VECTORS, LPS_VECTORS = 1006, 1007
INTENT_AT = {"NIfTI-1": (68, 2), "NIfTI-2": (504, 4)}
"""Where the header keeps the intent code: first byte, length."""
ORTHONORMAL = 5e-4
"""Sheared by more (largest cosine between axes), ITK refuses a NIfTI file; it does so from 1e-3 on."""


def read_displacement(path: Path, sniffed: Sniffed, policy: ReadPolicy, assume: Literal["itk"] | None = None) -> Field:
    """A displacement field; ``assume="itk"`` takes vectors that do not say so for LPS mm.

    Raises:
        InputError: E-TRF-002, no field or one that does not say what its vectors mean; E-TRF-004, NaN or Inf;
            and whatever the NIfTI reader refuses.
    """
    file = open_nifti(path, sniffed)
    ndim = _dimension(file, assume)
    lps = _lps(file, sniffed, assume)
    affine = choose_affine(file, tuple(axis for axis in range(ndim) if file.shape[axis] > 1), policy)
    kept = [*range(ndim), 3]
    try:
        grid = Grid(file.shape[:ndim], affine[np.ix_(kept, kept)])
    except ValueError as error:
        raise InputError("E-GEO-006", str(error), file=path, expected="an invertible matrix") from error
    values = read_section(replace(file.section, shape=file.shape), max_bytes=policy.max_bytes, family="NII")
    precision = np.float64 if values.dtype.itemsize == 8 else np.float32
    vectors = np.moveaxis(values.reshape(*grid.shape, ndim, order="F"), -1, 0)
    displacement = np.array(vectors, dtype=precision, order="C")
    if (file.slope, file.inter) != (1.0, 0.0):
        displacement = displacement * precision(file.slope) + precision(file.inter)
    if not np.isfinite(displacement).all():
        count = int(displacement.size - np.count_nonzero(np.isfinite(displacement)))
        found = f"{count} of {displacement.size} displacements are NaN or Inf"
        raise InputError("E-TRF-004", found, file=path, expected="finite displacements", do="compute the field anew")
    if lps:
        displacement[:2] *= -1
    return Field(torch.from_numpy(displacement), grid)


def write_displacement(transform: Transform, grid: Grid, path: Path, file: BinaryIO) -> None:
    """Sample a transform on ``grid`` and write it, float32; ``path`` decides on compression.

    Where the grid's axes are sheared, which ITK does not accept, the field is sampled on an orthonormal grid around
    it instead (W-GEO-004).
    """
    ndim = grid.ndim
    shear = _shear(grid)
    if shear > ORTHONORMAL:
        grid = orthonormal_grid(grid)
        size = " x ".join(map(str, grid.shape))
        warn("W-GEO-004", f"axes sheared by {shear:.2g}: sampled on an orthonormal grid of {size}", file=path)
    vectors = np.array(np.moveaxis(transform.displacement_on(grid), 0, -1))
    vectors[..., :2] *= -1
    affine = np.eye(4)
    kept = [*range(ndim), 3]
    affine[np.ix_(kept, kept)] = grid.affine
    kind = nib.Nifti2Image if max(grid.shape) > LARGEST_NIFTI1_AXIS else nib.Nifti1Image
    image = kind(vectors.reshape(*grid.shape, *[1] * (4 - ndim), ndim), affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    if path.name.endswith(".gz"):
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as stream:
            image.to_file_map({"image": FileHolder(fileobj=stream)})
    else:
        image.to_file_map({"image": FileHolder(fileobj=file)})  # pyright: ignore[reportArgumentType]


def orthonormal_grid(grid: Grid) -> Grid:
    """A grid with orthonormal axes as near to the given ones as possible that holds the whole field of view."""
    left, _, right = np.linalg.svd(grid.affine[:-1, :-1] / grid.spacing)
    axes = left @ right * grid.spacing
    corners = (grid.corners - grid.centre) @ np.linalg.inv(axes).T
    # Symmetric about the centre; the margin keeps corners inside that rounding would put just outside.
    half = np.ceil(np.abs(corners).max(axis=0) * 2 - 1e-6) / 2
    affine = np.eye(grid.ndim + 1)
    affine[:-1, :-1] = axes
    affine[:-1, -1] = grid.centre - axes @ half
    return Grid(tuple(int(n) for n in 2 * half + 1), affine)


def _shear(grid: Grid) -> float:
    axes = grid.affine[:-1, :-1] / grid.spacing
    return float(np.abs(axes.T @ axes - np.eye(grid.ndim)).max())


def _dimension(file: NiftiFile, assume: str | None) -> int:
    """2 or 3, by the number of components."""
    shape = file.shape
    if len(shape) == 5 and shape[3] == 1 and (shape[4] == 3 or (shape[4], shape[2]) == (2, 1)):
        return shape[4]
    if len(shape) == 4 and shape[3] == 3:
        if assume is None:
            raise InputError(
                "E-TRF-002",
                f"shape {shape}",
                file=file.path,
                expected="the five axes (x, y, z, 1, 3)",
                do='read it with assume="itk" if its vectors are LPS mm',
            )
        return 3
    raise InputError(
        "E-TRF-002", f"an image of shape {shape}, no displacement", file=file.path, expected="shape (x, y, z, 1, 3)"
    )


def _lps(file: NiftiFile, sniffed: Sniffed, assume: str | None) -> bool:
    """Whether the vectors are LPS."""
    start, length = INTENT_AT[file.version]
    order = "big" if file.dtype.byteorder == ">" else "little"
    intent = int.from_bytes(sniffed.head[start : start + length], order)
    if intent in (RAS_VECTORS, LPS_VECTORS):
        return intent == LPS_VECTORS
    if assume is None:
        raise InputError(
            "E-TRF-003",
            f"intent code {intent}",
            file=file.path,
            expected="1007 (LPS mm) or 1006 (RAS mm)",
            do='read it with assume="itk" if its vectors are LPS mm',
        )
    return True
