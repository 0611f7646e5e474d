"""``anamorph doctor``: what this machine offers, what is missing and what to do about it."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from anamorph.cli.arguments import Form

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen

Verdict = Literal["ok", "warn", "fail"]

LACKING = 4
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
OLDEST_PYTHON = (3, 11)
GIB = 2**30
LEAST_MEMORY, USUAL_MEMORY = 1 * GIB, 4 * GIB
LEAST_DISK, USUAL_DISK = GIB // 10, 2 * GIB


class DoctorRequest(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


FORM = Form(DoctorRequest)


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    verdict: Verdict
    found: str
    do: str = ""


def run(request: DoctorRequest, screen: Screen) -> int:
    """Look at everything; 4 where something that is needed is missing."""
    from rich.table import Table
    from rich.text import Text

    findings = list(examine())
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        verdict = Text(finding.verdict, COLOURS[finding.verdict])
        table.add_row(verdict, finding.what, "; ".join(filter(None, (finding.found, finding.do))))
    screen.say(table)
    return LACKING if any(finding.verdict == "fail" for finding in findings) else 0


def examine() -> Iterator[Finding]:
    """Every finding, the most basic ones first."""
    python = platform.python_version()
    yield _above("Python", sys.version_info[:2] >= OLDEST_PYTHON, python, "install Python 3.11 or newer")
    yield from _packages()
    yield from _devices()
    yield _memory()
    yield _disk()
    yield from _extras()


def _above(what: str, good: bool, found: str, do: str) -> Finding:
    return Finding(what, "ok", found) if good else Finding(what, "fail", found, do)


def _packages() -> Iterator[Finding]:
    yield Finding("anamorph", "ok", version("anamorph"))
    missing = [name for name, extra in _requirements() if not extra and _version(name) is None]
    found = f"torch {_version('torch')}, numpy {_version('numpy')}, nibabel {_version('nibabel')}"
    if missing:
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Finding("packages", "ok", found)


def _extras() -> Iterator[Finding]:
    """Optional packages; their absence is no fault."""
    extras: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra and extra != "dev":
            extras.setdefault(extra, []).append(name)
    for extra, names in extras.items():
        missing = [name for name in names if _version(name) is None]
        if missing:
            yield Finding(f"[{extra}]", "ok", "optional, not installed", f"pip install 'anamorph[{extra}]'")
        else:
            yield Finding(f"[{extra}]", "ok", ", ".join(f"{name} {_version(name)}" for name in names))


def _requirements() -> Iterator[tuple[str, str]]:
    """(package, extra) of everything that the installation asks for."""
    for line in requires("anamorph") or []:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        if name:
            yield name[0], extra[1] if extra else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    if _version("torch") is None:
        return
    import torch

    threads = torch.get_num_threads()
    yield Finding("CPU", "ok", f"{threads} threads, {platform.machine()}")
    if not torch.cuda.is_available():
        yield Finding("GPU", "ok", "none that torch sees; the CPU is used")
        return
    for index in range(torch.cuda.device_count()):
        try:
            total = float(torch.ones(8, device=f"cuda:{index}").sum())
            free, all_of_it = torch.cuda.mem_get_info(index)
        except RuntimeError as error:
            yield Finding("GPU", "warn", str(error).partition("\n")[0], "use --device cpu, or mend the driver")
            continue
        found = f"{torch.cuda.get_device_name(index)}, {free / GIB:.1f} of {all_of_it / GIB:.1f} GiB free"
        yield Finding("GPU", "ok" if total == 8 else "fail", found)


def _memory() -> Finding:
    from anamorph.inference.memory import available_memory

    free = available_memory()
    return _enough("memory", free, LEAST_MEMORY, USUAL_MEMORY, "close other programs; large images are made coarser")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return _enough("disk", free, LEAST_DISK, USUAL_DISK, "free some space, or write elsewhere")


def _enough(what: str, free: int, least: int, usual: int, do: str) -> Finding:
    found = f"{free / GIB:.1f} GiB free"
    if free >= usual:
        return Finding(what, "ok", found)
    return Finding(what, "fail" if free < least else "warn", found, do)
