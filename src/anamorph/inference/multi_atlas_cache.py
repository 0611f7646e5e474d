"""What a multi-atlas segmentation keeps on disk, so that nothing that was finished is done again.

============================  =========================================================================================
``image-KEY.safetensors``     an image for whoever computes, by the hash of what it holds
``model-KEY``                 a trained model, likewise
``KEY``                       what was found of one atlas: arrays as ``NAME.npy``, and ``entry.json``, written last
============================  =========================================================================================

A key stands for everything that a result depends on. Arrays are mapped into memory rather than read, so that any number
of them takes none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.files import atomic_write
from anamorph.data.files import sha256 as hash_of_file
from anamorph.data.image import Image
from anamorph.errors import InputError
from anamorph.inference.atlas_rounds import digest
from anamorph.inference.model_folder import Model, read_model, write_model
from anamorph.spatial.grid import Grid

RECORD = "entry.json"
IMAGES_AT_HAND = 4
"""Stored images that a process keeps in memory."""
KEY_LENGTH = 32
COMPUTATION = "2"
"""Of what is kept: another one makes every result new."""


def key_of(*words: str) -> str:
    """Of a result that these words decide, and this version of Anamorph."""
    return digest(version("anamorph"), COMPUTATION, *words)[:KEY_LENGTH]


@dataclass(frozen=True)
class Entry:
    """What was found of one atlas.

    Args:
        path: its folder.
    """

    path: Path

    def read(self) -> dict[str, Any] | None:
        """The facts; None where nothing is finished, or a file is not as it was written."""
        try:
            record = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            hashes, facts = record["arrays"], record["facts"]
            whole = all(hash_of_file(self._file(name)) == expected for name, expected in hashes.items())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None
        return facts if whole else None

    def write(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Everything, the facts last."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            with atomic_write(self._file(name)) as part, part.open("wb") as file:
                np.save(file, array)
        hashes = {name: hash_of_file(self._file(name)) for name in arrays}
        with atomic_write(self.path / RECORD) as part:
            part.write_text(json.dumps({"arrays": hashes, "facts": facts}, allow_nan=False), encoding="utf-8")

    def array(self, name: str) -> Tensor:
        """One of the arrays, on the disk until it is looked at."""
        return torch.from_numpy(np.load(self._file(name), mmap_mode="c"))

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npy"


def state_of_scan(scan: Scan) -> str:
    """The hash of a scan's image and labels, and its modality.

    Raises:
        InputError: E-IO-001, a file cannot be read.
    """
    files = [scan.image, *([scan.labels] if scan.labels is not None else [])]
    return digest(scan.modality, *map(state_of_file, files))


def state_of_file(path: Path) -> str:
    """Its hash, taken once as long as it does not change.

    Raises:
        InputError: E-IO-001, it cannot be read.
    """
    try:
        state = path.stat()
        return _hash_of(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise InputError("E-IO-001", reason, file=path, expected="a readable file") from error


@lru_cache(maxsize=4096)
def _hash_of(path: Path, size: int, changed: int) -> str:
    return hash_of_file(path)


def store_image(folder: Path, image: Image) -> Path:
    """Where an image lies for whoever computes; its name is the hash of what it holds."""
    tensors = {"data": image.data.contiguous(), "affine": torch.tensor(image.grid.affine)}
    if image.valid is not None:
        tensors["valid"] = image.valid.contiguous()
    state = sha256(f"{image.modality} {image.grid.shape}".encode())
    for tensor in tensors.values():
        state.update(tensor.numpy().data)
    path = folder / f"image-{state.hexdigest()[:KEY_LENGTH]}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"name": image.name, **({} if image.modality is None else {"modality": image.modality})}
        with atomic_write(path) as part:
            part.write_bytes(save(tensors, metadata))
    return path


@lru_cache(maxsize=IMAGES_AT_HAND)
def stored_image(path: Path) -> Image:
    """What ``store_image`` wrote; a process reads it once for many atlases."""
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata() or {}, file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    grid = Grid(tuple(tensors["data"].shape[1:]), tensors["affine"].numpy())
    return Image(tensors["data"], grid, metadata.get("modality"), tensors.get("valid"), metadata.get("name", ""))


def state_of_model(model: Model) -> str:
    """Weights and settings."""
    return digest(model.card.weights_sha256, model.method.settings.model_dump_json())


def store_model(folder: Path, model: Model) -> Path:
    """Where a model lies for whoever computes, as it is to be used."""
    card = model.card
    path = folder / f"model-{state_of_model(model)[:KEY_LENGTH]}"
    if not (path / "model.json").exists():
        kept = ("pairs", "modality", "spacings", "appearance", "licence", "intended_use")
        facts = {name: getattr(card, name) for name in kept}
        write_model(path, model.method, card.method, card.plan, facts=facts)
    return path


@lru_cache(maxsize=2)
def stored_model(path: Path, device: str) -> Model:
    """What ``store_model`` wrote; a process reads it once."""
    return read_model(path, device)
