"""Where a number comes from: commit, date, machine and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MIB = 2**20


def commit(folder: Path) -> str:
    """Hash of the checkout at ``folder``, with ``-dirty`` where tracked files differ from it; results do not count."""
    where = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*where, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    if head.returncode:
        return "unknown"
    changed = subprocess.run(
        [*where, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results"],
        capture_output=True,
        text=True,
        check=False,
    )
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def hardware() -> dict[str, str | int | None]:
    """Processor, cores and memory; nothing that names the machine."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].split(":", 1)[1].strip() if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's, and those of the packages that are installed in this environment."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def resident(field: str) -> int:
    """Bytes of this process by /proc/self/status: ``VmRSS`` now, ``VmHWM`` at most.

    Not ``getrusage``: its record outlives exec, so a child would start with the peak of its parent.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_mib() -> int:
    """Largest memory this process has held, MiB."""
    return round(resident("VmHWM") / MIB)
