"""NIfTI-1 and NIfTI-2, single files and pairs, in and out.

nibabel interprets and writes the header; the bytes come through ``guard``, inflated once. Two forms may place the
voxels:

- one form with a code above 0: that one;
- both: the sform, with a warning from 0.01 mm of difference at the corners and a refusal from 1 mm, unless
  ``ReadPolicy.xform`` names the form to believe;
- none: nibabel's reading (first axis to the left, origin in the centre) with a warning, a refusal where ``strict``.

Units of metre or micron become mm. A file is written with both forms equal and code 1; where the axes are sheared,
which a quaternion cannot say, with the sform alone.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from io import BufferedIOBase
from itertools import product
from pathlib import Path
from typing import Literal, cast

import nibabel as nib
import numpy as np
from jaxtyping import Shaped
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError

from anamorph.data.guard import DataSection, Sniffed, check_readable, read_section
from anamorph.data.image import ReadPolicy
from anamorph.data.volume import Volume, affine_problem, choose_volume, in_plane_axes, place
from anamorph.errors import InputError, warn
from anamorph.spatial.grid import Grid

EQUAL_MM, REFUSED_MM = 0.01, 1.0
"""Corner difference of the two forms: below, rounding of the quaternion; above, two different places."""
LARGEST_NIFTI1_AXIS = 32767
MOST_EXTENSION_BYTES = 1 << 28
SINGLE_MAGICS, PAIR_MAGICS = (b"n+1", b"n+2"), (b"ni1", b"ni2")
UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
UNIT_NAMES = {1: "metres", 3: "microns"}
SCALARS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
COMPLEX, COLOUR = (32, 1792, 2048), (128, 2304)

Header = nib.Nifti1Header | nib.Nifti2Header


@dataclass(frozen=True, eq=False)
class Form:
    """One of the two matrices that may place the voxels.

    Args:
        name: "sform" or "qform".
        code: 0 for not set.
        affine: 4 x 4, voxel index -> RAS+ mm.
        problem: why the matrix cannot be used, or an empty string.
    """

    name: Literal["sform", "qform"]
    code: int
    affine: np.ndarray
    problem: str


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A checked header, and where its voxels are.

    Args:
        path: of the header.
        version: "NIfTI-1" or "NIfTI-2".
        shape: every axis of the file.
        forms: sform and qform, in mm.
        base_affine: nibabel's guess without any form.
        section: the data; its volume is chosen when it is read.
        slope: of the intensities.
        inter: of the intensities.
    """

    path: Path
    version: str
    shape: tuple[int, ...]
    forms: tuple[Form, Form]
    base_affine: np.ndarray
    section: DataSection
    slope: float
    inter: float

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored voxels."""
        return self.section.dtype

    @property
    def spatial(self) -> tuple[int, ...]:
        """The first three axes."""
        return (*self.shape[:3], 1)[:3]


def read_nifti(path: Path, sniffed: Sniffed, policy: ReadPolicy) -> Volume:
    """One volume of a NIfTI file; see the module for the place it is given."""
    file = open_nifti(path, sniffed)
    spatial, volumes, volume = choose_volume(file.shape, policy, path)
    affine = choose_affine(file, in_plane_axes(spatial, path), policy)
    section = replace(file.section, shape=spatial, volumes=volumes, volume=volume)
    values = read_section(section, max_bytes=policy.max_bytes, family="NII")
    return replace(place(values, affine, policy, path), slope=file.slope, inter=file.inter)


def header_of_pair(path: Path) -> Path:
    """The ``.hdr`` that belongs to an ``.img``; any other path as it is."""
    name = path.name.removesuffix(".gz")
    if not name.endswith(".img"):
        return path
    check_readable(path)
    return _other_half(path, ".hdr")


def _other_half(path: Path, suffix: str) -> Path:
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    for name in (stem + suffix, stem + suffix + ".gz"):
        if (path.parent / name).is_file():
            return path.parent / name
    raise InputError(
        "E-NII-025",
        "one half of a pair",
        file=path,
        expected=f"its other half {stem + suffix}",
        do="put both in one folder",
    )


def open_nifti(path: Path, sniffed: Sniffed) -> NiftiFile:
    """Checks a header, without touching the voxels.

    Raises:
        InputError: a header that is cut, inconsistent or of a type that is no image of one number a voxel.
    """
    header, magic = _header(path, sniffed.head)
    shape = _shape(header, path)
    section = _section(path, sniffed, header, magic, shape)
    slope, inter = _scaling(header, path)
    unit = _unit_mm(header, path)
    axes = tuple(axis for axis, length in enumerate(shape[:3]) if length > 1)
    millimetres = np.array([[unit], [unit], [unit], [1.0]])
    forms = tuple(_form(name, header, millimetres, axes, path) for name in ("sform", "qform"))
    with np.errstate(invalid="ignore"):  # a NaN voxel size is refused where this matrix is used
        base_affine = header.get_base_affine() * millimetres
    version = "NIfTI-2" if isinstance(header, nib.Nifti2Header) else "NIfTI-1"
    return NiftiFile(path, version, shape, forms, base_affine, section, slope, inter)  # pyright: ignore


def _header(path: Path, head: bytes) -> tuple[Header, bytes]:
    second = 540 in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")) or head[4:7] in (
        b"n+2",
        b"ni2",
    )
    kind, size = (nib.Nifti2Header, 540) if second else (nib.Nifti1Header, 348)
    if len(head) < size:
        found = f"a header cut at {len(head)} bytes"
        raise InputError("E-NII-009", found, file=path, expected=f"{size} bytes", do="copy the file again")
    magic = head[4:7] if second else head[344:347]
    if magic not in SINGLE_MAGICS + PAIR_MAGICS:
        found = f"magic {magic!r} (Analyze 7.5 or damaged)"
        raise InputError("E-NII-014", found, file=path, expected="n+1 or ni1", do="convert it with what wrote it")
    little, big = int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")
    if size not in (little, big):
        raise InputError("E-NII-013", f"sizeof_hdr {little}", file=path, expected=str(size), do="copy the file again")
    return kind(head[:size], endianness="<" if little == size else ">", check=False), magic


def _shape(header: Header, path: Path) -> tuple[int, ...]:
    axes = int(header["dim"][0])
    lengths = tuple(int(length) for length in header["dim"][1 : max(axes, 0) + 1])
    if not 1 <= axes <= 7 or any(length < 1 for length in lengths):
        found = f"dim {[int(length) for length in header['dim']]}"
        raise InputError("E-NII-015", found, file=path, expected="1 to 7 axes of at least one voxel")
    return lengths


def _section(path: Path, sniffed: Sniffed, header: Header, magic: bytes, shape: tuple[int, ...]) -> DataSection:
    dtype = _dtype(header, path)
    offset = float(header["vox_offset"])
    single = magic in SINGLE_MAGICS
    least = len(header.binaryblock) + 4 if single else 0
    if not np.isfinite(offset) or offset != int(offset) or offset < least:
        raise InputError("E-NII-021", f"vox_offset {offset:g}", file=path, expected=f"a whole number from {least} on")
    if offset > least + MOST_EXTENSION_BYTES:
        found = f"{offset:g} bytes before the voxels"
        raise InputError("E-NII-024", found, file=path, expected=f"at most {MOST_EXTENSION_BYTES} bytes of extensions")
    if single:
        return DataSection(path, shape, dtype, inflate=sniffed.compressed, skip=int(offset))
    if path.name.removesuffix(".gz").rpartition(".")[2] != "hdr":
        raise InputError("E-NII-014", "the header of a pair without its voxels", file=path, expected="a name in .hdr")
    data = _other_half(path, ".img")
    check_readable(data)
    with data.open("rb") as file:
        inflate = file.read(2) == b"\x1f\x8b" and data.suffix == ".gz"
    return DataSection(data, shape, dtype, inflate=inflate, skip=int(offset))


def _dtype(header: Header, path: Path) -> np.dtype:
    code = int(header["datatype"])
    if code in COMPLEX:
        raise InputError("E-VAL-006", "complex voxels", file=path, expected="real ones", do="take the magnitude first")
    if code in COLOUR:
        raise InputError(
            "E-VAL-007", "colour (RGB) voxels", file=path, expected="one number a voxel", do="convert to grey"
        )
    if code not in SCALARS:
        raise InputError("E-NII-019", f"datatype {code}", file=path, expected="integers or float up to 64 bits")
    return np.dtype(header.endianness + SCALARS[code])


def _scaling(header: Header, path: Path) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 means unscaled by the standard, one that is not finite is taken to mean it."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(inter)):
        warn("W-NII-022", f"scl_slope {slope:g}, scl_inter {inter:g}: taken as unscaled", file=path)
        return 1.0, 0.0
    return slope, inter


def _unit_mm(header: Header, path: Path) -> float:
    code = int(header["xyzt_units"]) & 7
    if code in UNIT_NAMES:
        warn("W-NII-023", f"lengths in {UNIT_NAMES[code]}, converted to mm", file=path)
    return UNIT_MM.get(code, 1.0)


def _form(
    name: Literal["sform", "qform"], header: Header, millimetres: np.ndarray, axes: tuple[int, ...], path: Path
) -> Form:
    code = int(header[f"{name}_code"])
    if name == "sform":
        affine = cast("np.ndarray", header.get_sform()) * millimetres
        return Form(name, code, affine, affine_problem(affine, axes))
    if code > 0 and any(float(header["pixdim"][1 + axis]) < 0 for axis in axes):
        warn("W-GEO-008", "a negative voxel size, taken as positive", file=path)
    header = header.copy()
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # what the standard prescribes for 0
    try:
        with np.errstate(invalid="ignore"):
            affine = cast("np.ndarray", header.get_qform()) * millimetres
    except (HeaderDataError, ValueError):
        return Form(name, code, np.full((4, 4), np.nan), "no rotation")
    return Form(name, code, affine, affine_problem(affine, axes))


def choose_affine(file: NiftiFile, axes: tuple[int, ...], policy: ReadPolicy) -> np.ndarray:
    """The matrix that places the voxels, by the rule of this module.

    Raises:
        InputError: the forms lie more than 1 mm apart, the one to believe is unusable, or there is none and the
            policy is strict.
    """
    path = file.path
    forms = sorted((form for form in file.forms if form.code > 0), key=lambda form: form.name != policy.xform)
    if not forms:
        if policy.strict:
            raise InputError("E-GEO-003", "no orientation (both codes 0)", file=path, expected="a qform or sform")
        warn("W-GEO-003", "no orientation (both codes 0): first axis taken to run to the left", file=path)
        return file.base_affine
    chosen, *others = forms
    if chosen.problem:
        code = "E-GEO-007" if chosen.problem == "not finite" else "E-GEO-006"
        remedy = "".join(f"believe the {form.name} with --xform {form.name}" for form in others if not form.problem)
        found = f"its {chosen.name} is {chosen.problem}"
        raise InputError(code, found, file=path, expected="an invertible matrix", do=remedy)
    sform, qform = file.forms
    if qform.problem:
        warn("W-GEO-008", f"voxel size or quaternion unusable ({qform.problem}); sform used", file=path)
    elif others and sform.problem:
        warn("W-GEO-006", f"its sform is {sform.problem}; qform used", file=path)
    elif others:
        _compare(file, chosen, others[0], axes, policy)
    return chosen.affine


def _compare(file: NiftiFile, chosen: Form, other: Form, axes: tuple[int, ...], policy: ReadPolicy) -> None:
    millimetres, degrees = form_difference(chosen, other, file.spatial, axes)
    found = f"sform and qform differ by {millimetres:.3g} mm and {degrees:.3g} degrees"
    if millimetres > REFUSED_MM and policy.xform == "auto":
        raise InputError(
            "E-GEO-001",
            found,
            file=file.path,
            expected=f"at most {REFUSED_MM:g} mm",
            do="choose --xform sform or qform",
        )
    if millimetres > EQUAL_MM:
        warn("W-GEO-002", f"{found}; {chosen.name} used", file=file.path)


def form_difference(a: Form, b: Form, spatial: tuple[int, ...], axes: tuple[int, ...]) -> tuple[float, float]:
    """How far two forms are apart: the largest distance between corners of the field of view in mm, and the degrees."""
    corners = np.array(list(product(*[(0, spatial[axis] - 1) for axis in axes], (1,))))
    apart = (a.affine - b.affine)[:3, [*axes, 3]] @ corners.T
    millimetres = float(np.linalg.norm(apart, axis=0).max())
    rotations = [np.linalg.svd(form.affine[:3, axes]) for form in (a, b)]
    u, v = (left[:, : len(axes)] @ right for left, _, right in rotations)
    cosine = (np.trace(u.T @ v) - (1 if len(axes) == 3 else 0)) / 2
    return millimetres, float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def write_nifti(values: Shaped[np.ndarray, "*spatial"], grid: Grid, file: BufferedIOBase, *, compress: bool) -> None:
    """Writes one number a voxel, unscaled and with nothing about its origin; the same values give the same bytes.

    Args:
        values: I J (K) of an integer type, float32 or float64; 2-D is stored as one slice in the plane z = 0.
        grid: where the voxels are; stored as float32 in NIfTI-1.
        file: open for writing in binary mode.
        compress: as a gzip stream.
    """
    affine = grid.affine
    if grid.ndim == 2:
        values = values[..., None]
        affine = np.eye(4)
        affine[np.ix_([0, 1, 3], [0, 1, 3])] = grid.affine
    kind = nib.Nifti2Image if max(values.shape) > LARGEST_NIFTI1_AXIS else nib.Nifti1Image
    image = kind(values, affine, dtype=values.dtype)
    header = image.header
    header.set_xyzt_units("mm")
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    sform, qform = cast("np.ndarray", header.get_sform()), cast("np.ndarray", header.get_qform())
    corners = Grid(values.shape, sform)
    if corners.distance_mm(Grid(values.shape, qform)) > EQUAL_MM:
        image.set_qform(None, 0)
    if compress:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as stream:
            image.to_file_map({"image": FileHolder(fileobj=stream)})
    else:
        image.to_file_map({"image": FileHolder(fileobj=file)})
