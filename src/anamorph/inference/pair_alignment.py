"""The affine alignment of a pair that models and other tools begin with: found once, and kept on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from anamorph.data.cohort import Pair
from anamorph.data.files import atomic_write, file_state, read
from anamorph.inference.cost import Cost, measured
from anamorph.inference.register_model import ALIGNMENT, aligned
from anamorph.spatial.transform import Affine


def pair_alignment(pair: Pair, device: str, folder: Path | None = None) -> tuple[Affine, Cost]:
    """What ``register_with`` would begin with, fixed world -> moving world, and what it cost when it was found.

    Args:
        pair: of files.
        device: to compute on.
        folder: where it is kept, for as long as both files, the engine's settings and its version stay the same; in
            memory if absent.
    """
    words = [f"{scan.modality} {file_state(scan.image)}" for scan in (pair.fixed, pair.moving)]
    stamp = _digest(version("anamorph"), ALIGNMENT.model_dump_json(), device, *words)
    if folder is None:
        return _found(pair, device, stamp)
    path = folder / f"{_digest(pair.name, device)[:24]}.json"
    kept = _read(path, stamp)
    if kept is None:
        kept = _found(pair, device, stamp)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            content = {"stamp": stamp, "matrix": kept[0].matrix.tolist(), "cost": asdict(kept[1])}
            part.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return kept


@lru_cache(maxsize=64)
def _found(pair: Pair, device: str, stamp: str) -> tuple[Affine, Cost]:
    """Remembered by the stamp as well, so that files that have changed are aligned anew."""
    fixed, moving = (read(scan.image, modality=scan.modality) for scan in (pair.fixed, pair.moving))
    where = torch.device(device)
    with measured(where) as cost:
        found, _ = aligned(fixed, moving, device=where)
    return found, cost


def _read(path: Path, stamp: str) -> tuple[Affine, Cost] | None:
    """What was written under the same stamp."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Affine(np.array(content["matrix"], dtype=np.float64)), Cost(**content["cost"])
        return found if content["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
