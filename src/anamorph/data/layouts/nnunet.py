"""nnU-Net's raw datasets, versions 1 and 2, and the Medical Segmentation Decathlon's of one channel.

=====================================  =================================================================
file                                   becomes
=====================================  =================================================================
``imagesTr/CASE_0000.nii.gz``          a scan of split train; its modality is the name of channel 0
``labelsTr/CASE.nii.gz``               the labels of all scans of the case
``imagesTs``, ``labelsTs``             the same for split test
``dataset.json``: ``channel_names``    modalities (``modality`` in version 1), in lower case
..: ``labels``                         names of the labels
..: ``file_ending``                    of all files, ``.nii.gz`` in version 1
..: ``dataset``                        where the training cases are, if not in ``imagesTr``
=====================================  =================================================================

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, and nnU-Net's documentation of its dataset format.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.cohort_files import safe_name
from anamorph.data.landmark_formats import listed
from anamorph.errors import InputError, warn

DESCRIPTION = "dataset.json"
NUMBERED = re.compile(r"(.+)_(\d{4})")
PARTS: tuple[tuple[str, Split], ...] = (("Tr", "train"), ("Ts", "test"))


def read_layout(folder: Path) -> Cohort:
    """The cases of a raw dataset; all of ``imagesTr`` are train, those of ``imagesTs`` test.

    Raises:
        InputError: E-COH-030, this is no raw dataset of nnU-Net, or its files are not those that it describes.
    """
    folder = folder.resolve()
    description = _description(folder)
    modalities = _modalities(description)
    ending = description.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise _refused(f"file_ending {ending!r}", "as .nii.gz")
    scans: list[Scan] = []
    for part, split in PARTS:
        given = description.get("dataset") if part == "Tr" else None
        found = _images(folder / f"images{part}", ending, modalities) if given is None else _listed(given, folder)
        for case, channel, image, labels in found:
            if channel not in modalities:
                known = ", ".join(map(str, modalities))
                raise _refused(f"{image.name} is channel {channel}", f"one of {known}, as {DESCRIPTION} says")
            labels = labels or folder / f"labels{part}" / f"{case}{ending}"
            has_labels = labels.is_file()
            scan = Scan(safe_name(case), modalities[channel], image, labels if has_labels else None, split=split)
            scans.append(scan)
    if not scans:
        raise _refused(f"no images in {ending}", "imagesTr/CASE_0000 and so on")
    _warn_of_incomplete(scans, len(modalities))
    scans.sort(key=lambda scan: (scan.case, scan.modality))
    return Cohort(folder, tuple(scans), label_names=_label_names(description))


def _refused(found: str, expected: str) -> InputError:
    return InputError("E-COH-030", found, file=DESCRIPTION, expected=f"{expected} (nnU-Net's raw format)")


def _description(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise _refused("no such file", f"a folder that holds {DESCRIPTION}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _refused("no JSON that can be read", "a description of the dataset") from error
    if not isinstance(content, dict):
        raise _refused(f"JSON of a {type(content).__name__}", "a description of the dataset")
    return content


def _modalities(description: Mapping[str, Any]) -> dict[int, str]:
    """Channel -> modality; channels of one name are told apart by their number."""
    names: Any = description.get("channel_names", description.get("modality"))
    try:
        named = {int(channel): safe_name(str(name).strip().lower()) for channel, name in sorted(names.items())}
    except (AttributeError, ValueError, TypeError) as error:
        raise _refused("no channel_names (version 2) or modality (version 1)", '{"0": "CT"} or the like') from error
    counts = Counter(named.values())
    return {n: name if counts[name] == 1 else f"{name}{n}" for n, name in named.items()}


def _label_names(description: Mapping[str, Any]) -> dict[int, str]:
    """Name of each label, in either version; regions, which are several labels each, have none."""
    given = description.get("labels")
    found: dict[int, str] = {}
    for key, value in given.items() if isinstance(given, dict) else ():
        label, name = (key, value) if isinstance(value, str) else (value, key)
        if isinstance(name, str) and name.strip() and str(label).isdecimal() and int(label):
            found[int(label)] = " ".join(name.split())
    return dict(sorted(found.items()))


def _images(folder: Path, ending: str, modalities: Mapping[int, str]) -> Iterator[tuple[str, int, Path, Path | None]]:
    """Case, channel, image and labels of what lies in a folder; a single channel may go without its number."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in files if file.name.endswith(ending) and not file.name.startswith(".")]
    for file in files:
        stem = file.name.removesuffix(ending)
        match = NUMBERED.fullmatch(stem)
        if match is not None:
            yield match[1], int(match[2]), file, None
        elif len(modalities) == 1:
            yield stem, next(iter(modalities)), file, None
        else:
            do = "write one file a channel, as nnUNetv2_convert_MSD_dataset does"
            found = f"{folder.name}/{file.name} without the number of its channel"
            raise InputError("E-COH-030", found, file=DESCRIPTION, expected=f"{stem}_0000{ending} and so on", do=do)


def _listed(cases: Any, folder: Path) -> Iterator[tuple[str, int, Path, Path | None]]:
    """The same from the description itself."""
    try:
        for case, entry in sorted(cases.items()):
            for channel, image in enumerate(entry["images"]):
                yield case, channel, folder / image, folder / entry["label"]
    except (AttributeError, KeyError, TypeError) as error:
        raise _refused("a dataset entry that cannot be understood", "images and label of each case") from error


def _warn_of_incomplete(scans: list[Scan], channels: int) -> None:
    counts = Counter(scan.case for scan in scans)
    incomplete = [case for case, count in counts.items() if count < channels]
    if incomplete:
        warn("W-COH-031", f"{len(incomplete)} cases lack a channel: {listed(incomplete)}", file=DESCRIPTION)
