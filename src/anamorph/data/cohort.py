"""What a cohort is: cases, their scans by modality, and the pairs that are registered.

A cohort lives in a folder as ``cohort.csv``, one row a scan, paths relative to it, and optionally ``pairs.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
PairRule = Literal["listed", "within", "between"]
"""listed: those of ``pairs.csv``. within: two modalities of one case. between: scans of two different cases."""


@dataclass(frozen=True)
class Scan:
    """One image of one case, and what is known about it.

    Args:
        case: the subject; everything of one subject has one split.
        modality: "ct", "t1", ... as the user names it.
        image: file.
        labels, mask, landmarks: files, where there are any.
        split: what it is used for.
    """

    case: str
    modality: str
    image: Path
    labels: Path | None = None
    mask: Path | None = None
    landmarks: Path | None = None
    split: Split = "train"

    @property
    def name(self) -> str:
        """``case_modality``, unique in its cohort."""
        return f"{self.case}_{self.modality}"


@dataclass(frozen=True)
class Pair:
    """Two scans to bring together.

    Args:
        fixed, moving: the scans.
        displacement: file of the true map on the fixed grid, where it is known.
    """

    fixed: Scan
    moving: Scan
    displacement: Path | None = None

    @property
    def name(self) -> str:
        """``fixed-moving``, unique in its cohort."""
        return f"{self.fixed.name}-{self.moving.name}"

    @property
    def split(self) -> Split:
        """Of both; a pair of scans of different splits is none."""
        return self.fixed.split


@dataclass(frozen=True)
class Cohort:
    """Scans in a fixed order (by case, then modality), and the listed pairs."""

    root: Path
    scans: tuple[Scan, ...]
    listed: tuple[Pair, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(sorted({scan.modality for scan in self.scans}))

    @property
    def cases(self) -> tuple[str, ...]:
        """In order."""
        return tuple(dict.fromkeys(scan.case for scan in self.scans))

    def of_split(self, split: Split) -> Cohort:
        """The part that is used for one purpose."""
        return replace(
            self,
            scans=tuple(scan for scan in self.scans if scan.split == split),
            listed=tuple(pair for pair in self.listed if pair.split == split),
        )

    def pairs(
        self, rule: PairRule = "listed", fixed_modality: str | None = None, moving_modality: str | None = None
    ) -> tuple[Pair, ...]:
        """Ordered pairs of scans of one split.

        Args:
            rule: which.
            fixed_modality, moving_modality: only those; any if absent.
        """
        if rule == "listed":
            found: Sequence[Pair] = self.listed
        else:
            found = [
                Pair(fixed, moving)
                for fixed in self.scans
                for moving in self.scans
                if fixed is not moving and fixed.split == moving.split
                and (fixed.case == moving.case) == (rule == "within")
            ]  # fmt: skip
        return tuple(
            pair
            for pair in found
            if fixed_modality in (None, pair.fixed.modality) and moving_modality in (None, pair.moving.modality)
        )
