"""Anatomical images of a BIDS dataset, with segmentations and masks of its derivatives.

==================================================  ============================================================
file                                                becomes
==================================================  ============================================================
``sub-01/anat/sub-01_T1w.nii.gz``                   case ``sub-01``, modality ``t1``
``sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz``       case ``sub-01_ses-a``, modality ``t2``
``derivatives/**/anat/sub-01_dseg.nii.gz``          labels of the subject's T1 (its first modality without one)
``.../sub-01_space-T2w_dseg.nii.gz``                labels of that modality; those in other spaces are left out
``.../sub-01_label-lesion_mask.nii.gz``             labels as well, where there is no ``dseg``
``.../sub-01_desc-brain_mask.nii.gz``               mask
``participants.tsv``: ``split``                     train, validation or test of a subject; train without it
==================================================  ============================================================

Source: Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44, and the BIDS specification of derivatives.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anamorph.data.cohort import SESSION, Cohort, Scan, Split
from anamorph.data.cohort_files import safe_name, split_of
from anamorph.data.landmark_formats import listed
from anamorph.errors import InputError, warn

MODALITIES = {
    "T1w": "t1",
    "T2w": "t2",
    "FLAIR": "flair",
    "PDw": "pd",
    "T2starw": "t2star",
    "UNIT1": "unit1",
    "angio": "angio",
    "inplaneT1": "inplane-t1",
    "inplaneT2": "inplane-t2",
    "ct": "ct",
    "CT": "ct",
}
"""By the suffix of the name. ``ct`` is a proposal that datasets follow already."""
FOLDERS = ("anat", "ct")
ENDINGS = (".nii.gz", ".nii")
NATIVE = ("", "orig", "individual")
"""Values of ``space`` that say: where the image itself is."""
TELLING = ("acq", "ce", "rec", "echo", "part", "inv")
"""Entities that tell images of one suffix apart."""


@dataclass(frozen=True)
class Named:
    """What the name of a file says.

    Args:
        file: where it is.
        entities: ``sub``, ``ses``, ``acq``, ...
        suffix: the last word, such as ``T1w``.
    """

    file: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def case(self) -> str:
        """``sub-01``, or ``sub-01_ses-a``."""
        session = f"{SESSION}{self.entities['ses']}" if "ses" in self.entities else ""
        return f"sub-{self.entities['sub']}{session}"

    @property
    def rank(self) -> tuple[int, int, str]:
        """The one that is taken of several: the plainest name, and of equal ones the first run."""
        run = self.entities.get("run", "0")
        return len(self.entities), int(run) if run.isdigit() else 0, self.file.as_posix()


def read_layout(folder: Path) -> Cohort:
    """The images of all subjects and sessions.

    Raises:
        InputError: E-COH-030, this is no BIDS dataset, or has no anatomical images; E-COH-003, a split of
            ``participants.tsv``.
    """
    folder = folder.resolve()
    subjects = sorted(entry for entry in folder.glob("sub-*") if entry.is_dir()) if folder.is_dir() else []
    if not subjects:
        found, expected = "no folders sub-*", "a BIDS dataset"
        raise InputError("E-COH-030", found, file=folder, expected=expected)
    images = [named for subject in subjects for named in _in_subject(subject) if named.suffix in MODALITIES]
    if not images:
        expected = f"files *_{', *_'.join(MODALITIES)} in {' or '.join(FOLDERS)}"
        raise InputError("E-COH-030", f"no images of {len(subjects)} subjects", file=folder, expected=expected)
    splits = _participants(folder / "participants.tsv", [subject.name for subject in subjects])
    derived = _derived(folder / "derivatives")
    chosen, left_out = _choose_images(images)
    scans = []
    for (case, modality), image in sorted(chosen.items()):
        main = _main_modality([other for name, other in chosen if name == case])
        files = []
        for fitting in _belonging(image, modality == main, derived.get(case, [])):
            files.append(fitting[0].file if fitting else None)
            left_out += fitting[1:]
        split = splits.get(f"sub-{image.entities['sub']}", "train")
        scans.append(Scan(safe_name(case), safe_name(modality), image.file, *files, split=split))
    if left_out:
        found = f"{len(left_out)} files left out, where a scan has several: {listed([n.file.name for n in left_out])}"
        warn("W-COH-033", found)
    return Cohort(folder, tuple(sorted(scans, key=lambda scan: (scan.case, scan.modality))))


def _in_subject(folder: Path) -> Iterator[Named]:
    for kind in FOLDERS:
        for file in sorted([*folder.glob(f"{kind}/*"), *folder.glob(f"ses-*/{kind}/*")]):
            if (named := _named(file)) is not None:
                yield named


def _named(file: Path) -> Named | None:
    """What a name says; None where it is none of BIDS."""
    ending = next((ending for ending in ENDINGS if file.name.endswith(ending)), None)
    if ending is None or not file.name.startswith("sub-"):
        return None
    *pairs, suffix = file.name.removesuffix(ending).split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    return Named(file, entities, suffix)


def _choose_images(images: Sequence[Named]) -> tuple[dict[tuple[str, str], Named], list[Named]]:
    """One image a case and modality, and those left out.

    Where a case has several of one suffix, the entities that tell them apart join the name of the modality in the
    whole dataset; where even then there are several, as of repeated runs, the first is taken.
    """
    found: dict[tuple[str, str], list[Named]] = {}
    for image in images:
        found.setdefault((image.case, MODALITIES[image.suffix]), []).append(image)
    several = {
        modality
        for (_, modality), alike in found.items()
        if len({tuple(image.entities.get(entity) for entity in TELLING) for image in alike}) > 1
    }
    named: dict[tuple[str, str], list[Named]] = {}
    for (case, modality), alike in found.items():
        for image in alike:
            told = [image.entities[entity] for entity in TELLING if entity in image.entities]
            full = "-".join([modality, *told]) if modality in several else modality
            named.setdefault((case, full), []).append(image)
    ranked = {place: sorted(alike, key=lambda image: image.rank) for place, alike in named.items()}
    return {place: alike[0] for place, alike in ranked.items()}, [
        left for alike in ranked.values() for left in alike[1:]
    ]


def _derived(folder: Path) -> dict[str, list[Named]]:
    """Segmentations and masks in the images' own space, by case, the plainest names first."""
    found: dict[str, list[Named]] = {}
    for ending in ENDINGS:
        for suffix in ("dseg", "mask"):
            for file in folder.glob(f"**/sub-*_{suffix}{ending}") if folder.is_dir() else ():
                named = _named(file)
                if named is not None and "sub" in named.entities:
                    found.setdefault(named.case, []).append(named)
    return {case: sorted(files, key=lambda named: named.rank) for case, files in found.items()}


def _main_modality(modalities: Sequence[str]) -> str:
    """The one that derivatives belong to which name no space: T1, as in fMRIPrep's, or a case's first."""
    return "t1" if "t1" in modalities else min(modalities)


def _belonging(image: Named, is_main: bool, derived: Sequence[Named]) -> tuple[list[Named], list[Named]]:
    """Segmentations and masks of an image, the one to take first."""
    fitting = [named for named in derived if _fits(named, image, is_main)]
    structures = [named for named in fitting if named.suffix == "mask" and "label" in named.entities]
    labels = [named for named in fitting if named.suffix == "dseg"] or structures
    return labels, [named for named in fitting if named.suffix == "mask" and "label" not in named.entities]


def _fits(named: Named, image: Named, is_main: bool) -> bool:
    space = named.entities.get("space", "")
    same = all(named.entities[key] == image.entities.get(key) for key in (*TELLING, "run") if key in named.entities)
    return same and (space == image.suffix or (is_main and space in NATIVE))


def _participants(path: Path, subjects: Sequence[str]) -> dict[str, Split]:
    """Splits that ``participants.tsv`` states; warns of participants without a folder."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("E-COH-001", "no table that can be read", file=path, expected="tab-separated text") from error
    named = {str(row["participant_id"]): (row.get("split") or "").strip() for row in rows if row.get("participant_id")}
    absent = sorted(set(named) - set(subjects))
    if absent:
        warn("W-COH-034", f"{len(absent)} participants without a folder: {listed(absent)}", file=path)
    return {subject: split_of("" if word == "n/a" else word, subject, path) for subject, word in named.items()}
