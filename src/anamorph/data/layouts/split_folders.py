"""Folders named after the splits, with images and segmentations side by side, as the letters of Atlas-ISTN have them.

======================================  ===================================================================
file                                    becomes
======================================  ===================================================================
``train/CASE_img.png``                  case ``CASE`` of split train, modality "image"
``train/CASE_seg.png``                  its labels
``validation`` or ``val``, ``test``     the other splits; ``extra`` is one as well
``test_corrupt/CASE_img.png``           case ``CASE_corrupt`` of split test: what a folder adds joins the names
======================================  ===================================================================

Files may be of any format that is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.cohort_files import safe_name
from anamorph.data.landmark_formats import listed
from anamorph.errors import InputError

SPLITS: dict[str, Split] = {**dict(zip(get_args(Split), get_args(Split), strict=True)), "val": "validation"}
IMAGE, LABELS = "_img", "_seg"
MODALITY = "image"


def read_layout(folder: Path) -> Cohort:
    """Every image with the labels of its name.

    Raises:
        InputError: E-COH-033, there are no images, two of one case, or labels without their image.
    """
    folder = folder.resolve()
    scans: dict[str, Scan] = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        word, _, more = part.name.lower().partition("_")
        if word not in SPLITS:
            continue
        images, labels = (_files(part, ending) for ending in (IMAGE, LABELS))
        if lost := sorted(labels.keys() - images.keys()):
            raise _refused(part, f"{len(lost)} labels without an image: {listed(lost)}", f"CASE{IMAGE}")
        for name, image in images.items():
            case = safe_name(f"{name}_{more}" if more else name)
            if case in scans:
                raise _refused(part, f"case {case} a second time", "each case once")
            scans[case] = Scan(case, MODALITY, image, labels.get(name), split=SPLITS[word])
    if not scans:
        raise _refused(folder, "no images", f"train/CASE{IMAGE}.png, test/CASE{IMAGE}.png")
    return Cohort(folder, tuple(scans[case] for case in sorted(scans)))


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Case -> file."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem = path.name.partition(".")[0]
        if path.is_file() and stem.endswith(ending) and stem != ending:
            name = stem.removesuffix(ending)
            if name in found:
                raise _refused(folder, f"{found[name].name} and {path.name} of one case", "one file a case")
            found[name] = path
    return found


def _refused(folder: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=folder, expected=expected)
