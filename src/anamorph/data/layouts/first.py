"""Brains whose deep grey matter FSL FIRST has labelled.

=======================================================  ======================================================
file                                                     becomes
=======================================================  ======================================================
``SUBJECT_all_fast_firstseg.nii.gz``                     labels of case ``SUBJECT``, split train
``SUBJECT.nii.gz``, ``SUBJECT_brain.nii.gz`` beside it   its image, modality ``t1``: the first that is there
``SUBJECT/**/NAME_all_fast_firstseg.nii.gz``             the same within a folder a subject; image ``NAME``
``SUBJECT/T1/T1_first/T1_first_all_fast_firstseg``       as UK Biobank has it; image ``T1_brain`` one folder above
=======================================================  ======================================================

Labels have the names of FreeSurfer's table, whose numbers FIRST uses.

Source: Patenaude et al. 2011, doi:10.1016/j.neuroimage.2011.02.046, and https://fsl.fmrib.ox.ac.uk/fsl/docs/
"""

from __future__ import annotations

from pathlib import Path

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import safe_name
from anamorph.errors import InputError

SEGMENTED = "_all_fast_firstseg"
ENDINGS = (".nii.gz", ".nii")
MODALITY = "t1"
LABEL_NAMES = {
    10: "Left-Thalamus",
    11: "Left-Caudate",
    12: "Left-Putamen",
    13: "Left-Pallidum",
    16: "Brain-Stem",
    17: "Left-Hippocampus",
    18: "Left-Amygdala",
    26: "Left-Accumbens-area",
    49: "Right-Thalamus",
    50: "Right-Caudate",
    51: "Right-Putamen",
    52: "Right-Pallidum",
    53: "Right-Hippocampus",
    54: "Right-Amygdala",
    58: "Right-Accumbens-area",
}


def read_layout(folder: Path) -> Cohort:
    """Every labelled brain; all of split train.

    Raises:
        InputError: E-COH-033, nothing that FIRST has labelled, two labellings of one subject, or one without its image.
    """
    folder = folder.resolve()
    found: dict[str, Scan] = {}
    for labels in sorted(path for ending in ENDINGS for path in folder.rglob(f"*{SEGMENTED}{ending}")):
        prefix = labels.name.partition(SEGMENTED)[0]
        below = labels.relative_to(folder).parts
        case = safe_name(prefix if len(below) == 1 else below[0])
        if case in found:
            raise _refused(folder, f"two labellings of {case}, as {below[-1]}", "one a subject")
        found[case] = Scan(case, MODALITY, _image(labels, prefix, folder), labels)
    if not found:
        raise _refused(folder, "nothing that FIRST has labelled", f"SUBJECT{SEGMENTED}.nii.gz")
    return Cohort(folder, tuple(found[case] for case in sorted(found)), label_names=LABEL_NAMES)


def _image(labels: Path, prefix: str, folder: Path) -> Path:
    """What was labelled: beside the labels, or one folder above them within the subject's."""
    places = [labels.parent]
    if labels.parent.parent != folder and labels.parent != folder:
        places.append(labels.parent.parent)
    stems = [prefix, f"{prefix}_brain"]
    if prefix.endswith("_first"):
        stems += [f"{prefix.removesuffix('_first')}_brain", prefix.removesuffix("_first")]
    for place in places:
        for stem in stems:
            for ending in ENDINGS:
                if (image := place / f"{stem}{ending}").is_file():
                    return image
    raise _refused(labels.parent, f"{labels.name} without its image", " or ".join(f"{stem}.nii.gz" for stem in stems))


def _refused(folder: Path, found: str, expected: str) -> InputError:
    return InputError("E-COH-033", found, file=folder, expected=f"{expected} (FSL FIRST's output)")
