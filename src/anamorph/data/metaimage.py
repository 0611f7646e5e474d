"""MetaImage images (.mha, .mhd): https://docs.itk.org/en/latest/learn/metaio.html. See ``itk`` for what is read."""

from __future__ import annotations

import zlib
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
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
ORIGINS = ("Offset", "Position", "Origin")
DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
UNREAD = ("Comment", "Name")
"""Fields that may stand there twice, or hold anything."""


def open_metaimage(path: Path) -> ItkFile:
    """Checks a MetaImage header, without touching the voxels; refusals as in ``open_nrrd``."""
    header = _header(path)
    axes = header.axes("NDims")
    shape = header.lengths("DimSize", axes)
    if header.text("ObjectType", "Image").lower() != "image":
        raise header.refusal(f"ObjectType {header.text('ObjectType')[:40]!r}", "Image")
    channels = header.text("ElementNumberOfChannels", "1")
    if channels != "1":
        found = f"{channels[:10]} numbers a voxel: colour, a displacement field or another vector image"
        raise InputError("E-GEO-018", found, file=path, expected="one number a voxel")
    if not _is_true(header, "BinaryData", "True") or header.text("HeaderSize", "0") != "0":
        found = "voxels as text, or behind another header"
        raise InputError("E-FMT-004", found, file=path, expected="binary voxels alone")
    name = header.text("ElementDataFile")
    data_file = None if name.upper() == "LOCAL" else name
    section = header.section(data_file, _dtype(header), inflate=_is_true(header, "CompressedData"))
    return ItkFile(path, "MetaImage", shape, _affine(header, axes), section)


def _header(path: Path) -> TextHeader:
    """Every field up to ElementDataFile, which ends the header."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            line = file.readline(MOST_HEADER_BYTES)
            header = TextHeader(path, fields, file.tell())
            if not line or header.end > MOST_HEADER_BYTES:
                raise header.refusal("a header without ElementDataFile", f"one within {MOST_HEADER_BYTES} bytes")
            name, equals, value = line.decode("utf-8", errors="replace").partition("=")
            name = name.strip()
            if not line.strip() or name in UNREAD:
                continue
            if not equals or name in fields:
                raise header.refusal(f"header line {line[:40]!r}", "each field once, as 'Name = value'")
            fields[name] = value.strip()
        return TextHeader(path, fields, file.tell())


def _is_true(header: TextHeader, name: str, default: str = "False") -> bool:
    return header.text(name, default).lower() in ("true", "1")


def _dtype(header: TextHeader) -> np.dtype:
    kind = header.text("ElementType")
    if kind not in TYPES:
        raise header.refusal(f"ElementType {kind[:40]!r}", "integers or float up to 64 bits")
    big = _is_true(header, "BinaryDataByteOrderMSB") or _is_true(header, "ElementByteOrderMSB")
    return np.dtype((">" if big else "<") + TYPES[kind])


def _affine(header: TextHeader, axes: int) -> np.ndarray:
    ndim = min(axes, 3)

    def listed(names: tuple[str, ...], default: np.ndarray) -> np.ndarray:
        present = [name for name in names if name in header.fields]
        return header.numbers(present[0], default.size) if present else default

    spacing = listed(("ElementSpacing",), np.ones(axes))[:ndim]
    directions = listed(DIRECTIONS, np.eye(axes).ravel()).reshape(axes, axes).T  # listed axis by axis
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = directions[:ndim, :ndim] * spacing
    matrix[:-1, -1] = listed(ORIGINS, np.zeros(axes))[:ndim]
    return flip_lps(matrix)


def write_metaimage(values: Shaped[np.ndarray, "*spatial"], grid: Grid, file: BufferedIOBase) -> None:
    """A compressed .mha of one number a voxel; refuses sheared axes. The same values give the same bytes."""
    matrix = orthogonal_lps(grid, "MetaImage")
    names = {value: name for name, value in TYPES.items()}
    deflater = zlib.compressobj(level=1)
    data = b"".join([*map(deflater.compress, stored_slabs(values)), deflater.flush()])
    fields = {
        "ObjectType": "Image",
        "NDims": str(grid.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(data)),
        "TransformMatrix": _listed((matrix[:-1, :-1] / grid.spacing).T.ravel()),
        "Offset": _listed(matrix[:-1, -1]),
        "ElementSpacing": _listed(grid.spacing),
        "DimSize": " ".join(map(str, grid.shape)),
        "ElementType": names[stored_type(values.dtype)],
        "ElementDataFile": "LOCAL",
    }
    file.write("".join(f"{name} = {value}\n" for name, value in fields.items()).encode("ascii"))
    file.write(data)


def _listed(numbers: np.ndarray) -> str:
    return " ".join(repr(float(x)) for x in numbers)
