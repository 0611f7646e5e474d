"""The MM-WHS challenge: whole hearts in CT and MR of different people.

======================================  ================================================================================
file                                    becomes
======================================  ================================================================================
``ct_train/ct_train_1001_image.nii.gz``  case ``ct_train_1001`` of split train, modality ``ct``
``ct_train/ct_train_1001_label.nii.gz``  its labels
``mr_train``                            the same for modality ``mr``
``ct_test``, ``mr_test``                split test, whose published labels are encrypted and left out
``ct-image/CASE.nii.gz``                case ``ct_CASE`` of split train, modality ``ct``, in folders as those that the
                                        programs of Ding et al. take, of MM-WHS or CHAOS; ``t1_in-image`` likewise
``ct-label/CASE.nii.gz``                its labels; a word such as image or label within the names is passed over
``ct-test-image``, ``ct-test-label``    split test
======================================  ================================================================================

A CT and an MR of one number are not of one person. Values of labels stay as they are: 500, 600, 420, 550, 205, 820 and
850 in MM-WHS, where an MR of the training set also has 421 in place of 420 (``learn_as``: 421 counts as 420).

Sources: Zhuang & Shen 2016, doi:10.1016/j.media.2016.02.006; https://zmiclab.github.io/zxh/0/mmwhs; folders of images
and labels: Ding et al. 2022, doi:10.1109/JBHI.2022.3149114, as released.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.cohort_files import safe_name
from anamorph.data.files import EXTENSIONS
from anamorph.data.landmark_formats import listed
from anamorph.errors import InputError

LABEL_NAMES = {
    205: "left ventricular myocardium",
    420: "left atrium",
    500: "left ventricle",
    550: "right atrium",
    600: "right ventricle",
    820: "ascending aorta",
    850: "pulmonary artery",
}
PARTS: dict[str, Split] = {"train": "train", "test": "test"}
OFFICIAL = re.compile(r"(ct|mr)_(train|test)_(\d+)_(image|label)(.*)")
"""A file of the challenge: modality, part, number, what it is, and what follows, as in label_encrypt_1mm."""
SIDES = re.compile(r"(.+?)-(test-)?(image|label)")
"""A folder of images or labels."""
WORDS = re.compile(r"(?:^|[_-])(image|img|label|lab|seg|gt)(?=[_-]|\d|$)", re.IGNORECASE)
"""Of the name of a file, what tells image from label."""
SUFFIXES = EXTENSIONS["nifti"][:2]


def read_layout(folder: Path) -> Cohort:
    """Every image with its labels.

    Raises:
        InputError: E-COH-033, there are no images, two of one case, or labels without their image.
    """
    folder = folder.resolve()
    found: dict[tuple[str, str, Split], dict[str, Path]] = {}
    for case, modality, split, kind, path in (*_official(folder), *_sides(folder)):
        files = found.setdefault((case, modality, split), {})
        if kind in files:
            raise _refused(folder, f"{files[kind].name} and {path.name} of one case", "one file a case")
        files[kind] = path
    if lost := sorted(case for (case, _, _), files in found.items() if "image" not in files):
        raise _refused(folder, f"{len(lost)} labels without an image: {listed(lost)}", "an image of each")
    if not found:
        raise _refused(folder, "no images", "ct_train/ct_train_1001_image.nii.gz, or ct-image/CASE.nii.gz")
    scans = [
        Scan(case, modality, files["image"], files.get("label"), split=split)
        for (case, modality, split), files in sorted(found.items())
    ]
    if twice := sorted({scan.case for scan in scans if sum(other.name == scan.name for other in scans) > 1}):
        raise _refused(folder, f"{twice[0]} in train and in test", "each case once")
    of_challenge = any(OFFICIAL.match(path.name) for files in found.values() for path in files.values())
    return Cohort(folder, tuple(scans), label_names=LABEL_NAMES if of_challenge else {})


def _official(folder: Path) -> Iterator[tuple[str, str, Split, str, Path]]:
    """Case, modality, split, image or label, and file, in the folders of the challenge or right here."""
    for place in (folder, *(folder / f"{modality}_{part}" for modality in ("ct", "mr") for part in PARTS)):
        for path, stem in _volumes(place):
            match = OFFICIAL.fullmatch(stem)
            if match is not None and not match[5]:
                modality, part, number, kind, _ = match.groups()
                yield f"{modality}_{part}_{number}", modality, PARTS[part], kind, path


def _sides(folder: Path) -> Iterator[tuple[str, str, Split, str, Path]]:
    """The same in folders of images and of labels."""
    for place in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        match = SIDES.fullmatch(place.name)
        for path, stem in _volumes(place) if match is not None else ():
            assert match is not None
            modality = safe_name(match[1].lower())
            case = WORDS.sub("", stem).strip("_-")
            case = case if case.lower().startswith(modality) else f"{modality}_{case}"
            yield safe_name(case), modality, "test" if match[2] else "train", match[3], path


def _volumes(folder: Path) -> Iterator[tuple[Path, str]]:
    """The images of a folder, and their names without ending."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        suffix = next((suffix for suffix in reversed(SUFFIXES) if path.name.lower().endswith(suffix)), "")
        if suffix and path.is_file() and not path.name.startswith("."):
            yield path, path.name[: -len(suffix)]


def _refused(folder: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=folder, expected=expected)
