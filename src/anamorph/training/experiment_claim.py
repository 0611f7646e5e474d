"""What an experiment's folder was made by, so that nothing in it is taken for the result of another recipe.

``recipe.json`` holds what cohort, preparation and each training were made by. It is compared as the models read it:
what a recipe from before does not mention has its default.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from anamorph.data.files import atomic_write
from anamorph.errors import ConfigurationError
from anamorph.training.cohort_recipe import CohortRecipe
from anamorph.training.configuration import LabelChoice, PairChoice
from anamorph.training.experiment_recipe import Experiment, TrainingRecipe
from anamorph.training.preparation_settings import PreparationSettings

MADE_BY_COHORT = (
    "cohort",
    "gathered",
    "remapped",
    "deformed",
    "more",
    "prepared",
    "runs",
    "fold-*",
    "atlases",
    "registrations",
    "alignments",
    "rows",
)
"""What another cohort or preparation makes void."""

Kind = TypeVar("Kind", bound=BaseModel)


class MadeBy(BaseModel):
    """What cohort and tensors were made by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cohort: CohortRecipe
    prepare: PreparationSettings
    labels: tuple[int, ...]


class TrainedBy(BaseModel):
    """What a training was made by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: dict[str, JsonValue]
    validation_items: int
    pairs: PairChoice
    labelled: LabelChoice = LabelChoice()
    training: TrainingRecipe
    initial: dict[str, TrainedBy] = {}


def claim(experiment: Experiment, folder: Path, force: bool) -> None:
    """Say what the folder holds; another evaluation and further trainings make nothing void.

    Raises:
        ConfigurationError: E-EXP-002, it was made by another recipe, and is not to be thrown away.
    """
    data = MadeBy(cohort=experiment.cohort, prepare=experiment.prepare, labels=experiment.labels)
    trainings = _trainings(experiment)
    path, before = folder / "recipe.json", {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
    same = not path.exists() or _read(MadeBy, before.get("data")) == data
    kept: Mapping[str, Any] = before.get("trainings", {})
    others = [name for name, made_by in trainings.items() if name in kept and _read(TrainedBy, kept[name]) != made_by]
    if not same or others:
        if not force:
            found = f"{', '.join(others) or 'the cohort'} was made by another recipe"
            raise ConfigurationError("E-EXP-002", found, file=folder, do="choose another --out, or use --force")
        void = (f"{part}runs/{other}" for other in others for part in ("", "fold-*/")) if same else MADE_BY_COHORT
        for stale in [found for pattern in void for found in folder.glob(pattern)]:
            shutil.rmtree(stale, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    told = {name: made_by.model_dump(mode="json") for name, made_by in trainings.items()}
    with atomic_write(path) as part:
        content = {"data": data.model_dump(mode="json"), "trainings": {**(kept if same else {}), **told}}
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _trainings(experiment: Experiment) -> dict[str, TrainedBy]:
    """What each training is made by, those that it begins with included."""
    found: dict[str, TrainedBy] = {}
    for name, recipe in experiment.train.items():
        sources = dict.fromkeys(source.partition(".")[0] for source in recipe.initial.values())
        found[name] = TrainedBy(
            schedule=experiment.schedule,
            validation_items=experiment.validation_items,
            pairs=experiment.evaluate.pairs,
            labelled=recipe.labelled or experiment.labelled,
            training=recipe,
            initial={source: found[source] for source in sources},
        )
    return found


def _read(kind: type[Kind], values: Any) -> Kind | None:
    """None where something else is written there."""
    try:
        return kind.model_validate(values)
    except ValidationError:
        return None
