"""Single cases of a table of translations to look at: what every method makes of an image, beside the true one.

An evaluation keeps scores alone, so these few are translated again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from anamorph.data.cohort import Pair
from anamorph.data.files import read_labels
from anamorph.data.image import Image
from anamorph.errors import AnamorphError, AnamorphWarning
from anamorph.inference.evaluate import chosen_pairs, truth_of
from anamorph.inference.image_translators import JudgedTranslation
from anamorph.inference.model_folder import read_model
from anamorph.inference.warp import warp
from anamorph.spatial.transform import Affine
from anamorph.training.experiment import model_of
from anamorph.training.experiment_cohort import Part, parts_of
from anamorph.training.experiment_recipe import Experiment
from anamorph.training.experiment_rows import translators


@dataclass(frozen=True, eq=False)
class TranslationShown:
    """A case as files and methods have it.

    Args:
        source: what was translated, on the grid on which that is judged.
        labels: of the source, those that the experiment is about, I J (K); None where there are none.
        target: the modality of the translations.
        found: method -> its translation, and the truth on the same scale; methods that failed are left out.
    """

    source: Image
    labels: Integer[np.ndarray, "..."] | None
    target: str
    found: Mapping[str, JudgedTranslation]


def show_translations(
    experiment: Experiment, folder: Path, cases: Sequence[str], rows: Sequence[str], device: str
) -> dict[str, TranslationShown]:
    """Translate some cases by some methods.

    Args:
        experiment: that has been run.
        folder: of its files.
        cases: names as in the scores.
        rows: methods of the table, in this order.
        device: to compute on.
    """
    parts = parts_of(experiment, folder)
    shown = {}
    for case in cases:
        part, pair = pair_of(case, experiment, parts)
        models = {name: read_model(model_of(part.folder, name), device) for name in experiment.train}
        methods = sorted(translators(experiment, models, rows), key=lambda one: rows.index(one.name))
        source, truth = truth_of(pair, part.cohort.listed)
        found = {}
        for method in methods:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AnamorphWarning)
                try:
                    found[method.name] = method.run(pair, source, truth)
                except AnamorphError:  # the table says why
                    continue
        source = next((one.found.source for one in found.values()), source)
        shown[case] = TranslationShown(source, _labels(pair, experiment, source), pair.fixed.modality, found)
    return shown


def pair_of(case: str, experiment: Experiment, parts: Sequence[Part]) -> tuple[Part, Pair]:
    """A pair by its name, and the fold in which it is judged."""
    judged = experiment.evaluate
    for part in parts:
        for pair in chosen_pairs(part.cohort.of_split(judged.split), judged.pairs.rule):
            if pair.name == case:
                return part, pair
    raise KeyError(case)


def _labels(pair: Pair, experiment: Experiment, source: Image) -> Integer[np.ndarray, "..."] | None:
    if pair.moving.labels is None:
        return None
    labels = read_labels(pair.moving.labels)
    if not labels.grid.same_as(source.grid):
        labels = warp(labels, Affine.identity(source.grid.ndim), source.grid)
    values = labels.data.numpy()
    return np.where(np.isin(values, experiment.labels), values, 0) if experiment.labels else values
