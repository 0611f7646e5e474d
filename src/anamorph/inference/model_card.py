"""A model's card: what a model is, what it was trained on, how good it was, and what it is for.

Read as strictly as anything that comes from elsewhere: plain JSON of bounded size, finite numbers, no key twice.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveFloat, ValidationError, model_validator

from anamorph.data.cohort import PairRule
from anamorph.data.plan import PLAN_VERSION, Plan
from anamorph.errors import ConfigurationError, InputError

CARD_VERSION = 1
WEIGHTS, CARD = "model.safetensors", "model.json"
MOST_CARD_BYTES = 1 << 24
QUANTILES = 21
"""Of a channel, that tell what its values look like."""

INTENDED_USE = "Research only; not a medical device, and not for decisions about patients."


class TrainedPairs(BaseModel):
    """Which pairs a registration model learnt from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rule: PairRule
    """As ``Cohort.pairs`` takes it."""
    fixed_modality: str | None = None
    """Of every fixed image; any if absent."""
    moving_modality: str | None = None
    """Of every moving image; any if absent."""


class Appearance(BaseModel):
    """What the prepared images of one modality looked like in training: evenly spaced quantiles of each channel."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    mean: tuple[Annotated[tuple[float, ...], Field(min_length=QUANTILES, max_length=QUANTILES)], ...]
    """Of every quantile, by channel."""
    spread: tuple[Annotated[tuple[PositiveFloat, ...], Field(min_length=QUANTILES, max_length=QUANTILES)], ...]
    """Standard deviation of every quantile."""
    largest: float = Field(ge=0)
    """How far an image of the training lay from the mean at most, in standard deviations."""


class ModelCard(BaseModel):
    """What a model is, what it was trained on, how good it was, and what it is for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    version: Literal[1]
    """Of this file's layout."""
    method: str
    """Name in ``METHODS``."""
    settings: dict[str, JsonValue]
    """Of the method, every value spelled out."""
    plan: Plan
    """How an image is brought before the network."""
    pairs: TrainedPairs | None = None
    """Of a registration model."""
    modality: str | None = None
    """Of every image of a model that learnt from single cases; any of the plan's if absent."""
    spacings: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}
    """Least and largest voxel size of each modality's training images, mm along the network's axes."""
    appearance: dict[str, Appearance] = {}
    """By modality, where there are several with enough images."""
    trained: dict[str, JsonValue] = {}
    """How it was trained: schedule, epochs, cases, seed, time."""
    scores: dict[str, float | None] = {}
    """Of the validation cases, by metric; None where a number does not exist."""
    environment: dict[str, str | int | None]
    """Versions that it was trained with; nothing that names a machine or a user."""
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of ``model.safetensors``."""
    intended_use: str = INTENDED_USE
    """What for, and what not for."""
    licence: str = "not stated"
    """Under which the weights may be passed on; the data they come from decides."""
    notes: str = ""
    """Anything else."""

    @model_validator(mode="after")
    def _check_appearance(self) -> ModelCard:
        for name, seen in self.appearance.items():
            if name not in self.plan.modalities:
                raise ValueError(f"appearance of {name}, which the plan does not know")
            if not len(seen.mean) == len(seen.spread) == self.plan.channels:
                raise ValueError(f"appearance of {name} in other channels than the plan's")
        return self


def model_name(folder: Path) -> str:
    """What a model is called: as its folder, or as the run that left it in a folder ``model``."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def read_card(folder: str | Path) -> ModelCard:
    """The card of a model folder.

    Raises:
        InputError: E-IO-001, no model there; E-MOD-008, the card cannot be understood.
        ConfigurationError: E-MOD-011, a card or plan of another version.
    """
    path = Path(folder) / CARD
    try:
        with path.open("rb") as file:
            content = file.read(MOST_CARD_BYTES + 1)
    except OSError as error:
        raise unreadable(error, path) from error
    found = _parsed(content, path)
    plan = found.get("plan")
    _check_version(found.get("version"), CARD_VERSION, "card", path)
    _check_version(plan.get("version") if isinstance(plan, dict) else None, PLAN_VERSION, "plan", path)
    try:
        return ModelCard.model_validate(found)
    except ValidationError as error:
        raise InputError("E-MOD-008", first_problem(error), file=path, expected="a model card") from None


def _check_version(number: Any, known: int, of: str, path: Path) -> None:
    """Refuse another version's layout; what is no version at all is left to the model."""
    if type(number) is not int or number == known:
        return
    do = "update Anamorph" if number > known else "use the Anamorph that wrote it, or train again"
    raise ConfigurationError("E-MOD-011", f"a {of} of version {number}", file=path, expected=str(known), do=do)


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    """JSON as its standard has it: finite numbers, no key twice."""

    def refuse(what: str) -> NoReturn:
        raise ValueError(f"the number {what}")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text)

    def once(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) < len(items):
            raise ValueError("a key twice")
        return dict(items)

    if len(content) > MOST_CARD_BYTES:
        raise InputError("E-MOD-008", f"more than {MOST_CARD_BYTES} bytes", file=path, expected="a model card")
    try:
        found = json.loads(
            content.decode("utf-8"), parse_constant=refuse, parse_float=finite, object_pairs_hook=once
        )  # fmt: skip
    except json.JSONDecodeError as error:
        raise InputError(
            "E-MOD-008", f"no JSON from line {error.lineno} on", file=path, expected="a model card"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "brackets too deep" if isinstance(error, RecursionError) else f"no plain JSON ({error})"
        raise InputError("E-MOD-008", reason, file=path, expected="a model card") from None
    if not isinstance(found, dict):
        raise InputError("E-MOD-008", f"a {type(found).__name__}", file=path, expected="a model card")
    return found


def first_problem(error: ValidationError) -> str:
    """The first thing that a model has against its values, and where."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place, reason = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
    return f"{place}: {reason[:1].lower()}{reason[1:]}" if place else reason


def unreadable(error: OSError, path: Path) -> InputError:
    """E-IO-001 of one of a folder's files."""
    reason = (error.strerror or "it cannot be read").lower()
    inner = path.parent / "model"
    do = f"the model lies in {inner.parent.name}/{inner.name}" if (inner / CARD).exists() else ""
    return InputError("E-IO-001", reason, file=path, expected=f"a model folder with {CARD} and {WEIGHTS}", do=do)
