"""Group F of the fault catalogue: NRRD, MetaImage and pictures; S02 for what they carry besides voxels."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from anamorph.data.diagnosis import describe
from anamorph.data.files import read, write
from anamorph.data.image import ReadPolicy
from anamorph.errors import AnamorphError

SMALL = 16 << 20


def metaimage(head, name="head.mha", content=None, **changes):
    """A MetaImage header with some fields changed or, where None, absent, and the voxels behind it."""
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "-1 0 0 0 -1 0 0 0 1",
        "Offset": "7 13 -19",
        "ElementSpacing": "1 1.5 2",
        "DimSize": "16 18 20",
        "ElementType": "MET_SHORT",
    }
    data_file = {"ElementDataFile": changes.pop("ElementDataFile", "LOCAL")}
    fields = {key: value for key, value in {**fields, **changes, **data_file}.items() if value is not None}
    text = "".join(f"{key} = {value}\n" for key, value in fields.items()).encode()
    return head.write(text + (head.values.tobytes("F") if content is None else content), name)


def nrrd(head, name="head.nrrd", content=None, **changes):
    """The same for NRRD; underscores stand for spaces."""
    fields = {
        "type": "short",
        "dimension": "3",
        "space": "right-anterior-superior",
        "sizes": "16 18 20",
        "space_directions": "(1,0,0) (0,1.5,0) (0,0,2)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space_origin": "(-7,-13,-19)",
    }
    fields = {key: value for key, value in {**fields, **changes}.items() if value is not None}
    text = "NRRD0004\n" + "".join(f"{key.replace('_', ' ')}: {value}\n" for key, value in fields.items()) + "\n"
    return head.write(text.encode() + (head.values.tobytes("F") if content is None else content), name)


def outside(head, name):
    """A data file beside the folder of the header, as ``name`` would have it."""
    (head.folder / "in").mkdir()
    (head.folder / "secret.raw").write_bytes(head.values.tobytes("F"))
    head.folder = head.folder / "in"
    return name.format(folder=head.folder)


def linked_out(head):
    name = outside(head, "link.raw")
    (head.folder / name).symlink_to(head.folder.parent / "secret.raw")
    return metaimage(head, "head.mhd", b"", ElementDataFile=name)


def linked_to_itself(head):
    (head.folder / "link.raw").symlink_to(head.folder / "link.raw")
    return metaimage(head, "head.mhd", b"", ElementDataFile="link.raw")


ESCAPES = ["../secret.raw", "{folder}/../secret.raw", "/etc/passwd", "sub/../../secret.raw"]
HOSTILE = [
    *[
        pytest.param(lambda h, n=n: metaimage(h, "h.mhd", b"", ElementDataFile=outside(h, n)), id=f"F01-{k}")
        for k, n in enumerate(ESCAPES)
    ],
    pytest.param(linked_out, id="F01-link"),
    pytest.param(linked_to_itself, id="F01-link-loop"),
    *[
        pytest.param(lambda h, n=n: nrrd(h, "h.nhdr", b"", data_file=outside(h, n)), id=f"F04-outside-{k}")
        for k, n in enumerate(ESCAPES)
    ],
]


@pytest.mark.parametrize("fault", HOSTILE)
def test_data_file_outside_the_folder(fault, head, refuses):
    path = fault(head)
    with refuses("E-FMT-001", 6, head.folder):
        read(path)


def detached(head, length=None):
    (head.folder / "head.raw").write_bytes(head.values.tobytes("F")[:length])
    return metaimage(head, "head.mhd", b"", ElementDataFile="head.raw")


def compressed(head):
    return metaimage(head, content=zlib.compress(head.values.tobytes("F"))[:-200], CompressedData="True")


def huge_line(head):
    return head.write(b"NDims = 3\nComment = " + b"A" * (1 << 20), "head.mha")


REFUSED = [
    pytest.param(lambda h: metaimage(h, "h.mhd", b"", ElementDataFile="absent.raw"), "E-FMT-002", id="F02-missing"),
    pytest.param(lambda h: metaimage(h, "h.mhd", b"", ElementDataFile="x" * 999), "E-FMT-002", id="F02-long-name"),
    pytest.param(lambda h: detached(h, 5000), "E-FMT-006", id="F02-short"),
    pytest.param(lambda h: metaimage(h, NDims="10"), "E-FMT-003", id="F03-axes"),
    pytest.param(lambda h: metaimage(h, NDims="-3"), "E-FMT-003", id="F03-negative-axes"),
    pytest.param(lambda h: metaimage(h, NDims="9" * 5000), "E-FMT-003", id="F03-many-digits"),
    pytest.param(lambda h: metaimage(h, NDims=None), "E-FMT-003", id="F03-no-axes"),
    pytest.param(lambda h: metaimage(h, DimSize="16 18"), "E-FMT-003", id="F03-few-lengths"),
    pytest.param(lambda h: metaimage(h, DimSize="16 18 " + "1 " * 1000), "E-FMT-003", id="F03-many-lengths"),
    pytest.param(lambda h: metaimage(h, DimSize="16 18 -20"), "E-FMT-003", id="F03-negative-length"),
    pytest.param(lambda h: metaimage(h, DimSize="16 18 nan"), "E-FMT-003", id="F03-nan-length"),
    pytest.param(lambda h: metaimage(h, DimSize="16 18 1e300"), "E-FMT-003", id="F03-huge-length"),
    pytest.param(lambda h: metaimage(h, ElementType="MET_STRING"), "E-FMT-003", id="F03-type"),
    pytest.param(lambda h: metaimage(h, ElementSpacing="1 1 x"), "E-FMT-003", id="F03-spacing"),
    pytest.param(lambda h: metaimage(h, ElementSpacing="0 1 1"), "E-GEO-006", id="F03-zero-spacing"),
    pytest.param(lambda h: metaimage(h, TransformMatrix="nan " * 9), "E-GEO-007", id="F03-nan-directions"),
    pytest.param(lambda h: metaimage(h, TransformMatrix="0 " * 9), "E-GEO-006", id="F03-no-directions"),
    pytest.param(lambda h: metaimage(h, ElementNumberOfChannels="3"), "E-GEO-018", id="F03-channels"),
    pytest.param(lambda h: metaimage(h, ElementNumberOfChannels="9" * 99), "E-GEO-018", id="F03-many-channels"),
    pytest.param(lambda h: metaimage(h, HeaderSize="-1"), "E-FMT-004", id="F03-header-size"),
    pytest.param(lambda h: metaimage(h, BinaryData="False"), "E-FMT-004", id="F03-text"),
    pytest.param(lambda h: metaimage(h, ObjectType="Tube"), "E-FMT-003", id="F03-object"),
    pytest.param(lambda h: metaimage(h, "h.mhd", b"", ElementDataFile="LIST"), "E-FMT-004", id="F03-list"),
    pytest.param(
        lambda h: metaimage(h, "h.mhd", b"", ElementDataFile="a%09999999d.raw 1 9 1"), "E-FMT-004", id="F03-pattern"
    ),
    pytest.param(lambda h: h.write(b"NDims = 3\nDimSize = 1 1 1", "h.mha"), "E-FMT-003", id="F03-no-data-file"),
    pytest.param(lambda h: h.write(b"NDims = 3\nNDims = 2\n", "h.mha"), "E-FMT-003", id="F03-twice"),
    pytest.param(huge_line, "E-FMT-003", id="F03-huge-line"),
    pytest.param(lambda h: nrrd(h, "h.nhdr", b"", data_file="LIST\n" + "a.raw\n" * 100), "E-FMT-003", id="F04-list"),
    pytest.param(lambda h: nrrd(h, "h.nhdr", b"", data_file="LIST"), "E-FMT-004", id="F04-empty-list"),
    pytest.param(lambda h: nrrd(h, encoding="hex"), "E-FMT-004", id="F04-hex"),
    pytest.param(lambda h: nrrd(h, encoding="bzip2"), "E-FMT-004", id="F04-bzip2"),
    pytest.param(lambda h: nrrd(h, encoding="ascii"), "E-FMT-004", id="F04-ascii"),
    pytest.param(lambda h: nrrd(h, line_skip="3"), "E-FMT-004", id="F04-line-skip"),
    pytest.param(lambda h: nrrd(h, byte_skip="-1"), "E-FMT-003", id="F04-byte-skip"),
    pytest.param(lambda h: nrrd(h, space_directions=None, spacings="1 NaN 1"), "E-FMT-004", id="F04-nan-spacing"),
    pytest.param(lambda h: nrrd(h, space_origin="(0,inf,0)"), "E-FMT-004", id="F04-inf-origin"),
    pytest.param(lambda h: nrrd(h, space_directions="(1,0,0) (0,1,0)"), "E-FMT-003", id="F04-few-directions"),
    pytest.param(lambda h: nrrd(h, space_directions="(1,0) (0,1) (1,1)"), "E-FMT-003", id="F04-flat-directions"),
    pytest.param(lambda h: nrrd(h, space_directions="(1,0,0) (1,0,0) (0,0,1)"), "E-GEO-006", id="F04-singular"),
    pytest.param(lambda h: nrrd(h, endian=None), "E-FMT-003", id="F04-no-endian"),
    pytest.param(lambda h: nrrd(h, type="block"), "E-FMT-003", id="F04-block"),
    pytest.param(lambda h: nrrd(h, type=None), "E-FMT-003", id="F04-no-type"),
    pytest.param(lambda h: nrrd(h, dimension="99"), "E-FMT-003", id="F04-axes"),
    pytest.param(lambda h: h.write(b"NRRD0004\n" + b"# \n" * 99999, "h.nrrd"), "E-FMT-003", id="F04-no-end"),
    pytest.param(lambda h: nrrd(h, content=h.values.tobytes()[:5000]), "E-FMT-006", id="F06-nrrd-raw"),
    pytest.param(
        lambda h: nrrd(h, content=gzip.compress(h.values.tobytes())[:-99], encoding="gzip"),
        "E-FMT-006",
        id="F06-nrrd-gzip",
    ),
    pytest.param(lambda h: metaimage(h, content=h.values.tobytes()[:5000]), "E-FMT-006", id="F06-mha-raw"),
    pytest.param(compressed, "E-FMT-006", id="F06-mha-compressed"),
    pytest.param(
        lambda h: nrrd(h, content=gzip.compress(h.values.tobytes())[:-8] + bytes(8), encoding="gzip"),
        "E-FMT-010",
        id="F06-checksum",
    ),
    pytest.param(lambda h: h.write(b"\0" * 128 + b"DICM" + b"\0" * 99, "h.dcm"), "E-FMT-008", id="dicom"),
    pytest.param(lambda h: h.write(gzip.compress(b"NRRD0004\n"), "h.nrrd.gz"), "E-FMT-009", id="gzip-around-nrrd"),
    pytest.param(lambda h: h.write(b"\x89HDF\r\n\x1a\n" + bytes(99), "h.h5"), "E-FMT-009", id="hdf5"),
]


@pytest.mark.parametrize(("fault", "code"), REFUSED)
def test_refused(fault, code, head, refuses):
    path = fault(head)
    tracemalloc.start()
    with refuses(code, 3, head.folder):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL


@pytest.mark.parametrize("build", [pytest.param(metaimage, id="F03-93-bytes"), pytest.param(nrrd, id="F04-93-bytes")])
def test_declared_beyond_memory(build, head, refuses):
    lengths = {"DimSize": "30000 30000 30000"} if build is metaimage else {"sizes": "30000 30000 30000"}
    path = build(head, content=b"", **lengths)
    with refuses("E-MEM-016", 4, head.folder):
        read(path, ReadPolicy(max_bytes=1 << 30))


@pytest.mark.parametrize("row", ["dicom-folder"])
def test_dicom_folder(row, head, refuses):
    (head.folder / "series").mkdir()
    (head.folder / "series" / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 99)
    with refuses("E-FMT-008", 3, head.folder):
        read(head.folder / "series")


HEALTHY = [
    pytest.param(metaimage, id="mha"),
    pytest.param(detached, id="mhd"),
    pytest.param(
        lambda h: metaimage(h, content=zlib.compress(h.values.tobytes("F")), CompressedData="True"), id="mha-zlib"
    ),
    pytest.param(
        lambda h: metaimage(h, content=h.values.astype(">i2").tobytes("F"), BinaryDataByteOrderMSB="True"), id="mha-big"
    ),
    pytest.param(nrrd, id="F05-ras"),
    pytest.param(
        lambda h: nrrd(
            h,
            space="left-posterior-superior",
            space_directions="(-1,0,0) (0,-1.5,0) (0,0,2)",
            space_origin="(7,13,-19)",
        ),
        id="F05-lps",
    ),
    pytest.param(
        lambda h: nrrd(h, space="LAS", space_directions="(-1,0,0) (0,1.5,0) (0,0,2)", space_origin="(7,-13,-19)"),
        id="F05-las",
    ),
    pytest.param(lambda h: nrrd(h, content=b"abc" + h.values.tobytes("F"), byte_skip="3"), id="nrrd-byte-skip"),
    pytest.param(lambda h: nrrd(h, encoding="gzip", content=gzip.compress(h.values.tobytes("F"))), id="nrrd-gzip"),
]


@pytest.mark.parametrize("build", HEALTHY)
def test_survived(build, head, equals_head):
    equals_head(build(head))


@pytest.mark.parametrize("row", ["F05-none"])
def test_no_space(row, head, warns):
    path = nrrd(head, space=None, space_directions=None, space_origin=None, spacings="1 1.5 2")
    with warns("W-FMT-005"):
        image = read(path)
    np.testing.assert_allclose(image.grid.affine, np.diag([-1, -1.5, 2, 1]))


NOT_ONE_NUMBER = [
    pytest.param("RGB-color", "E-VAL-007", id="V07-nrrd"),
    pytest.param("complex", "E-VAL-006", id="V06-nrrd"),
    pytest.param("vector", "E-GEO-018", id="G18-nrrd"),
    pytest.param("list", "E-FMT-003", id="nrrd-list-first"),
]


@pytest.mark.parametrize(("kind", "code"), NOT_ONE_NUMBER)
def test_several_numbers_a_voxel(kind, code, head, refuses):
    path = nrrd(
        head,
        content=bytes(2 * 16 * 18 * 20 * 2),
        dimension="4",
        sizes="2 16 18 20",
        kinds=f"{kind} domain domain domain",
        space_directions="none (1,0,0) (0,1,0) (0,0,1)",
    )
    with refuses(code, 3, head.folder):
        read(path)


PATIENT = {"0010|0010": "Doe^Jane", "0010|0030": "19650412", "InstitutionName": "St. Elsewhere"}


@pytest.mark.parametrize("row", ["F07", "S02"])
@pytest.mark.parametrize("source", ["patient.nrrd", "patient.mha"])
@pytest.mark.parametrize("target", ["clean.nrrd", "clean.mha", "clean.nii"])
def test_names_and_dates_are_not_passed_on(row, source, target, head):
    image = sitk.GetImageFromArray(head.values.T)
    for key, value in PATIENT.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, head.folder / source)
    assert b"Doe^Jane" in (head.folder / source).read_bytes()
    write(read(head.folder / source), head.folder / target)
    written = (head.folder / target).read_bytes()
    for value in (*PATIENT.values(), *PATIENT, "patient", str(head.folder)):
        assert value.encode() not in written


def picture(head, name, pixels, **options):
    Picture.fromarray(pixels).save(head.folder / name, **options)
    return head.folder / name


@pytest.mark.parametrize("row", ["picture-truncated"])
def test_truncated_picture(row, head, refuses):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    path = picture(head, "slice.png", pixels)
    path.write_bytes(path.read_bytes()[:2000])
    with refuses("E-FMT-006", 3, head.folder):
        read(path)


@pytest.mark.parametrize("row", ["V07-picture"])
def test_coloured_picture(row, head, refuses):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = picture(head, "slice.png", pixels)
    with refuses("E-VAL-007", 3, head.folder):
        read(path)


@pytest.mark.parametrize("row", ["N16-picture"])
def test_huge_picture(row, head, refuses):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (9000, 30000):
        header = chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0))
        path = head.write(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""), f"{side}.png")
        with refuses("E-MEM-016", 4, head.folder):
            read(path, ReadPolicy(max_bytes=100 << 20))


class TestMutatedHeaders:
    """S11 in small: whatever the first bytes are, a file is read or refused by name, never anything else."""

    @pytest.mark.parametrize(
        "build", [metaimage, nrrd, lambda head: head.plain()], ids=["S11-mha", "S11-nrrd", "S11-nifti"]
    )
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(changes=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
    @pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
    def test_mutation(self, build, changes, head):
        path = build(head)
        content = bytearray(path.read_bytes())
        for offset, replacement in changes:
            content[offset : offset + len(replacement)] = replacement
        path.write_bytes(content)
        policy = ReadPolicy(max_bytes=64 << 20)
        problems = describe(path, policy).problems
        if any(problem.severity == "refused" for problem in problems):
            with pytest.raises(AnamorphError, match=r"^E-[A-Z]{2,3}-\d{3}: "):
                read(path, policy)
        else:
            assert np.isfinite(read(path, policy).data.numpy()).all()
