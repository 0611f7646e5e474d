"""A run's folder: warnings collected, outputs remembered, ``run.json`` written last to say how it ended."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from anamorph.data.files import atomic_write
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError, InputError, warn

OUTPUTS = (
    "warped.nii.gz",
    "warped_labels.nii.gz",
    "transform.h5",
    "displacement.nii.gz",
    "inverse_displacement.nii.gz",
    "affine.tfm",
    "segmentation.nii.gz",
    "translation.nii.gz",
    "scores.csv",
    "report.html",
)


@dataclass
class Run:
    """A run folder. As a context it collects warnings, and on an error writes ``run.json`` with its line.

    Until it has finished, ``run.json`` says "running", so that a run that was killed is known by it. Files of the run
    that it replaces stay until then; those that it does not write anew then go.

    Raises:
        InputError: E-IO-001, an input is not there.
        ConfigurationError: E-OUT-004, the folder holds an input; E-OUT-016, it holds a complete run, or files that may
            be somebody's; E-OUT-001, it cannot be made.

    Nothing is written then, nor is the folder made.
    """

    folder: Path
    command: str
    configuration: Mapping[str, Any]
    inputs: Sequence[Path] = ()
    force: bool = False
    on_warning: Callable[[str], None] | None = None
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list, init=False)

    def __enter__(self) -> Run:
        self._refuse_inputs_here()
        missing = next((path for path in self.inputs if not path.exists()), None)
        if missing is not None:
            raise InputError("E-IO-001", "no such file or directory", file=missing, expected="a readable file")
        found = self._found_here()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                "E-OUT-001", f"no folder can be made ({error.strerror})", file=self.folder
            ) from error
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
        if found is not None:
            self.replaced = _outputs_of(self.folder / "run.json")
        if found == "running":
            warn("W-OUT-001", "a run in this folder did not finish; its files are replaced", file=self.folder)
        self._write("running", None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._caught.__exit__(kind, error, traceback)
        if error is not None:
            code = error.code if isinstance(error, AnamorphError) else type(error).__name__
            self._write("failed", {"code": code, "message": str(error) if isinstance(error, AnamorphError) else code})

    def _refuse_inputs_here(self) -> None:
        out = self.folder.resolve()
        for path in self.inputs:
            if out in (path.resolve().parent, path.resolve()):
                found, expected = "the output folder holds an input", "a folder of its own"
                raise ConfigurationError("E-OUT-004", found, file=path, expected=expected, do="choose another --out")

    def _found_here(self) -> str | None:
        """The status of an earlier run in the folder. What is not known to be ours is never touched unasked."""
        record = self.folder / "run.json"
        status = _status_of(record)
        if record.exists() and status is None:
            found = "its run.json is none of Anamorph's"
        elif status == "complete" and not self.force:
            found = "it holds a run already"
        elif status is None and not self.force and any((self.folder / name).exists() for name in OUTPUTS):
            found = "it holds files of a result's names, but no run.json"
        else:
            return status
        do = "choose another --out" + ("" if record.exists() and status is None else ", or use --force")
        raise ConfigurationError("E-OUT-016", found, file=self.folder, expected="a folder without results", do=do)

    def path(self, name: str) -> Path:
        """Where a result goes; remembered in ``run.json``."""
        if name not in self.outputs:
            self.outputs.append(name)
        return self.folder / name

    def finish(self) -> None:
        """Write ``run.json`` with status complete: the last file of a run. What it replaces is gone by then."""
        for name in set(self.replaced) - set(self.outputs):
            if (self.folder / name).is_file():
                (self.folder / name).unlink()
        self.replaced = []
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
            **({"replaces": self.replaced} if self.replaced else {}),
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


def _status_of(record: Path) -> str | None:
    """How a run ended; None where there is no record, or none of ours."""
    try:
        status = json.loads(record.read_text(encoding="utf-8")).get("status")
    except (OSError, ValueError, AttributeError):
        return None
    return status if status in ("running", "failed", "complete") else None


def _outputs_of(record: Path) -> list[str]:
    """What a run, and unfinished ones before it, left beside its record; names that lead elsewhere are not believed."""
    known = json.loads(record.read_text(encoding="utf-8"))
    names = {str(name) for key in ("outputs", "replaces") for name in known.get(key) or ()}
    return sorted(name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts)
