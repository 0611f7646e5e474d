"""``anamorph prepare``: a cohort as tensors on one grid, by a plan that can be read and edited."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from anamorph.cli.arguments import Form
from anamorph.cli.reading import VOXEL_FLAGS, VoxelReading
from anamorph.training.preparation_settings import PreparationSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from anamorph.cli.screen import Screen
    from anamorph.data.plan import Intensity, Plan
    from anamorph.data.prepared import PreparedCohort, PreparedScan

NAMED = 6
"""Labels that are shown by name."""


class PrepareRequest(VoxelReading):
    """Which cohort, and what is decided about its plan."""

    cohort: Path
    """cohort.csv, or the folder that holds it."""
    out: Path
    """Folder for the plan and the tensors; an earlier result there is brought up to date."""
    settings: PreparationSettings = PreparationSettings()
    """What is decided; the rest is proposed, or stays as plan.yaml has it."""
    skip_bad: bool = False
    """Leave out scans that cannot be used, instead of refusing the cohort."""


FORM = Form(
    PrepareRequest,
    positional=("cohort",),
    groups={"settings": (), "reading": VOXEL_FLAGS},
    metavars={
        "out": "FOLDER",
        "spacing": "MM [MM ...]",
        "orientation": "AXES",
        "intensities": "MODALITY=KIND...",
        "reference": "CASE_MODALITY",
        "learn_as": "LABEL=LABEL...",
        "alignment_folder": "FOLDER",
        "max_memory": "SIZE",
    },
    example="anamorph prepare scans/cohort.csv --out prepared --spacing 1 1 1",
    configurable=True,
)


def run(request: PrepareRequest, screen: Screen) -> int:
    """Read the cohort, plan, write the tensors, and say what came of it."""
    from anamorph.cli.screen import shown
    from anamorph.data.cohort_files import read_cohort
    from anamorph.data.configuration import load
    from anamorph.data.plan import Plan
    from anamorph.training.prepare import prepare

    begun = time.monotonic()
    cohort = read_cohort(request.cohort)
    file = request.out / "plan.yaml"
    before = load(Plan, file) if file.exists() else None
    if before is not None:
        screen.say(f"plan: {shown(file)}, which is there already")
    with screen.progress() as progress:
        prepared = prepare(
            cohort,
            request.out,
            request.settings,
            policy=request.voxel_policy(),
            progress=progress,
            skip_bad=request.skip_bad,
        )
    if before is not None and before != prepared.plan:
        changed = [name for name in type(before).model_fields if getattr(before, name) != getattr(prepared.plan, name)]
        screen.say(f"changed in it by what was asked: {', '.join(changed)}")
    screen.say()
    screen.say(modality_table(prepared))
    screen.say()
    for line in summary(prepared, time.monotonic() - begun):
        screen.say(line)
    screen.say(f"to change it: edit {shown(file)} and run this again; only what changed is done anew")
    return 0


def modality_table(prepared: PreparedCohort) -> Table:
    """A row a modality: scans of each split, those with labels, and voxel sizes before."""
    from rich import box
    from rich.table import Table

    parts = prepared.cohort.splits
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Modality", overflow="fold")
    for heading in (*(split.capitalize() for split in parts), "Labelled"):
        table.add_column(heading, justify="right")
    for heading in ("Voxels, mm", "Coarser by"):
        table.add_column(heading, overflow="fold")
    for modality in prepared.plan.modalities:
        scans = [scan for scan in prepared.scans if scan.scan.modality == modality]
        counts = [str(sum(scan.scan.split == split for scan in scans)) for split in parts]
        table.add_row(modality, *counts, str(sum(scan.classes is not None for scan in scans)), *_sizes(scans))
    return table


def summary(prepared: PreparedCohort, seconds: float) -> list[str]:
    """The grid, the intensities, the labels, the alignment, and what it took."""
    plan = prepared.plan
    size = sum(scan.file.stat().st_size for scan in prepared.scans) / 1e6
    shape = " x ".join(map(str, plan.shape))
    lines = [
        f"grid: {shape} voxels of {_by(plan.spacing)} mm, {plan.orientation}, about the middle of the {_middle(plan)}",
        *(f"intensities of {modality}: {_intensity(how)}" for modality, how in plan.modalities.items()),
        f"labels: {_labels(plan)}",
    ]
    if plan.alignment != "none":
        reference = f" {plan.reference}" if plan.reference else ""
        lines.append(f"affine alignment: {plan.alignment}{reference}")
    cases = len(prepared.cohort.cases)
    lines.append(f"{len(prepared.scans)} scans of {cases} cases, {size:.1f} MB, {seconds:.1f} s")
    return lines


def _sizes(scans: Sequence[PreparedScan]) -> tuple[str, str]:
    """The median voxel size of the scans, along the network's axes, and how much larger the network's voxels are."""
    import numpy as np

    if not scans:
        return "", ""
    sizes = []
    for scan in scans:
        steps = scan.grid.to_grid(scan.native)[:-1, :-1]  # native voxels in one of the network's
        sizes.append(scan.grid.spacing / np.linalg.norm(steps, axis=0))
    factor = np.median([scan.grid.spacing / size for scan, size in zip(scans, sizes, strict=True)], axis=0)
    return _by(np.median(sizes, axis=0)), _by(factor)


def _intensity(intensity: Intensity) -> str:
    if intensity.kind == "none":
        return "as they are"
    content = "" if intensity.kind == "window" or intensity.content == "all" else f" of {intensity.content}"
    clip = "" if intensity.clip else ", not clipped"
    return f"{intensity.kind} {intensity.low:g} to {intensity.high:g}{content}{clip}"


def _labels(plan: Plan) -> str:
    if not plan.labels:
        return "none"
    named = [str(value) if name == f"label {value}" else f"{value} {name}" for value, name in plan.labels.items()]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    counted = "".join(f", {label} as {other}" for label, other in plan.learn_as.items())
    return f"{len(named)} ({', '.join(named[:NAMED])}{more}){counted}"


def _middle(plan: Plan) -> str:
    centre = "field of view" if plan.centre == "view" else "content"
    off = "" if plan.offset is None else f", off by {_by(plan.offset)} mm"
    return ("reference" if plan.middle is not None else centre) + off


def _by(numbers: Iterable[float]) -> str:
    """One number where all are alike."""
    shown = [f"{number:.3g}" for number in numbers]
    return shown[0] if len(set(shown)) == 1 else " x ".join(shown)
