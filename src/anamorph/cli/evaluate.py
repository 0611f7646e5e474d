"""``anamorph evaluate``: models, our engine, other tools or their files over a cohort, scored on its own grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from anamorph.cli.arguments import Form

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen
    from anamorph.data.cohort import Cohort, Pair
    from anamorph.evaluation.comparison import Comparison
    from anamorph.evaluation.scores import Score
    from anamorph.inference.model_folder import Model
    from anamorph.pairwise.register import Progress
    from anamorph.report.sheet import Sheet


Task = Literal["register", "segment", "translate"]


class EvaluateRequest(BaseModel):
    """What to evaluate, on which cases."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    cohort: Path
    """cohort.csv, its folder, or a prepared cohort."""
    out: Path
    """Folder for scores.csv and the comparison."""
    model: tuple[Path, ...] = ()
    """Folders of trained models."""
    methods: tuple[Literal["none", "rigid", "affine", "pairwise"], ...] = ()
    """What needs no training: the headers alone, and our engine up to a kind of map."""
    peers: tuple[str, ...] = ()
    """Other tools, in environments that make peers installs: elastix, elastix_affine, ants, greedy, convexadam."""
    transforms: tuple[Path, ...] = ()
    """Folders of maps from elsewhere, named PAIR.h5, PAIR.tfm or PAIR.nii.gz, PAIR as in scores.csv."""
    segmentations: tuple[Path, ...] = ()
    """Folders of labels from elsewhere, named CASE_MODALITY.nii.gz or CASE.nii.gz."""
    task: Task | None = None
    """What models are to do that can do several things; the first of these that all can if absent. translate: of each
    pair the moving image into the modality of the fixed one, which is the truth."""
    split: Literal["train", "validation", "test"] = "test"
    """Which cases."""
    rule: Literal["listed", "within", "between"] | None = None
    """Which pairs of them: those of pairs.csv, the scans of one case, or of two. Listed if there are any, else
    within."""
    fixed_modality: str | None = None
    """Only pairs with this fixed image."""
    moving_modality: str | None = None
    """Only pairs with this moving image."""
    modality: str | None = None
    """Only scans of this modality, of what segments."""
    most_items: Annotated[int, Field(ge=1)] | None = None
    """At most so many pairs or scans, spread evenly over all."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads, of other tools too; all if absent."""
    force: bool = False
    """Replace the scores of an earlier evaluation; finished cases whose files did not change are kept."""

    @model_validator(mode="after")
    def _one_task(self) -> EvaluateRequest:
        if self.segmentations and (self.methods or self.peers or self.transforms):
            raise ValueError("segmentations and registrations are two evaluations")
        return self


FORM = Form(
    EvaluateRequest,
    positional=("cohort",),
    groups={
        "what": ("model", "methods", "peers", "transforms", "segmentations", "task"),
        "cases": ("split", "rule", "fixed_modality", "moving_modality", "modality", "most_items"),
        "machine": ("device", "threads"),
    },
    metavars={"cohort": "COHORT", "out": "FOLDER"},
    example="anamorph evaluate cohort --methods none affine pairwise --model runs/voxelmorph/model --out scores",
    configurable=True,
)


def run(request: EvaluateRequest, screen: Screen) -> int:
    """Evaluate, write the scores and the comparison; 5 where a case failed."""
    import torch

    from anamorph.cli.compare import show, tell_failures, write_comparison
    from anamorph.cli.screen import shown
    from anamorph.data.files import atomic_write
    from anamorph.errors import ConfigurationError
    from anamorph.evaluation.metrics import FAILED
    from anamorph.evaluation.scores import to_csv
    from anamorph.inference.contenders import read_models
    from anamorph.inference.run_folder import Run
    from anamorph.report.comparison import render_comparison

    if not (request.model or request.methods or request.peers or request.transforms or request.segmentations):
        do = "give --model, --methods, --peers, --transforms or --segmentations"
        raise ConfigurationError("E-CFG-010", "nothing to evaluate", do=do)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    cohort = cohort_of(request.cohort)
    models = read_models(request.model, request.device)
    task = _task_of(request, models)
    with Run(request.out, "evaluate", request.model_dump(), (), request.force, screen.warning) as record:
        with screen.progress() as progress:
            scores, draw = _evaluate(request, task, cohort, models, progress)
            with atomic_write(record.path("scores.csv")) as part:
                part.write_text(to_csv(scores), encoding="utf-8")
            comparison = None  # where every case failed there is nothing to compare, and the reasons are what matters
            if any(score.metric != FAILED for score in scores):
                comparison = write_comparison(scores, request.out, formats=("csv", "md", "tex"), written=record.path)
                title = f"Evaluation on {request.cohort.resolve().name}"
                page = render_comparison(comparison, title=title, pictures=draw(comparison))
                with atomic_write(record.path("comparison.html")) as part:
                    part.write_text(page, encoding="utf-8")
        record.finish()
    if comparison is not None:
        show(comparison, screen)
        screen.say(f"scores: {shown(request.out / 'scores.csv')}; page: {shown(request.out / 'comparison.html')}")
    return tell_failures(scores, screen)


def _task_of(request: EvaluateRequest, models: Mapping[str, Model]) -> Task:
    """What all of them do: registrations, segmentations and translations have no score in common.

    Raises:
        ConfigurationError: E-EVA-016, there is nothing that all can do, or not what is asked for.
    """
    from anamorph.errors import ConfigurationError

    registering = [*request.methods, *request.peers, *(folder.name for folder in request.transforms)]
    able: dict[str, tuple[Task, ...]] = dict.fromkeys(registering, ("register",))
    able |= dict.fromkeys((folder.name for folder in request.segmentations), ("segment",))
    able |= {name: model.method.tasks for name, model in models.items()}
    wanted: tuple[Task, ...] = get_args(Task) if request.task is None else (request.task,)
    for task in wanted:
        if all(task in tasks for tasks in able.values()):
            return task
    found = "; ".join(f"{name} can {' and '.join(tasks)}" for name, tasks in able.items())
    expected = "methods of one task" if request.task is None else f"methods that {request.task}"
    do = "evaluate them one by one" if len(able) > 1 else "choose another --task"
    raise ConfigurationError("E-EVA-016", found, expected=expected, do=do)


def cohort_of(path: Path) -> Cohort:
    """A cohort by its table, its folder, or the folder of its prepared form."""
    from anamorph.data.cohort_files import read_cohort
    from anamorph.data.prepared import PreparedCohort

    return PreparedCohort.open(path).cohort if (path / "index.json").exists() else read_cohort(path)


def _evaluate(
    request: EvaluateRequest, task: Task, cohort: Cohort, models: dict[str, Model], progress: Progress
) -> tuple[list[Score], Callable[[Comparison], Mapping[str, Sheet]]]:
    """The scores, and what draws single cases."""
    import torch

    from anamorph.inference import contenders
    from anamorph.inference.evaluate import (
        by_target,
        chosen_pairs,
        evaluate_registration,
        evaluate_segmentation,
        evaluate_translation,
        pairs_for,
        spread,
    )
    from anamorph.inference.image_translators import translating_model

    part, rows, names = cohort.of_split(request.split), request.out / "rows", cohort.label_names or None
    if task == "segment":
        wanted = [scan for scan in part.scans if scan.labels is not None and request.modality in (None, scan.modality)]
        segmenters = [
            *(contenders.segmenting_model(model, name) for name, model in models.items()),
            *(contenders.stored_labels(folder) for folder in request.segmentations),
        ]
        chosen = spread(wanted, request.most_items)
        return evaluate_segmentation(chosen, segmenters, rows, names=names, progress=progress), _nothing_drawn
    pairs = chosen_pairs(part, request.rule, request.fixed_modality, request.moving_modality)
    if task == "translate":
        translators = [translating_model(model, name) for name, model in models.items()]
        pairs, spared = pairs_for(pairs, translators, request.most_items, shared=False)
        told = {"listed": part.listed, "spared": spared, "progress": progress}
        scores = evaluate_translation(pairs, translators, rows, **told)
        return by_target(scores, pairs), partial(_sheets, pairs, models, part.listed, progress)
    registrars = [
        *(contenders.engine(name, request.device) for name in request.methods),
        *(contenders.peer(name, torch.get_num_threads(), 3600.0) for name in request.peers),
        *(contenders.stored_transforms(folder) for folder in request.transforms),
        *(contenders.registering_model(model, name) for name, model in models.items()),
    ]
    pairs, _ = pairs_for(pairs, registrars, request.most_items, shared=True)
    return evaluate_registration(pairs, registrars, rows, names=names, progress=progress), _nothing_drawn


def _nothing_drawn(comparison: Comparison) -> Mapping[str, Sheet]:
    return {}


def _sheets(
    pairs: Sequence[Pair],
    models: Mapping[str, Model],
    listed: Sequence[Pair],
    progress: Progress,
    comparison: Comparison,
) -> Mapping[str, Sheet]:
    """Of each part of the table the best, median and worst case of its last method, translated again."""
    from anamorph.cli.experiment_figures import MOST_COLUMNS
    from anamorph.data.files import read_labels
    from anamorph.errors import AnamorphError
    from anamorph.inference.evaluate import target_label, translations_of
    from anamorph.inference.image_translators import translating_model
    from anamorph.inference.model_folder import windows_of
    from anamorph.report.translation_sheets import TranslatedCase, sheet_of_translations
    from anamorph.training.experiment_cases import telling_cases, telling_method, telling_methods

    named = {pair.name: pair for pair in pairs}
    sheets: dict[str, Sheet] = {}
    targets = dict.fromkeys(target_label(pair.fixed.modality) for pair in pairs)
    for done, label in enumerate(targets):
        progress("pictures", done / len(targets))
        part = _of_label(comparison, label)
        if not part.methods:
            continue
        chosen, methods = telling_cases(part), telling_methods(part, MOST_COLUMNS)
        translators = [translating_model(models[name], name) for name in methods]
        cases = dict[str, TranslatedCase]()
        for name in chosen.values():
            pair = named[name]
            if found := translations_of(pair, translators, listed):
                labels = None
                if pair.moving.labels is not None:
                    with suppress(AnamorphError):  # they choose the slice alone
                        labels = read_labels(pair.moving.labels)
                cases[name] = TranslatedCase.of(found, pair.fixed.modality, labels, windows_of(models.values()))
        chosen = {what: name for what, name in chosen.items() if name in cases}
        if chosen:
            title = f"{label}: {', '.join(chosen)} case of {telling_method(part)}"
            sheets[title] = sheet_of_translations(cases, chosen, methods, part)
    progress("pictures", 1.0)
    return sheets


def _of_label(comparison: Comparison, label: str) -> Comparison:
    """The part that is about one label, with the methods that have values there."""
    leading = tuple(one for one in comparison.leading if one.label == label or one.label.startswith(f"{label}, "))
    methods = tuple(
        name for name in comparison.methods
        if any(name in column.cells and column.cells[name].values for column in leading[:1])
    )  # fmt: skip
    return replace(comparison, methods=methods, leading=leading)
