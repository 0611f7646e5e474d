"""``anamorph register``: two files in, a folder with the result and its report out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anamorph.cli.arguments import Form
from anamorph.cli.run_report import facts_of, recorded, say_summary, score_rows, settings_of
from anamorph.inference.request import RegistrationRequest

if TYPE_CHECKING:
    from anamorph.cli.screen import OnProgress, Screen
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
    metavars={
        "out": "FOLDER",
        "model": "FOLDER",
        "max_memory": "SIZE",
        "fixed_modality": "NAME",
        "moving_modality": "NAME",
    },
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
    "inverse_consistency_p95_mm",
)
"""What the terminal shows, in this order; ``scores.csv`` and the report hold every row."""


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
    from anamorph.report.inputs import ReportInputs
    from anamorph.report.verdict import judge

    files = (*request.inputs().values(), *([request.model] if request.model else []))
    run = Run(request.out, command, request.model_dump(), files, request.force, screen.warning)

    def work(progress: OnProgress) -> tuple[RunResult, ReportInputs]:
        result = run_registration(request, run, progress)
        return result, report_of(request, result, run)

    refused = ReportInputs(title=_title(request), settings=settings_of(request))
    result, shown = recorded(run, screen, work, refused)
    return Outcome(result, judge(shown), run)


def summarise(outcome: Outcome, rows: Iterable[dict[str, Any]], screen: Screen) -> None:
    """The verdict, the key ones of some scores, and where the report is."""
    key_rows = sorted((row for row in rows if row["metric"] in KEY_SCORES), key=lambda r: KEY_SCORES.index(r["metric"]))
    say_summary(outcome.verdict, key_rows, outcome.run, screen)


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
        settings=settings_of(request),
        facts=facts_of(run),
        seconds_by_stage=run.facts["seconds"],
        loss_by_stage={"deformable": [step.similarity for step in found.steps]} if found and found.steps else {},
    )


def _title(request: RegistrationRequest) -> str:
    return f"{request.moving.name} onto {request.fixed.name}"
