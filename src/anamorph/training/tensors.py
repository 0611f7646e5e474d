"""One scan from its files to a file of tensors, unless that is there already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.files import atomic_write, check_same_space, read, read_labels, read_mask, sha256
from anamorph.data.guard import check_readable
from anamorph.data.image import Image, Labelmap, Mask, ReadPolicy
from anamorph.data.network_grid import image_to_network, labels_to_network, mask_to_network, network_grid
from anamorph.data.plan import Plan
from anamorph.data.prepared import PreparedScan
from anamorph.data.transform_files import write_transform
from anamorph.errors import IntegrityError, warn
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine
from anamorph.training.alignment import ENGINE, align, given_alignment

VERSION = 1
"""Of the computation: another number makes every scan new."""

SOURCES = ("image", "labels", "mask")
ENTRY = "anamorph"
"""Of the file's metadata, which says what it was made from."""


@dataclass(frozen=True)
class Sources:
    """What a scan's files hold, and when they were last written.

    Args:
        hashes: sha256 of each file, by its role.
        stamps: time and size.
    """

    hashes: Mapping[str, str]
    stamps: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, scan: Scan) -> Sources:
        """Read all files of a scan once.

        Raises:
            InputError: E-IO-001, E-IO-002, one of them cannot be read.
        """
        files = files_of(scan)
        for file in files.values():
            check_readable(file)
        stamps = {role: _stamp(file) for role, file in files.items()}
        return cls({role: sha256(file) for role, file in files.items()}, stamps)


def files_of(scan: Scan) -> dict[str, Path]:
    """The files whose voxels are prepared, by their roles."""
    found = {role: getattr(scan, role) for role in SOURCES}
    return {role: file for role, file in found.items() if file is not None}


class Reader:
    """A scan's voxels, read when they are first asked for.

    Raises:
        InputError: a file cannot be trusted; E-GEO-015, labels that lie elsewhere than the image.
        IntegrityError: E-IO-027, a file is not what it was when it was hashed.
    """

    def __init__(self, scan: Scan, sources: Sources, policy: ReadPolicy) -> None:
        self.scan, self.sources, self.policy = scan, sources, policy

    @cached_property
    def image(self) -> Image:
        """With the scan's modality."""
        image = read(self.scan.image, self.policy, self.scan.modality)
        self._check("image", self.scan.image)
        return image

    @cached_property
    def mask(self) -> Mask | None:
        """On the image's grid."""
        if self.scan.mask is None:
            return None
        mask = read_mask(self.scan.mask, self.image.grid, self.policy)
        self._check("mask", self.scan.mask)
        return mask

    @property
    def labels(self) -> Labelmap | None:
        """On the image's grid."""
        if self.scan.labels is None:
            return None
        labels = read_labels(self.scan.labels, self.policy)
        self._check("labels", self.scan.labels)
        check_same_space(self.image.grid, labels.grid, self.scan.labels)
        return labels

    def _check(self, role: str, file: Path) -> None:
        if _stamp(file) != self.sources.stamps[role]:
            raise IntegrityError("E-IO-027", "it changed while the cohort was prepared", file=file, do="run again")


@dataclass(frozen=True)
class Alignment:
    """How a scan is aligned.

    Args:
        reference: the scan that it is aligned to by the engine; None where the transform is given.
        folder: of given transforms.
        middle: of the network's grid, in the reference's world; None for the plan's.
    """

    reference: Reader | None = None
    folder: Path | None = None
    middle: np.ndarray | None = None

    def key(self, reader: Reader) -> str:
        """What its result depends on."""
        if self.reference is None:
            return _digest(self.find(reader).matrix.tolist())
        sides = [(side.scan.modality, _voxels(side.sources)) for side in (self.reference, reader)]
        return _digest([VERSION, ENGINE.model_dump(mode="json"), sides])

    def find(self, reader: Reader) -> Affine:
        """Reference world -> the scan's world."""
        if self.reference is None:
            return given_alignment(self.folder or Path(), reader.scan)
        return align(self.reference.image, reader.image, self.reference.mask, reader.mask)


def prepare_scan(
    reader: Reader,
    plan: Plan,
    folder: Path,
    alignment: Alignment | None,
    warnings: Sequence[str],
    before: str | None,
) -> tuple[PreparedScan, dict[str, Any]]:
    """The scan on the network's grid, as ``tensors/NAME.safetensors``.

    Args:
        reader: of the scan.
        plan: what is done to it.
        folder: of the prepared cohort.
        alignment: where there is one.
        warnings: a list that those about this scan are added to meanwhile; kept with the tensors.
        before: sha256 that the file had when the cohort was last prepared; another one is made anew.

    Returns:
        The scan, and what the index says of it besides.
    """
    scan = reader.scan
    file = folder / "tensors" / f"{scan.name}.safetensors"
    alignment_key = "" if alignment is None else alignment.key(reader)
    key = _digest(_recipe(reader, plan, alignment_key))
    known = _known(file)
    digest = sha256(file) if known.get("key") == key else ""
    if not digest or before not in (None, digest):
        known = _make(reader, plan, folder, alignment, known if known.get("alignment_key") == alignment_key else {})
        known |= {"key": key, "alignment_key": alignment_key, "warnings": list(dict.fromkeys(warnings))}
        tensors = known.pop("tensors")
        with atomic_write(file) as part:
            save_file(tensors, part, {ENTRY: json.dumps(known, allow_nan=False)})
        digest = sha256(file)
    grid, native = (Grid(tuple(known[name]["shape"]), np.array(known[name]["affine"])) for name in ("grid", "native"))
    classes = None if known["classes"] is None else tuple(known["classes"])
    facts = {"sources": dict(reader.sources.hashes), "tensors": digest} | {
        name: known[name] for name in ("alignment", "warnings")
    }
    return PreparedScan(scan, grid, native, file, classes), facts


def _make(
    reader: Reader, plan: Plan, folder: Path, alignment: Alignment | None, known: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors of a scan, and what they were made by; an alignment that is known already is not found again."""
    image, mask, matrix = reader.image, reader.mask, None
    if alignment is not None:
        found = known.get("alignment")
        matrix = alignment.find(reader) if found is None else Affine(np.array(found))
        if alignment.folder != folder / "alignment":
            write_transform(matrix, folder / "alignment" / f"{reader.scan.name}.tfm", overwrite=True)
    grid = network_grid(image, plan, matrix, middle=None if alignment is None else alignment.middle)
    tensors = {"image": image_to_network(image, plan, grid, mask).contiguous()}
    if bool(tensors["image"].min() == tensors["image"].max()):
        warn("W-COH-044", "shows nothing on the network's grid: all values are alike", file=reader.scan.image)
    seen = _use(image, mask)
    if seen is not None:
        tensors["mask"] = mask_to_network(seen, image.grid, grid).to(torch.uint8)
    classes = None
    labels = reader.labels
    if labels is not None:
        tensors["labels"] = _stored(labels_to_network(labels, plan, grid), plan)
        classes = _classes(labels, tensors["labels"], plan)
    return {
        "tensors": tensors,
        "alignment": None if matrix is None else matrix.matrix.tolist(),
        "grid": {"shape": grid.shape, "affine": grid.affine.tolist()},
        "native": {"shape": image.grid.shape, "affine": image.grid.affine.tolist()},
        "classes": classes,
    }


def _use(image: Image, mask: Mask | None) -> Tensor | None:
    """Where both the mask and the file's values say that there is something; None for everywhere."""
    if mask is None:
        return image.valid
    return mask.data if image.valid is None else mask.data & image.valid


def _stored(classes: Tensor, plan: Plan) -> Tensor:
    return classes.to(torch.uint8 if len(plan.labels) < 256 else torch.int16)


def _classes(labels: Labelmap, classes: Tensor, plan: Plan) -> list[int]:
    """The classes on the network's grid; warns of labels that the plan does not know, and of those that got lost."""
    present = [int(number) for number in torch.unique(classes) if number > 0]
    kept = {list(plan.labels)[number - 1] for number in present}
    native = {plan.learn_as.get(label, label) for label in labels.values()} - {0}
    unknown, lost = sorted(native - set(plan.labels)), sorted(native & set(plan.labels) - kept)
    if unknown:
        warn("W-COH-045", f"label {_listed(unknown)} is not in the plan: background", file=labels.name)
    if lost:
        warn("W-COH-046", f"label {_listed(lost)} has no voxel left on the network's grid", file=labels.name)
    return present


def _listed(values: Sequence[int], most: int = 8) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


def _recipe(reader: Reader, plan: Plan, alignment_key: str) -> list[Any]:
    """All that decides a scan's tensors: names of labels and other modalities' intensities do not."""
    return [
        VERSION,
        dict(reader.sources.hashes),
        plan.modalities[reader.scan.modality].model_dump(mode="json"),
        [plan.orientation, plan.spacing, plan.shape, plan.centre, plan.middle, plan.channels, *(plan.offset or ())],
        _learnt(plan) if reader.scan.labels is not None else None,
        alignment_key,
    ]


def _learnt(plan: Plan) -> list[Any]:
    """The labels in order, then those that count as others, where there are any."""
    return [*plan.labels, *([sorted(plan.learn_as.items())] if plan.learn_as else [])]


def _voxels(sources: Sources) -> list[str | None]:
    return [sources.hashes.get(role) for role in ("image", "mask")]


def _known(file: Path) -> dict[str, Any]:
    """What a file of tensors was made from; nothing where it is absent or none."""
    try:
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {}).get(ENTRY, "{}"))
    except (OSError, SafetensorError, ValueError):
        return {}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size
