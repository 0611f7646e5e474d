"""ITK's transform files as bytes: text (.tfm, .txt), Matlab version 4 (.mat) and HDF5 (.h5) <-> stored parts.

No ITK or HDF5 library takes part, so that a damaged or hostile file ends in one refusal, and equal transforms give
equal bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from anamorph.data.guard import memory_bytes
from anamorph.data.hdf5_reader import SIGNATURE, Hdf5Reader
from anamorph.data.hdf5_writer import write_hdf5
from anamorph.data.itk_linear import Numbers
from anamorph.data.itk_transforms import ItkTransform
from anamorph.errors import InputError, ResourceError

FIRST_LINE = "#Insight Transform File V1.0"
LARGEST_TEXT = 2**28
MATLAB_TYPES = {0: np.dtype("<f8"), 10: np.dtype("<f4")}
HDF5_SPELLINGS = ("Transform", "Tranform")
"""How the names of the numbers begin, as of now and as old ITK misspelt it."""


def read_parts(path: Path, max_bytes: int | None = None) -> list[ItkTransform]:
    """The transforms of an ITK file in its order, whichever of the three forms its bytes have.

    Raises:
        InputError: no ITK transform file, cut short, or with numbers that are none.
        IntegrityError: E-TRF-013, an HDF5 file that points outside itself.
        ResourceError: E-MEM-016, more numbers than ``max_bytes`` (default: the machine's memory) or than the file
            can hold.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if head.startswith(SIGNATURE):
            return _read_hdf5(file, path, memory_bytes() if max_bytes is None else max_bytes)
        if path.stat().st_size > LARGEST_TEXT:
            raise ResourceError("E-MEM-016", "more than 256 MiB", file=path, expected="an .h5 file for a large field")
        content = head + file.read()
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"#Insight"):
        return _read_text(content.decode("utf-8-sig", "replace"), path)
    if int.from_bytes(content[:4], "little") in MATLAB_TYPES and len(content) >= 20:
        return _read_matlab(content, path)
    raise InputError("E-TRF-007", _guess(content), file=path, expected="an ITK transform or a displacement field")


def _guess(content: bytes) -> str:
    """What a file that is no ITK transform seems to be."""
    if b"(Transform " in content or b"InitialTransformParameter" in content:
        return "an elastix parameter file"
    if content[:1000].lstrip()[:1] == b"<":
        return "a web page or XML"
    try:
        count = len([float(word) for word in content[:2000].split()])
    except ValueError:
        return "no transform"
    return "a plain matrix as FSL writes it" if count in (9, 16) else "plain numbers"


def _read_text(content: str, path: Path) -> list[ItkTransform]:
    parts: list[tuple[str, dict[str, Numbers]]] = []
    for number, line in enumerate(content.splitlines(), 1):
        key, colon, value = line.partition(":")
        key = key.strip()
        if not key or key.startswith("#"):
            continue
        if key == "Transform" and colon:
            parts.append((value.strip(), {}))
        elif key in ("Parameters", "FixedParameters") and colon and parts:
            try:
                parts[-1][1][key] = np.array(value.split(), dtype=np.float64)
            except ValueError as error:
                raise InputError("E-TRF-007", f"line {number}: {error}", file=path, expected="numbers") from error
        else:
            found = f"line {number}: {line.strip()[:60]!r}"
            raise InputError("E-TRF-007", found, file=path, expected="Transform, Parameters or FixedParameters")
    nothing = np.empty(0)
    return [
        ItkTransform.named(name, numbers.get("Parameters", nothing), numbers.get("FixedParameters", nothing), path)
        for name, numbers in parts
    ]


def _read_matlab(content: bytes, path: Path) -> list[ItkTransform]:
    """Variables in pairs: one called like the class, then one called "fixed"."""
    variables: list[tuple[str, Numbers]] = []
    at = 0
    while at < len(content):
        if at + 20 > len(content):
            raise _cut(path, len(content), at + 20)
        kind, rows, columns, imaginary, length = struct.unpack_from("<5I", content, at)
        if kind not in MATLAB_TYPES or imaginary or length > 200:
            found = "a Matlab variable that is no real vector"
            raise InputError("E-TRF-007", found, file=path, expected="a .mat file as ITK or ANTs writes it")
        start = at + 20 + length
        end = start + rows * columns * MATLAB_TYPES[kind].itemsize
        if end > len(content):
            raise _cut(path, len(content), end)
        name = content[at + 20 : start].rstrip(b"\0").decode("utf-8", "replace")
        variables.append((name, np.frombuffer(content[start:end], dtype=MATLAB_TYPES[kind]).astype(np.float64)))
        at = end
    if len(variables) % 2 or any(name != "fixed" for name, _ in variables[1::2]):
        found = f"variables {', '.join(name[:40] for name, _ in variables)}"
        raise InputError("E-TRF-007", found, file=path, expected="parameters, then 'fixed'")
    pairs = zip(variables[::2], variables[1::2], strict=True)
    return [ItkTransform.named(name, numbers, fixed, path) for (name, numbers), (_, fixed) in pairs]


def _cut(path: Path, found: int, expected: int) -> InputError:
    return InputError("E-TRF-007", f"truncated: {found} of {expected} bytes or more", file=path, do="copy it again")


def _read_hdf5(file: BinaryIO, path: Path, max_bytes: int) -> list[ItkTransform]:
    reader = Hdf5Reader(file, path, max_bytes)
    try:
        root = reader.children(reader.root)
        if "TransformGroup" not in root:
            found = f"an HDF5 file with {', '.join(sorted(root))[:60] or 'nothing'} in it"
            raise InputError("E-TRF-007", found, file=path, expected="a TransformGroup as ITK writes it")
        groups = reader.children(root["TransformGroup"])
        return [_hdf5_part(reader, reader.children(groups[name]), path) for name in sorted(groups, key=int)]
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("E-TRF-008", "damaged inside", file=path, do="copy or write it again") from error


def _hdf5_part(reader: Hdf5Reader, members: dict[str, int], path: Path) -> ItkTransform:
    if "TransformType" not in members:
        raise InputError("E-TRF-007", "a transform without its class", file=path, do="write it again")
    name = reader.text(members["TransformType"])
    numbers = {}  # what a class needs is checked where its numbers are understood
    for key in ("Parameters", "FixedParameters"):
        present = [members[start + key] for start in HDF5_SPELLINGS if start + key in members]
        numbers[key] = reader.numbers(present[0]) if present else np.empty(0)
    return ItkTransform.named(name, numbers["Parameters"], numbers["FixedParameters"], path)


def write_text(parts: Sequence[ItkTransform], file: BinaryIO) -> None:
    """Text, every number with as many digits as bring it back exactly."""
    lines = [FIRST_LINE]
    for index, part in enumerate(parts):
        lines += [f"#Transform {index}", f"Transform: {part.name}"]
        for key, numbers in (("Parameters", part.parameters), ("FixedParameters", part.fixed)):
            lines.append(f"{key}: {' '.join(map(repr, numbers.astype(float).tolist()))}")
    file.write(("\n".join(lines) + "\n").encode())


def write_matlab(parts: Sequence[ItkTransform], file: BinaryIO) -> None:
    """Matlab version 4, float64, little-endian."""
    for part in parts:
        for name, numbers in ((part.name, part.parameters), ("fixed", part.fixed)):
            file.write(struct.pack("<5I", 0, numbers.size, 1, 0, len(name) + 1) + name.encode() + b"\0")
            file.write(numbers.astype("<f8").tobytes())


def write_composite(parts: Sequence[ItkTransform], file: BinaryIO) -> None:
    """HDF5, each part in its own precision."""
    groups: dict[str, dict[str, np.ndarray | str]] = {}
    for index, part in enumerate(parts):
        groups[str(index)] = {"TransformType": part.name}
        if part.kind != "CompositeTransform":
            groups[str(index)] |= {"TransformParameters": part.parameters, "TransformFixedParameters": part.fixed}
    write_hdf5(file, {"TransformGroup": groups})
