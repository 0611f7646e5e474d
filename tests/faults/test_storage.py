"""R03 of the fault catalogue: a disk that is full, read-only or in the way."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from anamorph.data.files import atomic_write, read, write
from anamorph.data.image import Image

WRITER = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
from anamorph.data.files import write
from anamorph.data.image import Image
from anamorph.errors import ResourceError
noise = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
try:
    write(Image.from_array(noise, np.eye(4)), sys.argv[1])
except ResourceError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    "name", [pytest.param(f"image{e}", id=f"R03{e}") for e in (".nii", ".nii.gz", ".nrrd", ".mha")]
)
def test_file_size_limit_leaves_the_old_file(name, tmp_path):
    old = Image.from_array(np.ones((3, 4, 5), np.float32), np.eye(4))
    write(old, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    run = subprocess.run([sys.executable, "-c", WRITER, tmp_path / name], capture_output=True, text=True, check=False)
    assert run.returncode == 4, run.stderr
    assert run.stdout.startswith(f"E-OUT-003: {name}: not written: file too large")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


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
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "table.csv") as part:
        part.write_text("new")
        raise KeyboardInterrupt
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


@pytest.mark.parametrize("row", ["R03-read-memory"])
def test_reading_holds_the_file_and_one_copy(row, tmp_path):
    """Peak memory in a child whose address space could not hold a second copy."""
    values = np.zeros((256, 256, 256), np.int16)
    write(Image.from_array(values, np.eye(4)), tmp_path / "image.nii.gz")
    import tracemalloc

    tracemalloc.start()
    image = read(tmp_path / "image.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * image.data.numel() * 4
    assert resource.RLIMIT_AS is not None
