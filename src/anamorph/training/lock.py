"""One run at a time in an output folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from anamorph.errors import ConfigurationError, warn

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made where it is not there, for the time of the block.

    The lock is the kernel's: it ends with the process, however that ends. The file says who holds it.

    Raises:
        ConfigurationError: E-TRN-008, another run holds it; E-OUT-001, the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(folder / NAME)
    except OSError as error:
        found = f"no folder to write into ({(error.strerror or 'refused').lower()})"
        raise ConfigurationError("E-OUT-001", found, file=folder, do="choose another --out") from error
    try:
        before = os.read(descriptor, 4096)
        if before:
            warn("W-TRN-008", f"{_holder(before)} did not end in order; its lock is void", file=folder)
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "started": started, "host": socket.gethostname()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)
        os.close(descriptor)


def _open(path: Path) -> int:
    """The lock file, held; that another removed it in between is noticed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.read(descriptor, 4096))
            os.close(descriptor)
            do = "wait for it, or choose another --out"
            raise ConfigurationError("E-TRN-008", f"{holder} works in it", file=path.parent, do=do) from None
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _holder(content: bytes) -> str:
    try:
        found = json.loads(content)
        return f"process {int(found['pid'])}, begun {str(found['started'])[:25]},"
    except (ValueError, KeyError, TypeError):
        return "another process"
