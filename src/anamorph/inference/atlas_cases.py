"""The cases that an atlas is built from or judged by, one at a time; one that fails is left out."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.files import check_same_space, file_state, read, read_labels
from anamorph.data.image import Image, Labelmap
from anamorph.data.landmark_formats import listed
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError, InputError, ResourceError, warn
from anamorph.pairwise.groupwise import seen_through
from anamorph.pairwise.preparation import Scene, prepare
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Transform, resample

FEWEST_CASES = 2

Result = TypeVar("Result")


def scans_of(cohort: Cohort, split: Split | None, modality: str | None) -> tuple[Scan, ...]:
    """The scans to build from or to judge by: one modality, of one split or of all.

    Raises:
        ConfigurationError: E-ATL-006, the modality is open or not there.
        InputError: E-ATL-002, fewer than two.
    """
    part = cohort if split is None else cohort.of_split(split)
    there = part.modalities
    if (modality is None and len(there) > 1) or (modality is not None and modality not in there):
        found = f"modalities {', '.join(there)}" if modality is None else f"no modality {modality!r}"
        expected = "one" if modality is None else ", ".join(there)
        raise ConfigurationError("E-ATL-006", found, expected=expected, do="choose one with --modality")
    scans = tuple(scan for scan in part.scans if modality in (None, scan.modality))
    if len(scans) < FEWEST_CASES:
        raise too_few(len(scans), {})
    return scans


class Look(NamedTuple):
    """What is known of a case before anything is aligned: its grid, the centre of what is bright, its labels."""

    grid: Grid
    centre: np.ndarray
    labels: set[int]


@dataclass(eq=False)
class Cases:
    """The cases that still have a part in what is computed.

    Args:
        scans: by name.
        progress: told the stage, and the share of the cases that are done.
        left_out: name -> why.
    """

    scans: dict[str, Scan]
    progress: Progress | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def each(self, stage: str, work: Callable[[Scan], Result]) -> Iterator[tuple[Scan, Result]]:
        """What ``work`` makes of every case; one that fails is left out from here on.

        Raises:
            InputError: E-ATL-002, fewer than two are left.
        """
        scans = list(self.scans.values())
        for place, scan in enumerate(scans):
            if self.progress is not None:
                self.progress(stage, place / len(scans))
            try:
                with warnings.catch_warnings():  # of single cases are the case's own business
                    warnings.simplefilter("ignore", AnamorphWarning)
                    result = work(scan)
            except ResourceError:  # memory or disk, which the next case would meet too
                raise
            except (AnamorphError, ValueError, np.linalg.LinAlgError) as error:
                self.leave_out({scan.name: str(error) or type(error).__name__})
                continue
            yield scan, result
        if self.progress is not None:
            self.progress(stage, 1.0)
        self.refuse_too_few()

    def refuse_too_few(self) -> None:
        """Refuse to go on with fewer than two.

        Raises:
            InputError: E-ATL-002.
        """
        if len(self.scans) < FEWEST_CASES:
            raise too_few(len(self.scans), self.left_out)

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Go on without some cases, and say why."""
        for name, why in reasons.items():
            warn("W-ATL-001", f"{name} is left out: {why}")
            self.left_out[name] = why
            self.scans.pop(name, None)


@dataclass(eq=False)
class GroupCases(Cases):
    """The cases that still have a part in a group-wise atlas: read, normalised, warped.

    Args:
        ct_window: low and high HU that are kept of a CT.
    """

    ct_window: tuple[float, float] = field(kw_only=True)

    def keep_one_dimension(self, grids: Mapping[str, Grid]) -> None:
        """Leave out 2-D cases among 3-D ones, or the other way round, whichever are fewer.

        Args:
            grids: of all cases, by name.

        Raises:
            InputError: E-ATL-002, fewer than two are left.
        """
        counts = Counter(grids[name].ndim for name in self.scans)
        ((usual, count),) = counts.most_common(1)
        others = [name for name in self.scans if grids[name].ndim != usual]
        self.leave_out({name: f"{grids[name].ndim}-D, {count} cases are {usual}-D" for name in others})
        self.refuse_too_few()

    def look_at(self, scan: Scan, reference: Image | None) -> Look:
        """Read all of a case once.

        Raises:
            ValueError: it is of another dimension than the reference; else as in ``read`` and ``prepare``.
        """
        image, labels = read(scan.image, modality=scan.modality), labels_of(scan)
        if reference is not None and reference.grid.ndim != image.grid.ndim:
            raise ValueError(f"{image.grid.ndim}-D, the reference is {reference.grid.ndim}-D")
        return Look(image.grid, self.scene(image).centre, set() if labels is None else set(labels.values()) - {0})

    def scene(self, image: Image) -> Scene:
        """An image in the common range of intensities."""
        return prepare(image.data[0], image.grid, image.valid, image.modality, self.ct_window)

    def seen(self, scan: Scan, transform: Transform, grid: Grid) -> tuple[Tensor, Tensor]:
        """A case's normalised image on another grid, 1 I J (K), and how much of each voxel it sees."""
        return seen_through(self.scene(read(scan.image, modality=scan.modality)), transform, grid)


def question_labels(labelled: Mapping[str, set[int]], names: Mapping[int, str]) -> None:
    """Tell of labels that some labelled cases have and others lack.

    Args:
        labelled: case -> its labels, of those that have a labelmap.
        names: of the labels.

    Warns:
        W-ATL-002: which, and in how many cases they are.
    """
    counts = Counter(value for values in labelled.values() for value in values)
    some = [
        f"{names.get(value, 'label')} ({value}) in {count} of {len(labelled)}"
        for value, count in sorted(counts.items())
        if count < len(labelled)
    ]
    if some:
        warn("W-ATL-002", f"not in every labelled case: {listed(some)}; elsewhere it counts as absent")


def too_few(count: int, left_out: Mapping[str, str]) -> InputError:
    """The refusal of what is no group."""
    why = f"; {next(iter(left_out))}: {next(iter(left_out.values()))}" if left_out else ""
    found = f"{count} usable case{'s' * (count != 1)}{why}"
    return InputError("E-ATL-002", found, expected=f"at least {FEWEST_CASES}", do="see --split and --modality")


def labels_of(scan: Scan) -> Labelmap | None:
    """A scan's labels, which lie on its image's grid.

    Raises:
        InputError: E-GEO-015, they do not; else as in ``read_labels``.
    """
    if scan.labels is None:
        return None
    labels = read_labels(scan.labels)
    check_same_space(read(scan.image, modality=scan.modality).grid, labels.grid, scan.labels)
    return labels


def soft_labels(labels: Labelmap, values: Sequence[int], transform: Transform, grid: Grid) -> tuple[Tensor, Tensor]:
    """The share of the background and of each label on another grid, and how much of each voxel the labels see."""
    seen = resample(torch.ones(1, *labels.grid.shape), labels.grid, grid, transform)[0]
    layers = [resample((labels.data == value)[None].float(), labels.grid, grid, transform)[0] for value in values]
    rest = seen - torch.stack(layers).sum(0) if layers else seen
    return torch.stack([rest, *layers]), seen


def blurred(image: Image, width_mm: float) -> Image:
    """An image after a Gaussian of standard deviation ``width_mm``."""
    if not width_mm:
        return image
    sigma = (0.0, *(width_mm / image.grid.spacing))
    return replace(image, data=torch.from_numpy(gaussian_filter(image.data.numpy(), sigma, mode="nearest")))


def state_of(scan: Scan) -> str:
    """A scan's name and the state of its files, a change of which voids what was made of them."""
    states = [file_state(path) for path in scan.files.values()]
    return " ".join([scan.name, *states])
