"""The BraTS challenges from 2017 on: T1, T1 with contrast agent, T2 and FLAIR of one patient, aligned, and the tumour.

==============================================  ========================================================================
file, anywhere below the folder                 becomes
==============================================  ========================================================================
``HGG/CASE/Brats18_2013_2_1_t1.nii.gz``         case ``Brats18_2013_2_1``, modality ``t1``, split train; ``t1ce``,
                                                ``t2`` and ``flair`` likewise
``..._seg.nii.gz``                              labels of all its images
``BraTS20_Training_001_t1.nii``                 the same of 2020, ``BraTS2021_00000_t1.nii.gz`` of 2021
``BraTS-GLI-00000-000-t1n.nii.gz``              of 2023 on: ``t1n`` is ``t1``, ``t1c`` ``t1ce``, ``t2w`` ``t2``, and
                                                ``t2f`` ``flair``
``W39_1998.09.19_Segm.nii``                     labels of BraTS20_Training_355, as released
cases without labels                            split extra, as those of the validation folders: they may be learnt
                                                from, and nothing is judged by them
==============================================  ========================================================================

Labels are 1 necrotic (until 2020 and non-enhancing) core, 2 oedema, 4 (from 2023 on 3) enhancing tumour. Counted as one
(``merge``, ``learn_as``) they are the regions that the challenge judges: 2 and 4 as 1 the whole tumour; 4 alone as 1
the core beside the oedema.

Sources: Menze et al. 2015, doi:10.1109/TMI.2014.2377694; Bakas et al. 2017, doi:10.1038/sdata.2017.117; Baid et al.
2021, arXiv:2107.02314.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import safe_name
from anamorph.data.landmark_formats import listed
from anamorph.errors import InputError

KINDS = {
    "t1": "t1",
    "t1n": "t1",
    "t1ce": "t1ce",
    "t1c": "t1ce",
    "t2": "t2",
    "t2w": "t2",
    "flair": "flair",
    "t2f": "flair",
    "seg": "seg",
}
"""Last word of a file's name -> modality, or seg."""
NAME = re.compile(rf"(.+)[_-]({'|'.join(KINDS)})\.nii(?:\.gz)?", re.IGNORECASE)
MISNAMED = re.compile(r".+_Segm\.nii(?:\.gz)?", re.IGNORECASE)
"""Labels that do not bear the name of their case, which is that of their folder."""
LABEL_NAMES = {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}
LABEL_NAMES_2023 = {1: "necrotic core", 2: "oedema", 3: "enhancing tumour"}
NAMES_2023 = re.compile(r".+-\d+-\d+")


def read_layout(folder: Path) -> Cohort:
    """Every image with its labels.

    Raises:
        InputError: E-COH-033, there are no images, two of one place, or labels without an image.
    """
    folder = folder.resolve()
    found: dict[str, dict[str, Path]] = {}
    for case, kind, path in _files(folder):
        files = found.setdefault(case, {})
        if kind in files:
            raise _refused(folder, f"{files[kind].name} and {path.name} of one case", "one file of each kind")
        files[kind] = path
    if lost := sorted(case for case, files in found.items() if set(files) == {"seg"}):
        raise _refused(folder, f"{len(lost)} labels without an image: {listed(lost)}", "an image of each case")
    if not found:
        raise _refused(folder, "no images", "CASE/CASE_t1.nii.gz, CASE_t2.nii.gz, CASE_seg.nii.gz and the like")
    scans = [
        Scan(safe_name(case), kind, path, files.get("seg"), split="train" if "seg" in files else "extra")
        for case, files in sorted(found.items())
        for kind, path in sorted(files.items())
        if kind != "seg"
    ]
    names = LABEL_NAMES_2023 if all(NAMES_2023.fullmatch(case) for case in found) else LABEL_NAMES
    labelled = any(scan.labels for scan in scans)
    return Cohort(folder, tuple(scans), label_names=names if labelled else {})


def _files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Case, modality or seg, and file."""
    for path in sorted(folder.rglob("*.nii*")) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if match := NAME.fullmatch(path.name):
            yield match[1], KINDS[match[2].lower()], path
        elif MISNAMED.fullmatch(path.name):
            yield path.parent.name, "seg", path


def _refused(folder: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=folder, expected=expected)
