"""A folder for each patient with an image of every modality, as CT and MR of the head and neck come from a clinic.

============================================  ==========================================================================
file                                          becomes
============================================  ==========================================================================
``PATIENT/ct.nii.gz``                         case ``PATIENT``, modality ``ct``, split train; any other name is another
                                              modality; what repeats the patient's name (``PATIENT_ct.nii.gz``) and the
                                              word IMG is passed over
``PATIENT/ct_labels.nii.gz``                  its labels (label, labels, seg or segmentation), ``ct_mask`` its mask,
                                              ``ct_landmarks.csv`` its landmarks
``PATIENT/labels.nii.gz``                     those of all its images, which then lie on one grid; mask and landmarks
                                              likewise
``PATIENT/ct_structures/parotid_left.nii.gz``  a mask of one structure of the CT: label by label one file
``PATIENT/PATIENT_OAR_Parotid_L.seg.nrrd``    the same, as HaN-Seg has them
``train``, ``validation`` or ``val``,         folders of patients of that split; patients beside them are train
``test``, ``extra``
``FOLDER/PATIENT``                            the same, where ``FOLDER`` alone has patients and none lie beside it
============================================  ==========================================================================

Structures become one label map a scan below ``out``, numbered by the order of their names over all patients; where two
overlap the later name counts. Anything else that is no image by its name is passed over.

HaN-Seg: Podobnik et al. 2023, doi:10.1002/mp.16197; its patients are in ``set_1``, its modalities become ct and mr_t1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.cohort_files import safe_name
from anamorph.data.files import read_volume, write
from anamorph.data.image import Labelmap, ReadPolicy
from anamorph.data.landmark_formats import listed
from anamorph.data.layouts.folders import suffix_of
from anamorph.data.layouts.split_folders import SPLITS
from anamorph.errors import InputError
from anamorph.spatial.transform import resample

KINDS = {
    "labels": "labels",
    "label": "labels",
    "segmentation": "labels",
    "seg": "labels",
    "mask": "mask",
    "landmarks": "landmarks",
}
"""Last word of a file's name -> what it holds."""
STRUCTURES = "_structures"
"""End of the name of a folder of masks."""
OAR, OAR_OF = "oar_", "ct"
"""Before the name of a structure, and whose it is."""
IMAGE = re.compile(r"^img[_-]", re.IGNORECASE)
INSIDE = 0.5
"""Least value of a mask."""
ALL = ""
"""In place of a modality: of all."""


@dataclass(eq=False)
class Patient:
    """What a folder holds.

    Args:
        case, split: of the patient.
        files: (modality, kind) -> file; the kind of images is "image".
        structures: modality -> name -> mask.
    """

    case: str
    split: Split
    files: dict[tuple[str, str], Path] = field(default_factory=dict)
    structures: dict[str, dict[str, Path]] = field(default_factory=dict)

    @property
    def modalities(self) -> list[str]:
        """Of its images, in order."""
        return sorted(modality for modality, kind in self.files if kind == "image")

    def file(self, modality: str, kind: str) -> Path | None:
        """Of an image, or of all."""
        return self.files.get((modality, kind), self.files.get((ALL, kind)))


def read_layout(folder: Path, out: Path | None = None) -> Cohort:
    """Every image with what belongs to it.

    Args:
        folder: of the patients, or of the splits, or one level above it.
        out: where labels out of structures are written; structures are left out if absent.

    Raises:
        InputError: E-COH-033, there are no images, several folders of patients one level below, two of one place, or
            labels, masks, landmarks or structures without an image; else as ``read_mask``.
    """
    folder = folder.resolve()
    patients = _patients(folder)
    if twice := sorted({p.case for p in patients if sum(other.case == p.case for other in patients) > 1}):
        raise _refused(folder, f"patient {twice[0]} in two splits", "each patient once")
    if not any(patient.modalities for patient in patients):
        raise _refused(folder, "no images", "PATIENT/ct.nii.gz, PATIENT/mr.nii.gz and the like")
    names = sorted({name for patient in patients for of_scan in patient.structures.values() for name in of_scan})
    numbers = {name: number for number, name in enumerate(names, 1)} if out is not None else {}
    scans = []
    for patient in patients:
        for modality in patient.modalities:
            labels = patient.file(modality, "labels")
            if modality in patient.structures and out is not None:
                if labels is not None:
                    found = f"{labels.name} and structures of {patient.case} ({modality})"
                    raise _refused(folder, found, "either")
                labels = out / "labels" / f"{patient.case}_{modality}.nii.gz"
                _write_labels(patient.structures[modality], numbers, patient.files[modality, "image"], labels)
            mask, landmarks = patient.file(modality, "mask"), patient.file(modality, "landmarks")
            image = patient.files[modality, "image"]
            scans.append(Scan(patient.case, modality, image, labels, mask, landmarks, patient.split))
    label_names = {number: name for name, number in numbers.items()}
    return Cohort(folder, tuple(sorted(scans, key=lambda scan: (scan.case, scan.modality))), label_names=label_names)


def _patients(folder: Path) -> list[Patient]:
    """Those of a folder; where it has none, those of the only folder in it that has some.

    Raises:
        InputError: E-COH-033, several have.
    """
    found = _in_places(folder)
    if found:
        return found
    below = {inner.name: patients for inner in _folders(folder) if (patients := _in_places(inner))}
    if len(below) > 1:
        raise _refused(folder, f"patients in {listed(list(below))}", "one of these folders")
    return next(iter(below.values()), [])


def _in_places(folder: Path) -> list[Patient]:
    return [found for place, split in _places(folder) if (found := _patient(place, split)).files]


def _places(folder: Path) -> Iterator[tuple[Path, Split]]:
    """Folders that may be of patients."""
    for place in _folders(folder):
        split = SPLITS.get(place.name.lower())
        if split is None:
            yield place, "train"
        else:
            for inner in _folders(place):
                yield inner, split


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _patient(place: Path, split: Split) -> Patient:
    """The files of one folder."""
    patient = Patient(safe_name(place.name), split)
    for path, stem in _named(place):
        rest = IMAGE.sub("", re.sub(rf"^{re.escape(place.name)}(?:[_-]|$)", "", stem, flags=re.IGNORECASE))
        if rest.lower().startswith(OAR):
            _add(patient.structures.setdefault(OAR_OF, {}), rest[len(OAR) :].removesuffix(".seg"), path)
            continue
        before, _, last = rest.lower().rpartition("_")
        kind = KINDS.get(last, "image")
        modality = rest.lower() if kind == "image" else before
        _add(patient.files, (safe_name(modality) if modality else ALL, kind), path)
    for inner in _folders(place):
        if inner.name.lower().endswith(STRUCTURES):
            for path, stem in _named(inner):
                modality = safe_name(inner.name.lower().removesuffix(STRUCTURES))
                _add(patient.structures.setdefault(modality, {}), stem, path)
    if patient.files and not patient.modalities:
        raise _refused(place, "labels, a mask or landmarks without an image", "ct.nii.gz and the like")
    lost = {modality for modality, _ in patient.files} | patient.structures.keys()
    if lost := sorted(lost - {ALL, *patient.modalities}):
        found = f"labels, a mask, landmarks or structures of {lost[0]} without its image"
        raise _refused(place, found, f"{lost[0]}.nii.gz")
    return patient


def _named(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of a folder that are images or landmarks by their name, and the name without the ending."""
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path)
        if suffix and path.is_file() and not path.name.startswith("."):
            yield path, path.name[: -len(suffix)]


def _add(found: dict[Any, Path], key: Any, path: Path) -> None:
    if key in found:
        raise _refused(path.parent, f"{found[key].name} and {path.name} of one kind", "one file of each")
    found[key] = path


def _write_labels(structures: Mapping[str, Path], numbers: Mapping[str, int], image: Path, path: Path) -> None:
    """One label map of the masks on their image's grid; masks on others are brought over, and may be empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = read_volume(image, ReadPolicy()).grid
    labels = np.zeros(grid.shape, np.int32)
    for name, file in sorted(structures.items(), key=lambda item: numbers[item[0]]):
        volume = read_volume(file, ReadPolicy())
        inside = torch.from_numpy(volume.intensities() > INSIDE)
        if not volume.grid.same_as(grid):
            inside = resample(inside, volume.grid, grid, mode="nearest")
        labels[inside[0].numpy()] = numbers[name]
    write(Labelmap(torch.from_numpy(labels), grid, np.dtype(np.uint8)), path)


def _refused(folder: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=folder, expected=expected)
