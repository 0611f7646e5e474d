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
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import AnamorphError, AnamorphWarning
from anamorph.evaluation.comparison import Comparison
from anamorph.inference import contenders
from anamorph.inference.model_folder import read_model
from anamorph.pairwise.register import Progress
from anamorph.training.experiment import trained_rows
from anamorph.training.experiment_recipe import CohortRecipe, Experiment, Source

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


def telling_cases(found: Comparison) -> dict[str, str]:
    """Best, median and worst case of the last method by the first metric; empty where it has no values."""
    if not found.leading or found.methods[-1] not in found.leading[0].cells:
        return {}
    column = found.leading[0]
    values = column.cells[found.methods[-1]].values
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
    prepared = PreparedCohort.open(folder / "prepared")
    trainings = {name: read_model(folder / "runs" / name / "model", device) for name in experiment.train if rows}
    models = trained_rows(experiment, trainings) if rows else {}
    segmenters = [contenders.segmenting_model(models[name], name) for name in rows]
    shown = {}
    for done, case in enumerate(cases):
        if progress is not None:
            progress(FOLDER, done / len(cases))
        scan = prepared.by_name[case].scan
        image = read(scan.image, modality=scan.modality)
        found = {one.name: _found(one, scan, image, folder / FOLDER) for one in segmenters}
        labels = {name: labels.data.numpy() for name, labels in found.items() if labels is not None}
        shown[case] = CaseShown(image, _truth(scan, prepared), labels)
    return shown


def names_of(folder: Path, split: Split, most: int) -> list[str]:
    """Some labelled cases of a split, evenly from all.

    Args:
        folder: of an experiment's files.
        split: which.
        most: at most so many.
    """
    scans = [found.scan for found in PreparedCohort.open(folder / "prepared").scans]
    return evenly([scan.name for scan in scans if scan.split == split and scan.labels is not None], most)


def label_names(folder: Path) -> Mapping[int, str]:
    """The labels that an experiment is about."""
    return PreparedCohort.open(folder / "prepared").plan.labels


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of them, the first and the last among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(place * (len(names) - 1) / (most - 1))] for place in range(most)]


def _truth(scan: Scan, prepared: PreparedCohort) -> Labels | None:
    if scan.labels is None:
        return None
    values = counted_as(read_labels(scan.labels).data.numpy(), prepared.plan.learn_as)
    return np.where(np.isin(values, list(prepared.plan.labels)), values, 0)


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
