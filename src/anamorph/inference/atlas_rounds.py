"""What is kept of the rounds of an atlas, so that an interrupted build goes on and maps can be exported later.

================================  ==========================================================================
``rounds/NN/template.nii.gz``     the template after the round; 00 is the one that the first begins with
``rounds/NN/seen.nii.gz``         how many cases see each of its voxels; absent where it is no mean
``rounds/NN/round.json``          its cases and facts, written last
``rounds/NN/mean.safetensors``    the mean map that was taken out of the cases' maps
``rounds/NN/maps/CASE...``        ``.safetensors``: the map of each case as it was found; of the last round alone
================================  ==========================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from anamorph.data.files import atomic_write, read, write
from anamorph.data.image import Image
from anamorph.errors import AnamorphError
from anamorph.pairwise.groupwise import Template, parts
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform, Velocity

ROUNDS = "rounds"


def digest(*words: str) -> str:
    """What tells inputs apart."""
    return sha256("\0".join(words).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class StoredMap:
    """A map template -> case, and the case's own grid, where it has one."""

    transform: Transform
    grid: Grid | None = None


@dataclass(frozen=True)
class RoundFolder:
    """The files of one round.

    Args:
        root: of the atlas.
        number: 0 for the start.
    """

    root: Path
    number: int

    @property
    def path(self) -> Path:
        """The folder."""
        return self.root / ROUNDS / f"{self.number:02d}"

    def map_file(self, case: str) -> Path:
        """Where a case's map is."""
        return self.path / "maps" / f"{case}.safetensors"

    @property
    def mean_file(self) -> Path:
        """Where the mean map is."""
        return self.path / "mean.safetensors"

    @property
    def template_file(self) -> Path:
        """Where the template is."""
        return self.path / "template.nii.gz"

    def finish(self, template: Template, grid: Grid, stamp: str, record: Mapping[str, Any]) -> None:
        """Write the template and then the record."""
        self.path.mkdir(parents=True, exist_ok=True)
        write(Image(template.image[None].contiguous(), grid), self.template_file)
        if template.seen is not None:
            write(Image(template.seen[None].contiguous(), grid), self.path / "seen.nii.gz")
        with atomic_write(self.path / "round.json") as part:
            part.write_text(json.dumps({"stamp": stamp, **record}, allow_nan=False), encoding="utf-8")

    def finished(self, stamp: str) -> tuple[Template, dict[str, Any]] | None:
        """The template and the record; None where they are not there or of others."""
        try:
            record = json.loads((self.path / "round.json").read_text(encoding="utf-8"))
            if record.pop("stamp") != stamp:
                return None
            return Template(read(self.template_file).data[0], read(self.path / "seen.nii.gz").data[0]), record
        except (OSError, ValueError, KeyError, AttributeError, AnamorphError):
            return None

    def drop_maps(self) -> None:
        """Delete the cases' maps, which no later round needs."""
        shutil.rmtree(self.path / "maps", ignore_errors=True)


def write_map(path: Path, transform: Transform, stamp: str = "", grid: Grid | None = None) -> None:
    """Write a velocity followed by linear maps, exactly.

    Args:
        path: in a folder that is made where it is not there.
        transform: template -> case.
        stamp: of what it was found from.
        grid: of the case.
    """
    velocity, linear = parts(transform)
    tensors = {"matrix": torch.tensor(linear.matrix)}
    metadata = {"stamp": stamp}
    if velocity is not None:
        tensors |= {"velocity": velocity.velocity.contiguous(), "velocity_affine": torch.tensor(velocity.grid.affine)}
        metadata["squarings"] = str(velocity.steps)
    if grid is not None:
        tensors |= {"case_affine": torch.tensor(grid.affine), "case_shape": torch.tensor(grid.shape)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_bytes(save(tensors, metadata))


def read_map(path: Path, stamp: str | None = None) -> StoredMap | None:
    """What ``write_map`` wrote; None where nothing of that is there, or it has another stamp than the given."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if stamp is not None and metadata.get("stamp") != stamp:
                return None
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        return _map_of(tensors, int(metadata.get("squarings", 1)))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _map_of(tensors: Mapping[str, Tensor], squarings: int) -> StoredMap:
    transform: Transform = Affine(tensors["matrix"].numpy())
    if "velocity" in tensors:
        values = tensors["velocity"]
        field = Velocity(values, Grid(tuple(values.shape[1:]), tensors["velocity_affine"].numpy()), squarings)
        transform = Chain((field, transform))
    if "case_affine" not in tensors:
        return StoredMap(transform)
    shape = tuple(int(n) for n in tensors["case_shape"])
    return StoredMap(transform, Grid(shape, tensors["case_affine"].numpy()))
