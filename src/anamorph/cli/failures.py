"""From an exception to its exit code and its one line."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from anamorph.errors import AnamorphError, ResourceError

INTERRUPTED, TERMINATED = 130, 143
ALLOCATORS = ("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory")
"""How torch says on the CPU, where it raises no class of its own, that memory ran out."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class Terminated(BaseException):
    """A termination signal; like KeyboardInterrupt, so that whatever is open gets closed on the way out."""


@contextmanager
def signals_raise() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def as_refusal(error: BaseException) -> AnamorphError | None:
    """An error of the machine or of the input as a refusal; None for a fault of our own."""
    if isinstance(error, AnamorphError):
        return error
    if _out_of_memory(error):
        do = "use a smaller --max-memory or --working-voxels, or close other programs"
        return ResourceError("E-MEM-002", "memory ran out during the work", do=do)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        found = (error.strerror or "the disk refuses").lower()
        return ResourceError("E-OUT-003", f"not written: {found}", file=_name(error), do="free or change the disk")
    return None


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATORS)


def _name(error: OSError) -> str | None:
    return error.filename if isinstance(error.filename, str) else None
