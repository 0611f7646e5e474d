"""Each measurement in a process of its own, and results that survive an interruption."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT

THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


class RunFailed(Exception):
    """A registration that gave no map, and why, in one line."""


def register_alone(
    python: str, adapter: list[str], fixed: Path, moving: Path, field: Path, *, threads: int, time_limit: float
) -> dict[str, Any]:
    """Run an adapter, which writes the map to ``field`` and its report beside it; returns the report.

    ``seconds_process`` is the life of the process: start, imports, reading and writing included.

    Raises:
        RunFailed: it ended otherwise than with a map.
    """
    report = field.with_name("report.json")
    files = {"--fixed": fixed, "--moving": moving, "--field": field, "--report": report}
    options = [text for name, path in files.items() for text in (name, str(path.resolve()))]
    begin = time.perf_counter()
    try:
        ended = subprocess.run(
            [python, "-m", *adapter, *options, "--threads", str(threads)],
            cwd=ROOT,
            env=os.environ | dict.fromkeys(THREAD_COUNTS, str(threads)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"stopped after {time_limit:g} s") from error
    except OSError as error:
        raise RunFailed(f"cannot be started: {(error.strerror or 'unknown reason').lower()}") from error
    seconds = time.perf_counter() - begin
    if ended.returncode < 0:
        raise RunFailed(f"ended by signal {-ended.returncode}")
    if ended.returncode or not field.exists() or not report.exists():
        raise RunFailed(_last_line(ended.stderr) or f"ended with exit code {ended.returncode} and no map")
    return json.loads(report.read_text()) | {"seconds_process": round(seconds, 2)}


def write_json(path: Path, content: object) -> None:
    """Whole or not at all, so that an interrupted run leaves what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def _last_line(stderr: str) -> str:
    """Of an error message, without the folders of this machine."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return re.sub(r"(?:/[\w.+-]+)+/", "", lines[-1])[:300] if lines else ""
