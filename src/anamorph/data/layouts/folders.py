"""Folders ``images``, ``labels``, ``masks`` and ``landmarks`` whose files have the same names.

====================================  ===================================================
file                                  becomes
====================================  ===================================================
``images/CASE.nii.gz``                a scan of split train; its modality is "image"
``labels/CASE.*``, ``masks/CASE.*``   its labels and mask
``landmarks/CASE.*``                  its landmarks
====================================  ===================================================

Modalities lie in folders of their own: ``images/ct/CASE.nii.gz`` with ``labels/ct/CASE.nii.gz``. Files that are neither
images nor landmarks by their name, as the data beside a header, are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import safe_name
from anamorph.data.files import EXTENSIONS
from anamorph.errors import InputError

IMAGES = "images"
TRUTH = {"labels": "labels", "mask": "masks", "landmarks": "landmarks"}
"""Field of a scan -> the folder it lies in."""

LANDMARK_SUFFIXES = (".csv", ".fcsv", ".mrk.json")
SUFFIXES = sorted((*(suffix for known in EXTENSIONS.values() for suffix in known), *LANDMARK_SUFFIXES), key=len)
"""Of files that are looked at; a longer one that ends in a shorter one comes later."""

UNNAMED = "image"
"""The modality of images that lie in no folder of their own."""


def read_layout(folder: Path) -> Cohort:
    """Every image with what has its name; all of split train.

    Raises:
        InputError: E-COH-033, there are no images, two of one name, or a truth without its image.
    """
    folder = folder.resolve()
    images = _files(folder / IMAGES)
    if not images:
        raise _refused(folder, "no images", f"{IMAGES}/CASE.nii.gz")
    others = {field: _files(folder / name) for field, name in TRUTH.items()}
    for field, files in others.items():
        if lost := sorted(files.keys() - images.keys()):
            modality, case = lost[0]
            more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            found = f"{TRUTH[field]} of {case} ({modality}) without an image{more}"
            raise _refused(folder, found, "an image of the same name")
    scans = []
    for (modality, case), image in images.items():
        labels, mask, landmarks = (others[field].get((modality, case)) for field in ("labels", "mask", "landmarks"))
        scans.append(Scan(safe_name(case), safe_name(modality), image, labels, mask, landmarks))
    return Cohort(folder, tuple(sorted(scans, key=lambda scan: (scan.case, scan.modality))))


def _files(folder: Path) -> Mapping[tuple[str, str], Path]:
    """Modality and case -> file."""
    found: dict[tuple[str, str], Path] = {}
    for modality, path in _all(folder):
        key = modality, path.name[: -len(suffix_of(path))]
        if key in found:
            raise _refused(folder, f"{found[key].name} and {path.name} of one case", "one file a case")
        found[key] = path
    return found


def _all(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir():
            yield from ((path.name.lower(), file) for file in sorted(path.iterdir()) if _is_data(file))
        elif _is_data(path):
            yield UNNAMED, path


def _is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and bool(suffix_of(path))


def suffix_of(path: Path) -> str:
    """The longest known ending that a file has; empty where it has none."""
    return next((suffix for suffix in reversed(SUFFIXES) if path.name.lower().endswith(suffix)), "")


def _refused(folder: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=folder, expected=expected)
