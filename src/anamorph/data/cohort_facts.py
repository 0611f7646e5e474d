"""What the files of one scan hold, each read once, and whether they belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.diagnosis import Content, FileFacts, Problem, describe, problems_of
from anamorph.data.files import check_same_space
from anamorph.data.image import Image, Labelmap, Landmarks, Mask, ReadPolicy
from anamorph.data.landmark_files import read_landmarks
from anamorph.spatial.grid import Grid

VOXELS_LOOKED_AT = 100_000
"""Percentiles are taken from about so many, evenly spread."""
LIMITS = (1, 99)
"""Percentiles that say what range the values have."""
MOST_COUNTED = 1 << 16
"""Labels from 0 up to here are counted in one pass; others are sorted."""


@dataclass(eq=False)
class Reading:
    """What one file of voxels holds.

    Args:
        facts: of the file.
        digest: SHA-256 of an image's values, whatever the format or the header.
        limits: 1st and 99th percentile of an image's values.
        volumes: mm^d of each label but 0.
    """

    facts: FileFacts
    digest: str = ""
    limits: tuple[float, float] | None = None
    volumes: dict[int, float] | None = None

    def look(self, item: Image | Labelmap | Mask) -> None:
        """Take down what is told of the voxels."""
        if isinstance(item, Image):
            values = item.data.numpy()
            digest = hashlib.sha256(str(values.shape).encode())
            digest.update(np.ascontiguousarray(values).data)
            self.digest = digest.hexdigest()
            step = max(1, values.size // VOXELS_LOOKED_AT)
            low, high = np.percentile(values.reshape(-1)[::step], LIMITS)
            self.limits = float(low), float(high)
        elif isinstance(item, Labelmap):
            counts = _counts(item.data)
            self.volumes = {label: n * item.grid.voxel_volume for label, n in counts.items() if label != 0}


@dataclass(eq=False)
class ScanFacts:
    """What is known of a scan.

    Args:
        scan: which.
        readings: of its files of voxels, by what they hold: image, labels, mask.
        landmarks: those that could be read.
        problems: of its files, of how they fit together, and of how they differ from the other scans'.
    """

    scan: Scan
    readings: dict[str, Reading] = field(default_factory=dict)
    landmarks: Landmarks | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def image(self) -> Reading:
        """Of its image."""
        return self.readings["image"]

    @property
    def grid(self) -> Grid | None:
        """Its image's."""
        return self.image.facts.grid

    @property
    def volumes(self) -> dict[int, float] | None:
        """mm^d of each label but 0, where it has labels that can be read."""
        return self.readings["labels"].volumes if "labels" in self.readings else None

    @property
    def refused(self) -> bool:
        """Whether something of it would be."""
        return any(problem.severity == "refused" for problem in self.problems)


def describe_scan(scan: Scan, policy: ReadPolicy, seen: dict[tuple[str, Path], Reading]) -> ScanFacts:
    """Everything about one scan; what would be refused is told, not raised.

    Args:
        scan: which.
        policy: how to answer what its files leave open.
        seen: readings of files that scans may share, by content and path; those of this scan are added.
    """
    facts = ScanFacts(scan)
    for content in get_args(Content):
        if content in scan.files:
            place = content, scan.files[content]
            if place not in seen:
                seen[place] = _read(place[1], policy, content)
            facts.readings[content] = seen[place]
            facts.problems += seen[place].facts.problems
    grid = facts.grid
    for content in ("labels", "mask"):
        other = facts.readings[content].facts.grid if content in facts.readings else None
        if grid is not None and other is not None:
            facts.problems += _apart(grid, other, scan.files[content])
    if facts.volumes == {}:
        name = scan.files["labels"].name
        facts.problems.append(warning("W-COH-013", f"{name}: no voxel has a label"))
    if scan.landmarks is not None:
        facts.problems += problems_of(_landmarks(facts, scan.landmarks))
    return facts


def warning(code: str, message: str) -> Problem:
    """A problem that a cohort is read in spite of."""
    return Problem(code, "warning", f"{code}: {message}", False)


def _read(file: Path, policy: ReadPolicy, content: str) -> Reading:
    reading = Reading(FileFacts(file.name))
    reading.facts = describe(file, policy, cast("Content", content), reading.look)
    return reading


def _apart(image: Grid, other: Grid, file: Path) -> list[Problem]:
    """What is wrong with a file that lies on another grid than its image."""
    problems = problems_of(lambda: check_same_space(image, other, file))
    if image.ndim == other.ndim and image.shape != other.shape:
        millimetres = image.distance_mm(other.resized(image.shape))
        text = f"(the fields of view end {millimetres:.3g} mm apart)"
        problems = [replace(problem, message=f"{problem.message} {text}") for problem in problems]
    return problems


def _landmarks(facts: ScanFacts, file: Path) -> Callable[[], None]:
    def read() -> None:
        facts.landmarks = read_landmarks(file, facts.grid)

    return read


def _counts(labels: Tensor) -> dict[int, int]:
    """Voxels of each label present."""
    values = labels.numpy().reshape(-1)
    if values.min() >= 0 and values.max() < MOST_COUNTED:
        counts = np.bincount(values)
        return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    return {int(label): int(count) for label, count in zip(*np.unique(values, return_counts=True), strict=True)}
