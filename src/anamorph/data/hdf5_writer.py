"""Writes the HDF5 file that ITK reads a composite transform from: the same bytes for the same transform.

The HDF5 library as ITK drives it stores the time of writing and the name of the operating system; nothing of the kind
is written here. The oldest layout is used, so that every reader since HDF5 1.6 follows it.

Source: The HDF Group, HDF5 File Format Specification, version 3.0 (superblock 0, object header 1).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from anamorph.data.hdf5_reader import NOWHERE, SIGNATURE

Group = Mapping[str, "Group | np.ndarray | str"]
"""What a group holds: groups, one-dimensional float arrays, strings."""

INTERNAL_K = 16
TREE_BYTES = 24 + 8 * (4 * INTERNAL_K + 1)
STRING_TYPE = bytes.fromhex("1901000010000000100000000100000000000800")
"""Strings of variable length, of single bytes, as their references in a global heap."""


def write_hdf5(file: BinaryIO, root: Group) -> None:
    """Write ``root`` to an empty file; arrays are stored as they are, float32 or float64."""
    _Writer(file).write(root)


class _Writer:
    """Puts blocks one after another, children before the groups that name them."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.end = 96

    def write(self, root: Group) -> None:
        self.file.write(bytes(96))
        leaf_k = max(4, _most_members(root))
        address = self._group(root, leaf_k)
        superblock = SIGNATURE + struct.pack("<5B2BxHHI", 0, 0, 0, 0, 0, 8, 8, leaf_k, INTERNAL_K, 0)
        superblock += struct.pack("<4Q", 0, NOWHERE, self.end, NOWHERE)
        self.file.seek(0)
        self.file.write(superblock + struct.pack("<QQII16x", 0, address, 0, 0))
        self.file.seek(self.end)

    def _put(self, block: bytes | bytearray | memoryview) -> int:
        """Append a block, padded to 8 bytes; its address."""
        address = self.end
        self.file.write(block)
        padding = -len(block) % 8
        self.file.write(bytes(padding))
        self.end += len(block) + padding
        return address

    def _group(self, members: Group, leaf_k: int) -> int:
        """A group is a local heap of names, one node of symbols in the order of their names, and a tree of one leaf."""
        names, symbols, last = bytearray(8), b"", 0
        for name, member in sorted(members.items()):
            last = len(names)
            symbols += struct.pack("<QQ24x", last, self._member(member, leaf_k))
            names += name.encode() + bytes(8 - len(name.encode()) % 8)
        data = self._put(names)
        heap = self._put(b"HEAP" + struct.pack("<4xQQQ", len(names), 1, data))
        node = self._put(b"SNOD" + struct.pack("<BxH", 1, len(members)) + symbols.ljust(80 * leaf_k, b"\0"))
        tree = b"TREE" + struct.pack("<BBHQQ", 0, 0, 1, NOWHERE, NOWHERE) + struct.pack("<QQQ", 0, node, last)
        return self._header([(0x11, struct.pack("<QQ", self._put(tree.ljust(TREE_BYTES, b"\0")), heap))])

    def _member(self, member: Group | np.ndarray | str, leaf_k: int) -> int:
        if isinstance(member, Mapping):
            return self._group(member, leaf_k)
        if isinstance(member, str):
            heap = self._string(member.encode())
            return self._dataset(1, STRING_TYPE, struct.pack("<IQI", len(member.encode()), heap, 1))
        if member.dtype == np.float64:
            kind = bytes.fromhex("11203f000800000000004000340b0034ff030000")
        else:
            kind = bytes.fromhex("11201f000400000000002000170800177f000000")
        little = np.ascontiguousarray(member, dtype=member.dtype.newbyteorder("<"))
        return self._dataset(member.size, kind, little.view(np.uint8).data)

    def _dataset(self, count: int, kind: bytes, values: bytes | memoryview) -> int:
        address = self._put(values) if count else NOWHERE
        return self._header(
            [
                (0x01, struct.pack("<BBB5xQ", 1, 1, 0, count)),
                (0x03, kind),
                (0x05, struct.pack("<4B", 2, 2, 2, 0)),
                (0x08, struct.pack("<BBQQ", 3, 1, address, len(values))),
            ]
        )

    def _string(self, text: bytes) -> int:
        """A global heap with one string; the library wants at least 4096 bytes."""
        item = struct.pack("<HH4xQ", 1, 0, len(text)) + text + bytes(-len(text) % 8)
        size = max(4096, 32 + len(item))
        block = b"GCOL" + struct.pack("<B3xQ", 1, size) + item
        return self._put((block + struct.pack("<HH4xQ", 0, 0, size - len(block))).ljust(size, b"\0"))

    def _header(self, messages: list[tuple[int, bytes]]) -> int:
        block = b""
        for kind, body in messages:
            padded = body + bytes(-len(body) % 8)
            block += struct.pack("<HHB3x", kind, len(padded), 0) + padded
        return self._put(struct.pack("<BxHII4x", 1, len(messages), 1, len(block)) + block)


def _most_members(group: Group) -> int:
    """Half the members of the largest group, rounded up: what a node of symbols is sized by."""
    inner = [_most_members(member) for member in group.values() if isinstance(member, Mapping)]
    return max([(len(group) + 1) // 2, *inner])
