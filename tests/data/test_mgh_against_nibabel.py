"""FreeSurfer's .mgh and .mgz: what nibabel writes we read, every voxel of the same value in the same place."""

from __future__ import annotations

import gzip
import struct
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.diagnosis import describe
from anamorph.data.files import read, read_labels
from anamorph.data.fingerprint import read_grid
from anamorph.data.image import ReadPolicy
from anamorph.errors import AnamorphWarning, InputError

VALUES = np.random.default_rng(0).integers(0, 120, (5, 6, 7))
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
AXES = [
    np.diag(signs)[:, order].astype(float) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def written(path: Path, values: np.ndarray = VALUES, directions: np.ndarray = TURN) -> np.ndarray:
    """A file of nibabel's; returns where it says that the voxels are."""
    affine = np.eye(4)
    affine[:3, :3] = directions * [0.7, 1.1, 3.0]
    affine[:3, 3] = [12.5, -40.25, 81.0]
    image = nib.MGHImage(values, affine)  # pyright: ignore[reportArgumentType]
    nib.save(image, path)
    return np.asarray(image.affine)


@pytest.mark.parametrize("directions", [TURN, *AXES[::7]], ids=lambda axes: np.array2string(np.rint(axes)))
@pytest.mark.parametrize("name", ["brain.mgh", "brain.mgz"])
def test_the_same_place(name: str, directions: np.ndarray, tmp_path: Path) -> None:
    expected = written(tmp_path / name, VALUES.astype(np.float32), directions)
    image = read(tmp_path / name)
    assert image.grid.shape == VALUES.shape
    np.testing.assert_allclose(image.grid.affine, expected, atol=1e-4)
    np.testing.assert_array_equal(image.data[0].numpy(), VALUES)
    assert read_grid(tmp_path / name, ReadPolicy()).distance_mm(image.grid) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_every_type_as_labels(dtype: type, tmp_path: Path) -> None:
    written(tmp_path / "aseg.mgz", VALUES.astype(dtype))
    labels = read_labels(tmp_path / "aseg.mgz")
    np.testing.assert_array_equal(labels.data.numpy(), VALUES)


def test_one_of_several_frames(tmp_path: Path) -> None:
    frames = np.stack([VALUES, VALUES + 1], axis=-1).astype(np.int16)
    written(tmp_path / "frames.mgz", frames)
    with pytest.raises(InputError, match=r"E-GEO-017: frames\.mgz: 2 volumes"):
        read(tmp_path / "frames.mgz")
    image = read(tmp_path / "frames.mgz", ReadPolicy(volume=1))
    np.testing.assert_array_equal(image.data[0].numpy(), VALUES + 1)


def test_what_follows_the_voxels_is_no_fault(tmp_path: Path) -> None:
    """FreeSurfer puts times and a history of commands there."""
    written(tmp_path / "a.mgh", VALUES.astype(np.int16))
    content = (tmp_path / "a.mgh").read_bytes()
    (tmp_path / "b.mgz").write_bytes(gzip.compress(content + b"\0\0\0\3mri_convert --conform"))
    np.testing.assert_array_equal(read(tmp_path / "b.mgz").data[0].numpy(), VALUES)
    facts = describe(tmp_path / "b.mgz")
    assert (facts.format, facts.shape, facts.problems) == ("MGH, gzip", VALUES.shape, ())


def test_without_geometry_as_freesurfer_has_it(tmp_path: Path) -> None:
    """To the left, downwards, forwards; nibabel turns such a file by 180 degrees about the first axis."""
    written(tmp_path / "a.mgh", VALUES.astype(np.int16))
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    struct.pack_into(">h", content, 28, 0)
    (tmp_path / "a.mgh").write_bytes(content)
    with pytest.warns(AnamorphWarning, match=r"W-FMT-014: a\.mgh"):
        grid = read(tmp_path / "a.mgh").grid
    assert "".join(map(str, nib.aff2axcodes(grid.affine))) == "LIA"
    np.testing.assert_allclose(grid.to_world(np.array([[2.5, 3.0, 3.5]])), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [(4, 0, "E-FMT-003"), (16, -1, "E-FMT-003"), (20, 2, "E-FMT-003"), (8, 60, "E-FMT-006"), (4, 2**30, "E-MEM-016")],
    ids=["no voxels", "no frames", "an unknown type", "more voxels than there are", "more than the memory holds"],
)
def test_headers_that_cannot_be_believed(offset: int, value: int, code: str, tmp_path: Path) -> None:
    written(tmp_path / "a.mgh", VALUES.astype(np.int16))
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    struct.pack_into(">i", content, offset, value)
    (tmp_path / "a.mgh").write_bytes(content)
    with pytest.raises(Exception, match=rf"^{code}: a\.mgh"):
        read(tmp_path / "a.mgh")


def test_cut_files(tmp_path: Path) -> None:
    written(tmp_path / "a.mgz", VALUES.astype(np.int16))
    content = gzip.decompress((tmp_path / "a.mgz").read_bytes())
    for length, code in ((200, "E-FMT-003"), (400, "E-FMT-006")):
        (tmp_path / "cut.mgz").write_bytes(gzip.compress(content[:length]))
        with pytest.raises(InputError, match=rf"^{code}: cut\.mgz"):
            read(tmp_path / "cut.mgz")
