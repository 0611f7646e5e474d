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
``fold-1-of-4/``  the two above of each fold, where there are folds
``atlases/``      labels of atlases as they are judged; ``registrations/`` what was found
                  of each
``alignments/``   affine alignments of the pairs that are judged
``rows/``         finished rows of the evaluation
================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from anamorph.data.cohort import Cohort, Pair
from anamorph.data.configuration import merged
from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.landmarks import structure_errors
from anamorph.evaluation.metrics import COSTS
from anamorph.evaluation.scores import Score
from anamorph.inference import contenders
from anamorph.inference.evaluate import (
    chosen_pairs,
    evaluate_registration,
    evaluate_segmentation,
    evaluate_translation,
    spread,
)
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.model_variants import changed_settings
from anamorph.methods import METHODS
from anamorph.methods.base import Method
from anamorph.training.configuration import Machine, TrainingConfiguration, configure
from anamorph.training.experiment_claim import claim
from anamorph.training.experiment_cohort import Part, Progress, parts_of, prepared_for
from anamorph.training.experiment_recipe import AtlasesRecipe, Experiment
from anamorph.training.experiment_rows import ALIGNMENTS, Judged, registrars, segmenters, translators
from anamorph.training.loop import train

OnCase = Callable[[str, str, Sequence[Score]], None]
TIME_LIMIT = 3600.0
"""Seconds that another tool may take for a pair."""
CONSISTENCY = ("mice", "ic_")
TOPOLOGY = ("components", "holes", "tunnels", "cavities", "stray", "betti", "topological", "atlas_betti")
"""Beginnings of metrics that are measured where a table asks for them."""


@dataclass(frozen=True, eq=False)
class ExperimentResult:
    """What came of an experiment.

    Args:
        experiment: as it was run.
        scores: of every case and method.
        trained: of each training, what its model card says; of folds as "NAME, fold 1".
        runs: folder of each training, by the same names.
    """

    experiment: Experiment
    scores: Sequence[Score]
    trained: Mapping[str, Mapping[str, Any]]
    runs: Mapping[str, Path] = field(default_factory=dict)

    def runs_of(self, training: str) -> list[Path]:
        """The folders of a training, one a fold."""
        return [run for name, run in self.runs.items() if run.name == training]

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Costs that the table asks for and nothing has, as seconds on a GPU of a run on a CPU."""
        measured = {score.metric for score in self.scores}
        return tuple(name for name in self.experiment.evaluate.metrics if name in COSTS and name not in measured)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the tables show: what the file asks for, but for ``unmeasured``."""
        return tuple(name for name in self.experiment.evaluate.metrics if name not in self.unmeasured)

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
    configured(experiment, folder)
    claim(experiment, folder, force)
    tell("cohort")
    scores: list[Score] = []
    trained: dict[str, Mapping[str, Any]] = {}
    runs: dict[str, Path] = {}
    for part in parts_of(experiment, folder, progress):
        about = f"{part.name}: " if part.name else ""
        models = _models(experiment, part, machine, lambda line, about=about: tell(f"{about}{line}"), progress)
        for name, model in models.items():
            trained[part.named(name)] = model.card.trained
            runs[part.named(name)] = model_of(part.folder, name).parent
        tell(f"{about}evaluate")
        scores += _evaluated(experiment, folder, part, models, machine.device, threads, progress, on_case)
    scores += structure_errors(scores, experiment.evaluate.landmarks)
    return ExperimentResult(experiment, scores, trained, runs)


def _models(
    experiment: Experiment, part: Part, machine: Machine, tell: Callable[[str], None], progress: Progress | None
) -> dict[str, Model]:
    """The trainings of a fold, or of all, done unless they are."""
    configurations, models = configured(experiment, part.folder), {}
    if not configurations:
        return models
    tell("prepare")
    prepared = prepared_for(experiment, part, progress)
    for name, configuration in configurations.items():
        tell(f"train {name}")
        model = model_of(part.folder, name)
        if not (model / "model.json").exists():
            named = _named(progress, part.named(name))
            train(prepared, configuration, model.parent, machine=machine, progress=named, resume=True)
        models[name] = read_model(model, machine.device)
    return models


def _evaluated(
    experiment: Experiment,
    folder: Path,
    part: Part,
    models: Mapping[str, Model],
    device: str,
    threads: int,
    progress: Progress | None,
    on_case: OnCase | None,
) -> list[Score]:
    """The scores of all cases of a fold, or of all.

    Registrations are judged by the labels as the files have them but for ``count_as``, segmentations by what was to be
    learnt, translations by the true images.
    """
    judged, cohort, rows = experiment.evaluate, part.cohort.of_split(experiment.evaluate.split), folder / "rows"
    told: dict[str, Any] = {"progress": progress, "on_case": on_case}
    if judged.task == "translate":
        pairs = _pairs(experiment, cohort)
        return evaluate_translation(pairs, translators(experiment, models), rows, listed=cohort.listed, **told)
    labels, known = Judged.of(experiment, part), part.cohort.label_names
    names = labels.names
    if names is not None:
        names = {**names, **{label: known.get(label, f"label {label}") for label in judged.also}}
    told["names"] = names
    if judged.task == "register":
        methods = registering(experiment, models, device, threads, alignments=folder / ALIGNMENTS)
        if judged.also:  # rows without these labels would not do
            methods = [replace(one, stamp=f"{one.stamp} also {sorted(judged.also)}") for one in methods]
        return evaluate_registration(_pairs(experiment, cohort), methods, rows, count_as=judged.count_as, **told)
    scans = [scan for scan in cohort.scans if scan.labels is not None and _wanted(scan.name, judged.groups)]
    scans = spread(scans, judged.most_items)
    consistency = any(metric.startswith(CONSISTENCY) for metric in judged.metrics)
    topology = any(metric.startswith(TOPOLOGY) for metric in judged.metrics)
    native = judged.grid == "image"
    segmenting = segmenters(experiment, folder, part, models, device, consistency=consistency, native=native)
    return evaluate_segmentation(scans, segmenting, rows, learn_as=labels.learn_as, topology=topology, **told)


def registering(
    experiment: Experiment,
    models: Mapping[str, Model],
    device: str,
    threads: int,
    rows: Sequence[str] | None = None,
    alignments: Path | None = None,
) -> list[contenders.Registrar]:
    """What registers in a table, in its order.

    Args:
        experiment: whose task is to register.
        models: of its trainings.
        device: to compute on.
        threads: CPU threads of the other tools.
        rows: only these.
        alignments: folder where affine alignments of pairs are kept.
    """
    judged, affine = experiment.evaluate, experiment.evaluate.peers_from == "affine"
    return [
        *(contenders.engine(name, device) for name in judged.methods if rows is None or name in rows),
        *(
            contenders.peer(name, threads, TIME_LIMIT, from_affine=affine, alignments=alignments)
            for name in judged.peers
            if rows is None or name in rows
        ),
        *(one for one in registrars(experiment, models, alignments) if rows is None or one.name in rows),
    ]


def _pairs(experiment: Experiment, cohort: Cohort) -> Sequence[Pair]:
    """Those that are judged."""
    judged, choice = experiment.evaluate, experiment.evaluate.pairs
    pairs = chosen_pairs(cohort, choice.rule, choice.fixed_modality, choice.moving_modality)
    return spread([pair for pair in pairs if _wanted(pair.name, judged.groups)], judged.most_items)


def _wanted(name: str, groups: Mapping[str, str]) -> bool:
    """Whether some table is about a case."""
    return not groups or any(fnmatchcase(name, pattern) for pattern in groups.values())


def configured(experiment: Experiment, folder: Path | None = None) -> dict[str, TrainingConfiguration]:
    """Every training with nothing left open; rows at test time are checked as well, before hours are spent.

    Args:
        experiment: from ``read_experiment``.
        folder: of its files, where trainings that begin with others look for those.

    Raises:
        ConfigurationError: E-CFG-010, settings or a schedule that do not fit; E-EVA-014, those of a row; E-EXP-008, a
            training that cannot do what a row of atlases asks of it; E-EXP-009, one in a table of translations that
            does not translate.
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
        if row.atlases is None:
            for training in row.trainings(name).values():
                changed_settings(found[training].settings, row.settings)
                _check_task(name, training, METHODS[found[training].method], experiment.evaluate.task)
        else:
            _check_players(name, row.atlases, {training: METHODS[one.method] for training, one in found.items()})
    return found


def _check_task(row: str, training: str, method: type[Method], task: str) -> None:
    """Refuse a training that translates nothing where translations are judged."""
    if task == "translate" and "translate" not in method.tasks:
        found = f"row {row}: {training} does not translate"
        raise ConfigurationError("E-EXP-009", found, expected="one that does, such as cocyclereg")


def _check_players(row: str, atlases: AtlasesRecipe, methods: Mapping[str, type[Method]]) -> None:
    """Refuse trainings that do not register, or do not weigh the votes of atlases."""
    engine, fusion = atlases.registration, atlases.fusion
    if isinstance(engine, str) and "register" not in methods[engine].tasks:
        raise ConfigurationError("E-EXP-008", f"row {row}: {engine} does not register", expected="one that does")
    if isinstance(fusion, str) and not hasattr(methods[fusion], "similarity"):
        found = f"row {row}: {fusion} does not weigh atlases"
        raise ConfigurationError("E-EXP-008", found, expected="one such as simnet")


def model_of(folder: Path, training: str) -> Path:
    """Where the model of a training lies in the folder of an experiment."""
    return folder / "runs" / training / "model"


def _named(progress: Progress | None, name: str) -> Progress | None:
    """Progress whose stages say which training they belong to."""
    return None if progress is None else lambda stage, done: progress(f"{name}: {stage}", done)
