"""The folder of a training run.

``config.yaml plan.yaml environment.json history.csv samples/ checkpoint/ model/``, and ``run.json``, written last.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from anamorph.data.configuration import save
from anamorph.data.files import atomic_write
from anamorph.errors import AnamorphWarning, ConfigurationError
from anamorph.inference.run_folder import Run, environment
from anamorph.training.configuration import TrainingConfiguration, read_training
from anamorph.training.distributed import Processes
from anamorph.training.interruption import Interrupted
from anamorph.training.lock import locked
from anamorph.training.task import Task

CONFIGURATION, ENVIRONMENT, COMMAND = "config.yaml", "environment.json", "train"
OURS = (
    CONFIGURATION,
    "plan.yaml",
    ENVIRONMENT,
    "history.csv",
    "samples",
    "tensorboard",
    "checkpoint",
    "model",
    "report.html",
)
LIBRARIES = ("anamorph", "accelerate", "monai", "safetensors", "scipy")


@dataclass
class TrainingRun(Run):
    """As ``Run``, for a folder that may hold an unfinished training.

    Raises:
        ConfigurationError: E-OUT-016, a complete training, or files that may be somebody's; E-TRN-009, an unfinished
            one, and neither ``resume`` nor ``force``; E-OUT-001 and E-OUT-004 as in ``Run``.
    """

    resume: bool = False

    def _found_here(self) -> str | None:
        """How an earlier training that is replaced ended. What is not known to be ours is never touched."""
        status = status_of(self.folder)
        if status is None and any((self.folder / name).exists() for name in (*OURS, "run.json")):
            found = "it holds files of a training's names, but no training's run.json"
            raise ConfigurationError("E-OUT-016", found, file=self.folder, do="choose another --out")
        if status is None or self.resume:
            return None
        if self.force:
            return status
        if status == "complete":
            do = "choose another --out, use --force, or --resume with more --epochs"
            raise ConfigurationError("E-OUT-016", "it holds a complete training", file=self.folder, do=do)
        do = "--resume goes on with it, --force begins again"
        raise ConfigurationError("E-TRN-009", f"it holds an unfinished training ({status})", file=self.folder, do=do)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if isinstance(error, Interrupted):
            self._write("interrupted", None)


def status_of(folder: Path) -> str | None:
    """How a training in the folder ended; None where there is none."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return str(record["status"]) if record["command"] == COMMAND else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def opened(
    folder: Path, task: Task, processes: Processes, *, resume: bool, force: bool
) -> Iterator[TrainingRun | None]:
    """The run's folder, locked, with all that the training stands on; None in all processes but the first.

    Raises:
        ConfigurationError: as ``TrainingRun``; E-TRN-008, another run works in it; E-TRN-010, an unfinished training
            began with other settings.
    """
    if not processes.first:
        yield None
        return
    inputs = (task.folder / "index.json",)
    show = warnings.showwarning

    def pass_on(line: str) -> None:
        show(AnamorphWarning(line), AnamorphWarning, __file__, 0)

    run = TrainingRun(
        folder, COMMAND, task.configuration.model_dump(mode="json"), inputs, force, pass_on, resume=resume
    )
    with locked(folder):
        if resume and (folder / CONFIGURATION).exists() and status_of(folder) is not None:
            _refuse_other(folder, task.configuration)
        with run:
            if not resume:
                _clear(folder)
            _write_inputs(run, task, processes)
            yield run


def _clear(folder: Path) -> None:
    """Remove what an earlier training wrote, and nothing else."""
    for path in (folder / name for name in OURS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_inputs(run: TrainingRun, task: Task, processes: Processes) -> None:
    save(task.configuration, run.path(CONFIGURATION))
    save(task.plan, run.path("plan.yaml"))
    facts: dict[str, Any] = {**environment(), "device": processes.device.type, "processes": processes.count}
    facts["libraries"] = {name: _version(name) for name in LIBRARIES}
    with atomic_write(run.path(ENVIRONMENT)) as part:
        part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _refuse_other(folder: Path, configuration: TrainingConfiguration) -> None:
    """Refuse to continue with other settings; more epochs are welcome."""
    begun, now = (
        _flat(found.model_dump(mode="json")) for found in (read_training(folder / CONFIGURATION), configuration)
    )
    if now["schedule.epochs"] > begun["schedule.epochs"]:
        begun["schedule.epochs"] = now["schedule.epochs"]
    differing = [name for name in sorted({*begun, *now}) if begun.get(name) != now.get(name)]
    if differing:
        name, more = differing[0], f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        found, expected = f"{name}: found {now.get(name)}{more}", f"{begun.get(name)}, with which it began"
        raise ConfigurationError("E-TRN-010", found, file=folder, expected=expected, do="--force begins again")


def _flat(values: Any, above: str = "") -> dict[str, Any]:
    """``a.b.c`` -> value."""
    if not isinstance(values, dict) or not values:
        return {above: values}
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{above}.{name}" if above else name)
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
