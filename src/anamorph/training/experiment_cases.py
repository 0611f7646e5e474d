"""Single cases of an experiment to look at: which ones, and what every method makes of them.

An evaluation keeps scores alone, so these few are segmented again; their labels are kept under ``pictures``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from anamorph.data.cohort import Scan, Split
from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.network_grid import counted_as
from anamorph.errors import AnamorphError, AnamorphWarning
from anamorph.evaluation.comparison import Comparison
from anamorph.inference import contenders
from anamorph.inference.model_folder import read_model
from anamorph.pairwise.register import Progress
from anamorph.training.cohort_recipe import CohortRecipe, Source
from anamorph.training.experiment import model_of
from anamorph.training.experiment_cohort import Part, parts_of
from anamorph.training.experiment_recipe import Experiment
from anamorph.training.experiment_rows import Judged, segmenters

FOLDER = "pictures"
Labels = Int[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class CaseShown:
    """A case as files and methods have it.

    Args:
        image: as it was read.
        truth: labels that the experiment is about, I J (K); None of a case without any.
        found: method -> the same of what it found; a method that failed is left out.
    """

    image: Image
    truth: Labels | None
    found: Mapping[str, Labels]


def is_real(recipe: CohortRecipe) -> bool:
    """Whether any of the images are somebody's, so that pictures of them are not ours to publish."""
    sources: tuple[Source, ...] = (recipe, *recipe.more.values())
    return any(source.gather is not None for source in sources)


def telling_method(found: Comparison) -> str:
    """The one that a comparison is about: its reference, or the last."""
    return found.reference or found.methods[-1]


def telling_methods(found: Comparison, most: int) -> list[str]:
    """At most so many, the one that the comparison is about among them; that nothing is done is none."""
    names, one = [name for name in found.methods if name != "none"], telling_method(found)
    others = evenly([name for name in names if name != one], most - 1 if one in names else most)
    return [name for name in names if name == one or name in others]


def telling_cases(found: Comparison) -> dict[str, str]:
    """Best, median and worst case of that method by the first metric; empty where it has no values."""
    if not found.leading or telling_method(found) not in found.leading[0].cells:
        return {}
    column = found.leading[0]
    values = column.cells[telling_method(found)].values
    ranked = sorted(values, key=lambda case: (values[case], case), reverse=bool(column.about.higher_is_better))
    places = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1} if ranked else {}
    chosen = {ranked[place]: name for name, place in reversed(places.items())}
    return {name: case for case, name in reversed(chosen.items())}


def show_cases(
    experiment: Experiment,
    folder: Path,
    cases: Sequence[str],
    rows: Sequence[str],
    device: str,
    progress: Progress | None = None,
) -> dict[str, CaseShown]:
    """Segment some cases by some methods, unless that is done.

    Args:
        experiment: that has been run.
        folder: of its files.
        cases: names as in the scores.
        rows: methods of the table; none for images and truth alone.
        device: to compute on.
        progress: told the share that is done.
    """
    looked: dict[Part, tuple[Judged, list[contenders.Segmenter]]] = {}
    shown = {}
    parts = parts_of(experiment, folder)
    for done, case in enumerate(cases):
        if progress is not None:
            progress(FOLDER, done / len(cases))
        part, scan = _scan_of(case, experiment, parts)
        if part not in looked:
            models = {name: read_model(model_of(part.folder, name), device) for name in experiment.train if rows}
            methods = segmenters(experiment, folder, part, models, device, rows=tuple(rows)) if rows else []
            looked[part] = Judged.of(experiment, part), sorted(methods, key=lambda one: rows.index(one.name))
        judged, methods = looked[part]
        image = read(scan.image, modality=scan.modality)
        found = {one.name: _found(one, scan, image, folder / FOLDER) for one in methods}
        labels = {name: labels.data.numpy() for name, labels in found.items() if labels is not None}
        shown[case] = CaseShown(image, _truth(scan, judged), labels)
    return shown


def names_of(experiment: Experiment, folder: Path, split: Split, most: int) -> list[str]:
    """Some labelled cases of a split, in the first fold, evenly from all.

    Args:
        experiment: that has been run.
        folder: of its files.
        split: which.
        most: at most so many.
    """
    cohort = parts_of(experiment, folder)[0].cohort
    return evenly([scan.name for scan in cohort.of_split(split).scans if scan.labels is not None], most)


def label_names(experiment: Experiment, folder: Path, cases: Mapping[str, CaseShown]) -> Mapping[int, str]:
    """The labels that an experiment is about; those of the cases where nothing names them."""
    names = Judged.of(experiment, parts_of(experiment, folder)[0]).names
    if names is not None:
        return names
    values = {value for shown in cases.values() if shown.truth is not None for value in np.unique(shown.truth).tolist()}
    return {value: f"label {value}" for value in sorted(values - {0})}


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of them, the first and the last among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(place * (len(names) - 1) / (most - 1))] for place in range(most)]


def _scan_of(case: str, experiment: Experiment, parts: Sequence[Part]) -> tuple[Part, Scan]:
    """A scan by its name, in the fold in which it is judged, or in the first one that it helps to learn."""
    found = [(part, scan) for part in parts for scan in part.cohort.scans if scan.name == case]
    return next((one for one in found if one[1].split == experiment.evaluate.split), found[0])


def _truth(scan: Scan, judged: Judged) -> Labels | None:
    if scan.labels is None:
        return None
    values = counted_as(read_labels(scan.labels).data.numpy(), judged.learn_as)
    return values if judged.names is None else np.where(np.isin(values, list(judged.names)), values, 0)


def _found(segmenter: contenders.Segmenter, scan: Scan, image: Image, folder: Path) -> Labelmap | None:
    state = scan.image.stat()
    words = (scan.name, segmenter.stamp, str(state.st_size), str(state.st_mtime_ns))
    kept = folder / f"{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:24]}.nii.gz"
    if kept.exists():
        return read_labels(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        try:
            labels = segmenter.run(scan, image).labels
        except AnamorphError:
            return None
    folder.mkdir(parents=True, exist_ok=True)
    write(labels, kept)
    return labels
