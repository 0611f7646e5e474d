"""A prepared cohort on disk: plan, index, and one file of tensors a scan.

=============================  ==========================================================================
file                           holds
=============================  ==========================================================================
``plan.yaml``                  the ``Plan``
``index.json``                 every scan and listed pair, grids, source files (relative) and their hashes
``tensors/NAME.safetensors``   ``image`` float32 C I J (K); ``labels`` uint8 or int16 I J (K), classes of the
                               plan; ``mask`` uint8 I J (K); on the network's grid
=============================  ==========================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from anamorph.data.cohort import Cohort, Pair, Scan
from anamorph.data.configuration import load
from anamorph.data.plan import Plan
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid

INDEX_VERSION = 1


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan on the network's grid.

    Args:
        scan: where it comes from; its files are absolute paths.
        grid: the network's grid in the scan's own world, alignment included: a voxel of the tensors lies at
            ``grid.to_world(voxel)`` in the original image, so the affine may shear.
        native: the original image's grid.
        file: its tensors.
        classes: the plan's classes (1, 2, ...) that its labels hold; None without labels.
    """

    scan: Scan
    grid: Grid
    native: Grid
    file: Path
    classes: tuple[int, ...] | None

    @property
    def name(self) -> str:
        """``case_modality``."""
        return self.scan.name

    def load(self) -> dict[str, Tensor]:
        """``image`` and, where there are any, ``labels`` and ``mask``."""
        return load_file(self.file)


@dataclass(frozen=True, eq=False)
class PreparedCohort:
    """What ``prepare`` left in a folder."""

    folder: Path
    plan: Plan
    scans: tuple[PreparedScan, ...]
    listed: tuple[Pair, ...]

    @classmethod
    def open(cls, folder: Path) -> PreparedCohort:
        """Read plan and index.

        Raises:
            InputError: E-IO-001, the folder holds no prepared cohort; E-COH-010, its index cannot be read.
        """
        index = folder / "index.json"
        if not index.is_file():
            found, do = "no index.json" if folder.is_dir() else "no such folder", "run anamorph prepare to its end"
            raise InputError("E-IO-001", found, file=folder, expected="a prepared cohort", do=do)
        plan = load(Plan, folder / "plan.yaml")
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            if content["version"] != INDEX_VERSION:
                raise ValueError(f"version {content['version']}")
            scans = tuple(_scan_from(row, folder) for row in content["scans"])
            of = {found.name: found.scan for found in scans}
            listed = tuple(
                Pair(of[row["fixed"]], of[row["moving"]], _path(row["displacement"], folder))
                for row in content["pairs"]
            )
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            raise InputError("E-IO-001", reason, file=index, expected="a prepared cohort") from error
        except (ValueError, KeyError, TypeError) as error:
            found = f"no index of a prepared cohort ({error})"
            raise InputError("E-COH-010", found, file=index, do="run anamorph prepare again") from error
        return cls(folder, plan, scans, listed)

    @cached_property
    def by_name(self) -> Mapping[str, PreparedScan]:
        """``case_modality`` -> scan."""
        return {scan.name: scan for scan in self.scans}

    @property
    def cohort(self) -> Cohort:
        """The cohort it was made from."""
        return Cohort(self.folder, tuple(found.scan for found in self.scans), self.listed)


def write_index(
    folder: Path, scans: Sequence[PreparedScan], listed: Sequence[Pair], facts: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write ``index.json``, atomically; ``facts`` adds what is known of a scan by its name, as hashes."""
    from anamorph.data.files import atomic_write

    content = {
        "version": INDEX_VERSION,
        "scans": [_row_of(found, folder) | {"facts": dict(facts.get(found.name, {}))} for found in scans],
        "pairs": [
            {
                "fixed": pair.fixed.name,
                "moving": pair.moving.name,
                "displacement": _relative(pair.displacement, folder),
            }
            for pair in listed
        ],
    }
    with atomic_write(folder / "index.json") as part:
        part.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


FILES = ("image", "labels", "mask", "landmarks")


def _row_of(found: PreparedScan, folder: Path) -> dict[str, Any]:
    scan = found.scan
    return {
        "case": scan.case,
        "modality": scan.modality,
        "split": scan.split,
        **{name: _relative(getattr(scan, name), folder) for name in FILES},
        "tensors": _relative(found.file, folder),
        "classes": found.classes,
        "grid": {"shape": found.grid.shape, "affine": found.grid.affine.tolist()},
        "native": {"shape": found.native.shape, "affine": found.native.affine.tolist()},
    }


def _scan_from(row: Mapping[str, Any], folder: Path) -> PreparedScan:
    image, tensors = _path(row["image"], folder), _path(row["tensors"], folder)
    if image is None or tensors is None:
        raise ValueError("a scan without image")
    others = {name: _path(row[name], folder) for name in FILES[1:]}
    scan = Scan(row["case"], row["modality"], image, **others, split=row["split"])
    grid, native = (Grid(tuple(row[key]["shape"]), np.array(row[key]["affine"])) for key in ("grid", "native"))
    classes = None if row["classes"] is None else tuple(row["classes"])
    return PreparedScan(scan, grid, native, tensors, classes)


def _relative(path: Path | None, folder: Path) -> str | None:
    return None if path is None else Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _path(text: str | None, folder: Path) -> Path | None:
    return None if text is None else (folder / text).resolve()
