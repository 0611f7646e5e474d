"""Single cases of a table of translations to look at: what every method makes of an image, beside the true one.

An evaluation keeps scores alone, so these few are translated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from anamorph.data.cohort import Pair
from anamorph.data.files import read_labels
from anamorph.data.image import Labelmap
from anamorph.inference.evaluate import chosen_pairs, translations_of
from anamorph.inference.image_translators import JudgedTranslation
from anamorph.inference.model_folder import read_model, windows_of
from anamorph.inference.warp import warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine
from anamorph.training.experiment import model_of
from anamorph.training.experiment_cohort import Part, parts_of
from anamorph.training.experiment_recipe import Experiment
from anamorph.training.experiment_rows import translators


@dataclass(frozen=True, eq=False)
class TranslationShown:
    """A case as files and methods have it.

    Args:
        labels: of the source, those that the experiment is about; None where there are none.
        target: the modality of the translations.
        found: method -> its translation, and the truth on the same scale; methods that failed are left out.
        windows: of modalities that the models see between two values.
    """

    labels: Labelmap | None
    target: str
    found: Mapping[str, JudgedTranslation]
    windows: Mapping[str, tuple[float, float]]


def show_translations(
    experiment: Experiment, folder: Path, cases: Sequence[str], rows: Sequence[str], device: str
) -> dict[str, TranslationShown]:
    """Translate some cases by some methods; those that all methods fail on are left out.

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
        if found := translations_of(pair, methods, part.cohort.listed):
            labels = _labels(pair, experiment, next(iter(found.values())).found.source.grid)
            shown[case] = TranslationShown(labels, pair.fixed.modality, found, windows_of(models.values()))
    return shown


def pair_of(case: str, experiment: Experiment, parts: Sequence[Part]) -> tuple[Part, Pair]:
    """A pair by its name, and the fold in which it is judged."""
    judged = experiment.evaluate
    for part in parts:
        for pair in chosen_pairs(part.cohort.of_split(judged.split), judged.pairs.rule):
            if pair.name == case:
                return part, pair
    raise KeyError(case)


def _labels(pair: Pair, experiment: Experiment, grid: Grid) -> Labelmap | None:
    if pair.moving.labels is None:
        return None
    labels = read_labels(pair.moving.labels)
    if not labels.grid.same_as(grid):
        labels = warp(labels, Affine.identity(grid.ndim), grid)
    if not experiment.labels:
        return labels
    meant = torch.isin(labels.data, torch.tensor(experiment.labels, dtype=labels.data.dtype))
    return replace(labels, data=labels.data * meant)
