"""What is checked of a file before memory is given to it: what it is, how long it can be, where its data may lie.

Everything here is plain Python over small reads. A header is believed only as far as the file's length allows. A
compressed stream is inflated once, straight into the array, never beyond the declared size, and read to its checksum.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from math import prod
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from anamorph.errors import InputError, IntegrityError, ResourceError, warn

GZIP = b"\x1f\x8b"
CHUNK = 1 << 20
HEAD_BYTES = 1024
MGH_START = (1).to_bytes(4, "big")
MOST_INFLATION = 1032
"""Deflate cannot expand further than this (RFC 1951: 258 bytes from two bits)."""
MOST_TRAILING_BYTES = 1 << 20
"""How far behind the data a stream is followed to its checksum."""

Kind = Literal["nifti", "nrrd", "metaimage", "mgh", "png", "jpeg", "tiff", "dicom", "html", "hdf5", "unknown"]
Family = Literal["NII", "FMT"]
"""Of a code: NIfTI, or another format."""


@dataclass(frozen=True)
class Sniffed:
    """What the first bytes say.

    Args:
        kind: the format.
        compressed: whether the whole file is a gzip stream.
        head: its first bytes, inflated.
    """

    kind: Kind
    compressed: bool
    head: bytes


def sniff(path: Path) -> Sniffed:
    """What a file is by its bytes; its name counts for nothing.

    Raises:
        InputError: no such file, a folder, no permission, nothing in it.
    """
    check_readable(path)
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP
        file.seek(0)
        head = ByteStream(file, path, inflate=compressed).read(HEAD_BYTES)
    return Sniffed(_kind_of(head), compressed, head)


def check_readable(path: Path) -> None:
    """Refuses what is missing, a folder, unreadable or empty."""
    try:
        is_folder, size = path.is_dir(), path.stat().st_size
        if size and not is_folder:
            path.open("rb").close()
    except FileNotFoundError as error:
        folder = path.parent.name
        found = "no such file" if path.parent.is_dir() else f"its folder {folder!r} does not exist"
        raise InputError("E-IO-001", found, file=path, expected="an existing file") from error
    except PermissionError as error:
        raise InputError("E-IO-001", "no permission to read it", file=path, do="change its permissions") from error
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise InputError("E-IO-001", f"cannot be opened ({error.__class__.__name__})", file=path) from error
    if is_folder:
        raise InputError("E-IO-001", "this is a folder", file=path, expected="an image file")
    if size == 0:
        raise InputError("E-IO-002", "an empty file (0 bytes)", file=path, expected="an image")


def _kind_of(head: bytes) -> Kind:
    if head[344:348] in (b"n+1\0", b"ni1\0") or int.from_bytes(head[:4], "little") in (348, 540):
        return "nifti"
    if int.from_bytes(head[:4], "big") in (348, 540) or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    if head[128:132] == b"DICM":
        return "dicom"
    starts: dict[bytes, Kind] = {
        b"NRRD000": "nrrd",
        MGH_START: "mgh",
        b"\x89PNG": "png",
        b"\xff\xd8\xff": "jpeg",
        b"II*\0": "tiff",
        b"MM\0*": "tiff",
        b"\x89HDF": "hdf5",
    }
    for start, kind in starts.items():
        if head.startswith(start):
            return kind
    if b"<html" in head.lower() or b"<!doctype html" in head.lower():
        return "html"
    if b"NDims" in head or head.startswith(b"ObjectType"):
        return "metaimage"
    return "unknown"


class ByteStream:
    """The bytes of a file, inflated on the way where it is compressed, in pieces of bounded size.

    Args:
        file: open for reading, standing where the stream begins.
        path: named in messages.
        inflate: whether the bytes are a gzip or zlib stream; several gzip members in a row count as one.
        family: of the code of a refusal.
    """

    def __init__(self, file: BufferedIOBase, path: Path, *, inflate: bool, family: Family = "NII") -> None:
        self._file, self._path, self._family = file, path, family
        self._inflater = _new_inflater() if inflate else None
        self._pending = b""
        self.cut = False
        """Whether the compressed stream ended before its checksum."""

    def readinto(self, target: memoryview) -> int:
        """Fills ``target`` as far as the stream reaches; returns the number of bytes."""
        done = 0
        while done < len(target) and (piece := self._next(min(len(target) - done, CHUNK))):
            target[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def read(self, most: int) -> bytes:
        """Up to ``most`` bytes, less only at the end."""
        target = bytearray(most)
        return bytes(target[: self.readinto(memoryview(target))])

    def skip(self, count: int) -> int:
        """Passes over ``count`` bytes, with no more memory than one piece; returns how many there were."""
        if self._inflater is None:
            here = self._file.tell()
            end = self._file.seek(0, os.SEEK_END)
            return self._file.seek(min(here + count, end)) - here
        done = 0
        while done < count and (piece := self._next(min(count - done, CHUNK))):
            done += len(piece)
        return done

    def finish(self) -> int:
        """Follows the stream to its checksum; returns how many bytes came after what was read, counted up to 1 MiB."""
        trailing = self.skip(MOST_TRAILING_BYTES)
        at_end = self._inflater is not None and self._inflater.eof
        return trailing + (len(self._pending) if at_end else 0)

    def _next(self, most: int) -> bytes:
        if self._inflater is None:
            return self._file.read(most)
        while True:
            if self._inflater.eof and not self._begin_next_member():
                return b""
            source = self._pending or self._file.read(CHUNK)
            try:
                piece = self._inflater.decompress(source, most)
            except zlib.error as error:
                found = "the compressed data is damaged or its checksum is wrong"
                raise InputError(f"E-{self._family}-010", found, file=self._path, do="copy the file again") from error
            self._pending = self._inflater.unused_data or self._inflater.unconsumed_tail
            if piece:
                return piece
            if not source and not self._inflater.eof:
                self.cut = True
                return b""

    def _begin_next_member(self) -> bool:
        self._pending = self._pending or self._file.read(CHUNK)
        if not self._pending.startswith(GZIP):
            return False
        self._inflater = _new_inflater()
        return True


def _new_inflater():
    """Accepts a gzip and a zlib wrapper, and checks the checksum of either."""
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


@dataclass(frozen=True)
class DataSection:
    """Where a header says that the voxels are.

    Args:
        path: the file that holds them.
        shape: the voxels of one volume along each axis, first axis fastest.
        dtype: with byte order.
        start: bytes of the file before the stream.
        inflate: whether the stream is compressed.
        skip: bytes of the (inflated) stream before the first volume.
        volumes: how many the file holds, one after the other.
        volume: which of them is meant.
        has_footer: whether the format puts something behind the voxels, which is of no interest.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int = 0
    inflate: bool = False
    skip: int = 0
    volumes: int = 1
    volume: int = 0
    has_footer: bool = False

    @property
    def volume_bytes(self) -> int:
        """Bytes of one volume."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def declared_bytes(self) -> int:
        """Bytes from the beginning of the stream to the end of the last volume."""
        return self.skip + self.volume_bytes * self.volumes


def read_section(section: DataSection, *, max_bytes: int | None, family: Family) -> np.ndarray:
    """One volume, first axis fastest, as the file has it.

    Args:
        section: what to read.
        max_bytes: budget for the volume and its float32 copy; None stands for the memory of the machine.
        family: of the code of a refusal.

    Raises:
        ResourceError: the volume is beyond the budget; nothing was allocated.
        InputError: the file is shorter than declared, or its checksum is wrong.
    """
    path = section.path
    check_budget(section.shape, section.dtype, max_bytes, path)
    stored = max(path.stat().st_size - section.start, 0)
    possible = stored * MOST_INFLATION if section.inflate else stored
    if section.declared_bytes > possible:
        raise _truncated(section, possible, family, "at most " if section.inflate else "")
    buffer = np.empty(section.volume_bytes, dtype=np.uint8)
    with path.open("rb") as file:
        file.seek(section.start)
        stream = ByteStream(file, path, inflate=section.inflate, family=family)
        got = stream.skip(section.skip + section.volume * section.volume_bytes)
        got += stream.readinto(buffer.data)
        got += stream.skip(section.declared_bytes - got)
        if got < section.declared_bytes:
            raise _truncated(section, got, family)
        trailing = stream.finish()
    if stream.cut:
        found = "truncated: the compressed stream ends before its checksum"
        raise InputError(f"E-{family}-006", found, file=path, do="copy the file again")
    if trailing and not section.has_footer:
        amount = f"{trailing} bytes" if trailing < MOST_TRAILING_BYTES else "1 MiB or more"
        warn(f"W-{family}-012", f"{amount} behind the declared data, ignored", file=path)
    return buffer.view(section.dtype).reshape(section.shape, order="F")


def _truncated(section: DataSection, got: int, family: Family, bound: str = "") -> InputError:
    return InputError(
        f"E-{family}-006",
        f"truncated: {bound}{max(got - section.skip, 0)} of {section.declared_bytes - section.skip} bytes of voxels",
        file=section.path,
        expected="the whole data section",
        do="copy the file again",
    )


def check_budget(shape: Sequence[int], dtype: np.dtype, max_bytes: int | None, path: Path) -> None:
    """Refuses a volume that does not fit into the budget with its float32 copy."""
    needed = prod(shape) * (dtype.itemsize + 4)
    budget = memory_bytes() if max_bytes is None else max_bytes
    if needed > budget:
        raise ResourceError(
            "E-MEM-016",
            f"{' x '.join(map(str, shape))} voxels need {needed / 2**30:.1f} GiB",
            file=path,
            expected=f"at most {budget / 2**30:.1f} GiB",
            do="raise the memory limit or resample the image",
        )


def memory_bytes() -> int:
    """Memory of this machine or of the container, whichever is less."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no such limit
        return installed
    return min(installed, limit)


def file_beside(header: Path, name: str) -> Path:
    """The data file that a header names, which must lie in the header's folder.

    Raises:
        IntegrityError: an absolute path, one that climbs out of the folder, or a link that leads out of it.
        InputError: no such file.
    """
    folder = header.parent.resolve()
    target = folder / name
    shown = repr(PurePath(name).name[:80])
    if os.path.isabs(name) or "\0" in name or ".." in Path(name).parts or not _is_within(target, folder):
        found = f"its data file {shown} lies outside its folder"
        raise IntegrityError("E-FMT-001", found, file=header, expected="a file beside it")
    if not _is_file(target):
        raise InputError("E-FMT-002", f"its data file {shown} is missing", file=header, do="put it beside it")
    return target


def _is_within(target: Path, folder: Path) -> bool:
    try:
        return target.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a loop of links
        return False


def _is_file(target: Path) -> bool:
    try:
        return target.is_file()
    except OSError:  # a name too long
        return False
