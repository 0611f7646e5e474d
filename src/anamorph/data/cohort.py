"""What a cohort is: cases, their scans by modality, and the pairs that are registered.

A cohort lives in a folder as ``cohort.csv``, one row a scan, paths relative to it, and optionally ``pairs.csv`` and
``labels.csv``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from anamorph.errors import InputError

Split = Literal["train", "validation", "test", "extra"]
"""What a case is used for; extra ones join trainings, and decide nothing but what is learnt."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""What the cases of every cohort are divided into; extra ones are more than that."""
PairRule = Literal["listed", "within", "between"]
"""listed: those of ``pairs.csv``. within: two modalities of one case. between: scans of two different cases."""
FILES = ("image", "labels", "mask", "landmarks")
"""What a scan may have, in the order of the table."""
SESSION = "_ses-"
"""Between subject and session in a case's name, as BIDS writes it."""


def subject_of(case: str) -> str:
    """Whom a case shows: ``sub-01_ses-02`` is the subject ``sub-01``; any other case is a subject by itself."""
    return case.partition(SESSION)[0]


@dataclass(frozen=True)
class Scan:
    """One image of one case, and what is known about it.

    Args:
        case: the subject, or ``SUBJECT_ses-SESSION``; everything of one subject has one split.
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

    @property
    def files(self) -> dict[str, Path]:
        """Those it has, by what they hold."""
        return {kind: file for kind in FILES if (file := getattr(self, kind)) is not None}


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
    """Scans in a fixed order (by case, then modality), the listed pairs, and what labels are called."""

    root: Path
    scans: tuple[Scan, ...]
    listed: tuple[Pair, ...] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(sorted({scan.modality for scan in self.scans}))

    @property
    def cases(self) -> tuple[str, ...]:
        """In order."""
        return tuple(dict.fromkeys(scan.case for scan in self.scans))

    @property
    def splits(self) -> tuple[Split, ...]:
        """To tell of: those of every cohort, and extra where there are such scans."""
        return (*SPLITS, "extra") if any(scan.split == "extra" for scan in self.scans) else SPLITS

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

    def held_back(self, *, validation: int = 0, test: int = 0) -> Cohort:
        """The last training subjects by name set aside: first those for validation, then those for the test.

        Listed pairs that the new splits tear apart are left out.

        Args:
            validation, test: how many subjects; what is in another split already stays there.

        Raises:
            InputError: E-COH-034, they are not there.
        """
        return self._set_aside(sorted(self._learners, reverse=True), validation, test)

    def divided(self, *, validation: float = 0.0, test: float = 0.0, seed: int = 0) -> Cohort:
        """Training subjects drawn for validation and test; the rest as in ``held_back``.

        Subjects are ranked by the SHA-256 of seed and name: the same draw on any machine and in any order of the files.

        Args:
            validation, test: shares of the training subjects, at least one subject where not 0.
            seed: another number, another draw.
        """
        ranked = sorted(self._learners, key=lambda subject: hashlib.sha256(f"{seed}:{subject}".encode()).digest())
        validations, tests = (max(1, round(len(ranked) * share)) if share else 0 for share in (validation, test))
        return self._set_aside(ranked, validations, tests)

    def with_test(self, patterns: Sequence[str]) -> Cohort:
        """The same with the cases that shell patterns name as its test cases; test cases of before are left out.

        Sessions of a subject stay together; listed pairs that the new splits tear apart are left out.

        Args:
            patterns: such as "*-IOP-*"; upper and lower case differ.

        Raises:
            InputError: E-COH-037, nothing fits a pattern; E-COH-034, nothing is left to train on.
        """
        fitting = {pattern: [case for case in self.cases if fnmatchcase(case, pattern)] for pattern in patterns}
        if idle := [pattern for pattern, cases in fitting.items() if not cases]:
            do = f"the first of {len(self.cases)} is {self.cases[0]}"
            raise InputError("E-COH-037", f"no case that {idle[0]!r} names", expected="one at least", do=do)
        chosen = {subject_of(case) for cases in fitting.values() for case in cases}
        if not self._learners - chosen:
            found = f"{len(chosen)} subjects for the test"
            raise InputError("E-COH-034", found, expected="some left to train on", do="name fewer")

        def stays(scan: Scan) -> bool:
            return scan.split != "test" or subject_of(scan.case) in chosen

        scans = tuple(filter(stays, self.scans))
        listed = tuple(pair for pair in self.listed if stays(pair.fixed) and stays(pair.moving))
        return replace(self, scans=scans, listed=listed)._assigned(dict.fromkeys(chosen, "test"))

    def folds(self, count: int) -> tuple[Cohort, ...]:
        """The same once for each fold of a cross-validation, its test cases being those of the fold.

        Subjects in train and test are divided, those of the same modalities evenly, in blocks of neighbours by name;
        whoever is in another split stays there.

        Args:
            count: how many folds; as many as there are subjects leave one out.

        Raises:
            InputError: E-COH-039, fewer subjects than folds, or a single fold.
        """
        modalities: dict[str, set[str]] = {}
        for scan in self.scans:
            if scan.split in ("train", "test"):
                modalities.setdefault(subject_of(scan.case), set()).add(scan.modality)
        alike: dict[tuple[str, ...], list[str]] = {}
        for subject in sorted(modalities):
            alike.setdefault(tuple(sorted(modalities[subject])), []).append(subject)
        fold_of = {one: place * count // len(group) for group in alike.values() for place, one in enumerate(group)}
        if count < 2 or set(fold_of.values()) != set(range(count)):
            found = f"{len(fold_of)} subjects in train and test for {count} folds"
            raise InputError("E-COH-039", found, expected="two folds at least, with a subject in each")
        return tuple(
            self._assigned({subject: "test" if its == fold else "train" for subject, its in fold_of.items()})
            for fold in range(count)
        )

    def renamed(self, modality: str) -> Cohort:
        """The same with a name for its only modality.

        Raises:
            InputError: E-COH-035, it has several.
        """
        if len(self.modalities) != 1:
            raise InputError("E-COH-035", f"modalities {', '.join(self.modalities)}", expected="one to give a name to")
        scans = tuple(replace(scan, modality=modality) for scan in self.scans)
        return replace(self, scans=scans, listed=())

    @property
    def _learners(self) -> set[str]:
        """Subjects in train."""
        return {subject_of(scan.case) for scan in self.scans if scan.split == "train"}

    def _set_aside(self, ranked: Sequence[str], validation: int, test: int) -> Cohort:
        """The first of the ranked training subjects for the test, the next for validation."""
        if validation + test >= max(1, len(ranked)):
            found = f"{len(ranked)} training subjects to hold {validation + test} back from"
            raise InputError("E-COH-034", found, expected="some left to train on", do="hold back fewer")
        drawn: dict[str, Split] = dict.fromkeys(ranked[:test], "test")
        drawn |= dict.fromkeys(ranked[test : test + validation], "validation")
        return self._assigned(drawn)

    def _assigned(self, splits: Mapping[str, Split]) -> Cohort:
        """The same with other splits of some subjects."""
        scans = tuple(replace(scan, split=splits.get(subject_of(scan.case), scan.split)) for scan in self.scans)
        of = {scan.name: scan for scan in scans}
        listed = [replace(pair, fixed=of[pair.fixed.name], moving=of[pair.moving.name]) for pair in self.listed]
        return replace(self, scans=scans, listed=tuple(p for p in listed if p.fixed.split == p.moving.split))
