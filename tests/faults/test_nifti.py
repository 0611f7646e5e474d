"""Group N of the fault catalogue: the container and the header of NIfTI."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.files import read, sha256
from anamorph.data.image import ReadPolicy

GIB = 1 << 30
SMALL = 16 << 20
"""Memory that a refusal may take at most."""


def missing(head):
    return head.folder / "absent.nii.gz"


def missing_folder(head):
    return head.folder / "absent" / "head.nii.gz"


def folder(head):
    (head.folder / "scans").mkdir()
    return head.folder / "scans"


def html(head):
    return head.write(b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "head.nii.gz")


def half_of_gzip(head):
    whole = gzip.compress(bytes(head.raw), 1)
    return head.write(whole[: len(whole) // 2], "head.nii.gz")


def half_of_data(head):
    return head.write(gzip.compress(bytes(head.raw[:2000])), "head.nii.gz")


def half_of_plain_data(head):
    return head.write(bytes(head.raw[:2000]), "head.nii")


def flipped_bit(head):
    whole = bytearray(gzip.compress(bytes(head.raw), 1))
    whole[len(whole) * 3 // 4] ^= 4
    return head.write(bytes(whole), "head.nii.gz")


def wrong_checksum(head):
    whole = bytearray(gzip.compress(bytes(head.raw), 1))
    whole[-8] ^= 1
    return head.write(bytes(whole), "head.nii.gz")


def no_checksum(head):
    return head.write(gzip.compress(bytes(head.raw), 1)[:-5], "head.nii.gz")


def half_of_pair(head):
    nib.save(nib.Nifti1Pair(head.values, head.affine), head.folder / "head.hdr")
    (head.folder / "head.img").unlink()
    return head.folder / "head.hdr"


def other_half_of_pair(head):
    nib.save(nib.Nifti1Pair(head.values, head.affine), head.folder / "head.hdr")
    (head.folder / "head.hdr").unlink()
    return head.folder / "head.img"


def header_of_pair_as_single(head):
    return head.patch(344, "4s", b"ni1\0").plain()


REFUSED = [
    pytest.param(missing, "E-IO-001", id="N01-missing"),
    pytest.param(missing_folder, "E-IO-001", id="N01-missing-folder"),
    pytest.param(folder, "E-IO-001", id="N01-folder"),
    pytest.param(lambda head: head.folder / ("x" * 300 + ".nii"), "E-IO-001", id="N01-name-too-long"),
    pytest.param(lambda head: head.write(b"", "head.nii.gz"), "E-IO-002", id="N02"),
    pytest.param(html, "E-IO-003", id="N03"),
    pytest.param(half_of_gzip, "E-NII-006", id="N06"),
    pytest.param(no_checksum, "E-NII-006", id="N06-trailer"),
    pytest.param(half_of_data, "E-NII-006", id="N07"),
    pytest.param(half_of_plain_data, "E-NII-006", id="N07-plain"),
    pytest.param(lambda head: head.write(bytes(head.raw[:352]), "head.nii"), "E-NII-006", id="N08"),
    pytest.param(lambda head: head.write(gzip.compress(head.raw[:352]), "h.nii.gz"), "E-NII-006", id="N08-gzip"),
    pytest.param(lambda head: head.write(bytes(head.raw[:100]), "head.nii"), "E-NII-009", id="N09"),
    pytest.param(flipped_bit, "E-NII-010", id="N10"),
    pytest.param(wrong_checksum, "E-NII-010", id="N11"),
    pytest.param(lambda head: head.patch(0, "<i", 1234567).plain(), "E-NII-013", id="N13"),
    pytest.param(lambda head: head.patch(344, "4s", b"XXXX").plain(), "E-NII-014", id="N14"),
    pytest.param(lambda head: head.patch(344, "4s", b"\0\0\0\0").plain("head.hdr"), "E-NII-014", id="N14-analyze"),
    pytest.param(lambda head: head.patch(40, "<h", 9).plain(), "E-NII-015", id="N15-nine-axes"),
    pytest.param(lambda head: head.patch(42, "<h", -16).plain(), "E-NII-015", id="N15-negative"),
    pytest.param(lambda head: head.patch(42, "<h", 0).plain(), "E-NII-015", id="N15-zero"),
    pytest.param(lambda head: head.patch(70, "<h", 9999).plain(), "E-NII-019", id="N19-unknown"),
    pytest.param(lambda head: head.patch(70, "<h", 1536).plain(), "E-NII-019", id="N19-float128"),
    pytest.param(lambda head: head.patch(108, "<f", np.nan).plain(), "E-NII-021", id="N21-nan"),
    pytest.param(lambda head: head.patch(108, "<f", -1e9).plain(), "E-NII-021", id="N21-negative"),
    pytest.param(lambda head: head.patch(108, "<f", 100).plain(), "E-NII-021", id="N21-in-the-header"),
    pytest.param(lambda head: head.patch(108, "<f", 1e9).plain(), "E-NII-024", id="N24-too-far"),
    pytest.param(half_of_pair, "E-NII-025", id="N25"),
    pytest.param(other_half_of_pair, "E-NII-025", id="N25-header"),
    pytest.param(header_of_pair_as_single, "E-NII-014", id="N25-in-one-file"),
    pytest.param(lambda head: head.write(b"\1\2\3\4" * 200, "head.nii"), "E-FMT-009", id="unknown-bytes"),
]


@pytest.mark.parametrize(("fault", "code"), REFUSED)
def test_refused(fault, code, head, refuses):
    path = fault(head)
    with refuses(code, 3, head.folder):
        read(path)


def test_truncation_is_counted(head):
    with pytest.raises(ValueError, match="1648 of 11520 bytes"):
        read(half_of_data(head))


def test_missing_half_is_named(head):
    with pytest.raises(ValueError, match=r"head\.img"):
        read(half_of_pair(head))


@pytest.mark.parametrize("row", ["N01-permission"])
def test_no_permission(row, head, refuses, monkeypatch):
    path = head.plain()
    monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with refuses("E-IO-001", 3, head.folder):
        read(path)


def huge_dimensions(head):
    return head.write(bytes(head.patch(42, "<3h", *[32767] * 3).raw[:350].ljust(352, b"\0")), "head.nii")


def bomb(head):
    """2 MB that inflate to 2 GiB: gzip members in a row, each 16 MiB of zeros."""
    head.patch(42, "<3h", 1024, 1024, 1024)
    return head.write(gzip.compress(head.raw[:352]) + gzip.compress(bytes(16 << 20)) * 128, "head.nii.gz")


BEYOND_MEMORY = [
    pytest.param(huge_dimensions, None, "E-MEM-016", 4, id="N16"),
    pytest.param(bomb, GIB, "E-MEM-016", 4, id="N17"),
    pytest.param(huge_dimensions, 1 << 50, "E-NII-006", 3, id="N16-any-budget"),
]


@pytest.mark.parametrize(("fault", "budget", "code", "exit_code"), BEYOND_MEMORY)
def test_refused_from_the_header(fault, budget, code, exit_code, head, refuses):
    path = fault(head)
    tracemalloc.start()
    with refuses(code, exit_code, head.folder):
        read(path, ReadPolicy(max_bytes=budget))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL


def trailing(head):
    return head.write(bytes(head.raw) + b"garbage", "head.nii")


def trailing_in_gzip(head):
    return head.write(gzip.compress(head.raw + b"garbage"), "head.nii.gz")


def trailing_behind_gzip(head):
    return head.write(gzip.compress(head.raw) + b"garbage", "head.nii.gz")


def hidden_bomb(head):
    return head.write(gzip.compress(head.raw) + gzip.compress(bytes(16 << 20)) * 16, "head.nii.gz")


WARNED = [
    pytest.param(lambda head: head.plain("head.nii.gz"), "W-NII-004", id="N04"),
    pytest.param(lambda head: head.zipped("head.nii"), "W-NII-005", id="N05"),
    pytest.param(trailing, "W-NII-012", id="N12"),
    pytest.param(trailing_in_gzip, "W-NII-012", id="N12-in-gzip"),
    pytest.param(trailing_behind_gzip, "W-NII-012", id="N12-behind-gzip"),
    pytest.param(hidden_bomb, "W-NII-012", id="N18"),
    pytest.param(lambda head: head.patch(112, "<2f", np.nan, 5).plain(), "W-NII-022", id="N22-nan"),
    pytest.param(lambda head: head.patch(112, "<2f", np.inf, 5).plain(), "W-NII-022", id="N22-inf"),
    pytest.param(lambda head: head.plain("head.mha"), "W-FMT-013", id="N04-other-format"),
]


@pytest.mark.parametrize(("fault", "code"), WARNED)
def test_read_with_a_warning(fault, code, head, warns, equals_head):
    path = fault(head)
    tracemalloc.start()
    with warns(code):
        equals_head(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL


@pytest.mark.parametrize(
    ("unit", "millimetres"), [pytest.param(1, 1000.0, id="N23-metre"), pytest.param(3, 0.001, id="N23-micron")]
)
def test_unit(unit, millimetres, head, warns):
    rows = (head.affine[:3] / millimetres).ravel()
    head.patch(123, "<B", unit).patch(280, "<12f", *rows).patch(252, "<h", 0)
    with warns("W-NII-023"):
        image = read(head.plain())
    np.testing.assert_allclose(image.grid.affine, head.affine, rtol=1e-6)


def big_endian(head):
    image = nib.Nifti1Image(head.values, head.affine, nib.Nifti1Header(endianness=">"))
    return head.save(image)


def extension(head):
    """100 MB between the header and the voxels."""
    head.patch(108, "<f", 352 + (100 << 20)).patch(348, "B", 1)
    content = head.raw[:352] + struct.pack("<2i", 100 << 20, 6) + bytes((100 << 20) - 8) + head.raw[352:]
    return head.write(gzip.compress(content, 1), "head.nii.gz")


def pair(head):
    nib.save(nib.Nifti1Pair(head.values, head.affine), head.folder / "head.hdr")
    return head.folder / "head.img"


def second_version(head):
    nib.save(nib.Nifti2Image(head.values, head.affine), head.folder / "head.nii.gz")
    return head.folder / "head.nii.gz"


def named(name):
    return lambda head: head.zipped(name)


READ_AS_THE_HEAD = [
    pytest.param(lambda head: head.plain(), id="healthy"),
    pytest.param(big_endian, id="N20"),
    pytest.param(lambda head: head.patch(112, "<2f", 0, 5).plain(), id="N22-zero"),
    pytest.param(lambda head: head.patch(348, "B", 1).plain(), id="N24-no-extension"),
    pytest.param(pair, id="N25-whole"),
    pytest.param(second_version, id="NIfTI-2"),
    pytest.param(named("a b [(0-9,;!@#$%&)].nii.gz"), id="N26-signs"),
    pytest.param(named("Köpfchen.nii.gz"), id="N26-umlaut"),
    pytest.param(named("头部.nii.gz"), id="N26-chinese"),
    pytest.param(named("🧠.nii.gz"), id="N26-emoji"),
    pytest.param(named("x" * 243 + ".nii.gz"), id="N26-250-letters"),
]


@pytest.mark.parametrize("fault", READ_AS_THE_HEAD)
def test_survived(fault, head, equals_head):
    equals_head(fault(head))


@pytest.mark.parametrize("row", ["N24-100-MB"])
def test_extension_is_not_held(row, head, equals_head):
    path = extension(head)
    tracemalloc.start()
    equals_head(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL


@pytest.mark.parametrize("row", ["N27"])
def test_replaced_file_has_another_digest(row, head):
    path = head.plain()
    before = sha256(path)
    assert sha256(path) == before
    other = head.patch(352, "<h", 7).plain("other.nii")
    os.replace(other, path)
    assert sha256(path) != before
