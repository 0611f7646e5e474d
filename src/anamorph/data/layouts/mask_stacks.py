"""Images of several modalities with corresponding masks stacked in 4-D files, as the prostates of Learn2Reg's tutorial.

===================================  ===================================================================================
file                                 becomes
===================================  ===================================================================================
``train/MR_images/CASE.nii.gz``      case ``CASE`` of split train, modality ``mr``
``train/MR_labels/CASE.nii.gz``      its masks, volume by volume: the first is label 1, "organ", and the centroids of
                                     the others are landmarks, named by their number from 2 on
``validation``, ``val`` or           the other splits
``valid``, ``test``
===================================  ===================================================================================

Volume n is the same structure in every modality of one case, but only volume 1 in every case. What is empty in one
modality of a case is no landmark of it. Masks in a file of one volume stay where they are; of stacks, labels and
landmarks are written anew.

Source: the weakly supervised part of https://github.com/learn2reg/tutorials2019, whose data are of Hu et al. 2018,
doi:10.1016/j.media.2018.07.002; DeepReg's ``paired`` data are laid out alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.cohort_files import safe_name
from anamorph.data.files import EXTENSIONS, read_volume, write
from anamorph.data.guard import sniff
from anamorph.data.image import Labelmap, Landmarks, Mask, ReadPolicy
from anamorph.data.landmark_files import write_landmarks
from anamorph.data.landmark_formats import listed
from anamorph.data.layouts.split_folders import SPLITS
from anamorph.data.nifti import open_nifti
from anamorph.errors import InputError

IMAGES, LABELS = "_images", "_labels"
PARTS: dict[str, Split] = {**SPLITS, "valid": "validation"}
LABEL_NAMES = {1: "organ"}
SUFFIXES = EXTENSIONS["nifti"][:2]
INSIDE = 0.5
"""Least value of a mask."""


def read_layout(folder: Path, out: Path | None = None) -> Cohort:
    """Every image with its masks.

    Args:
        folder: of the splits.
        out: where ``labels`` and ``landmarks`` out of stacks are written; such masks are left out if absent.

    Raises:
        InputError: E-COH-033, there are no images, or masks without their image, or an empty first mask; else as
            ``read_mask``.
    """
    folder = folder.resolve()
    scans: list[Scan] = []
    for part in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        split = PARTS.get(part.name.lower())
        if split is None:
            continue
        images, masks = (_files(part, ending) for ending in (IMAGES, LABELS))
        if lost := sorted(f"{case} ({modality})" for case, modality in masks.keys() - images.keys()):
            raise _refused(part, f"masks without an image: {listed(lost)}", f"MODALITY{IMAGES}/CASE.nii.gz")
        if twice := sorted({case for case, _ in images} & {scan.case for scan in scans}):
            raise _refused(part, f"cases of another folder: {listed(twice)}", "each case in one")
        for case in dict.fromkeys(case for case, _ in images):
            of_case = {modality: file for (name, modality), file in images.items() if name == case}
            truth = {modality: masks[case, modality] for modality in of_case if (case, modality) in masks}
            found = _truths(case, truth, out)
            for modality, file in of_case.items():
                labels, landmarks = found.get(modality, (None, None))
                scans.append(Scan(case, modality, file, labels, landmarks=landmarks, split=split))
    if not scans:
        raise _refused(folder, "no images", f"train/MR{IMAGES}/CASE.nii.gz")
    return Cohort(folder, tuple(sorted(scans, key=lambda scan: (scan.case, scan.modality))), label_names=LABEL_NAMES)


def _truths(case: str, files: Mapping[str, Path], out: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """Modality -> labels and landmarks of a case."""
    if all(_volumes(file) == 1 for file in files.values()):
        return {modality: (file, None) for modality, file in files.items()}
    if out is None:
        return {}
    stacks = {modality: _stack(file) for modality, file in files.items()}
    filled = [{number for number, mask in enumerate(stack, 1) if mask.data.any()} for stack in stacks.values()]
    shared = sorted(set.intersection(*filled) - {1})
    found: dict[str, tuple[Path, Path | None]] = {}
    for modality, (organ, *others) in stacks.items():
        if not organ.data.any():
            raise _refused(files[modality], "an empty first mask", "that of the organ")
        labels = _folder(out / "labels") / f"{case}_{modality}.nii.gz"
        write(Labelmap(organ.data.int(), organ.grid, np.dtype(np.uint8), LABEL_NAMES), labels)
        landmarks = None
        if shared:
            landmarks = _folder(out / "landmarks") / f"{case}_{modality}.csv"
            points = np.stack([_centroid(others[number - 2]) for number in shared])
            write_landmarks(Landmarks(points, tuple(map(str, shared))), landmarks)
        found[modality] = labels, landmarks
    return found


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _stack(file: Path) -> list[Mask]:
    """The masks of a file, empty ones included."""
    found = []
    for number in range(_volumes(file)):
        volume = read_volume(file, ReadPolicy(volume=number))
        found.append(Mask(torch.from_numpy(volume.intensities()[0] > INSIDE), volume.grid, file.name))
    return found


def _volumes(file: Path) -> int:
    """Of a file, without reading its voxels."""
    shape = open_nifti(file, sniff(file)).shape
    return shape[3] if len(shape) > 3 else 1


def _centroid(mask: Mask) -> np.ndarray:
    """Mean of the voxels' centres, RAS mm."""
    return mask.grid.to_world(torch.argwhere(mask.data).double().numpy()).mean(axis=0)


def _files(part: Path, ending: str) -> dict[tuple[str, str], Path]:
    """Case and modality -> file."""
    found: dict[tuple[str, str], Path] = {}
    for folder in sorted(path for path in part.iterdir() if path.is_dir() and path.name.endswith(ending)):
        modality = safe_name(folder.name.removesuffix(ending).lower())
        for file in sorted(folder.iterdir()):
            suffix = next((known for known in SUFFIXES if file.name.lower().endswith(known)), "")
            if not suffix or file.name.startswith("."):
                continue
            key = safe_name(file.name[: -len(suffix)]), modality
            if key in found:
                raise _refused(folder, f"{found[key].name} and {file.name} of one case", "one file a case")
            found[key] = file
    return found


def _refused(file: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=file, expected=expected)
