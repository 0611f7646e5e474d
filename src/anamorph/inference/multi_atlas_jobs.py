"""What there is to compute of one atlas and one target, as files, numbers and settings alone.

So a job may be done by this process or by any other that sees the same folders (``multi_atlas_work.do``). What it finds
goes into the cache, and only the facts of it travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anamorph.data.cohort import Scan
from anamorph.inference.multi_atlas_cache import Entry, key_of, state_of_scan
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid

Matrix = tuple[tuple[float, ...], ...]
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[tuple[int, Any]]]
"""Does a piece of work on every job and tells place and result, or the exception, as they come."""


@dataclass(frozen=True)
class Facts:
    """What is known of a finished job.

    Args:
        seconds: it took, when it was done.
        cached: whether it had been done before.
        warnings: lines told on the way.
        matrix: of a coarse alignment, target world -> atlas world.
        similarity: normalised mutual information after it, 1 to 2.
        kept: the most general stage of the pairwise engine whose result was kept.
        known: labels that the atlas's file has, without 0.
        labels: those of them that came into the region.
    """

    seconds: float
    cached: bool = False
    warnings: tuple[str, ...] = ()
    matrix: Matrix = ()
    similarity: float = 1.0
    kept: str = ""
    known: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Alignment:
    """An atlas brought near a target, both in few voxels.

    Args:
        target: file of the target in few voxels.
        atlas: with labels.
        cache: folder.
        settings: of the pairwise engine, for a linear map.
        device: "auto", "cpu" or "cuda".
    """

    target: Path
    atlas: Scan
    cache: Path
    settings: PairwiseSettings
    device: str = "auto"

    @property
    def entry(self) -> Entry:
        """Where its result is: ``foreground`` on the target's coarse grid."""
        words = ("align", self.target.name, state_of_scan(self.atlas), self.settings.model_dump_json())
        return Entry(self.cache / key_of(*words))


@dataclass(frozen=True)
class Registration:
    """An atlas brought onto a region of a target.

    Args:
        target: file of the part of the target that is to be compared, or of all of it where a model registers.
        region: grid of the part that is labelled.
        atlas: with labels.
        cache: folder.
        matrix: where to begin, target world -> atlas world; None to search, or to do as a model's training did.
        engine: settings of the pairwise engine, or the folder of a model.
        device: "auto", "cpu" or "cuda".
        max_memory: bytes that a registration stays within.
    """

    target: Path
    region: Grid
    atlas: Scan
    cache: Path
    matrix: Matrix | None
    engine: PairwiseSettings | Path
    device: str = "auto"
    max_memory: int | None = None

    @property
    def entry(self) -> Entry:
        """Where its result is: ``labels`` and ``image`` on the region's grid."""
        engine = self.engine.name if isinstance(self.engine, Path) else self.engine.model_dump_json()
        where = f"{self.region.shape} {self.region.affine.tolist()}"
        words = ("register", self.target.name, state_of_scan(self.atlas), where, repr(self.matrix), engine)
        return Entry(self.cache / key_of(*words))


@dataclass(frozen=True)
class Weighing:
    """How much a network trusts a warped atlas at every voxel of a region.

    Args:
        registration: a finished job.
        target: file of all of the target.
        model: folder of a model with ``similarity``.
    """

    registration: Registration
    target: Path
    model: Path

    @property
    def entry(self) -> Entry:
        """Where its result is: ``weight`` on the region's grid."""
        key = key_of("weigh", self.registration.entry.path.name, self.target.name, self.model.name)
        return Entry(self.registration.cache / key)


Job = Alignment | Registration | Weighing


def one_by_one(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """The ``Map`` of this process."""
    for place, job in enumerate(jobs):
        try:
            yield place, work(job)
        except Exception as error:
            yield place, error
