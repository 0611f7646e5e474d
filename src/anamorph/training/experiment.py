"""A row of a paper's table as a file: cohort, preparation, trainings and evaluation, at more than one scale.

Every stage is kept in the experiment's folder and not done again as long as what it was made by stays the same, so that
an interrupted experiment goes on where it stopped.

===============  ======================================================================
file             holds
===============  ======================================================================
``recipe.json``  the resolved experiment that the folder was made by
``cohort/``      the cohort; ``gathered/`` its table where the images are real
``prepared/``    what the networks learn from
``runs/NAME/``   each training
``rows/``        finished rows of the evaluation
``scores.csv``   every score
===============  ======================================================================
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from anamorph.data.cohort import Cohort, Split
from anamorph.data.cohort_files import read_cohort, write_cohort
from anamorph.data.configuration import read_configuration, refusal
from anamorph.data.files import atomic_write
from anamorph.data.layouts import LAYOUTS
from anamorph.data.phantoms.kinds import synthesise
from anamorph.errors import ConfigurationError
from anamorph.evaluation.scores import Score, to_csv
from anamorph.inference import contenders
from anamorph.inference.evaluate import chosen_pairs, evaluate_registration, evaluate_segmentation, spread
from anamorph.inference.model_folder import Model, read_model
from anamorph.training.configuration import Machine, PairChoice, configure
from anamorph.training.loop import train
from anamorph.training.prepare import PreparationSettings, prepare

Progress = Callable[[str, float], None]
Scale = Literal["cpu", "paper"]
STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Gathering(BaseModel):
    """Real images, below the folder that ``ANAMORPH_DATA`` names."""

    model_config = STRICT

    layout: Literal["nnunet", "bids", "folders"]
    """How they lie there, as for ``anamorph gather``."""
    folder: str
    """Below ``ANAMORPH_DATA``."""
    modality: str | None = None
    """Of layouts that do not tell."""
    validation: Annotated[int, Field(ge=0)] = 0
    """The last cases before those of the test."""
    test: Annotated[int, Field(ge=0)] = 0
    """The last cases."""


class Synthesis(BaseModel):
    """Phantoms, as ``anamorph synthesise`` makes them."""

    model_config = STRICT

    kind: str
    """Which."""
    cases: Annotated[int, Field(ge=1)] | None = None
    """How many."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the phantoms."""
    validation: Annotated[int, Field(ge=0)] = 0
    """The last cases before those of the test."""
    test: Annotated[int, Field(ge=0)] = 0
    """The last cases."""
    options: dict[str, JsonValue] = {}
    """Of the kind."""


class CohortRecipe(BaseModel):
    """Where the cases come from."""

    model_config = STRICT

    gather: Gathering | None = None
    """Real images."""
    synthesise: Synthesis | None = None
    """Phantoms."""
    remap: Synthesis | None = None
    """A second modality for them, of kind remapped."""

    @model_validator(mode="after")
    def _one(self) -> CohortRecipe:
        if (self.gather is None) == (self.synthesise is None):
            raise ValueError("a cohort is either gathered or synthesised")
        return self


class TrainingRecipe(BaseModel):
    """One method to train."""

    model_config = STRICT

    method: str
    """Name in ``METHODS``."""
    settings: dict[str, JsonValue] = {}
    """Of the method, as far as they differ from its own."""
    schedule: dict[str, JsonValue] = {}
    """Of the training, as far as it differs from the experiment's and the method's."""
    pairs: PairChoice | None = None
    """What it learns from, where that differs from what is evaluated."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the training."""


class EvaluationRecipe(BaseModel):
    """What is judged, beside the trained methods."""

    model_config = STRICT

    task: Literal["register", "segment"] = "register"
    """What the methods do."""
    split: Split = "test"
    """Which cases."""
    pairs: PairChoice = PairChoice()
    """Which pairs of them; trainings learn from the same kind of pairs."""
    most_items: Annotated[int, Field(ge=1)] | None = None
    """At most so many pairs or cases, spread evenly over all."""
    methods: tuple[str, ...] = ()
    """Of ``contenders.ENGINES``."""
    peers: tuple[str, ...] = ()
    """Other people's tools."""
    metrics: tuple[str, ...] = ()
    """What the table shows; everything if empty."""
    reference: str = ""
    """Method that every other is tested against; the best and second best if empty."""


class Experiment(BaseModel):
    """A table of a paper."""

    model_config = STRICT

    title: str
    """Of the page."""
    about: str = ""
    """What it asks, in a paragraph."""
    cohort: CohortRecipe
    """The cases."""
    prepare: PreparationSettings = PreparationSettings()
    """How they are brought before the networks."""
    schedule: dict[str, JsonValue] = {}
    """Of every training, as far as it differs from the methods' own."""
    validation_items: Annotated[int, Field(ge=1)] = 10
    """Most pairs or cases that a validation looks at."""
    train: dict[str, TrainingRecipe] = {}
    """Name in the table -> what is trained."""
    evaluate: EvaluationRecipe
    """What is judged."""


@dataclass(frozen=True, eq=False)
class ExperimentResult:
    """What came of an experiment.

    Args:
        experiment: as it was run.
        scores: of every case and method.
        trained: of each training, what its model card says.
    """

    experiment: Experiment
    scores: Sequence[Score]
    trained: Mapping[str, Mapping[str, Any]]


def read_experiment(path: Path, scale: Scale) -> Experiment:
    """An experiment at one of its scales: ``scales`` holds what differs, merged into the rest.

    Raises:
        ConfigurationError: E-CFG-009 and E-CFG-010, the file does not fit; E-EXP-001, it has no such scale.
    """
    values = read_configuration(path)
    scales = values.pop("scales", {})
    if not isinstance(scales, dict) or scale not in scales:
        found = ", ".join(scales) if isinstance(scales, dict) else "none"
        raise ConfigurationError("E-EXP-001", f"scales {found}", file=path, expected=scale)
    try:
        return Experiment.model_validate(_merged(values, scales[scale] or {}))
    except ValidationError as error:
        names = {(name,): name for name in Experiment.model_fields}
        raise refusal(error, names, (), path, "an experiment with title, cohort and evaluate") from None


def run_experiment(
    experiment: Experiment,
    folder: Path,
    *,
    machine: Machine = Machine(),  # noqa: B008
    threads: int = 1,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    on_case: Callable[[str, str, Sequence[Score]], None] | None = None,
) -> ExperimentResult:
    """Make the cohort, prepare it, train, and evaluate; every stage only where it is not done yet.

    Args:
        experiment: from ``read_experiment``.
        folder: of its files.
        machine: what the trainings run on.
        threads: CPU threads of the other tools.
        force: throw away what another recipe left in the folder.
        progress, say, on_case: told how far it is, in words, and of each case.

    Raises:
        ConfigurationError: E-EXP-002, the folder was made by another recipe; E-EXP-003, images are needed and
            ``ANAMORPH_DATA`` does not name their folder.
        AnamorphError: as the stages.
    """
    tell = say or (lambda line: None)
    _claim(experiment, folder, force)
    tell("cohort")
    cohort = _cohort(experiment.cohort, folder, progress)
    judged = experiment.evaluate
    models: dict[str, Model] = {}
    if experiment.train:
        tell("prepare")
        prepared = prepare(cohort, folder / "prepared", experiment.prepare, progress=progress)
        for name, recipe in experiment.train.items():
            tell(f"train {name}")
            run = folder / "runs" / name
            values: dict[str, Any] = {
                "settings": recipe.settings,
                "schedule": _merged(experiment.schedule, recipe.schedule),
                "seed": recipe.seed,
                "validation_items": experiment.validation_items,
            }
            if judged.task == "register":
                values["pairs"] = (recipe.pairs or judged.pairs).model_dump()
            configuration = configure(recipe.method, values)
            if not (run / "model" / "model.json").exists():
                train(prepared, configuration, run, machine=machine, progress=_named(progress, name), resume=True)
            models[name] = read_model(run / "model", machine.device)
    tell("evaluate")
    part = cohort.of_split(judged.split)
    if judged.task == "register":
        choice = judged.pairs
        pairs = spread(
            chosen_pairs(part, choice.rule, choice.fixed_modality, choice.moving_modality), judged.most_items
        )
        scores = evaluate_registration(
            pairs,
            [
                *(contenders.engine(name, machine.device) for name in judged.methods),
                *(contenders.peer(name, threads, 3600.0) for name in judged.peers),
                *(contenders.registering_model(model, name) for name, model in models.items()),
            ],
            folder / "rows",
            progress=progress,
            on_case=on_case,
        )
    else:
        scans = spread([scan for scan in part.scans if scan.labels is not None], judged.most_items)
        scores = evaluate_segmentation(
            scans,
            [contenders.segmenting_model(model, name) for name, model in models.items()],
            folder / "rows",
            progress=progress,
            on_case=on_case,
        )
    with atomic_write(folder / "scores.csv") as path:
        path.write_text(to_csv(scores), encoding="utf-8")
    return ExperimentResult(experiment, scores, {name: model.card.trained for name, model in models.items()})


def _named(progress: Progress | None, name: str) -> Progress | None:
    """Progress whose stages say which training they belong to."""
    return None if progress is None else lambda stage, done: progress(f"{name}: {stage}", done)


def _claim(experiment: Experiment, folder: Path, force: bool) -> None:
    """Say whose the folder is; the evaluation may change without making what was trained void."""
    recipe = experiment.model_dump(mode="json", exclude={"title", "about", "evaluate"})
    recipe["pairs"] = experiment.evaluate.pairs.model_dump()
    path = folder / "recipe.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != recipe:
        if not force:
            found = "the folder was made by another recipe"
            raise ConfigurationError("E-EXP-002", found, file=folder, do="choose another --out, or use --force")
        for name in ("cohort", "prepared", "runs", "rows"):
            shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps(recipe, indent=1), encoding="utf-8")


def _cohort(recipe: CohortRecipe, folder: Path, progress: Progress | None) -> Cohort:
    """The cohort of a recipe, made unless it is there."""
    if recipe.gather is not None:
        source = folder / "gathered"
        if not (source / "cohort.csv").exists():
            gathered = _gathered(recipe.gather)
            source.mkdir(exist_ok=True)
            write_cohort(gathered, source)
    else:
        assert recipe.synthesise is not None
        source = folder / "cohort"
        _make(recipe.synthesise, source, {}, progress)
    if recipe.remap is not None:
        _make(recipe.remap, folder / "remapped", {"cohort": source}, progress)
        source = folder / "remapped"
    return read_cohort(source)


def _make(recipe: Synthesis, folder: Path, more: Mapping[str, Any], progress: Progress | None) -> None:
    if not (folder / "phantom.json").exists():
        synthesise(
            recipe.kind, recipe.cases, recipe.seed, folder, {**recipe.options, **more},
            validation=recipe.validation, test=recipe.test, progress=progress,
        )  # fmt: skip


def _gathered(recipe: Gathering) -> Cohort:
    data = os.environ.get("ANAMORPH_DATA")
    if data is None:
        found = f"{recipe.folder} is needed"
        raise ConfigurationError("E-EXP-003", found, do="let ANAMORPH_DATA name the folder that holds it")
    cohort = LAYOUTS[recipe.layout](Path(data) / recipe.folder)
    cohort = cohort if recipe.modality is None else cohort.renamed(recipe.modality)
    return cohort.held_back(validation=recipe.validation, test=recipe.test)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with changes, nested mappings key by key."""
    merged = dict(values)
    for name, value in changes.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged
