"""What a computation costs: seconds, and the memory it takes beyond what was held before."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux takes in ``clear_refs`` to begin the record of the largest resident size anew."""


@dataclass
class Cost:
    """Filled in when its ``measured`` block ends.

    Args:
        seconds: wall time; on a GPU up to the end of its work.
        peak_mib: the largest memory beyond that at the beginning, MiB, of the device that computes; None where the
            system does not tell.
    """

    seconds: float = 0.0
    peak_mib: float | None = None


@contextmanager
def measured(device: torch.device | None = None) -> Iterator[Cost]:
    """Measure a block; ``device`` is where it computes, the CPU if absent."""
    cost = Cost()
    cuda = device is not None and device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before: float | None = torch.cuda.memory_allocated(device) / 2**20
    else:
        before = _resident_mib() if _begin_anew() else None
    begin = time.perf_counter()
    yield cost
    if cuda:
        torch.cuda.synchronize(device)
    cost.seconds = time.perf_counter() - begin
    if before is not None:
        peak = torch.cuda.max_memory_allocated(device) / 2**20 if cuda else _resident_mib("VmHWM")
        cost.peak_mib = max(0.0, peak - before)


def _begin_anew() -> bool:
    """Whether the system keeps a record that begins now."""
    # What an earlier computation freed may still be held by the allocator, and would be used again unseen.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if CLEAR.exists() else None
    if trim is not None:
        trim(0)
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _resident_mib(field: str = "VmRSS") -> float:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 2**10
    return 0.0
