"""The rows of an experiment's table: trained methods as they are to be used, and segmentations by atlases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.files import read_labels, write
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import InputError
from anamorph.inference import contenders
from anamorph.inference.image_translators import ImageTranslator, by_fixed_modality, translating_model
from anamorph.inference.model_folder import Model
from anamorph.inference.model_variants import with_networks, with_settings
from anamorph.training.experiment_cohort import Part
from anamorph.training.experiment_recipe import AtlasesRecipe, Experiment

ATLASES, REGISTRATIONS, ALIGNMENTS = "atlases", "registrations", "alignments"
"""Folders of an experiment: labels of atlases as they are judged, what was found of them, and affine alignments of the
pairs that are judged."""


@dataclass(frozen=True)
class Judged:
    """By which labels segmentations are judged.

    Args:
        names: of the labels; all that there are if None.
        learn_as: label of the files -> the one that it counts as.
    """

    names: Mapping[int, str] | None
    learn_as: Mapping[int, int]

    @staticmethod
    def of(experiment: Experiment, part: Part) -> Judged:
        """Those of the trainings, where there are any, and else those that the file names."""
        known = part.cohort.label_names or None
        if experiment.train:
            plan = PreparedCohort.open(part.folder / "prepared").plan
            return Judged(plan.labels if experiment.labels or known else None, plan.learn_as)
        names = {label: (known or {}).get(label, f"label {label}") for label in experiment.labels} or known
        return Judged(names, experiment.prepare.learn_as or {})


def trained_rows(experiment: Experiment, models: Mapping[str, Model]) -> dict[str, dict[str, Model]]:
    """The trained methods of the table, each as its row has it; rows of atlases are none of them.

    A row is one model for each fixed modality, or one of the modality "" for all.

    Raises:
        ConfigurationError: E-EVA-014, E-EVA-015, settings or networks that do not fit.
    """
    found = {}
    for name, row in experiment.rows.items():
        if row.atlases is not None:
            continue
        found[name] = {}
        for modality, training in row.trainings(name).items():
            model = models[training]
            model = with_networks(model, row.networks, models) if row.networks else model
            found[name][modality] = with_settings(model, row.settings) if row.settings else model
    return found


def registrars(
    experiment: Experiment, models: Mapping[str, Model], alignments: Path | None = None
) -> list[contenders.Registrar]:
    """The trained methods of a table of registrations, in its order; errors as ``trained_rows``.

    Args:
        experiment: whose task is to register.
        models: of its trainings.
        alignments: folder where affine alignments of pairs are kept.
    """

    def registrar(model: Model, name: str) -> contenders.Registrar:
        return contenders.registering_model(model, name, alignments)

    return [
        by_fixed_modality({key: registrar(model, name) for key, model in found.items()}, name)
        for name, found in trained_rows(experiment, models).items()
    ]


def translators(
    experiment: Experiment, models: Mapping[str, Model], rows: Sequence[str] | None = None
) -> list[ImageTranslator]:
    """The trained methods of a table of translations, in its order; errors as ``trained_rows``.

    Args:
        experiment: whose task is to translate.
        models: of its trainings.
        rows: only these.
    """
    native = experiment.evaluate.grid == "image"
    return [
        by_fixed_modality({key: translating_model(model, name, native=native) for key, model in found.items()}, name)
        for name, found in trained_rows(experiment, models).items()
        if rows is None or name in rows
    ]


def segmenters(
    experiment: Experiment,
    folder: Path,
    part: Part,
    models: Mapping[str, Model],
    device: str,
    *,
    rows: tuple[str, ...] | None = None,
    consistency: bool = False,
    native: bool = True,
) -> list[contenders.Segmenter]:
    """What the rows of a table do, in their order.

    Args:
        experiment: whose task is to segment.
        folder: of its files.
        part: the fold, or all.
        models: of its trainings.
        device: to compute on.
        rows: only these.
        consistency, native: as in ``contenders.segmenting_model``.

    Raises:
        ConfigurationError: as ``trained_rows``.
        InputError: E-EXP-007, no atlases.
    """
    trained = trained_rows(experiment, models)
    found = []
    for name, row in experiment.rows.items():
        if rows is not None and name not in rows:
            continue
        if row.atlases is None:
            found.append(contenders.segmenting_model(trained[name][""], name, consistency=consistency, native=native))
            continue
        recipe, registration, fusion = row.atlases, row.atlases.registration, row.atlases.fusion
        found.append(
            contenders.segmenting_atlases(
                _atlases(recipe, experiment, part.cohort, folder / ATLASES), name,
                registration=models[registration] if isinstance(registration, str) else registration,
                fusion=models[fusion] if isinstance(fusion, str) else fusion,
                select=recipe.select, region=recipe.region, cache=folder / REGISTRATIONS, device=device,
                labels=experiment.labels, count_as=experiment.prepare.learn_as,
            )
        )  # fmt: skip
    return found


def _atlases(recipe: AtlasesRecipe, experiment: Experiment, cohort: Cohort, folder: Path) -> list[Scan]:
    """The labelled scans of a row, their labels as they are judged."""
    scans = (
        scan
        for scan in sorted(cohort.of_split(recipe.split).scans, key=lambda scan: (scan.case, scan.modality))
        if scan.labels is not None and recipe.modality in (None, scan.modality)
    )
    found = [_as_judged(scan, experiment, folder) for scan in islice(scans, recipe.count)]
    if not found:
        about = " ".join(filter(None, (recipe.modality, "scans of split", recipe.split)))
        raise InputError("E-EXP-007", f"no labelled {about}", expected="one at least, for an atlas")
    return found


def _as_judged(scan: Scan, experiment: Experiment, folder: Path) -> Scan:
    """A scan whose labels are only those that are learnt; the very same where that are all."""
    counted = experiment.prepare.learn_as or {}
    if scan.labels is None or not (experiment.labels or counted):
        return scan
    path = folder / f"{scan.name}.nii.gz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(contenders.restricted(read_labels(scan.labels), experiment.labels, counted), path)
    return replace(scan, labels=path)
