"""A run's folder: warnings collected, outputs remembered, ``run.json`` written last to say how it ended."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from anamorph.data.files import atomic_write
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError, warn


@dataclass
class Run:
    """A run folder. As a context it collects warnings, and on an error writes ``run.json`` with its line.

    Raises:
        ConfigurationError: E-OUT-016, the folder holds a complete run already.
    """

    folder: Path
    command: str
    configuration: Mapping[str, Any]
    force: bool = False
    on_warning: Callable[[str], None] | None = None
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def __enter__(self) -> Run:
        if not self.force and _status_of(self.folder) == "complete":
            raise ConfigurationError(
                "E-OUT-016",
                "this folder holds a run already",
                file=self.folder,
                do="choose another --out, or use --force",
            )
        leftover = (
            self.folder.is_dir() and any(self.folder.glob("*.nii.gz")) and not (self.folder / "run.json").exists()
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                "E-OUT-001", f"no folder can be made ({error.strerror})", file=self.folder
            ) from error
        (self.folder / "run.json").unlink(missing_ok=True)
        self._begin = time.perf_counter()
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        shown = warnings.showwarning

        def record(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, AnamorphWarning):
                shown(message, category, *rest, **more)
                return
            self.warnings.append(str(message))
            if self.on_warning is not None:
                self.on_warning(str(message))

        warnings.simplefilter("always", AnamorphWarning)
        warnings.showwarning = record
        if leftover:
            warn(
                "W-OUT-001", "this folder holds files of a run that did not finish; they are replaced", file=self.folder
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._caught.__exit__(kind, error, traceback)
        if error is not None:
            code = error.code if isinstance(error, AnamorphError) else type(error).__name__
            self._write("failed", {"code": code, "message": str(error) if isinstance(error, AnamorphError) else code})

    def path(self, name: str) -> Path:
        """Where a result goes; remembered in ``run.json``."""
        if name not in self.outputs:
            self.outputs.append(name)
        return self.folder / name

    def finish(self) -> None:
        """Write ``run.json`` with status complete: the last file of a run."""
        self._write("complete", None)

    def _write(self, status: str, error: Mapping[str, str] | None) -> None:
        record = {
            "status": status,
            "error": error,
            "command": self.command,
            "version": version("anamorph"),
            "configuration": self.configuration,
            **self.facts,
            "seconds_in_all": round(time.perf_counter() - self._begin, 3),
            "peak_memory_mb": peak_memory_mb(),
            "environment": environment(),
            "warnings": self.warnings,
            "outputs": self.outputs,
        }
        text = json.dumps(record, indent=2, allow_nan=False, default=_plain)
        with atomic_write(self.folder / "run.json") as part:
            part.write_text(text + "\n", encoding="utf-8")


def peak_memory_mb() -> int:
    """Largest memory this process has held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def environment() -> dict[str, Any]:
    """What the result may depend on; nothing that names a machine or a user."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": cuda,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not belong into run.json")


def _status_of(folder: Path) -> str | None:
    """How the run in a folder ended; None where there is none, or none that can be read."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8")).get("status")
    except (OSError, ValueError, AttributeError):
        return None
