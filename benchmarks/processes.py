"""Each measurement in a process of its own, and results that survive an interruption."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anamorph.errors import NumericalError
from anamorph.inference.peers.adapter import run_alone
from benchmarks.provenance import ROOT, commit, now, versions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OURS = (sys.executable, "-m", "benchmarks.anamorph_adapter")
"""Command of one registration by Anamorph."""


class RunFailed(Exception):
    """A registration that gave no map, and why, in one line."""


def measure_alone(module: str, case: DataclassInstance, threads: int, time_limit: float) -> dict[str, Any]:
    """A row: the case, what ``module --child CASE RESULT`` measured or why it failed, and where that comes from."""
    row = {**asdict(case), "commit": commit(), "date": now(), "versions": versions(("anamorph", "torch", "numpy"))}
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", module, "--child", json.dumps(asdict(case)), str(result)]
        try:
            run_alone(command, ROOT, threads, time_limit)
            return row | {"failure": None} | json.loads(result.read_text())
        except NumericalError as error:
            return row | {"failure": error.found}


def register_alone(
    command: Sequence[str], fixed: Path, moving: Path, field: Path, *, threads: int, time_limit: float
) -> dict[str, Any]:
    """Run an adapter, which writes the map to ``field`` and its report beside it; returns the report.

    ``seconds_process`` is the life of the process: start, imports, reading and writing included.

    Raises:
        RunFailed: it ended otherwise than with a map.
    """
    report = field.with_name("report.json")
    files = {"--fixed": fixed, "--moving": moving, "--field": field, "--report": report}
    options = [text for name, path in files.items() for text in (name, str(path.resolve()))]
    try:
        seconds = run_alone([*command, *options, "--threads", str(threads)], ROOT, threads, time_limit)
    except NumericalError as error:
        raise RunFailed(error.found) from error
    if not field.exists() or not report.exists():
        raise RunFailed("ended with no map")
    return json.loads(report.read_text()) | {"seconds_process": round(seconds, 2)}


def write_json(path: Path, content: object) -> None:
    """Whole or not at all, so that an interrupted run leaves what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
