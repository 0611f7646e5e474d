"""Datasets of the Learn2Reg challenge from 2021 on, such as AbdomenMRCT.

========================================  ======================================================================
file, or entry of the description         becomes
========================================  ======================================================================
``NAME_dataset.json``                     the description
..: ``training``                          scans, with their ``label`` and ``mask``; a list, or one a modality
..: ``test``, images in ``imagesTs``      the same of split test; labels that are not published are left out
``imagesTr/NAME_0001_0000.nii.gz``        case ``NAME_0001``, modality 0
..: ``modality``                          names of the modalities, in lower case
..: ``labels``                            names of the labels
..: ``registration_val``                  listed pairs, whose cases are of split validation
..: ``registration_test``                 listed pairs of split test
..: ``training_paired_images``            listed pairs; where there are none, both modalities of each training case,
                                          as ``registration_direction`` says
========================================  ======================================================================

Scans without a partner, of which AbdomenMRCT has about eighty, are scans of split train. Keypoints and landmarks, which
are voxels in files of numbers alone, are left out.

Source: Hering et al. 2023, doi:10.1109/TMI.2022.3213983, and https://learn2reg.grand-challenge.org
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anamorph.data.cohort import Cohort, Pair, Scan, Split
from anamorph.data.cohort_files import safe_name
from anamorph.errors import InputError

DESCRIPTION = "*_dataset.json"
NUMBERED = re.compile(r"(.+)_(\d{4})")
ENDING = ".nii.gz"
PAIRS: tuple[tuple[str, Split], ...] = (
    ("registration_test", "test"),
    ("registration_val", "validation"),
    ("training_paired_images", "train"),
)
"""Lists of pairs; what stands in several is of the first."""


def read_layout(folder: Path) -> Cohort:
    """The scans of a dataset, and the pairs that its description lists.

    Raises:
        InputError: E-COH-030, this is no dataset of Learn2Reg, or not as it describes itself.
    """
    folder = folder.resolve()
    file, description = _description(folder)
    try:
        return _Dataset(folder, description).cohort()
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _refused(
            file.name, "an entry that cannot be understood", "images, labels and pairs by their files"
        ) from error


def _refused(file: str, found: str, expected: str) -> InputError:
    return InputError("E-COH-030", found, file=file, expected=f"{expected} (Learn2Reg's format)")


def _description(folder: Path) -> tuple[Path, dict[str, Any]]:
    found = sorted(folder.glob(DESCRIPTION)) if folder.is_dir() else []
    if len(found) != 1:
        what = f"{len(found)} files {DESCRIPTION}" if found else f"no file {DESCRIPTION}"
        raise _refused(folder.name, what, "one")
    try:
        content = json.loads(found[0].read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(found[0].name, "no JSON that can be read", "a description of the dataset") from error
    if not isinstance(content, dict):
        raise _refused(found[0].name, f"JSON of a {type(content).__name__}", "a description of the dataset")
    return found[0], content


class _Dataset:
    """A dataset as its description has it; entries of other kinds raise what Python raises."""

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder, self.description = folder, description
        entries = {
            _place(entry["image"]): (entry, split)
            for split, name in (("test", "test"), ("train", "training"))
            for entry in _entries(description.get(name, []))
        }
        self.modalities = self._modalities({number for _, number in entries})
        self.of_place = {place: self._scan(place, *found) for place, found in entries.items()}  # pyright: ignore

    def cohort(self) -> Cohort:
        """Scans in the splits of their pairs."""
        if not self.of_place:
            raise _refused(self.folder.name, "no images", "imagesTr/NAME_0001_0000.nii.gz and so on")
        pairs: dict[tuple[str, str], Split] = {}
        for name, split in PAIRS:
            for entry in self.description.get(name, []):
                sides = (self._scan_of(entry[side]).name for side in ("fixed", "moving"))
                pairs.setdefault((next(sides), next(sides)), split)
        of_case: dict[str, Split] = {}
        by_name = {scan.name: scan for scan in self.of_place.values()}
        for scans, split in pairs.items():
            for name in scans:
                of_case.setdefault(by_name[name].case, split)
        by_name = {
            name: replace(scan, split=of_case.get(scan.case, scan.split))
            for name, scan in sorted(by_name.items(), key=lambda item: (item[1].case, item[1].modality))
        }
        listed = [Pair(by_name[fixed], by_name[moving]) for fixed, moving in pairs]
        if "train" not in pairs.values():
            listed += self._within(by_name)
        whole = tuple(pair for pair in listed if pair.fixed.split == pair.moving.split)
        return Cohort(self.folder, tuple(by_name.values()), whole, self._label_names())

    def _within(self, by_name: Mapping[str, Scan]) -> list[Pair]:
        """The two modalities of each training case, in the dataset's direction."""
        direction = self.description.get("registration_direction")
        if direction is None:
            return []
        fixed, moving = (self.modalities[int(direction[side])] for side in ("fixed", "moving"))
        of_place = {(scan.case, scan.modality): scan for scan in by_name.values() if scan.split == "train"}
        cases = dict.fromkeys(case for case, _ in of_place)
        places = (((case, fixed), (case, moving)) for case in cases if fixed != moving)
        return [Pair(of_place[a], of_place[b]) for a, b in places if a in of_place and b in of_place]

    def _scan(self, place: tuple[str, int], entry: Mapping[str, Any], split: Split) -> Scan:
        case, number = place
        files = {kind: self.folder / entry[kind] for kind in ("image", "label", "mask") if entry.get(kind)}
        if split == "test":
            files = {kind: file for kind, file in files.items() if kind == "image" or file.is_file()}
        modality = self.modalities[number]
        return Scan(safe_name(case), modality, files["image"], files.get("label"), files.get("mask"), split=split)

    def _scan_of(self, image: str) -> Scan:
        place = _place(image)
        if place not in self.of_place:
            raise _refused(
                self.folder.name, f"a pair with {image}, which is none of its images", "images that it lists"
            )
        return self.of_place[place]

    def _modalities(self, numbers: set[int]) -> dict[int, str]:
        """Name of each; one name for several is told apart by their numbers."""
        given = {int(number): str(name).strip().lower() for number, name in self.description["modality"].items()}
        if len(given) == 1:
            given = dict.fromkeys(numbers, next(iter(given.values())))
        if foreign := numbers - given.keys():
            raise _refused(
                self.folder.name, f"images of modality {min(foreign)}", f"one of {', '.join(map(str, given))}"
            )
        counts = Counter(given.values())
        return {number: safe_name(name if counts[name] == 1 else f"{name}{number}") for number, name in given.items()}

    def _label_names(self) -> dict[int, str]:
        """Of ``labels``, which is one mapping, or one a modality."""
        found: dict[int, str] = {}
        given = self.description.get("labels") or {}
        for mapping in (given, *(part for part in given.values() if isinstance(part, dict))):
            for label, name in mapping.items():
                if isinstance(name, str) and str(label).isdecimal() and int(label) and name.strip():
                    found.setdefault(int(label), " ".join(name.split()))
        return dict(sorted(found.items()))


def _entries(given: Any) -> Iterator[Mapping[str, Any]]:
    """Of a list, or of one list a modality; an image alone may stand without a name for it."""
    parts = list(given.values()) if isinstance(given, dict) else [given]
    for part in parts:
        for entry in part:
            yield {"image": entry} if isinstance(entry, str) else entry


def _place(image: str) -> tuple[str, int]:
    """Case and number of the modality, from the name of a file."""
    name = Path(image).name
    match = NUMBERED.fullmatch(name.removesuffix(ENDING)) if name.endswith(ENDING) else None
    if match is None:
        raise _refused(name, "a name without the number of its modality", f"NAME_0001_0000{ENDING}")
    return match[1], int(match[2])
