"""The cases of an experiment: made or gathered, divided into folds, and brought before the networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import NAME, read_cohort, safe_name, write_cohort
from anamorph.data.cohort_selection import of_modalities, of_usual_contrast, with_merged_labels, without
from anamorph.data.layouts import gathered
from anamorph.data.phantoms.kinds import synthesise
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import ConfigurationError, InputError
from anamorph.training.cohort_recipe import CohortRecipe, FilePattern, Gathering, Source, Synthesis
from anamorph.training.experiment_recipe import Experiment
from anamorph.training.prepare import plan_for, prepare

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Part:
    """What is trained and judged together: all of an experiment, or one fold of it.

    Args:
        name: "fold 1" and so on, empty where there are no folds.
        folder: of its tensors and trainings.
        cohort: with its splits.
    """

    name: str
    folder: Path
    cohort: Cohort

    def named(self, training: str) -> str:
        """A training in words."""
        return f"{training}, {self.name}" if self.name else training


def parts_of(experiment: Experiment, folder: Path, progress: Progress | None = None) -> tuple[Part, ...]:
    """The folds of an experiment, or all of it; cases are made where they are not there.

    Raises:
        ConfigurationError: E-EXP-003, images are needed and ``ANAMORPH_DATA`` does not name their folder.
        AnamorphError: as the layouts and the phantoms; E-COH-039, too few subjects for so many folds.
    """
    cohort = _cohort(experiment.cohort, folder, progress)
    count = experiment.folds
    if count is None:
        return (Part("", folder, cohort),)
    folders = (f"fold-{number}-of-{count}" for number in range(1, count + 1))
    return tuple(
        Part(f"fold {number}", folder / name, fold)
        for number, (name, fold) in enumerate(zip(folders, cohort.folds(count), strict=True), 1)
    )


def prepared_for(experiment: Experiment, part: Part, progress: Progress | None) -> PreparedCohort:
    """The cohort as the networks see it, with the labels that are wanted.

    Raises:
        ConfigurationError: E-EXP-004, no training scan has one of them.
    """
    settings, folder = experiment.prepare, part.folder / "prepared"
    folder.parent.mkdir(exist_ok=True)
    if (folder / "plan.yaml").exists():  # which then has the grid that the bound led to
        settings = settings.model_copy(update={"max_voxels": None})
    plan = plan_for(part.cohort, folder, settings, progress=progress)
    if missing := set(experiment.labels) - plan.labels.keys():
        known = ", ".join(map(str, plan.labels))
        raise ConfigurationError("E-EXP-004", f"label {min(missing)}", expected=f"some of {known}")
    if experiment.labels:
        wanted = {label: name for label, name in plan.labels.items() if label in experiment.labels}
        counted = {label: other for label, other in plan.learn_as.items() if other in wanted}
        plan = plan.model_copy(update={"labels": wanted, "learn_as": counted})
    return prepare(part.cohort, folder, settings, plan=plan, progress=progress)


def _cohort(recipe: CohortRecipe, folder: Path, progress: Progress | None) -> Cohort:
    """The cohort of a recipe, made unless it is there, and those that join it."""
    source = _source(recipe, folder, progress)
    if recipe.slices is not None:
        slices = Synthesis(kind="sliced", options=recipe.slices.model_dump(mode="json", exclude_unset=True))
        _make(slices, folder / "sliced", {"cohort": source}, progress)
        source = folder / "sliced"
    if recipe.remap is not None:
        _make(recipe.remap, folder / "remapped", {"cohort": source}, progress)
        source = folder / "remapped"
    if recipe.deform is not None:
        _make(recipe.deform.phantoms, folder / "deformed", {"cohort": source}, progress)
        source = folder / "deformed"
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
    if not (folder / "gathered" / NAME).exists():
        (folder / "gathered").mkdir(parents=True, exist_ok=True)
        write_cohort(_gathered(recipe.gather, folder / "gathered"), folder / "gathered")
    return folder / "gathered"


def _make(recipe: Synthesis, folder: Path, more: Mapping[str, Any], progress: Progress | None) -> None:
    if not (folder / "phantom.json").exists():
        synthesise(
            recipe.kind, recipe.cases, recipe.seed, folder, {**recipe.options, **more},
            validation=recipe.validation, test=recipe.test, progress=progress,
        )  # fmt: skip


def _gathered(recipe: Gathering, out: Path) -> Cohort:
    data = os.environ.get("ANAMORPH_DATA")
    if data is None:
        found = f"{recipe.folder} is needed"
        raise ConfigurationError("E-EXP-003", found, do="let ANAMORPH_DATA name the folder that holds it")
    folder = Path(data) / recipe.folder
    if recipe.layout is None:
        scans = [scan for pattern in recipe.files for scan in _matching(pattern, folder.resolve())]
        cohort = Cohort(folder, tuple(sorted(scans, key=lambda scan: (scan.case, scan.modality))))
    else:
        cohort = gathered(recipe.layout, folder, out)
    cohort = cohort if recipe.modality is None else cohort.renamed(recipe.modality)
    cohort = of_modalities(cohort, recipe.modalities) if recipe.modalities else cohort
    cohort = without(cohort, recipe.exclude)
    if recipe.usual_contrast is not None:
        cohort = of_usual_contrast(cohort, recipe.usual_contrast, recipe.usual_share)
    cohort = with_merged_labels(cohort, recipe.merge, out / "merged") if recipe.merge else cohort
    cohort = cohort.with_test(recipe.test_cases) if recipe.test_cases else cohort
    if recipe.validation_share + recipe.test_share:
        return cohort.divided(validation=recipe.validation_share, test=recipe.test_share, seed=recipe.seed)
    return cohort.held_back(validation=recipe.validation, test=recipe.test)


def _matching(pattern: FilePattern, folder: Path) -> list[Scan]:
    """The scans that fit a pattern.

    Raises:
        InputError: E-EXP-006, there are none, or the labels of one are not there.
    """
    before, _, after = pattern.image.partition("*")
    scans = []
    for image in sorted(folder.glob(pattern.image)):
        place = image.relative_to(folder).as_posix()
        star = place[len(before) : len(place) - len(after)] if "*" in pattern.image else ""
        labels = None if pattern.labels is None else folder / pattern.labels.replace("*", star)
        if labels is not None and not labels.is_file():
            raise InputError("E-EXP-006", f"no labels {labels.name} of {image.name}", file=folder, expected="a file")
        case = safe_name(pattern.case.replace("*", star))
        scans.append(Scan(case, pattern.modality, image, labels))
    if not scans:
        raise InputError("E-EXP-006", f"nothing that fits {pattern.image}", file=folder, expected="images")
    return scans
