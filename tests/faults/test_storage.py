"""R03 of the fault catalogue: a disk that is full, read-only or in the way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from anamorph.data.files import atomic_write, write
from anamorph.data.image import Image

NAMES = ("image.nii", "image.nii.gz", "image.nrrd", "image.mha")
WRITER = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
from anamorph.data.files import write
from anamorph.data.image import Image
from anamorph.errors import ResourceError
noise = Image.from_array(np.random.default_rng(0).normal(size=(32, 32, 32)), np.eye(4))
for name in sys.argv[1:]:
    try:
        write(noise, name)
    except ResourceError as error:
        print(error.exit_code, error)
"""


@pytest.mark.parametrize("row", ["R03"])
def test_file_size_limit_leaves_the_old_files(row, tmp_path):
    for name in NAMES:
        write(Image.from_array(np.ones((3, 4, 5), np.float32), np.eye(4)), tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", WRITER, *(str(tmp_path / name) for name in NAMES)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = [f"4 E-OUT-003: {name}: not written: file too large; free or change the disk" for name in NAMES]
    assert run.stdout.splitlines() == expected
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "code",
    [pytest.param(getattr(errno, name), id=f"R03-{name}") for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO")],
)
def test_refusing_disk(code, tmp_path, monkeypatch, refuses):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with refuses("E-OUT-003", 4, tmp_path):
        write(Image.from_array(np.ones((3, 4, 5), np.float32), np.eye(4)), tmp_path / "image.nii")


@pytest.mark.parametrize("row", ["R03-interrupted"])
def test_interruption_leaves_nothing(row, tmp_path):
    (tmp_path / "table.csv").write_text("old")
    interrupted = atomic_write(tmp_path / "table.csv")
    interrupted.__enter__().write_text("new")
    error = KeyboardInterrupt()
    assert not interrupted.__exit__(type(error), error, None)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "old"


@pytest.mark.parametrize("row", ["R10-umask"])
def test_written_file_has_the_usual_permissions(row, tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "table.csv") as part:
            part.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o640


MISUSED = [
    pytest.param("absent/image.nii", "E-OUT-001", id="R03-no-folder"),
    pytest.param("image.png", "E-OUT-002", id="R03-extension"),
    pytest.param(".", "E-OUT-002", id="R03-folder"),
]


@pytest.mark.parametrize(("name", "code"), MISUSED)
def test_impossible_names(name, code, tmp_path, refuses):
    with refuses(code, 2, tmp_path):
        write(Image.from_array(np.ones((3, 4, 5), np.float32), np.eye(4)), tmp_path / name)
