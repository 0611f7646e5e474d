"""What decides the result of a training, and apart from it the machine, which does not."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, create_model, model_validator

from anamorph.data.cohort import PairRule
from anamorph.data.configuration import places, read_configuration, refusal
from anamorph.errors import ConfigurationError
from anamorph.methods import METHODS
from anamorph.methods.base import MethodSettings
from anamorph.methods.schedule import Schedule

Count = Annotated[int, Field(ge=1)]


class PairChoice(BaseModel):
    """Which pairs a method learns from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rule: PairRule | None = None
    """listed: those of the cohort's pairs.csv. within: two modalities of one case. between: scans of two cases. If
    absent: the listed ones where there are any, else within where a case has two scans, else between."""
    fixed_modality: str | None = None
    """Of every fixed image; any if absent."""
    moving_modality: str | None = None
    """Of every moving image; any if absent."""


class LabelChoice(BaseModel):
    """Which training subjects show their labels; validation and test keep all."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the training subjects that have labels; one at least where above 0. A smaller share is part of a larger."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another number, other subjects; the same ones for every method."""


class InitialNetwork(BaseModel):
    """A network of a trained model."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: Path
    """Folder of the model."""
    network: str = ""
    """Of its method, as network or segmentation.ct; all of the method if empty."""


class TrainingConfiguration(BaseModel):
    """All that decides the result; made by ``configure``, kept as ``config.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    method: str
    """Name in ``METHODS``."""
    settings: SerializeAsAny[MethodSettings]
    """Of the method."""
    schedule: Schedule
    """How it is trained."""
    pairs: PairChoice = PairChoice()
    """Of a method that learns from pairs."""
    modality: str | None = None
    """Of the images of a method that learns from single cases; any if absent."""
    labelled: LabelChoice = LabelChoice()
    """Whose labels are learnt from."""
    initial: dict[str, InitialNetwork] = {}
    """Network of the method, as registration or segmentation.ct -> where its first weights come from."""
    validation_items: Count = 50
    """Most pairs or cases that a validation looks at, spread evenly over all."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of first weights, order, augmentation and dropout."""

    @model_validator(mode="after")
    def _idle(self) -> TrainingConfiguration:
        items = METHODS[self.method].items
        if items == "cases" and self.pairs != PairChoice():
            raise ValueError(f"{self.method} learns from cases: choose them by modality, not by pairs")
        if items == "pairs" and self.modality is not None:
            raise ValueError(f"{self.method} learns from pairs: choose them by fixed_modality and moving_modality")
        return self


class Machine(BaseModel):
    """What a training runs on. The result does not depend on it, but for rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: str = "auto"
    """auto, cpu or cuda."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read ahead; a thread that keeps what fits into memory if 0."""
    threads: Count | None = None
    """CPU threads; all if absent."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    """Longest time between two checkpoints; there is one at the end of every epoch anyway."""


def configure(
    method: str, values: Mapping[str, Any] | None = None, *, file: Path | None = None
) -> TrainingConfiguration:
    """A configuration from plain values; what they leave out is the method's own.

    Args:
        method: a name in ``METHODS``.
        values: nested as in ``config.yaml``, as far as they differ from the method's.
        file: where they came from.

    Raises:
        ConfigurationError: E-CFG-010, an unknown method or key, or a value that does not fit.
    """
    if method not in METHODS:
        near = get_close_matches(method, METHODS, n=1)
        do = f"did you mean {near[0]}?" if near else ""
        raise ConfigurationError("E-CFG-010", f"method: found {method!r}", expected=", ".join(METHODS), do=do)
    kind, given = METHODS[method], dict(values or {})
    if given.setdefault("method", method) != method:
        found = f"method: found {given['method']!r}"
        raise ConfigurationError("E-CFG-010", found, file=file, expected=method, do="choose one of them")
    schedule = given.get("schedule", {})
    if isinstance(schedule, Mapping):
        given["schedule"] = _merged(kind.schedule.model_dump(), schedule)
    given.setdefault("settings", {})
    model = create_model(f"{kind.__name__}Training", __base__=TrainingConfiguration, settings=(kind.Settings, ...))
    names = {place: ".".join(place) for place in places(model, given) if place}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise refusal(error, names, (), file, "") from None


def read_training(path: Path) -> TrainingConfiguration:
    """The configuration in a ``config.yaml``; errors as in ``configure`` and ``read_configuration``."""
    values = read_configuration(path)
    return configure(str(values.get("method")), values, file=path)


def _merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for name, value in values.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and name != "learning_rates":
            value = _merged(before, value)
        merged[name] = value
    return merged
