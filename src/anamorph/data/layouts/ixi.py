"""The IXI dataset: T1, T2, PD and MRA images of three hospitals in London, and labels of your own.

========================================  =====================================================================
file, anywhere below the folder           becomes
========================================  =====================================================================
``IXI002-Guys-0828-T1.nii.gz``            case ``IXI002-Guys-0828``, modality ``t1``, split train
``labels/**/IXI002-Guys-0828-T1*``        labels of that image, such as ``...-T1_all_fast_firstseg.nii.gz``
``labels/**/IXI002-Guys-0828*``           labels of the case's T1, or of its only image
``masks/**``                              masks, by the same rules
========================================  =====================================================================

The second word of a case is the hospital, so that ``*-IOP-*`` names all cases of one: Guys (Philips 1.5 T), HH
(Hammersmith, Philips 3 T) or IOP (Institute of Psychiatry, GE 1.5 T). Diffusion images are left out.

Source: https://brain-development.org/ixi-dataset/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.landmark_formats import listed
from anamorph.data.layouts.first import LABEL_NAMES, SEGMENTED
from anamorph.errors import InputError

NAME = re.compile(r"(IXI\d+-[A-Za-z]+-\d+)(?:-(T1|T2|PD|MRA))?(.*)")
ENDINGS = (".nii.gz", ".nii")
LABELS, MASKS = "labels", "masks"
MAIN = "t1"

Place = tuple[str, str]
"""Case and modality."""


@dataclass(frozen=True)
class Named:
    """What the name of a file says.

    Args:
        file: where it is.
        case: subject, hospital and number of the scan.
        modality: in lower case; empty where the name does not tell.
        rest: what follows.
    """

    file: Path
    case: str
    modality: str
    rest: str


def read_layout(folder: Path) -> Cohort:
    """Every image with its labels and mask; all of split train.

    Raises:
        InputError: E-COH-033, there are no images, two of one place, or labels or masks that belong to none.
    """
    folder = folder.resolve()
    apart = (folder / LABELS, folder / MASKS)
    images: dict[Place, Path] = {}
    for named in _all(folder):
        if named.modality and not named.rest and not any(map(named.file.is_relative_to, apart)):
            _add(images, (named.case, named.modality), named.file)
    if not images:
        raise _refused(folder, "no images", "IXI002-Guys-0828-T1.nii.gz and the like")
    labels, masks = (_belonging(other, images) for other in apart)
    scans = [Scan(*place, image, labels.get(place), masks.get(place)) for place, image in sorted(images.items())]
    by_first = bool(labels) and all(SEGMENTED in file.name for file in labels.values())
    return Cohort(folder, tuple(scans), label_names=LABEL_NAMES if by_first else {})


def _all(folder: Path) -> Iterator[Named]:
    """Files whose names are IXI's."""
    for path in sorted(folder.rglob("IXI*")) if folder.is_dir() else ():
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending is not None and (found := NAME.fullmatch(path.name.removesuffix(ending))):
            yield Named(path, found[1], (found[2] or "").lower(), found[3])


def _add(found: dict[Place, Path], place: Place, file: Path) -> None:
    if place in found:
        raise _refused(file.parent, f"{found[place].name} and {file.name} of one image", "one file an image")
    found[place] = file


def _belonging(folder: Path, images: Mapping[Place, Path]) -> dict[Place, Path]:
    """Labels or masks by the image that they belong to."""
    found: dict[Place, Path] = {}
    lost: list[str] = []
    for named in _all(folder):
        modalities = [modality for case, modality in images if case == named.case]
        modality = named.modality or (modalities[0] if len(modalities) == 1 else MAIN)
        if modality in modalities:
            _add(found, (named.case, modality), named.file)
        else:
            lost.append(named.file.name)
    if lost:
        raise _refused(folder, f"{len(lost)} files without an image: {listed(lost)}", "an image of the same name")
    return found


def _refused(folder: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=folder, expected=expected)
