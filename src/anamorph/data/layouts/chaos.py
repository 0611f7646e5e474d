"""The CHAOS challenge: CT of liver donors and MR of other people's abdomens, whose images were converted from DICOM.

=================================================  ==================================================================
file                                               becomes
=================================================  ==================================================================
``CT/5/DICOM_anon/*.nii.gz``                       case ``ct05``, modality ``ct``
``MR/5/T1DUAL/DICOM_anon/InPhase/*.nii.gz``        case ``mr05``, modality ``t1_in``
``MR/5/T1DUAL/DICOM_anon/OutPhase/*.nii.gz``       the same case, modality ``t1_out``
``MR/5/T2SPIR/DICOM_anon/*.nii.gz``                the same case, modality ``t2``
``Ground/*.nii.gz`` beside ``DICOM_anon``          labels, both phases having the same: 1 liver, 2 right kidney, 3 left
                                                   kidney, 4 spleen; of a CT the liver alone
``Test_Sets`` above all that                       split test, else train; it comes without labels
=================================================  ==================================================================

The download has a folder of DICOM slices where the image is expected, and PNG slices where the labels are. DICOM is not
read: each folder ``DICOM_anon``, ``InPhase`` and ``OutPhase`` is converted by dcm2niix into itself. Slices of a folder
``Ground`` without a volume are put onto the image so made (``stacked``). A CT and an MR of one number are not of one
person.

Labels belong to the images of their sequence voxel by voxel, but not all of them lie where their image does once both
are converted (users name the MR of 21, 22 and 33; two phases share labels, and need not share a header). Such labels
are written anew on the grid of their image, or left out where they have another size.

Source: Kavur et al. 2021, doi:10.1016/j.media.2020.101950, and https://chaos.grand-challenge.org/Data/
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.files import EXTENSIONS, read, read_labels, write
from anamorph.data.image import Labelmap
from anamorph.data.landmark_formats import listed
from anamorph.data.volume import SAME_MM
from anamorph.errors import AnamorphWarning, InputError, warn

DICOM, GROUND, TEST = "DICOM_anon", "Ground", "Test_Sets"
SEQUENCES = {("T1DUAL", "InPhase"): "t1_in", ("T1DUAL", "OutPhase"): "t1_out", ("T2SPIR", ""): "t2"}
"""Folder of the sequence and folder of the phase -> modality."""
VOLUMES = tuple(ending for kind in ("nifti", "nrrd", "metaimage") for ending in EXTENSIONS[kind])
LABEL_NAMES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
GREYS = {1: (55, 70), 2: (110, 135), 3: (175, 200), 4: (240, 255)}
"""Label -> greys of the MR's slices, both included; the organisers write 63, 126, 189 and 252."""
NUMBER = re.compile(r"\d+")
ALIKE = 0.8
"""The smaller spread of intensities within labels as a share of the larger, from which it does not tell which is up."""


def read_layout(folder: Path, out: Path | None = None) -> Cohort:
    """Every image that was converted, with its labels.

    Args:
        folder: with the folders above, anywhere below it.
        out: where ``labels`` are written that come in slices, or lie beside their image; they are left out if absent.

    Raises:
        InputError: E-COH-033, no such folders, several volumes in one, labels of other values than 1 to 4; E-FMT-008,
            nothing was converted yet.

    Warns:
        W-COH-038: images that are still DICOM, left out. W-COH-039: labels that lie beside their image, written anew
            or left out, and slices that fit no image, left out.
    """
    folder = folder.resolve()
    scans: list[Scan] = []
    unconverted: list[str] = []
    for place, case, modality in _places(folder):
        image = _volume(place)
        if image is None:
            unconverted.append(place.relative_to(folder).as_posix())
            continue
        sequence = next(above for above in place.parents if (above / DICOM).is_dir())
        labels = _volume(sequence / GROUND)
        scan = Scan(case, modality, image, labels, split="test" if TEST in place.parts else "train")
        if labels is not None:
            scan = _in_place(scan, labels, out)
        elif out is not None and any((sequence / GROUND).glob("*.png")):
            scan = _from_slices(scan, sequence / GROUND, out)
        scans.append(scan)
    if not scans and not unconverted:
        raise _refused(folder, f"no folder {DICOM}", f"CT/5/{DICOM}, MR/5/T2SPIR/{DICOM} and the like")
    found = f"{len(unconverted)} folders of DICOM without a volume: {listed(unconverted)}"
    if not scans:
        do = "convert each into itself, as by dcm2niix -z y -o FOLDER FOLDER"
        raise InputError("E-FMT-008", found, file=folder, expected="one NIfTI in each", do=do)
    if unconverted:
        warn("W-COH-038", f"{found}; left out", file=folder)
    names = LABEL_NAMES if any(scan.labels for scan in scans) else {}
    return Cohort(folder, tuple(sorted(scans, key=lambda scan: (scan.case, scan.modality))), label_names=names)


def stacked(ground: Path, image: Path, kind: Literal["ct", "mr"], *, upwards: bool | None = None) -> Labelmap:
    """The slices of a folder ``Ground`` as labels on the grid of their image.

    Columns of a slice run to the patient's left, rows to the back, as CHAOS has it; the order of the slices is that of
    the numbers in their names.

    Args:
        ground: folder of PNG slices.
        image: converted from the DICOM slices beside it, on axes of any order and direction.
        kind: ct, where anything but 0 is liver, or mr, where greys tell the organ.
        upwards: whether the last slice is the highest, or the lowest. If absent, that way is taken in which what has
            one label is more alike in the image.

    Raises:
        InputError: E-COH-033, slices that are none, differ in size, do not fill the image, have other greys, or fit
            the image as well upside down.
    """
    files = sorted(ground.glob("*.png"), key=lambda path: [int(number) for number in NUMBER.findall(path.name)])
    slices = [_slice(file) for file in files]
    if len({found.shape for found in slices}) != 1:
        raise _refused(
            ground, f"{len(slices)} slices of {len({s.shape for s in slices})} sizes", "PNG slices of one size"
        )
    seen = read(image)
    grid, stack = seen.grid, np.stack(slices, -1)
    ways = [
        apply_orientation(stack, ornt_transform(axcodes2ornt(("L", "P", end)), io_orientation(grid.affine)))
        for end in ("S", "I")
    ]
    if ways[0].shape != grid.shape:
        found = f"slices that make up {ways[0].shape} voxels"
        raise _refused(ground, found, f"{grid.shape} as {image.name} has")
    if upwards is None:
        spreads = [_spread(way, seen.data[0].numpy()) for way in ways]
        if min(spreads) >= ALIKE * max(spreads):
            raise _refused(ground, "slices that fit the image as well upside down", "one way, told by upwards")
        upwards = spreads[0] < spreads[1]
    stack = ways[0 if upwards else 1]
    if kind == "ct":
        labels = stack > 0
    else:
        labels = sum(label * ((low <= stack) & (stack <= high)) for label, (low, high) in GREYS.items())
        if strange := np.unique(stack[(stack > 0) & (labels == 0)]).tolist():
            raise _refused(ground, f"greys {listed([str(grey) for grey in strange])}", "63, 126, 189 and 252")
    return Labelmap.from_array(np.asarray(labels, np.uint8), grid.affine, LABEL_NAMES)


def _places(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Folder of each image, its case and its modality."""
    for place in sorted(folder.rglob(DICOM)) if folder.is_dir() else ():
        *_, part, number = ("", "", *place.parent.parts)
        if part == "CT" and number.isdecimal():
            yield place, f"ct{int(number):02}", "ct"
        *_, part, number, sequence = ("", "", "", *place.parent.parts)
        if part == "MR" and number.isdecimal():
            for (name, phase), modality in SEQUENCES.items():
                if name == sequence and (place / phase).is_dir():
                    yield place / phase, f"mr{int(number):02}", modality


def _volume(folder: Path) -> Path | None:
    """The only volume in a folder, if there is any."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [file for file in files if file.name.lower().endswith(VOLUMES) and not file.name.startswith(".")]
    if len(found) > 1:
        raise _refused(folder, f"{len(found)} volumes: {listed([file.name for file in found])}", "one")
    return found[0] if found else None


def _in_place(scan: Scan, file: Path, out: Path | None) -> Scan:
    """A scan with labels that lie where it lies, or without any; see ``read_layout``."""
    labels, grid = _checked(file), read(scan.image).grid
    if grid.distance_mm(labels.grid) <= SAME_MM:
        return scan
    turn = ornt_transform(io_orientation(labels.grid.affine), io_orientation(grid.affine))
    values = apply_orientation(labels.data.numpy(), turn)
    found = f"labels of {scan.name}, {labels.grid.shape} voxels, lie beside their image of {grid.shape}"
    if out is None or values.shape != grid.shape:
        warn("W-COH-039", f"{found}; left out", file=file)
        return replace(scan, labels=None)
    scan = _labelled(scan, Labelmap.from_array(values, grid.affine, LABEL_NAMES), out)
    warn("W-COH-039", f"{found}; written on its grid, voxel by voxel", file=file)
    return scan


def _from_slices(scan: Scan, ground: Path, out: Path) -> Scan:
    """A scan with the labels of its slices, or without any where they do not fit it."""
    try:
        labels = stacked(ground, scan.image, "ct" if scan.modality == "ct" else "mr")
    except InputError as error:
        warn("W-COH-039", f"labels of {scan.name} are left out: {error}", file=ground)
        return scan
    return _labelled(scan, labels, out)


def _labelled(scan: Scan, labels: Labelmap, out: Path) -> Scan:
    """The scan with labels in a file of its own."""
    path = out / "labels" / f"{scan.name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(labels, path)
    return replace(scan, labels=path)


def _checked(file: Path) -> Labelmap:
    """Labels without values that mean one thing in the CT and another in the MR, as the greys of the slices do."""
    labels = read_labels(file)
    if strange := sorted(set(labels.values()) - LABEL_NAMES.keys() - {0}):
        expected = ", ".join(f"{label} {name}" for label, name in LABEL_NAMES.items())
        raise _refused(file, f"labels {listed([str(label) for label in strange])}", expected)
    return labels


def _spread(slices: np.ndarray, image: np.ndarray) -> float:
    """Between the quarters of the intensities under each grey of the slices, summed."""
    greys = [grey for grey in np.unique(slices).tolist() if grey]
    return sum(float(np.subtract(*np.percentile(image[slices == grey], (75, 25)))) for grey in greys)


def _slice(file: Path) -> np.ndarray:
    """Columns x rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)  # it has no place in the world: the image tells
        return read_labels(file).data.numpy()


def _refused(file: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=file, expected=expected)
