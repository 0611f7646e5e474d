"""``anamorph register``: two files in, a folder with the result and its report out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anamorph.cli.arguments import Form
from anamorph.cli.failures import as_refusal
from anamorph.inference.request import RegistrationRequest

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen
    from anamorph.errors import AnamorphError
    from anamorph.evaluation.scores import Score
    from anamorph.inference.run import RunResult
    from anamorph.inference.run_folder import Run
    from anamorph.report.inputs import ReportInputs
    from anamorph.report.verdict import Verdict

FORM = Form(
    RegistrationRequest,
    positional=("fixed", "moving"),
    groups={
        "guidance": ("fixed_mask", "moving_mask", "initial", "fixed_modality", "moving_modality"),
        "scoring": (
            "fixed_labels",
            "moving_labels",
            "fixed_landmarks",
            "moving_landmarks",
            "ignore_labels",
            "strict_qc",
        ),
        "settings": (),
        "reading": ("xform", "strict", "nonfinite", "fixed_volume", "moving_volume", "allow_flat"),
        "machine": ("device", "threads", "max_memory"),
    },
    metavars={"out": "FOLDER", "max_memory": "SIZE"},
    example="anamorph register ct.nii.gz mr.nii.gz --out result",
    configurable=True,
)

KEY_SCORES = (
    "map_error_mean_mm",
    "map_error_p95_mm",
    "tre_mean_mm",
    "tre_max_mm",
    "dice",
    "hd95_mm",
    "normalised_mutual_information",
    "folded_fraction",
    "jacobian_min",
    "jacobian_max",
    "inverse_residual_p95_mm",
)
"""What the terminal shows, in this order; ``scores.csv`` and the report hold every row."""
TONES = {"good": "green", "warn": "yellow", "bad": "red", "plain": ""}


def run(request: RegistrationRequest, screen: Screen) -> int:
    """Register, and say how it went."""
    outcome = perform(request, screen, "register")
    summarise(outcome, score_rows(outcome.result.scores), screen)
    return 0


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its result, how the report judges it, and its folder."""

    result: RunResult
    verdict: Verdict
    run: Run


def perform(request: RegistrationRequest, screen: Screen, command: str) -> Outcome:
    """Everything that a run writes: the result, then the report, then ``run.json``.

    A refusal leaves a report too, which says why.

    Args:
        request: what to do.
        screen: where progress and warnings go.
        command: the verb, for ``run.json``.

    Returns:
        What came of it; nothing of that is printed yet.

    Raises:
        AnamorphError: what stood in the way.
    """
    from anamorph.inference.run import run_registration
    from anamorph.inference.run_folder import Run
    from anamorph.report.verdict import judge

    inputs = tuple(request.inputs().values())
    with Run(request.out, command, request.model_dump(), inputs, request.force, screen.warning) as run:
        try:
            with screen.progress() as progress:
                result = run_registration(request, run, progress)
                progress("report", 0.0)
                inputs = report_of(request, result, run)
                _write_report(inputs, run)
                progress("report", 1.0)
        except Exception as error:
            refusal = as_refusal(error)
            if refusal is not None:
                _write_report(failed_report_of(request, refusal, run), run)
            if refusal is None or refusal is error:
                raise
            raise refusal from error
        run.finish()
    return Outcome(result, judge(inputs), run)


def summarise(outcome: Outcome, rows: Iterable[dict[str, Any]], screen: Screen) -> None:
    """The verdict, the key ones of some scores, and where the report is."""
    from anamorph.cli.screen import shown
    from anamorph.report.tables import score_table

    verdict, run = outcome.verdict, outcome.run
    key_rows = sorted((row for row in rows if row["metric"] in KEY_SCORES), key=lambda r: KEY_SCORES.index(r["metric"]))
    screen.say()
    screen.say(verdict.headline, f"bold {TONES[verdict.tone]}")
    screen.say()
    screen.say(score_table(key_rows))
    screen.say()
    if run.warnings:
        screen.say(f"warnings: {len(run.warnings)}, above and in the report")
    if "kept" in run.facts:
        screen.say(f"kept: {run.facts['kept']} (began at: {run.facts['start']})")
    screen.say(f"report: {shown(run.folder / 'report.html')}")


def report_of(request: RegistrationRequest, result: RunResult, run: Run) -> ReportInputs:
    """What the report shows of a run that came to its end."""
    from anamorph.report.inputs import ReportInputs

    registration = result.registration
    fixed, moving = registration.fixed, registration.moving
    labels = [found for found in (result.fixed_labels, result.warped_labels) if found is not None]
    found = registration.found
    return ReportInputs(
        title=_title(request),
        affine=fixed.grid.affine,
        fixed=fixed.data[0].numpy(),
        before=result.before.data[0].numpy(),
        warped=result.warped.data[0].numpy(),
        fixed_modality=fixed.modality,
        moving_modality=moving.modality,
        displacement_mm=result.displacement_mm,
        jacobian=result.jacobian,
        fixed_labels=None if result.fixed_labels is None else result.fixed_labels.data.numpy(),
        warped_labels=None if result.warped_labels is None else result.warped_labels.data.numpy(),
        label_names={label: name for labelmap in labels for label, name in labelmap.names.items()},
        scores=score_rows(result.scores),
        warnings=run.warnings,
        settings=_settings(request),
        facts=_facts(run),
        seconds_by_stage=run.facts["seconds"],
        loss_by_stage={"deformable": [step.similarity for step in found.steps]} if found and found.steps else {},
    )


def failed_report_of(request: RegistrationRequest, refusal: AnamorphError, run: Run) -> ReportInputs:
    """What the report shows of a run that was refused: why, and what it was asked."""
    from anamorph.report.inputs import ReportInputs

    return ReportInputs(
        title=_title(request),
        status="failed",
        message=str(refusal),
        warnings=run.warnings,
        settings=_settings(request),
        facts=_facts(run),
    )


def score_rows(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Scores as the report's rows: by stage instead of by method."""
    return [
        {
            "metric": score.metric,
            "label": score.label,
            "unit": score.unit,
            "value": score.value,
            "reason": score.reason,
            "stage": "before" if score.method == "before" else "after",
        }
        for score in scores
    ]


def _write_report(inputs: ReportInputs, run: Run) -> None:
    from anamorph.data.files import atomic_write
    from anamorph.report.page import render

    with atomic_write(run.path("report.html")) as part:
        part.write_text(render(inputs), encoding="utf-8")


def _title(request: RegistrationRequest) -> str:
    return f"{request.moving.name} onto {request.fixed.name}"


def _settings(request: RegistrationRequest) -> dict[str, Any]:
    """The resolved configuration, files by their names alone, and without what was left at nothing."""
    values = request.model_dump(exclude_none=True, exclude={"out"})
    return {name: value.name if isinstance(value, Path) else value for name, value in values.items()}


def _facts(run: Run) -> dict[str, Any]:
    """What the run stands on, in words."""
    from anamorph import __version__
    from anamorph.inference.run_folder import environment, peak_memory_mb

    inputs = run.facts.get("inputs", {})
    facts: dict[str, Any] = {"version": f"anamorph {__version__}", "peak memory": f"{peak_memory_mb()} MiB"}
    if "start" in run.facts:
        facts["start"] = run.facts["start"]
    facts |= {
        "inputs": {name: f"{file['name']} (sha256 {file['sha256'][:12]})" for name, file in inputs.items()},
        "grids": {side: _grid(geometry) for side, geometry in run.facts.get("geometry", {}).items()},
        "environment": {name: value for name, value in environment().items() if value is not None},
    }
    return facts


def _grid(geometry: dict[str, Any]) -> str:
    shape = " x ".join(map(str, geometry["shape"]))
    return f"{shape} voxels of {' x '.join(f'{length:.4g}' for length in geometry['spacing_mm'])} mm"
