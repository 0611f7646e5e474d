"""A compressed stream read piece by piece is the stream, and a damaged one is noticed wherever the damage is."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anamorph.data.guard import ByteStream
from anamorph.errors import InputError

CONTENT = st.binary(max_size=3000) | st.integers(0, 200_000).map(bytes)
PATH = Path("stream.gz")


def stream(content, inflate=True):
    return ByteStream(BytesIO(content), PATH, inflate=inflate)


@given(parts=st.lists(CONTENT, min_size=1, max_size=4), sizes=st.lists(st.integers(0, 5000), max_size=8))
def test_pieces_and_members_join_to_the_content(parts, sizes):
    content = b"".join(parts)
    packed = stream(b"".join(gzip.compress(part, 1) for part in parts))
    pieces = [packed.read(size) for size in sizes]
    assert [len(piece) for piece in pieces] == [
        min(size, max(len(content) - sum(sizes[:n]), 0)) for n, size in enumerate(sizes)
    ]
    assert b"".join(pieces) + packed.read(len(content) + 1) == content
    assert packed.finish() == 0
    assert not packed.cut


@given(content=CONTENT, skip=st.integers(0, 4000))
@pytest.mark.parametrize("pack", [None, gzip.compress, zlib.compress], ids=["plain", "gzip", "zlib"])
def test_skipping_is_reading_without_looking(pack, content, skip):
    skipped = stream(pack(content) if pack else content, inflate=pack is not None)
    assert skipped.skip(skip) == min(skip, len(content))
    assert skipped.read(len(content)) == content[skip:]


@given(content=CONTENT, keep=st.floats(0, 1, exclude_max=True))
def test_cut_anywhere_is_noticed(content, keep):
    whole = gzip.compress(content, 1)
    cut = stream(whole[: max(int(len(whole) * keep), 1)])
    assert content.startswith(cut.read(len(content) + 1))
    cut.finish()
    assert cut.cut


@given(content=st.binary(min_size=1, max_size=2000), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_flipped_bit_never_gives_other_content(content, where, bit):
    whole = bytearray(gzip.compress(content, 1))
    whole[10 + int((len(whole) - 10) * where)] ^= 1 << bit
    damaged = stream(bytes(whole))
    with contextlib.suppress(InputError):
        found = damaged.read(len(content))
        damaged.finish()
        assert damaged.cut or found == content


@given(content=CONTENT, garbage=st.binary(min_size=1, max_size=500).filter(lambda b: not b.startswith(b"\x1f")))
def test_what_follows_is_counted(content, garbage):
    followed = stream(gzip.compress(content, 1) + garbage)
    assert followed.read(len(content)) == content
    assert followed.finish() == len(garbage)
    plain = stream(content + garbage, inflate=False)
    plain.skip(len(content))
    assert plain.finish() == len(garbage)
