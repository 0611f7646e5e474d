"""One target of a multi-atlas segmentation, from what is asked to what may be fused."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor

from anamorph.data.cohort import Scan, subject_of
from anamorph.data.fingerprint import is_ct
from anamorph.data.image import Image, Labelmap
from anamorph.errors import AnamorphWarning, InputError, warn
from anamorph.inference.multi_atlas_cache import Entry, state_of_file, store_image, stored_image
from anamorph.inference.multi_atlas_jobs import Alignment, Facts, Job, Registration, Weighing
from anamorph.inference.multi_atlas_region import Box, cropped, region_about
from anamorph.inference.multi_atlas_work import coarse
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid

RegionRule = Literal["coarse", "gold", "none"]
"""Where fine registrations and the fusion work. coarse: found by the coarse alignments. gold: the box of the target's
true labels, as the paper has it, for comparisons. none: everywhere."""
REGION_SHARE = 0.25
"""Share of the coarsely aligned atlases that have a label somewhere, from which it belongs to the region."""
SHOWN = 8
"""Labels that a warning lists."""


@dataclass(frozen=True, eq=False)
class Target:
    """An image to label.

    Args:
        name: in messages and tables.
        image: reads it, or hands it over.
        truth: the same for its labels on the same grid, which the region rule "gold" asks for.
        file: of the image, so that it is not an atlas of itself.
        subject: whose atlases are left out, as ``cohort.subject_of`` names it; for an image of the atlases' own cohort.
    """

    name: str
    image: Callable[[], Image]
    truth: Callable[[], Labelmap] | None = None
    file: Path | None = None
    subject: str | None = None


@dataclass(frozen=True)
class AtlasFacts:
    """What one atlas did for one target.

    Args:
        name: of the scan.
        rank: by likeness after the coarse alignment, from 1; None where nothing was aligned.
        similarity: normalised mutual information there, 1 to 2.
        used: whether it took part in the fusion.
        seconds: of its alignment and registration, when they were done.
        cached: whether they had been done before.
        kept: the most general stage of the pairwise engine whose result was kept.
        agreement: mean Dice of its warped labels with the fused ones.
        warnings: told on the way.
        failure: why it could not take part.
    """

    name: str
    rank: int | None = None
    similarity: float | None = None
    used: bool = False
    seconds: float = 0.0
    cached: bool = False
    kept: str = ""
    agreement: float | None = None
    warnings: tuple[str, ...] = ()
    failure: str = ""


class Arrays(Sequence[Tensor]):
    """One array of every entry, looked up at each access and mapped from the disk."""

    def __init__(self, entries: Sequence[Entry], name: str, device: torch.device) -> None:
        self._entries, self._name, self._device = entries, name, device

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Arrays: ...
    def __getitem__(self, place: int | slice) -> Tensor | Arrays:
        if isinstance(place, slice):
            return Arrays(self._entries[place], self._name, self._device)
        return self._entries[place].array(self._name).to(self._device)


@dataclass(eq=False)
class Case:
    """What is known of a target so far.

    Args:
        target: as asked.
        atlases: by name.
        cache: folder.
        grid: of the image.
        coarse: file of the image in few voxels.
        whole: file of all of it, where a model asks for it.
        box: the region.
        facts: of each finished job, by kind and atlas.
        failures: why an atlas does not take part any more.
        order: atlases by rank.
        chosen: those that are registered.
    """

    target: Target
    atlases: dict[str, Scan]
    cache: Path
    grid: Grid = field(init=False)
    coarse: Path = field(init=False)
    whole: Path | None = None
    box: Box = field(init=False)
    facts: dict[tuple[type[Job], str], Facts] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)

    def look(self, keep_whole: bool, rule: RegionRule, check: Callable[[Image], None]) -> None:
        """Read the target, and lay it down in few voxels; leave it and its subject out of its own atlases.

        Args:
            keep_whole: whether all of it is laid down as well.
            rule: for the region, which may need true labels.
            check: refuses an image that no atlas could be brought onto.

        Raises:
            InputError: E-ATL-015, no true labels for the region.
            AnamorphError: of ``check``.
        """
        if rule == "gold" and self.target.truth is None:
            found = "the region is to be that of the true labels, and there are none"
            raise InputError("E-ATL-015", found, file=self.target.name, do="give labels, or another region")
        image = self.target.image()
        check(image)
        self.grid = image.grid
        self.coarse = store_image(self.cache, coarse(_for_engine(image)))
        if keep_whole:
            self.whole = store_image(self.cache, image)
        self.chosen = list(self.atlases)
        own = None if self.target.file is None else state_of_file(self.target.file)
        self.leave_subject_out()
        for name, scan in list(self.atlases.items()):
            try:
                same = state_of_file(scan.image) == own
            except InputError as error:
                self.take(Alignment, name, error)
                continue
            if same:
                warn("W-ATL-005", f"the atlas {name} is this very image, and left out", file=self.target.name)
                self.chosen.remove(name)
                del self.atlases[name]
        self.refuse_none_left()

    def leave_subject_out(self) -> None:
        """Other sessions and modalities of whom the target shows are no atlases of other people.

        Warns:
            W-ATL-008.
        """
        own = [name for name, scan in self.atlases.items() if subject_of(scan.case) == self.target.subject]
        for name in own:
            self.chosen.remove(name)
            del self.atlases[name]
        if own:
            verb = "is" if len(own) == 1 else "are"
            warn("W-ATL-008", f"{', '.join(own)} {verb} of the same subject, and left out", file=self.target.name)

    def image(self) -> Image:
        """The target once more; what there is to tell of it was told when it was looked at."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AnamorphWarning)
            return self.target.image()

    def alignments(self, settings: PairwiseSettings, device: str) -> dict[str, Job]:
        """A job for each atlas."""
        return {name: Alignment(self.coarse, self.atlases[name], self.cache, settings, device) for name in self.chosen}

    def take(self, kind: type[Job], name: str, found: Facts | Exception) -> None:
        """Note how a job ended."""
        if isinstance(found, Facts):
            self.facts[kind, name] = found
            return
        reason = str(found) or type(found).__name__
        self.failures[name] = reason
        self.chosen.remove(name)
        warn("W-ATL-004", f"the atlas {name} does not take part: {reason}", file=self.target.name)

    def rank(self, select: int | None) -> None:
        """Order the aligned atlases by likeness, and choose the first.

        Args:
            select: how many; all if absent.
        """
        self.refuse_none_left()
        self.order = sorted(self.chosen, key=lambda name: -self.facts[Alignment, name].similarity)
        self.chosen = self.order[:select]

    def find_region(self, rule: RegionRule, margin_mm: float, jobs: Mapping[str, Job]) -> None:
        """Decide where to look closer.

        Args:
            rule: how.
            margin_mm: room about what is found.
            jobs: the alignments.
        """
        self.box = (0,) * self.grid.ndim, self.grid.shape
        if rule == "none":
            return
        if rule == "gold":
            assert self.target.truth is not None  # or it was refused
            truth = self.target.truth()
            box = region_about(truth.data != 0, truth.grid, self.grid, margin_mm)
        else:
            seen = stored_image(self.coarse).grid
            votes = torch.zeros(seen.shape)
            for name in self.chosen:
                votes += jobs[name].entry.array("foreground")
            box = region_about(votes / len(self.chosen) >= REGION_SHARE, seen, self.grid, margin_mm)
        if box is None:
            warn(
                "W-ATL-006", "no region is found where labels are; all of the image is looked at", file=self.target.name
            )
            return
        self.box = box

    @property
    def region(self) -> Grid:
        """Grid of the box."""
        return self.grid.cropped(*self.box)

    @property
    def region_file(self) -> Path:
        """The image in the box, as the pairwise engine takes it."""
        return store_image(self.cache, _for_engine(cropped(self.image(), self.box)))

    def registrations(self, base: Registration, with_matrix: bool) -> dict[str, Job]:
        """A job for each chosen atlas.

        Args:
            base: what is the same for all.
            with_matrix: whether they begin with the alignment.
        """
        return {
            name: replace(
                base,
                atlas=self.atlases[name],
                matrix=self.facts[Alignment, name].matrix if with_matrix else None,
            )
            for name in self.chosen
        }

    def refuse_none_left(self) -> None:
        """Refuse to go on without atlases.

        Raises:
            InputError: E-ATL-012.
        """
        if self.chosen:
            return
        why = "; ".join(f"{name}: {reason}" for name, reason in list(self.failures.items())[:2])
        expected = "one with image and labels at least"
        raise InputError(
            "E-ATL-012", f"no atlas is left ({why or 'none was given'})", file=self.target.name, expected=expected
        )

    def question_labels(self) -> None:
        """Tell where atlases have different labels: those without one vote against it.

        Warns:
            W-FUS-002.
        """
        sets = [self.facts[Registration, name].known for name in self.chosen]
        counts = Counter(label for known in sets for label in known)
        some = [f"{label} in {count} of {len(sets)}" for label, count in sorted(counts.items()) if count < len(sets)]
        if some:
            more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
            found = f"labels that not every atlas has: {', '.join(some[:SHOWN])}{more}; the others vote against them"
            warn("W-FUS-002", found, file=self.target.name)

    def told(self, agreement: Mapping[str, float]) -> tuple[AtlasFacts, ...]:
        """What each atlas did, the used ones first, by rank."""
        rows = [self._told(name, agreement.get(name)) for name in self.atlases]
        return tuple(sorted(rows, key=lambda row: (not row.used, row.rank or len(rows) + 1, row.name)))

    def _told(self, name: str, agreement: float | None) -> AtlasFacts:
        done = [self.facts[kind, name] for kind in (Alignment, Registration, Weighing) if (kind, name) in self.facts]
        aligned, registered = (self.facts.get((kind, name)) for kind in (Alignment, Registration))
        return AtlasFacts(
            name,
            self.order.index(name) + 1 if name in self.order else None,
            None if aligned is None else aligned.similarity,
            name in self.chosen,
            round(sum((facts.seconds for facts in done), 0.0), 3),
            bool(done) and all(facts.cached for facts in done),
            "" if registered is None else registered.kept,
            agreement,
            tuple(line for facts in done for line in facts.warnings),
            self.failures.get(name, ""),
        )


def _for_engine(image: Image) -> Image:
    """As the pairwise engine knows it: a CT is "ct"."""
    return replace(image, modality="ct") if image.modality is not None and is_ct(image.modality) else image
