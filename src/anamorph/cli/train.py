"""``anamorph train``: a method and a prepared cohort in, a model and the page of its training out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from anamorph.cli.arguments import Form
from anamorph.errors import ConfigurationError, NumericalError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anamorph.cli.screen import OnProgress, Screen
    from anamorph.training.configuration import TrainingConfiguration

Count = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """A part of the training's configuration: what has a flag; a configuration file may hold the rest of it."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True)

    def given(self) -> dict[str, Any]:
        """What was given, by flag or file."""
        return self.model_dump(exclude_unset=True)


class SettingsFlags(Part):
    """Settings of the method."""

    set: tuple[str, ...] = ()
    """Settings of the method, as similarity=mind_ssc or weights.smoothness=0.5."""


class PairFlags(Part):
    """Which pairs a method learns from."""

    rule: Literal["listed", "within", "between"] | None = None
    """Pairs of pairs.csv, of two modalities of a case, or of scans of two cases. Default: the first of these that there
    are."""
    fixed_modality: str | None = None
    """Of every fixed image; any if absent."""
    moving_modality: str | None = None
    """Of every moving image; any if absent."""


class LabelFlags(Part):
    """Whose labels are learnt from; a configuration file may hold the seed of the draw."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the training subjects with labels whose labels are learnt from; the others' are hidden."""


def networks_of(value: Any) -> Any:
    """``registration=run/model:network,segmentation.ct=ct/model`` as a mapping; what is no text is left as it is."""
    if not isinstance(value, str):
        return value
    found: dict[str, Any] = {}
    for part in value.split(","):
        name, equals, source = part.partition("=")
        model, colon, network = source.rpartition(":")
        if not equals or name in found or not (model or network):
            raise ValueError("NETWORK=MODEL:NETWORK, as in registration=run/model:network,segmentation.ct=ct/model")
        found[name] = {"model": model, "network": network} if colon else {"model": network}
    return found


class ScheduleFlags(Part):
    """How it is trained; what is left out is as the method's paper has it."""

    epochs: Count | None = None
    """Passes over the data."""
    steps_per_epoch: Count | None = None
    """Batches of an epoch, instead of a whole pass."""
    batch_size: Count | None = None
    """Items of a batch, over all processes."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """At the beginning."""
    precision: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the forward pass."""
    validate_every: Count | None = None
    """Epochs between validations."""


class TrainRequest(BaseModel):
    """What to train, on what, and how; nested as ``config.yaml`` is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    method: str
    """voxelmorph, lapirn, unet, dynunet, atlas-istn, macjnet, biregnet, simnet, patch-simnet, cocyclereg, sepcyclereg,
    nemar, cyclegan, vmind."""
    prepared: Path
    """Folder that anamorph prepare wrote."""
    out: Path
    """Folder of the run; the model comes to lie in its model/."""
    settings: SettingsFlags = SettingsFlags()
    """Of the method."""
    pairs: PairFlags = PairFlags()
    """Of a method that registers."""
    modality: str | None = None
    """Of the images of a method that segments; any if absent."""
    labelled: LabelFlags = LabelFlags()
    """Whose labels are learnt from."""
    initial: Annotated[dict[str, dict[str, str]] | None, BeforeValidator(networks_of)] = None
    """Networks that begin with the weights of trained models, as registration=run/model:network; without the
    colon all of the model's method."""
    schedule: ScheduleFlags = ScheduleFlags()
    """How it is trained."""
    validation_items: Count | None = None
    """Most pairs or cases that a validation looks at (default: 50)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of first weights, order, augmentation and dropout."""
    device: str = "auto"
    """auto, cpu or cuda."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read ahead; a thread if 0."""
    threads: Count | None = None
    """CPU threads; all if absent."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    """Longest time between two checkpoints within an epoch."""
    resume: bool = False
    """Go on with an unfinished training, or a finished one with more epochs; begin where there is none."""
    force: bool = False
    """Begin again in a folder that holds a training."""


MACHINE = ("device", "workers", "threads", "checkpoint_minutes")

FORM = Form(
    TrainRequest,
    positional=("method", "prepared"),
    groups={
        "": ("method", "prepared", "out", "set"),
        "data": ("rule", "fixed_modality", "moving_modality", "modality", "share"),
        "start": ("initial",),
        "schedule": ("validation_items", "seed"),
        "machine": MACHINE,
        "run": ("resume", "force"),
    },
    metavars={
        "out": "FOLDER",
        "prepared": "PREPARED",
        "set": "NAME=VALUE [NAME=VALUE ...]",
        "initial": "NETWORK=MODEL:NETWORK...",
    },
    example="anamorph train voxelmorph prepared --out run --set similarity=mind_ssc --epochs 50",
    configurable=True,
)


def run(request: TrainRequest, screen: Screen) -> int:
    """Train, telling how it goes."""
    from anamorph.cli.failures import Terminated
    from anamorph.cli.screen import shown
    from anamorph.data.prepared import PreparedCohort
    from anamorph.training.configuration import Machine
    from anamorph.training.loop import train
    from anamorph.training.run_folder import status_of

    configuration = configuration_of(request)
    first = os.environ.get("RANK", "0") == "0"
    try:
        with _telling(screen, first) as (progress, say):
            model = train(
                PreparedCohort.open(request.prepared),
                configuration,
                request.out,
                machine=Machine(**{name: getattr(request, name) for name in MACHINE}),
                progress=progress,
                say=say,
                resume=request.resume,
                force=request.force,
            )
    except (KeyboardInterrupt, Terminated, NumericalError, ResourceError):
        if first and status_of(request.out) is not None:
            write_report(request.out)
        raise
    if first:
        screen.say(f"model: {shown(model)}")
        screen.say(f"report: {shown(write_report(request.out))}")
    return 0


def write_report(folder: Path) -> Path:
    """The page of a run, whether it came to its end or not."""
    from anamorph.data.files import atomic_write
    from anamorph.report.training import render_training

    page = folder / "report.html"
    with atomic_write(page) as part:
        part.write_text(render_training(folder), encoding="utf-8")
    return page


def configuration_of(request: TrainRequest) -> TrainingConfiguration:
    """What was asked, with the method's own values for the rest.

    Raises:
        ConfigurationError: E-CFG-010, an unknown name, or a value that does not fit.
    """
    from anamorph.training.configuration import configure

    settings = request.settings.given()
    for word in settings.pop("set", ()):
        name, value = _assigned(word)
        *above, last = name.split(".")
        tree = settings
        for part in above:
            tree = tree.setdefault(part, {})
            if not isinstance(tree, dict):
                raise ConfigurationError("E-CFG-010", f"--set {name}: {part} holds {tree!r}", expected="a mapping")
        tree[last] = value
    values: dict[str, Any] = {
        "settings": settings,
        "pairs": request.pairs.given(),
        "labelled": request.labelled.given(),
        "initial": request.initial or {},
        "schedule": request.schedule.given(),
        "modality": request.modality,
        "seed": request.seed,
    }
    if request.validation_items is not None:
        values["validation_items"] = request.validation_items
    return configure(request.method, values)


def _assigned(word: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, whose value is read as YAML."""
    import yaml

    name, equals, text = word.partition("=")
    if not (name and equals):
        found = f"--set: found {word!r}"
        raise ConfigurationError("E-CFG-010", found, expected="NAME=VALUE, as weights.smoothness=0.5")
    try:
        return name, yaml.safe_load(text)
    except yaml.YAMLError:
        return name, text


@contextmanager
def _telling(screen: Screen, first: bool) -> Iterator[tuple[OnProgress | None, Callable[[str], None] | None]]:
    """Progress and lines between which it makes way; nothing of any process but the first."""
    from anamorph.cli.screen import printable

    if not first or screen.quiet:
        yield None, None
        return
    with screen.progress() as progress:
        yield progress, lambda line: print(printable(line), flush=True)  # a bar lets it through, and stays below
