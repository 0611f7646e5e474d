"""``anamorph synthesise``: cohorts of phantoms, whose labels, landmarks and maps are exactly known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from anamorph.cli.arguments import Form
from anamorph.cli.reading import make_folder
from anamorph.data.cohort import SPLITS
from anamorph.data.phantoms.options import OPTIONS, options_for
from anamorph.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from anamorph.cli.screen import Screen

MODEL = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
NAMES = tuple(dict.fromkeys(name for model in OPTIONS.values() for name in model.model_fields))
"""Options of all kinds."""


def fields_of(name: str) -> dict[str, FieldInfo]:
    """An option as each kind has it that has it."""
    return {kind: model.model_fields[name] for kind, model in OPTIONS.items() if name in model.model_fields}


def any_option() -> type[BaseModel]:
    """A model of the options of all kinds, each of which may be absent."""
    fields: dict[str, Any] = {}
    for name in NAMES:
        info, *others = fields_of(name).values()
        if any(other.annotation != info.annotation for other in others):
            raise TypeError(f"kinds of phantoms disagree on the type of {name}")
        kind: Any = Annotated[info.annotation, None, *info.metadata]
        fields[name] = (kind | None, Field(None, description=described(name)))
    return create_model("KindOptions", __config__=MODEL, **fields)


def described(name: str) -> str:
    """What an option means to each kind, and its default there."""
    meanings: dict[str, dict[str, list[str]]] = {}
    for kind, info in fields_of(name).items():
        default = "needed" if info.is_required() else _shown(info.default)
        meanings.setdefault(_meaning(kind, name), {}).setdefault(default, []).append(kind)
    if len(fields_of(name)) == len(OPTIONS) and len(meanings) == 1:
        (meaning, (*defaults,)), *_ = meanings.items()
        return f"{meaning} (default: {' or '.join(defaults)})"
    told = []
    for meaning, defaults in meanings.items():
        kinds = "; ".join(f"{', '.join(kinds)} {default}".strip() for default, kinds in defaults.items())
        told.append(f"{meaning} [{kinds}]")
    return " ".join(told)


def _meaning(kind: str, name: str) -> str:
    """The help of an option; where a kind changes the default alone, that of the model which it takes it from."""
    for model in OPTIONS[kind].__mro__:
        info = getattr(model, "model_fields", {}).get(name)
        if info is not None and info.description:
            return " ".join(info.description.split())
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def groups() -> dict[str, tuple[str, ...]]:
    """Options of every kind, of several, and of each."""
    kinds = {name: tuple(fields_of(name)) for name in NAMES}
    parted = {"": tuple(name for name in NAMES if len(kinds[name]) == len(OPTIONS))}
    parted["shared"] = tuple(name for name in NAMES if 1 < len(kinds[name]) < len(OPTIONS))
    return parted | {kind: tuple(name for name in NAMES if kinds[name] == (kind,)) for kind in OPTIONS}


KindOptions = any_option()


class SynthesiseRequest(BaseModel):
    """Which phantoms, how many, and where."""

    model_config = MODEL

    kind: Literal["letter_b", "abdomen", "heart", "brain", "shapes", "remapped", "deformed", "sliced"]
    """letter_b, abdomen (CT-MR), heart (CT-MR), brain (T1-T2-FLAIR), shapes, remapped: real images given a second
    modality, deformed: aligned images one of whose modalities is deformed, or sliced: slices of aligned images."""
    out: Path
    """Folder for the cohort."""
    cases: Annotated[int, Field(ge=1)] | None = None
    """How many; a case is the same however many there are. All there are for remapped, deformed and sliced."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Other phantoms."""
    validation: Annotated[int, Field(ge=0)] = 0
    """How many of the cases before the test cases are for validation."""
    test: Annotated[int, Field(ge=0)] = 0
    """How many of the last cases are for test. With neither, remapped, deformed and sliced keep the
    splits of their cohort."""
    force: bool = False
    """Write into a folder that holds something, over files of the same names."""
    options: KindOptions = KindOptions()  # pyright: ignore[reportInvalidTypeForm]


FORM = Form(
    SynthesiseRequest,
    positional=("kind",),
    groups=groups(),
    metavars={"out": "FOLDER", "cohort": "FILE", "labelmap": "FILE [FILE ...]", "tissues": "FILE"},
    example="anamorph synthesise heart --cases 12 --test 4 --spacing 3 --out hearts",
    configurable=True,
)


def run(request: SynthesiseRequest, screen: Screen) -> int:
    """Make the cohort and say what is in it."""
    from anamorph.cli.screen import shown

    options = options_for(request.kind, request.options.model_dump(exclude_unset=True))
    make_folder(request.out)
    if not request.force and any(request.out.iterdir()):
        raise ConfigurationError(
            "E-OUT-016", "exists already", file=request.out, do="choose another --out, or use --force"
        )
    from anamorph.data.phantoms.kinds import ABOUT, synthesise

    with screen.progress() as progress:
        cohort = synthesise(
            request.kind,
            request.cases,
            request.seed,
            request.out,
            options,
            validation=request.validation,
            test=request.test,
            progress=progress,
        )
    cases = Counter({scan.case: scan.split for scan in cohort.scans}.values())
    parts = ", ".join(f"{cases[split]} {split}" for split in SPLITS if cases[split])
    modalities = ", ".join(cohort.modalities)
    screen.say(
        f"{len(cohort.cases)} cases ({parts}), {len(cohort.scans)} scans ({modalities}), {len(cohort.listed)} pairs"
    )
    found = json.loads((request.out / ABOUT).read_text(encoding="utf-8")).get("found", {})
    if found:
        screen.say(f"found: {', '.join(f'{name} {value:g}' for name, value in found.items())}")
    screen.say(f"written: {shown(request.out / 'cohort.csv')}")
    return 0
