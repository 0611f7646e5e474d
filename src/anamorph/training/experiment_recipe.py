"""What an experiment's file says: cohort, preparation, trainings, evaluation, at more than one scale."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue, ValidationError, model_validator

from anamorph.data.cohort import Split
from anamorph.data.configuration import merged, read_configuration, refusal
from anamorph.errors import ConfigurationError
from anamorph.evaluation.appearance import OF_ONE_SCALE
from anamorph.fusion.settings import FusionSettings
from anamorph.inference.model_variants import INITIAL, ZERO
from anamorph.inference.peers.adapter import STARTING
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.training.cohort_recipe import STRICT, CohortRecipe, Name, Number
from anamorph.training.configuration import LabelChoice, PairChoice
from anamorph.training.prepare import PreparationSettings

Scale = Literal["cpu", "paper"]


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
    """What a method that learns from pairs learns from, where that differs from what is evaluated."""
    modality: str | None = None
    """Of the images of a method that learns from single cases; any if absent."""
    labelled: LabelChoice | None = None
    """Whose labels are learnt from, where that differs from the experiment's."""
    initial: dict[str, str] = {}
    """Network of the method -> TRAINING.NETWORK whose weights it begins with, or TRAINING for all of it; trained
    before."""
    seed: Number = 0
    """Of the training."""


class AtlasesRecipe(BaseModel):
    """Segmentation by labelled cases that are registered to the target, and whose labels are then fused."""

    model_config = STRICT

    split: Split = "train"
    """Of the atlases; a target's own subject is never among them."""
    modality: str | None = None
    """Of the atlases; any if absent."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Only so many, the first by name; all if absent."""
    registration: PairwiseSettings | str = PairwiseSettings()
    """Of the pairwise engine, or the training whose network registers."""
    fusion: FusionSettings | str = FusionSettings()
    """How the labels are fused, or the training whose network weighs the votes."""
    select: Annotated[int, Field(ge=1)] | None = None
    """At most so many atlases, those most similar to the target; all if absent."""
    region: Literal["coarse", "gold", "none"] = "coarse"
    """Where the fine registrations and the fusion work: about what a coarse registration finds, about the target's own
    labels (gold), or everywhere (none)."""

    @model_validator(mode="after")
    def _check(self) -> AtlasesRecipe:
        if isinstance(self.fusion, FusionSettings) and self.fusion.fusion == "weighted":
            raise ValueError("the fusion weighted takes weights from outside: name a training such as one of simnet")
        return self

    @property
    def trainings(self) -> tuple[str, ...]:
        """Whose networks it uses."""
        return tuple(name for name in (self.registration, self.fusion) if isinstance(name, str))


class RowRecipe(BaseModel):
    """A trained method in a row of the table, as it was trained or otherwise, or a segmentation by atlases."""

    model_config = STRICT

    of: str = ""
    """The training; the one of the row's name if empty."""
    by_fixed: dict[str, str] = {}
    """Modality of the fixed image, or of what is translated to -> training: of a method that learns one direction."""
    settings: dict[str, JsonValue] = {}
    """Of the method at test time, as far as they differ from the training's."""
    networks: dict[str, str] = {}
    """Network of the method -> TRAINING.NETWORK whose weights it has instead, initial for those before training, or
    zero for none: a spatial transformer of zeros moves nothing."""
    atlases: AtlasesRecipe | None = None
    """Segment by atlases, which needs no training; alone in its row."""

    @model_validator(mode="after")
    def _one(self) -> RowRecipe:
        if self.atlases is not None and (self.of or self.by_fixed or self.settings or self.networks):
            raise ValueError("a row is a trained method, or atlases")
        if self.by_fixed and (self.of or self.networks):
            raise ValueError("a row is of one training, or of one for each fixed modality with their own networks")
        return self

    def trainings(self, name: str) -> dict[str, str]:
        """Fixed modality -> training; one of the modality "" where it serves all of them; none of atlases.

        Args:
            name: of the row.
        """
        if self.atlases is not None:
            return {}
        return self.by_fixed or {"": self.of or name}


class EvaluationRecipe(BaseModel):
    """What is judged, and how it is told."""

    model_config = STRICT

    task: Literal["register", "segment", "translate"] = "register"
    """What the methods do. translate: of each pair the moving image into the modality of the fixed one."""
    split: Split = "test"
    """Which cases."""
    pairs: PairChoice = PairChoice()
    """Which pairs of them; trainings learn from the same kind of pairs."""
    most_items: Annotated[int, Field(ge=1)] | None = None
    """At most so many pairs or cases, spread evenly over all; in each fold, where there are folds."""
    rows: dict[str, RowRecipe] = {}
    """Name in the table -> trained method or atlases; if empty every training, as it was trained."""
    grid: Literal["image", "network"] = "image"
    """Where segmentations and translations are judged. network: on the grid of each row's network, with the truth
    brought there, as papers do that resample their images beforehand. Pictures of segmentations show the image's own
    grid."""
    groups: dict[Name, str] = {}
    """Name -> shell pattern of the cases' names in the scores, CASE_MODALITY or FIXED-MOVING: a table for each; one
    table of all if empty."""
    methods: tuple[str, ...] = ()
    """Of ``contenders.ENGINES``."""
    peers: tuple[str, ...] = ()
    """Other people's tools."""
    peers_from: Literal["images", "affine"] = "images"
    """Where these begin. images: with the images as they are, each in its own way. affine: with our affine alignment of
    the pair, as trained methods do; of elastix and elastix_default, which then only deform."""
    metrics: tuple[str, ...] = ()
    """What the tables show; everything if empty."""
    labels: tuple[str, ...] = ()
    """Structures that the tables show each by itself; their mean if empty."""
    also: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Labels by which registrations are judged besides those that are learnt."""
    count_as: dict[int, int] = {}
    """Labels that count as others where registrations are judged, as 14: 13 for an oedema with its tumour; what is
    learnt is a matter of ``prepare``."""
    landmarks: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Structure -> the landmarks in it, whose mean TRE is that of the structure, a column under its name."""
    reference: str = ""
    """Method that every other is tested against; the best and second best if empty."""

    @model_validator(mode="after")
    def _registrations(self) -> EvaluationRecipe:
        fixed, moving = self.pairs.fixed_modality, self.pairs.moving_modality
        alike = [name for name in self.metrics if name in OF_ONE_SCALE]
        if self.task == "register" and alike and fixed and moving and fixed != moving:
            raise ValueError(f"{alike[0]} is of images of one modality; pairs are of {fixed} and {moving}")
        if self.landmarks and self.metrics and "tre_mm" not in self.metrics:
            raise ValueError("landmarks are about tre_mm, which is not among the metrics")
        if self.peers_from == "affine" and not self.peers:
            raise ValueError("peers_from would change nothing without peers")
        if self.peers_from == "affine" and (others := sorted({*self.peers} - {*STARTING})):
            raise ValueError(f"{others[0]} cannot begin with an affine alignment; {' and '.join(STARTING)} can")
        return self


class Experiment(BaseModel):
    """A table of a paper."""

    model_config = STRICT

    title: str
    """Of the page."""
    about: str = ""
    """What it asks, in a paragraph."""
    folder: Name | None = None
    """Of all that is made, in place of the file's own name: experiments of one folder share cohort and trainings."""
    cohort: CohortRecipe
    """The cases."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation: the subjects in train and test in so many parts, each of which is the test once, for trainings
    of its own; the table gathers all. As the cohort has them if absent."""
    prepare: PreparationSettings = PreparationSettings()
    """How they are brought before the networks."""
    labels: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Labels that are learnt and judged, others being background; all if empty."""
    labelled: LabelChoice = LabelChoice()
    """Which training subjects show their labels."""
    schedule: dict[str, JsonValue] = {}
    """Of every training, as far as it differs from the methods' own."""
    validation_items: Annotated[int, Field(ge=1)] = 10
    """Most pairs or cases that a validation looks at."""
    train: dict[Name, TrainingRecipe] = {}
    """Name in the table -> what is trained."""
    evaluate: EvaluationRecipe
    """What is judged."""

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        for name, row in self.rows.items():
            if row.atlases is not None:
                if unknown := sorted(set(row.atlases.trainings) - self.train.keys()):
                    raise ValueError(f"row {name} is of {unknown[0]!r}, which is not trained")
                if self.evaluate.task != "segment":
                    raise ValueError(f"row {name} segments by atlases; the task is {self.evaluate.task}")
                if self.evaluate.grid == "network":
                    raise ValueError(f"row {name} segments by atlases, which have no network's grid")
                continue
            sources = {source.partition(".")[0] for source in row.networks.values() if source not in (INITIAL, ZERO)}
            if unknown := sorted({*row.trainings(name).values(), *sources} - self.train.keys()):
                raise ValueError(f"row {name} is of {unknown[0]!r}, which is not trained")
            if row.by_fixed and self.evaluate.task == "segment":
                raise ValueError(f"row {name} tells fixed modalities apart; the task is segment")
        if self.folds is not None and self.evaluate.split != "test":
            raise ValueError(f"of folds the test is judged, not {self.evaluate.split}")
        judged = self.evaluate
        if judged.task != "register" and (judged.methods or judged.peers):
            raise ValueError(f"methods and peers register; the task is {judged.task}")
        if judged.task == "register" and judged.grid != "image":
            raise ValueError("grid is about segmentation and translation; the task is register")
        about = [name for name in ("also", "count_as", "landmarks") if getattr(judged, name)]
        if judged.task != "register" and about:
            others = "translations by true images" if judged.task == "translate" else "segmentations by what is learnt"
            raise ValueError(f"{about[0]} is about registration; {others}")
        counted = (self.prepare.learn_as or {}).values()
        if self.labels and (unknown := sorted(set(counted) - set(self.labels))):
            raise ValueError(f"labels count as {unknown[0]}, which is not learnt")
        earlier: list[str] = []
        for name, recipe in self.train.items():
            for source in (path.partition(".")[0] for path in recipe.initial.values()):
                if source not in earlier:
                    when = "later" if source in self.train else "never"
                    raise ValueError(f"{name} begins with {source}, which is trained {when}")
            earlier.append(name)
        return self

    @property
    def rows(self) -> dict[str, RowRecipe]:
        """Trained methods and atlases in the table."""
        return self.evaluate.rows or {name: RowRecipe(of=name) for name in self.train}


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
        return Experiment.model_validate(merged(values, scales[scale] or {}))
    except ValidationError as error:
        names = {(name,): name for name in Experiment.model_fields}
        raise refusal(error, names, (), path, "an experiment with title, cohort and evaluate") from None
