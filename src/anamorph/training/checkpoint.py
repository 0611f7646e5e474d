"""Checkpoints: folders of tensors and numbers, complete or not there at all.

=========================  ======================================================================================
in ``step_00001200``       holds
=========================  ======================================================================================
``weights.safetensors``    parameters and buffers of the method
``average.safetensors``    the same of their moving average, where there is one
``best.safetensors``       the weights that validated best so far, where any did
``optimisers.safetensors`` tensors of the optimisers' states, ``player.parameter.name``
``state.json``             counters, and whatever of the state is no tensor
``manifest.json``          hashes of the others, written last
=========================  ======================================================================================

A folder is made under another name, synchronised with the disk and renamed. Nothing in it can be executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from anamorph.data.files import DISK_ERRORS
from anamorph.errors import IntegrityError, ResourceError, warn

VERSION = 1
KEPT = 2
"""Of the newest; besides them the newest at the end of an epoch."""

MANIFEST, STATE = "manifest.json", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a training continues from.

    Args:
        step: steps done.
        tensors: file without its suffix -> name -> tensor, on the CPU.
        state: everything else, as JSON has it.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


class Checkpoints:
    """Those of one training.

    Args:
        folder: that holds them and nothing else.
        steps: of an epoch.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, then remove those that are not needed any more.

        Raises:
            ResourceError: E-OUT-003, the disk is full or refuses; those that were there are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)
        part = self.folder / f".part-{secrets.token_hex(8)}"
        target = self._path(checkpoint.step)
        try:
            _write(part, checkpoint)
            shutil.rmtree(target, ignore_errors=True)  # of a path that was given up, or interrupted at this step
            os.replace(part, target)
            _synchronise(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, OSError) and error.errno not in DISK_ERRORS:
                raise
            reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "the disk refuses"
            do = "free or change the disk, then go on with --resume"
            raise ResourceError("E-OUT-003", f"not written: {reason}", file=target, do=do) from error
        self._prune()

    def newest(self, end_of_epoch: bool = False) -> Checkpoint | None:
        """The newest that is whole; a damaged one is passed over with a warning. None where there is none at all.

        Args:
            end_of_epoch: only those after a whole number of epochs.

        Raises:
            IntegrityError: E-TRN-006, all are damaged.
        """
        steps = [step for step in self._steps() if not end_of_epoch or step % self.steps == 0]
        reason = ""
        for step in reversed(steps):
            try:
                return _read(self._path(step), step)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                reason = _reason(error)
                if step != steps[0]:
                    warn("W-TRN-006", f"damaged ({reason}); the one before it is taken", file=self._path(step))
        if steps:
            found = f"every checkpoint is damaged ({reason})"
            raise IntegrityError("E-TRN-006", found, file=self.folder, do="begin again with --force")
        return None

    def discard_after(self, step: int) -> None:
        """Remove those of a path that was given up."""
        for later in self._steps():
            if later > step:
                shutil.rmtree(self._path(later))

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def _steps(self) -> list[int]:
        """Of all there are, in order."""
        if not self.folder.is_dir():
            return []
        names = (re.fullmatch(r"step_(\d{8,})", path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def _prune(self) -> None:
        steps = self._steps()
        ends = [step for step in steps if step % self.steps == 0]
        for step in set(steps) - {*steps[-KEPT:], *ends[-1:]}:
            shutil.rmtree(self._path(step))


def pack_optimisers(states: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``state_dict`` of every optimiser, taken apart into tensors and plain values."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for player, state in states.items():
        plain[player] = {"param_groups": state["param_groups"], "state": {}}
        for parameter, values in state["state"].items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"{player}.{parameter}.{name}"] = value
                else:
                    plain[player]["state"].setdefault(str(parameter), {})[name] = value
    return tensors, plain


def unpack_optimisers(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What ``pack_optimisers`` took apart."""
    states: dict[str, dict[str, Any]] = {}
    for player, found in plain.items():
        state = {int(parameter): dict(values) for parameter, values in found["state"].items()}
        states[player] = {"param_groups": found["param_groups"], "state": state}
    for key, tensor in tensors.items():
        player, parameter, name = key.rsplit(".", 2)
        states[player]["state"].setdefault(int(parameter), {})[name] = tensor
    return states


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    folder.mkdir()
    contents = {
        f"{name}.safetensors": safetensors.torch.save({key: _own(tensor) for key, tensor in tensors.items()})
        for name, tensors in checkpoint.tensors.items()
    }
    contents[STATE] = _json({"version": VERSION, **checkpoint.state})
    contents[MANIFEST] = _json({name: _hash(content) for name, content in contents.items()})
    for name, content in contents.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _synchronise(folder)


def _read(folder: Path, step: int) -> Checkpoint:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    contents = {name: (folder / Path(name).name).read_bytes() for name in manifest}
    for name, content in contents.items():
        if _hash(content) != manifest[name]:
            raise ValueError(f"{name} does not have its hash")
    state = json.loads(contents.pop(STATE))
    if state["version"] != VERSION:
        raise ValueError(f"version {state['version']}")
    tensors = {Path(name).stem: safetensors.torch.load(content) for name, content in contents.items()}
    return Checkpoint(step, tensors, state)


def _own(tensor: Tensor) -> Tensor:
    """On the CPU, and sharing its memory with no other, as safetensors wants it."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, allow_nan=False).encode()


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "unreadable").lower()
    return str(error)[:80] or type(error).__name__
