"""A table of a paper from its file: cohort, preparation, trainings and evaluation, stage by stage.

Every stage is kept in the experiment's folder and not done again as long as what it was made by stays the same, so that
an interrupted experiment goes on where it stopped, and several experiments of one cohort share their trainings.

================  =====================================================================
file              holds
================  =====================================================================
``recipe.json``   what cohort, preparation and each training were made by
``cohort/``       the cohort; ``gathered/`` its table where the images are real
``more/NAME/``    further cases, likewise
``prepared/``     what the networks learn from
``runs/NAME/``    each training
``rows/``         finished rows of the evaluation
================  =====================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from anamorph.data.cohort import Cohort
from anamorph.data.cohort_files import read_cohort, write_cohort
from anamorph.data.configuration import merged
from anamorph.data.layouts import LAYOUTS
from anamorph.data.phantoms.kinds import synthesise
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.scores import Score
from anamorph.inference import contenders
from anamorph.inference.evaluate import chosen_pairs, evaluate_registration, evaluate_segmentation, spread
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.model_variants import changed_settings, with_networks, with_settings
from anamorph.methods import METHODS
from anamorph.training.configuration import Machine, TrainingConfiguration, configure
from anamorph.training.experiment_claim import claim
from anamorph.training.experiment_recipe import CohortRecipe, Experiment, Gathering, Source, Synthesis
from anamorph.training.loop import train
from anamorph.training.prepare import plan_for, prepare

Progress = Callable[[str, float], None]
OnCase = Callable[[str, str, Sequence[Score]], None]
CONSISTENCY = ("mice", "ic_")
TOPOLOGY = ("components", "holes", "tunnels", "cavities", "stray", "betti", "topological", "atlas_betti")
"""Beginnings of metrics that are measured where a table asks for them."""


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

    def groups(self) -> dict[str, list[Score]]:
        """The scores of each table; one of the name "" where no groups are asked for.

        Raises:
            InputError: E-EXP-005, a group without a case.
        """
        patterns = self.experiment.evaluate.groups or {"": "*"}
        found = {name: [row for row in self.scores if fnmatchcase(row.case, p)] for name, p in patterns.items()}
        for name, rows in found.items():
            if not rows and self.scores:
                expected = f"a pattern of names such as {self.scores[0].case}"
                raise InputError("E-EXP-005", f"group {name} ({patterns[name]}) has no case", expected=expected)
        return found


def run_experiment(
    experiment: Experiment,
    folder: Path,
    *,
    machine: Machine = Machine(),  # noqa: B008
    threads: int = 1,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    on_case: OnCase | None = None,
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
            ``ANAMORPH_DATA`` does not name their folder; E-EXP-004, labels that no training scan has.
        AnamorphError: as the stages.
    """
    tell = say or (lambda line: None)
    configurations = configured(experiment, folder)
    claim(experiment, folder, force)
    tell("cohort")
    cohort = _cohort(experiment.cohort, folder, progress)
    models: dict[str, Model] = {}
    names: Mapping[int, str] | None = cohort.label_names or None
    learn_as: Mapping[int, int] = experiment.prepare.learn_as or {}
    if configurations:
        tell("prepare")
        prepared = _prepared(experiment, cohort, folder / "prepared", progress)
        if experiment.labels or names:
            names = prepared.plan.labels
        learn_as = prepared.plan.learn_as
        for name, configuration in configurations.items():
            tell(f"train {name}")
            model = model_of(folder, name)
            if not (model / "model.json").exists():
                named = _named(progress, name)
                train(prepared, configuration, model.parent, machine=machine, progress=named, resume=True)
            models[name] = read_model(model, machine.device)
    tell("evaluate")
    if names is not None:
        also = {label: cohort.label_names.get(label, f"label {label}") for label in experiment.evaluate.also}
        names = {**names, **also}
    told: dict[str, Any] = {"names": names, "progress": progress, "on_case": on_case}
    scores = _evaluated(experiment, cohort, models, folder / "rows", machine.device, threads, learn_as, told)
    return ExperimentResult(experiment, scores, {name: model.card.trained for name, model in models.items()})


def _evaluated(
    experiment: Experiment,
    cohort: Cohort,
    models: Mapping[str, Model],
    folder: Path,
    device: str,
    threads: int,
    learn_as: Mapping[int, int],
    told: Mapping[str, Any],
) -> list[Score]:
    """The scores of all cases; ``told`` goes on to the evaluation.

    Registrations are judged by the labels as the files have them; segmentations by what was to be learnt.
    """
    judged, rows = experiment.evaluate, trained_rows(experiment, models)
    part = cohort.of_split(judged.split)
    if judged.task == "register":
        choice = judged.pairs
        pairs = chosen_pairs(part, choice.rule, choice.fixed_modality, choice.moving_modality)
        registrars = [
            *(contenders.engine(name, device) for name in judged.methods),
            *(contenders.peer(name, threads, 3600.0) for name in judged.peers),
            *(contenders.registering_model(model, name) for name, model in rows.items()),
        ]
        if judged.also:  # rows without these labels would not do
            registrars = [replace(one, stamp=f"{one.stamp} also {sorted(judged.also)}") for one in registrars]
        pairs = [pair for pair in pairs if _wanted(pair.name, judged.groups)]
        return evaluate_registration(spread(pairs, judged.most_items), registrars, folder, **told)
    scans = [scan for scan in part.scans if scan.labels is not None and _wanted(scan.name, judged.groups)]
    scans = spread(scans, judged.most_items)
    consistency = any(metric.startswith(CONSISTENCY) for metric in judged.metrics)
    topology = any(metric.startswith(TOPOLOGY) for metric in judged.metrics)
    segmenters = [contenders.segmenting_model(model, name, consistency=consistency) for name, model in rows.items()]
    return evaluate_segmentation(scans, segmenters, folder, learn_as=learn_as, topology=topology, **told)


def _wanted(name: str, groups: Mapping[str, str]) -> bool:
    """Whether some table is about a case."""
    return not groups or any(fnmatchcase(name, pattern) for pattern in groups.values())


def configured(experiment: Experiment, folder: Path | None = None) -> dict[str, TrainingConfiguration]:
    """Every training with nothing left open; rows at test time are checked as well, before hours are spent.

    Args:
        experiment: from ``read_experiment``.
        folder: of its files, where trainings that begin with others look for those.

    Raises:
        ConfigurationError: E-CFG-010, settings or a schedule that do not fit; E-EVA-014, those of a row.
    """
    found = {}
    for name, recipe in experiment.train.items():
        values: dict[str, Any] = {
            "settings": recipe.settings,
            "schedule": merged(experiment.schedule, recipe.schedule),
            "seed": recipe.seed,
            "validation_items": experiment.validation_items,
            "modality": recipe.modality,
            "labelled": (recipe.labelled or experiment.labelled).model_dump(),
            "initial": {
                network: {"model": model_of(folder or Path(), training), "network": path}
                for network, source in recipe.initial.items()
                for training, _, path in [source.partition(".")]
            },
        }
        method = METHODS.get(recipe.method)
        if method is not None and method.items == "pairs":
            values["pairs"] = (recipe.pairs or experiment.evaluate.pairs).model_dump()
        elif recipe.pairs is not None:
            values["pairs"] = recipe.pairs.model_dump()
        found[name] = configure(recipe.method, values)
    for name, row in experiment.rows.items():
        changed_settings(found[row.of or name].settings, row.settings)
    return found


def model_of(folder: Path, training: str) -> Path:
    """Where the model of a training lies in the folder of an experiment."""
    return folder / "runs" / training / "model"


def trained_rows(experiment: Experiment, models: Mapping[str, Model]) -> dict[str, Model]:
    """The trained methods of the table, each as its row has it.

    Raises:
        ConfigurationError: E-EVA-014, E-EVA-015, settings or networks that do not fit.
    """
    found = {}
    for name, row in experiment.rows.items():
        model = models[row.of or name]
        model = with_networks(model, row.networks, models) if row.networks else model
        found[name] = with_settings(model, row.settings) if row.settings else model
    return found


def _named(progress: Progress | None, name: str) -> Progress | None:
    """Progress whose stages say which training they belong to."""
    return None if progress is None else lambda stage, done: progress(f"{name}: {stage}", done)


def _cohort(recipe: CohortRecipe, folder: Path, progress: Progress | None) -> Cohort:
    """The cohort of a recipe, made unless it is there, and those that join it."""
    source = _source(recipe, folder, progress)
    if recipe.remap is not None:
        _make(recipe.remap, folder / "remapped", {"cohort": source}, progress)
        source = folder / "remapped"
    cohort = read_cohort(source)
    for name, further in recipe.more.items():
        other = read_cohort(_source(further, folder / "more" / name, progress))
        scans = [replace(scan, case=f"{scan.case}_{name}", split=further.split) for scan in other.scans]
        together = sorted([*cohort.scans, *scans], key=lambda scan: (scan.case, scan.modality))
        cohort = replace(cohort, scans=tuple(together), label_names={**other.label_names, **cohort.label_names})
    return cohort


def _source(recipe: Source, folder: Path, progress: Progress | None) -> Path:
    """The folder of the cases of one source."""
    if recipe.gather is None:
        assert recipe.synthesise is not None
        _make(recipe.synthesise, folder / "cohort", {}, progress)
        return folder / "cohort"
    if not (folder / "gathered" / "cohort.csv").exists():
        gathered = _gathered(recipe.gather)
        (folder / "gathered").mkdir(parents=True, exist_ok=True)
        write_cohort(gathered, folder / "gathered")
    return folder / "gathered"


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
    cohort = cohort.with_test(recipe.test_cases) if recipe.test_cases else cohort
    return cohort.held_back(validation=recipe.validation, test=recipe.test)


def _prepared(experiment: Experiment, cohort: Cohort, folder: Path, progress: Progress | None) -> PreparedCohort:
    """The cohort as the networks see it, with the labels that are wanted.

    Raises:
        ConfigurationError: E-EXP-004, no training scan has one of them.
    """
    settings = experiment.prepare
    if (folder / "plan.yaml").exists():  # which then has the grid that the bound led to
        settings = settings.model_copy(update={"max_voxels": None})
    plan = plan_for(cohort, folder, settings, progress=progress)
    if missing := set(experiment.labels) - plan.labels.keys():
        known = ", ".join(map(str, plan.labels))
        raise ConfigurationError("E-EXP-004", f"label {min(missing)}", expected=f"some of {known}")
    if experiment.labels:
        wanted = {label: name for label, name in plan.labels.items() if label in experiment.labels}
        counted = {label: other for label, other in plan.learn_as.items() if other in wanted}
        plan = plan.model_copy(update={"labels": wanted, "learn_as": counted})
    return prepare(cohort, folder, settings, plan=plan, progress=progress)
