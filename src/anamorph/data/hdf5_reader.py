"""The part of HDF5 that ITK's composite transforms use, read without the HDF5 library.

Nothing outside the file is ever opened, every address is checked against the file's size before it is followed, and
sizes are known before memory is taken: a damaged or hostile file ends in one refusal.

Source: The HDF Group, HDF5 File Format Specification, version 3.0 (superblocks 0-3, object headers 1-2).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Shaped

from anamorph.errors import InputError, IntegrityError, ResourceError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = 2**64 - 1
READ_LIMIT = 4
"""Bytes read in all, as a multiple of the file's size: each block is needed about once, a loop would never end."""
DEFLATE_LIMIT = 1032
"""No deflate stream expands by more."""

DATASPACE, LINK_INFO, DATATYPE, EXTERNAL_FILES, LINK, LAYOUT, FILTERS, CONTINUATION, SYMBOL_TABLE = (
    0x01,
    0x02,
    0x03,
    0x07,
    0x06,
    0x08,
    0x0B,
    0x10,
    0x11,
)


class Dataset(NamedTuple):
    """Where a dataset's values are; nothing of it has been read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype | None
    """None for strings of variable length."""
    messages: dict[int, list[bytes]]


class Hdf5Reader:
    """Groups and datasets of an open HDF5 file; ``path`` is for messages.

    Raises:
        InputError: E-TRF-008, cut short, damaged, or of a kind this reader does not know.
        IntegrityError: E-TRF-013, a link or data outside the file.
        ResourceError: E-MEM-016, more bytes declared than the file can hold or than ``max_bytes``.
    """

    def __init__(self, file: BinaryIO, path: Path, max_bytes: int) -> None:
        self.file, self.path, self.max_bytes = file, path, max_bytes
        self.size = file.seek(0, 2)
        self.unread = READ_LIMIT * self.size + 2**20
        self.root = self._superblock()

    def children(self, address: int) -> dict[str, int]:
        """Names and addresses of what a group holds."""
        messages = self._messages(address)
        links: dict[str, int] = {}
        for body in messages.get(LINK, []):
            links.update(self._link(body))
        for body in messages.get(LINK_INFO, []):
            heap, index = struct.unpack_from("<QQ", body, 10 if body[1] & 1 else 2)
            if heap != NOWHERE:
                links.update(self._dense_links(heap, index))
        for body in messages.get(SYMBOL_TABLE, []):
            links.update(self._symbols(*struct.unpack_from("<QQ", body)))
        return links

    def dataset(self, address: int) -> Dataset:
        """Shape and type of the dataset at ``address``."""
        messages = self._messages(address)
        if EXTERNAL_FILES in messages:
            raise self._hostile("values in another file")
        if not {DATASPACE, DATATYPE, LAYOUT} <= messages.keys():
            raise self._damaged("a group where values should be")
        space, kind = messages[DATASPACE][0], messages[DATATYPE][0]
        shape = struct.unpack_from(f"<{space[1]}Q", space, 8 if space[0] == 1 else 4)
        width = struct.unpack_from("<I", kind, 4)[0]
        if kind[0] & 15 == 9 and kind[1] & 15 == 1:
            return Dataset(shape, None, messages)
        if kind[0] & 15 == 1 and width in (4, 8):
            return Dataset(shape, np.dtype(f"{'>' if kind[1] & 1 else '<'}f{width}"), messages)
        raise self._damaged(f"values of HDF5 class {kind[0] & 15}")

    def numbers(self, address: int) -> Shaped[np.ndarray, " numbers"]:
        """All values of a dataset of floats, flat, in native byte order."""
        dataset = self.dataset(address)
        if dataset.dtype is None:
            raise self._damaged("a string where numbers should be")
        raw = self._values(dataset, dataset.dtype.itemsize)
        return np.frombuffer(raw, dtype=dataset.dtype).astype(dataset.dtype.newbyteorder("="), copy=False)

    def text(self, address: int) -> str:
        """The first value of a dataset of strings."""
        dataset = self.dataset(address)
        if dataset.dtype is not None:
            raise self._damaged("numbers where a string should be")
        length, heap, wanted = struct.unpack_from("<IQI", self._values(dataset, 16))
        collection = self._read(heap, 16, b"GCOL")
        position, end = heap + 16, heap + struct.unpack_from("<Q", collection, 8)[0]
        while position + 16 <= end:
            index, size = struct.unpack("<H6xQ", self._read(position, 16))
            if index == wanted and index:
                return self._read(position + 16, min(length, size)).rstrip(b"\0").decode("utf-8", "replace")
            position += 16 + (size + 7) // 8 * 8
        raise self._damaged("a string that is not there")

    def _superblock(self) -> int:
        start = self._read(0, min(self.size, 96), SIGNATURE)
        version = start[8] if len(start) > 8 else 255
        if version > 3 or len(start) < (96 if version < 2 else 48):
            raise self._damaged("an unknown superblock")
        widths, addresses = (start[13:15], 24 + 4 * version) if version < 2 else (start[9:11], 12)
        end = struct.unpack_from("<Q", start, addresses + 16)[0]
        if widths != b"\x08\x08" or struct.unpack_from("<Q", start, addresses)[0]:
            raise self._damaged("addresses of another width or base")
        if end > self.size:
            raise InputError(
                "E-TRF-008", f"truncated: {self.size} of {end} bytes", file=self.path, do="copy the file again"
            )
        return struct.unpack_from("<Q", start, addresses + (40 if version < 2 else 24))[0]

    def _messages(self, address: int) -> dict[int, list[bytes]]:
        """An object's header messages by type, continuation blocks followed."""
        first = self._read(address, 16)
        new = first.startswith(b"OHDR")
        if new:
            flags = first[5]
            width = 1 << (flags & 3)
            start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            length = int.from_bytes(self._read(address + start, width), "little")
            blocks = [(address + start + width, length)]
            head = 6 if flags & 4 else 4
        elif first[0] == 1:
            blocks = [(address + 16, struct.unpack_from("<I", first, 8)[0])]
            head = 8
        else:
            raise self._damaged("no object header")
        messages: dict[int, list[bytes]] = {}
        for position, length in blocks:
            block = self._read(position, length)
            at = 0
            while at + head <= length:
                kind, size = struct.unpack_from("<BH" if new else "<HH", block, at)
                body = block[at + head : at + head + size]
                if kind == CONTINUATION:
                    where, extent = struct.unpack("<QQ", body)
                    # A version 2 block is framed by its signature and a checksum.
                    blocks.append((where + 4, extent - 8) if new else (where, extent))
                messages.setdefault(kind, []).append(body)
                at += head + size
        return messages

    def _link(self, body: bytes) -> dict[str, int]:
        flags = body[1]
        at = 2
        kind = body[at] if flags & 8 else 0
        at += bool(flags & 8) + (8 if flags & 4 else 0) + bool(flags & 16)
        width = 1 << (flags & 3)
        length = int.from_bytes(body[at : at + width], "little")
        name = body[at + width : at + width + length].decode("utf-8", "replace")
        if kind:
            raise self._hostile(f"the link {name[:40]!r} to something that is not in it")
        return {name: struct.unpack_from("<Q", body, at + width + length)[0]}

    def _symbols(self, tree: int, heap: int) -> dict[str, int]:
        """An old group: a B-tree of symbol nodes, names in a local heap."""
        names = struct.unpack_from("<Q", self._read(heap, 32, b"HEAP"), 24)[0]
        links = {}
        for _, node in self._leaves(tree, kind=0, key=8):
            count = struct.unpack_from("<H", self._read(node, 8, b"SNOD"), 6)[0]
            for entry in struct.iter_unpack("<QQI20x", self._read(node + 8, 40 * count)):
                name = self._read(names + entry[0], min(256, self.size - names - entry[0])).split(b"\0")[0].decode()
                if entry[2] == 2:
                    raise self._hostile(f"the soft link {name[:40]!r}")
                links[name] = entry[1]
        return links

    def _leaves(self, node: int, kind: int, key: int, level: int | None = None) -> Iterator[tuple[bytes, int]]:
        """Keys and children of the lowest level of a version 1 B-tree."""
        head = self._read(node, 24, b"TREE")
        here, count = head[5], struct.unpack_from("<H", head, 6)[0]
        if head[4] != kind or (level is not None and here != level) or here > 8:
            raise self._damaged("a broken index")
        entries = self._read(node + 24, count * (key + 8))
        for at in range(0, len(entries), key + 8):
            child = struct.unpack_from("<Q", entries, at + key)[0]
            if here:
                yield from self._leaves(child, kind, key, here - 1)
            else:
                yield entries[at : at + key], child

    def _dense_links(self, heap: int, index: int) -> dict[str, int]:
        """A new group of 9 to about 30 members: links in one block of a fractal heap, listed by one B-tree leaf."""
        head = self._read(heap, 146, b"FRHP")
        bits = struct.unpack_from("<H", head, 128)[0]
        objects, rows = struct.unpack_from("<QH", head, 132)
        tree = self._read(index, 38, b"BTHD")
        size, depth = struct.unpack_from("<HH", tree, 10)
        leaf, count = struct.unpack_from("<QH", tree, 16)
        if rows or depth or not size:
            raise self._damaged("a group of more members than this reader follows")
        records = self._read(leaf, 6 + size * count, b"BTLF")
        links: dict[str, int] = {}
        for at in range(6, len(records), size):
            # A record is a hash (4 bytes), a flag (1), then offset and length in the heap.
            offset_end = at + 5 + (bits + 7) // 8
            offset = int.from_bytes(records[at + 5 : offset_end], "little")
            length = int.from_bytes(records[offset_end : at + size], "little")
            links.update(self._link(self._read(objects + offset, length)))
        return links

    def _values(self, dataset: Dataset, width: int) -> bytes | bytearray:
        count = 1
        for n in dataset.shape:
            count *= n
        wanted = count * width
        if wanted > DEFLATE_LIMIT * self.size:
            found = f"{wanted} bytes declared by a file of {self.size}"
            raise ResourceError("E-MEM-016", found, file=self.path, expected="a file that can hold them")
        if 2 * wanted > self.max_bytes:
            found = f"{wanted} bytes of numbers, needed twice, with {self.max_bytes} allowed"
            raise ResourceError("E-MEM-016", found, file=self.path, do="raise the memory limit")
        layout = dataset.messages[LAYOUT][0]
        if layout[0] not in (3, 4) or layout[1] > 2 or (layout[0] == 4 and layout[1] == 2):
            raise self._damaged(f"a data layout of version {layout[0]}, class {layout[1]}")
        if layout[1] == 2:
            return self._chunked(dataset, layout, wanted)
        if layout[1] == 0:
            return layout[4 : 4 + wanted]
        address, length = struct.unpack_from("<QQ", layout, 2)
        if wanted and (address == NOWHERE or length < wanted):
            raise self._damaged("values that were never written")
        return self._read(address, wanted) if wanted else b""

    def _chunked(self, dataset: Dataset, layout: bytes, wanted: int) -> bytearray:
        """One-dimensional chunks, each deflated or not."""
        if layout[2] != 2:
            raise self._damaged(f"chunks of {layout[2] - 1} axes")
        tree, chunk, width = struct.unpack_from("<QII", layout, 3)
        filters = self._filters(dataset.messages)
        values, filled = bytearray(wanted), 0
        for key, address in self._leaves(tree, kind=1, key=24) if tree != NOWHERE else ():
            stored, skipped, first = struct.unpack_from("<IIQ", key)
            if first * width != filled or chunk * width > wanted:
                raise self._damaged("chunks out of order")
            block = self._read(address, stored)
            for bit, name in reversed(list(enumerate(filters))):
                if not skipped >> bit & 1:
                    block = self._unfiltered(name, block, chunk * width, width)
            part = block[: wanted - filled]
            values[filled : filled + len(part)] = part
            filled += len(part)
        if filled != wanted:
            raise self._damaged("values that were never written")
        return values

    def _filters(self, messages: dict[int, list[bytes]]) -> list[int]:
        body = messages.get(FILTERS, [b"\x02\x00"])[0]
        version, count = body[0], body[1]
        at, found = (8 if version == 1 else 2), []
        for _ in range(count):
            name = struct.unpack_from("<H", body, at)[0]
            named = version == 1 or name >= 256
            length = struct.unpack_from("<H", body, at + 2)[0] if named else 0
            numbers = struct.unpack_from("<H", body, at + (6 if named else 4))[0]
            padded = (length + 7) // 8 * 8 if version == 1 else length
            at += (8 if named else 6) + padded + 4 * (numbers + (numbers % 2 if version == 1 else 0))
            found.append(name)
        return found

    def _unfiltered(self, name: int, block: bytes, size: int, width: int) -> bytes:
        if name == 1:
            try:
                return zlib.decompressobj().decompress(block, size)
            except zlib.error as error:
                raise self._damaged(f"compressed values that do not expand ({error})") from error
        if name == 2:
            return np.frombuffer(block, dtype=np.uint8).reshape(width, -1).T.tobytes()
        raise self._damaged(f"values stored by filter {name}")

    def _read(self, address: int, length: int, signature: bytes = b"") -> bytes:
        if length < 0 or address + length > self.size:
            raise self._damaged(f"{length} bytes at {address} in a file of {self.size}")
        self.unread -= length + 16
        if self.unread < 0:
            raise self._damaged("blocks that lead back to each other")
        self.file.seek(address)
        found = self.file.read(length)
        if not found.startswith(signature):
            raise self._damaged(f"no {signature.decode('latin1').strip()!r} block at {address}")
        return found

    def _damaged(self, found: str) -> InputError:
        return InputError(
            "E-TRF-008", found, file=self.path, expected="an HDF5 file as ITK writes it", do="copy or write it again"
        )

    def _hostile(self, found: str) -> IntegrityError:
        return IntegrityError("E-TRF-013", found, file=self.path, expected="a file that holds all of its data")
