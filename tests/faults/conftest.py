"""The healthy file that each fault is made from, and what a refusal has to keep to."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.files import read
from anamorph.errors import AnamorphError, AnamorphWarning

AFFINE = np.array([[1, 0, 0, -7], [0, 1.5, 0, -13], [0, 0, 2, -19], [0, 0, 0, 1.0]])


def synthetic_head() -> np.ndarray:
    """A 16 x 18 x 20 ellipsoid with an off-centre ball, so that no axis order looks like another; int16."""
    i, j, k = np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 18), np.linspace(-1, 1, 20), indexing="ij")
    skull = (i**2 + 1.4 * j**2 + 1.2 * k**2 < 0.9) * 400
    ball = ((i - 0.3) ** 2 + (j + 0.2) ** 2 + (k - 0.4) ** 2 < 0.06) * 300
    return (skull + ball + 20 * i + 10 * j + 5 * k + 100).astype(np.int16)


class HeadFile:
    """A NIfTI-1 file of the head in memory, to be damaged and written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values = synthetic_head()
        self.affine = AFFINE
        image = nib.Nifti1Image(self.values, AFFINE)
        image.header.set_qform(AFFINE, 1)
        image.header.set_sform(AFFINE, 1)
        image.header.set_xyzt_units("mm")
        self.raw = bytearray(image.to_bytes())

    def patch(self, offset: int, form: str, *values: float) -> HeadFile:
        """Overwrite header bytes, as in ``struct``."""
        struct.pack_into(form, self.raw, offset, *values)
        return self

    def plain(self, name: str = "head.nii") -> Path:
        return self.write(bytes(self.raw), name)

    def zipped(self, name: str = "head.nii.gz") -> Path:
        return self.write(gzip.compress(bytes(self.raw), 1, mtime=0), name)

    def write(self, content: bytes, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def save(self, image: nib.Nifti1Image, name: str = "head.nii.gz") -> Path:
        nib.save(image, self.folder / name)
        return self.folder / name


@pytest.fixture
def head(tmp_path: Path) -> HeadFile:
    """A healthy file in a folder of its own."""
    return HeadFile(tmp_path)


@pytest.fixture
def refuses() -> Callable:
    """``with refuses(code, exit_code, folder):`` the block is refused in one line, and leaves no new file behind."""

    @contextmanager
    def block(code: str, exit_code: int, folder: Path, match: str = ":") -> Iterator[None]:
        before = sorted(folder.iterdir())
        with pytest.raises(AnamorphError, match=match) as caught:
            yield
        assert caught.value.code == code, str(caught.value)
        assert caught.value.exit_code == exit_code
        assert str(caught.value).startswith(f"{code}: ")
        assert "\n" not in str(caught.value)
        assert str(folder) not in str(caught.value)
        assert sorted(folder.iterdir()) == before

    return block


@pytest.fixture
def warns() -> Callable:
    """``with warns(code):`` the block goes on, and says so once under that code."""

    @contextmanager
    def block(code: str, match: str = ":") -> Iterator[None]:
        with pytest.warns(AnamorphWarning, match=match) as issued:
            yield
        codes = [str(warning.message).partition(":")[0] for warning in issued]
        assert codes == [code]

    return block


@pytest.fixture
def equals_head() -> Callable[[Path], None]:
    """Asserts that a file is read as the healthy head, voxel by voxel and in its place."""

    def check(path: Path, **policy: object) -> None:
        image = read(path, **policy)
        np.testing.assert_array_equal(image.data[0].numpy(), synthetic_head())
        np.testing.assert_allclose(image.grid.affine, AFFINE, atol=1e-5)
        assert image.valid is None

    return check
