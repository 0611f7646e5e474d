"""The folder of a FreeSurfer study: a T1 and its segmentation of each subject.

===================================  =================================================================
file                                 becomes
===================================  =================================================================
``SUBJECT/mri/norm.mgz``             case ``SUBJECT``, modality ``t1``, split train; else ``brain``, ``T1``
``SUBJECT/mri/aseg.mgz``             its labels, by the names of FreeSurfer's table
===================================  =================================================================

Of the three images the same is taken of all subjects: the one that most have, as the others differ in skull and
shading. Files may be converted to .mgh, .nii.gz or .nii. Left out are templates (``fsaverage`` and the like) and the
longitudinal copies of subjects (``SUBJECT.long.BASE``).

Source: Fischl 2012, doi:10.1016/j.neuroimage.2012.01.021, and https://surfer.nmr.mgh.harvard.edu/fswiki
"""

from __future__ import annotations

from pathlib import Path

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import safe_name
from anamorph.data.landmark_formats import listed
from anamorph.data.layouts.first import LABEL_NAMES as DEEP_NAMES
from anamorph.errors import InputError, warn

IMAGES = ("norm", "brain", "T1")
"""Without skull and shading, without skull, with both: of equally frequent ones the first is taken."""
LABELS = "aseg"
ENDINGS = (".mgz", ".mgh", ".nii.gz", ".nii")
TEMPLATES = ("fsaverage", "cvs_avg35", "V1_average", "lh.EC_average", "rh.EC_average")
LONGITUDINAL = ".long."
MODALITY = "t1"

SIDED = {
    "Cerebral-White-Matter": (2, 41),
    "Cerebral-Cortex": (3, 42),
    "Lateral-Ventricle": (4, 43),
    "Inf-Lat-Vent": (5, 44),
    "Cerebellum-White-Matter": (7, 46),
    "Cerebellum-Cortex": (8, 47),
    "VentralDC": (28, 60),
    "vessel": (30, 62),
    "choroid-plexus": (31, 63),
}
"""Structure -> its labels on the left and on the right."""
UNSIDED = {
    14: "3rd-Ventricle",
    15: "4th-Ventricle",
    24: "CSF",
    72: "5th-Ventricle",
    77: "WM-hypointensities",
    80: "non-WM-hypointensities",
    85: "Optic-Chiasm",
    251: "CC_Posterior",
    252: "CC_Mid_Posterior",
    253: "CC_Central",
    254: "CC_Mid_Anterior",
    255: "CC_Anterior",
}
LABEL_NAMES = dict(
    sorted(
        {
            **DEEP_NAMES,
            **UNSIDED,
            **{left: f"Left-{name}" for name, (left, _) in SIDED.items()},
            **{right: f"Right-{name}" for name, (_, right) in SIDED.items()},
        }.items()
    )
)
"""What aseg's labels are called."""


def read_layout(folder: Path) -> Cohort:
    """The subjects of a study; all of split train.

    Raises:
        InputError: E-COH-033, there are none.

    Warns:
        W-COH-036: subjects without the image that most have.
    """
    folder = folder.resolve()
    subjects = [path for path in sorted(folder.iterdir()) if _is_subject(path)] if folder.is_dir() else []
    found = {name: {path.name: file for path in subjects if (file := _file(path, name))} for name in IMAGES}
    chosen = max(IMAGES, key=lambda name: len(found[name]))
    if not found[chosen]:
        expected = "SUBJECT/mri/norm.mgz, brain.mgz or T1.mgz (a FreeSurfer study)"
        raise InputError("E-COH-033", "no subjects", file=folder, expected=expected)
    without = [path.name for path in subjects if path.name not in found[chosen]]
    if without:
        warn("W-COH-036", f"{len(without)} subjects without mri/{chosen} left out: {listed(without)}", file=folder)
    scans = [
        Scan(safe_name(path.name), MODALITY, found[chosen][path.name], _file(path, LABELS))
        for path in subjects
        if path.name in found[chosen]
    ]
    labelled = any(scan.labels for scan in scans)
    scans.sort(key=lambda scan: (scan.case, scan.modality))
    return Cohort(folder, tuple(scans), label_names=LABEL_NAMES if labelled else {})


def _is_subject(path: Path) -> bool:
    return (path / "mri").is_dir() and not path.name.startswith(TEMPLATES) and LONGITUDINAL not in path.name


def _file(subject: Path, name: str) -> Path | None:
    files = (subject / "mri" / f"{name}{ending}" for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)
