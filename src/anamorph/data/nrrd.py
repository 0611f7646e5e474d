"""NRRD images (.nrrd, .nhdr): http://teem.sourceforge.net/nrrd/format.html. See ``itk`` for what is read at all."""

from __future__ import annotations

import gzip
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from anamorph.data.itk import (
    MOST_HEADER_BYTES,
    ItkFile,
    TextHeader,
    flip_lps,
    orthogonal_lps,
    stored_slabs,
    stored_type,
)
from anamorph.errors import InputError, warn
from anamorph.spatial.grid import Grid

TYPES = {
    **dict.fromkeys(("signed char", "int8_t", "int8"), "i1"),
    **dict.fromkeys(("unsigned char", "uint8_t", "uchar", "uint8"), "u1"),
    **dict.fromkeys(("short int", "signed short", "signed short int", "int16_t", "int16", "short"), "i2"),
    **dict.fromkeys(("unsigned short", "unsigned short int", "uint16_t", "uint16", "ushort"), "u2"),
    **dict.fromkeys(("signed int", "int32_t", "int32", "int"), "i4"),
    **dict.fromkeys(("unsigned int", "uint32_t", "uint32", "uint"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64_t", "int64"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64_t", "uint64"), "u8"),
    "float": "f4",
    "double": "f8",
}
SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
}
"""Signs that carry a world point of the file to RAS+."""
SPATIAL_KINDS = ("domain", "space", "???", "none")
LIST_KINDS = ("list", "time", "???", "none")


def open_nrrd(path: Path) -> ItkFile:
    """Checks an NRRD header, without touching the voxels.

    Raises:
        InputError: anything but a raw or gzip image of one number a voxel, in one file.
        IntegrityError: its data file lies outside its folder.
    """
    header = _header(path)
    axes = header.axes("dimension")
    sizes = header.lengths("sizes", axes)
    directions, spatial = _directions(header, axes)
    others = [axis for axis in range(axes) if not spatial[axis]]
    _check_kinds(header, {axis: sizes[axis] for axis in others})
    if any(sizes[axis] > 1 and axis < sum(spatial) for axis in others):
        raise header.refusal("a list axis before the spatial ones", "one number a voxel")
    shape = (*(n for n, in_space in zip(sizes, spatial, strict=True) if in_space), *(sizes[axis] for axis in others))
    encoding = header.text("encoding").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError("E-FMT-004", f"encoding {encoding[:20]!r}", file=path, expected="raw or gzip")
    if header.text("line skip", "0") != "0":
        raise InputError("E-FMT-004", "a line skip", file=path, expected="voxels right behind the header")
    skip = 0 if header.text("byte skip", "0") == "0" else header.lengths("byte skip", 1)[0]
    data_file = header.fields.get("data file")
    section = header.section(data_file, _dtype(header), inflate=encoding != "raw", skip=skip)
    return ItkFile(path, "NRRD", shape, _affine(header, directions), section)


def _header(path: Path) -> TextHeader:
    with path.open("rb") as file:
        block = file.read(MOST_HEADER_BYTES)
    ends = [block.find(gap) + len(gap) for gap in (b"\n\n", b"\r\n\r\n") if gap in block]
    end = min(ends, default=len(block))
    if end == MOST_HEADER_BYTES:
        raise InputError("E-FMT-003", "a header without an end", file=path, expected="an empty line behind it")
    fields: dict[str, str] = {}
    header = TextHeader(path, fields, end)
    for line in block[:end].decode("utf-8", errors="replace").splitlines()[1:]:
        if line.startswith("#") or ":=" in line or not line.strip():  # key/value pairs may hold anything: not read
            continue
        name, colon, value = line.partition(": ")
        name = name.strip().lower().replace("datafile", "data file")
        if not colon or name in fields:
            raise header.refusal(f"header line {line[:40]!r}", "each field once, as 'name: value'")
        fields[name] = value.strip()
    return header


def _dtype(header: TextHeader) -> np.dtype:
    name = header.text("type").lower()
    if name not in TYPES:
        raise header.refusal(f"type {name[:40]!r}", "integers or float up to 64 bits")
    dtype = np.dtype(TYPES[name])
    if dtype.itemsize == 1:
        return dtype
    endian = header.text("endian").lower()
    if endian not in ("little", "big"):
        raise header.refusal(f"endian {endian[:40]!r}", "little or big")
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _directions(header: TextHeader, axes: int) -> tuple[np.ndarray, list[bool]]:
    """Columns of the direction matrix, spacing included, and which axes are spatial."""
    kinds = header.text("kinds", "").lower().split()
    if "space directions" in header.fields:
        vectors = header.text("space directions").lower().replace(", ", ",").split()
        if len(vectors) != axes:
            raise header.refusal(f"{len(vectors)} space directions", str(axes))
        spatial = [vector != "none" for vector in vectors]
    else:
        spatial = [kind in SPATIAL_KINDS for kind in kinds] if len(kinds) == axes else [n < 3 for n in range(axes)]
        vectors = []
    ndim = sum(spatial)
    if ndim not in (2, 3):
        raise header.refusal(f"{ndim} axes in space", "two or three")
    if vectors:
        return np.array([_vector(header, "space directions", v, ndim) for v in vectors if v != "none"]).T, spatial
    spacings = header.numbers("spacings", axes, default=" ".join(["1"] * axes))
    return np.diag(spacings[spatial]), spatial


def _vector(header: TextHeader, name: str, text: str, ndim: int) -> np.ndarray:
    return header.parse(text.strip("()").replace(",", " "), name, ndim)


def _check_kinds(header: TextHeader, sizes: dict[int, int]) -> None:
    """Refuses colour, complex numbers and vectors among the axes outside space, given with their lengths."""
    kinds = dict(enumerate(header.text("kinds", "").lower().split()))
    for axis, size in sizes.items():
        kind = kinds.get(axis, "???")
        if size == 1 or kind in LIST_KINDS:
            continue
        if kind == "complex":
            raise InputError("E-VAL-006", "complex voxels", file=header.path, do="take the magnitude first")
        if "color" in kind:
            raise InputError("E-VAL-007", "colour voxels", file=header.path, do="convert to grey")
        found = f"{size} numbers a voxel ({kind[:20]}): a displacement field or another vector image"
        raise InputError("E-GEO-018", found, file=header.path, expected="one number a voxel")


def _affine(header: TextHeader, directions: np.ndarray) -> np.ndarray:
    ndim = len(directions)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = directions
    if "space origin" in header.fields:
        matrix[:-1, -1] = _vector(header, "space origin", header.text("space origin"), ndim)
    if not np.isfinite(matrix).all():
        found = "spacing, directions or origin not finite"
        raise InputError("E-FMT-004", found, file=header.path, expected="numbers in mm")
    space = header.text("space", "").lower()
    if space in SPACES and ndim == 3:
        return np.diag([*SPACES[space], 1.0]) @ matrix
    if ndim == 3 or space:
        warn("W-FMT-005", f"space {space[:40] or 'not given'}: taken as left-posterior-superior", file=header.path)
    return flip_lps(matrix)


def write_nrrd(values: Shaped[np.ndarray, "*spatial"], grid: Grid, file: BufferedIOBase) -> None:
    """A gzip NRRD of one number a voxel; refuses sheared axes. The same values give the same bytes."""
    matrix = orthogonal_lps(grid, "NRRD")
    names = {value: name for name, value in TYPES.items()}
    vectors = [f"({','.join(repr(float(x)) for x in column)})" for column in matrix[:-1].T]
    lines = [
        "NRRD0004",
        f"type: {names[stored_type(values.dtype)]}",
        f"dimension: {grid.ndim}",
        "space: left-posterior-superior" if grid.ndim == 3 else "space dimension: 2",
        f"sizes: {' '.join(map(str, grid.shape))}",
        f"space directions: {' '.join(vectors[:-1])}",
        f"kinds: {' '.join(['domain'] * grid.ndim)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vectors[-1]}",
    ]
    file.write(("\n".join(lines) + "\n\n").encode("ascii"))
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as stream:
        stream.writelines(stored_slabs(values))
