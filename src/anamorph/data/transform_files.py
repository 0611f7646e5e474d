"""Transforms in and out: ITK .tfm .txt .mat .h5 and displacement NIfTI, by what the bytes say."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from anamorph.data.displacement_files import read_displacement, write_displacement
from anamorph.data.files import atomic_write
from anamorph.data.guard import sniff
from anamorph.data.image import ReadPolicy
from anamorph.data.itk_transform_files import read_parts, write_composite, write_matlab, write_text
from anamorph.data.itk_transforms import from_itk, to_itk
from anamorph.errors import ConfigurationError, InputError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Transform, Velocity

LINEAR_WRITERS = {".tfm": write_text, ".txt": write_text, ".mat": write_matlab}


def read_transform(
    path: str | Path,
    policy: ReadPolicy | None = None,
    *,
    grid: Grid | None = None,
    assume: Literal["itk"] | None = None,
) -> Transform:
    """A transform that maps fixed world points to moving world points, RAS mm.

    Args:
        path: ITK text, Matlab or HDF5, or a displacement NIfTI; the bytes decide, not the name.
        policy: which NIfTI form to believe, and how much memory a file may take.
        grid: where to sample a B-spline; the fixed image's grid.
        assume: "itk" reads a displacement file that does not state its convention as LPS mm.

    Raises:
        InputError: E-TRF-002 (4-D field), E-TRF-003 (unknown convention), E-TRF-004 (NaN), E-TRF-007 (no or an unknown
            transform), E-TRF-008 (damaged HDF5), E-TRF-009 (singular), and the NIfTI reader's.
        IntegrityError: E-TRF-013, an HDF5 file that points outside itself.
        ResourceError: E-MEM-016, more numbers than memory or than the file can hold.
    """
    path = Path(path)
    policy = policy or ReadPolicy()
    sniffed = sniff(path)
    if sniffed.kind == "nifti":
        return read_displacement(path, sniffed, policy, assume)
    return from_itk(read_parts(path, policy.max_bytes), path, grid)


def write_transform(
    transform: Transform, path: str | Path, grid: Grid | None = None, *, overwrite: bool = False
) -> None:
    """Write a transform for ITK, ANTs, SimpleITK and 3D Slicer, whole or not at all; equal input gives equal bytes.

    Args:
        transform: any.
        path: its suffix decides: ``.h5`` a composite with every step as it is; ``.nii`` or ``.nii.gz`` the whole map
            as one displacement field, float32; ``.tfm``, ``.txt`` or ``.mat`` one matrix.
        grid: where a displacement field is sampled; the transform's own where it has one.
        overwrite: whether an existing file may be replaced.

    Raises:
        ConfigurationError: E-TRF-016, the file exists; E-TRF-017, the format cannot hold this transform; E-OUT-002, a
            name of no written format.
        ResourceError: the disk is full.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ConfigurationError(
            "E-TRF-016", "it exists", file=path, do="choose another name, or overwrite it (overwrite=True, --force)"
        )
    suffix = ".nii" if path.name.endswith(".nii.gz") else path.suffix
    if suffix == ".h5":
        parts = to_itk(transform, composite=True)
        with atomic_write(path) as part, part.open("wb") as file:
            write_composite(parts, file)
    elif suffix == ".nii":
        grid = grid or _own_grid(transform, path)
        with atomic_write(path) as part, part.open("wb") as file:
            write_displacement(transform, grid, path, file)
    elif suffix in LINEAR_WRITERS:
        parts = to_itk(_single_matrix(transform, path), composite=False)
        with atomic_write(path) as part, part.open("wb") as file:
            LINEAR_WRITERS[suffix](parts, file)
    else:
        raise ConfigurationError(
            "E-OUT-002", "a name of no written format", file=path, expected=".h5, .nii, .nii.gz, .tfm, .txt or .mat"
        )


def check_field_grid(transform: Transform, grid: Grid, *, field_name: str = "field", image_name: str = "image") -> None:
    """Refuse a displacement that was made for another fixed grid than ``grid``.

    Raises:
        InputError: E-TRF-005, with both grids and their hashes.
    """
    first = transform.transforms[0] if isinstance(transform, Chain) else transform
    if isinstance(first, (Field, Velocity)) and not first.grid.same_as(grid):
        raise InputError(
            "E-TRF-005",
            f"{field_name} lies on {describe_grid(first.grid)}, {image_name} on {describe_grid(grid)}",
            expected="one grid",
            do="give the fixed image that the field was made for",
        )


def describe_grid(grid: Grid) -> str:
    """Shape, spacing and a hash that tells grids apart to a thousandth of a millimetre."""
    shape = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{length:.4g}" for length in grid.spacing)
    corners = np.round(grid.corners, 3) + 0.0  # no negative zero
    digest = sha256(repr((grid.shape, corners.tolist())).encode()).hexdigest()[:8]
    return f"{shape} voxels of {spacing} mm (grid {digest})"


def _own_grid(transform: Transform, path: Path) -> Grid:
    for step in transform.transforms if isinstance(transform, Chain) else (transform,):
        if isinstance(step, (Field, Velocity)):
            return step.grid
    raise ConfigurationError(
        "E-TRF-017",
        "a transform without a grid of its own",
        file=path,
        expected="a grid",
        do="give the fixed image (--onto)",
    )


def _single_matrix(transform: Transform, path: Path) -> Affine:
    steps = transform.transforms if isinstance(transform, Chain) else (transform,)
    matrix = np.eye(transform.ndim + 1)
    for step in steps:
        if not isinstance(step, Affine):
            raise ConfigurationError(
                "E-TRF-017", "a deformation, which this format cannot hold", file=path, expected=".h5 or .nii.gz"
            )
        matrix = step.matrix @ matrix
    return Affine(matrix)
