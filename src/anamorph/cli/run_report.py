"""What verbs with a run folder share: the record, the report of a result or of a refusal, and how facts are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel

from anamorph.cli.failures import as_refusal

if TYPE_CHECKING:
    from anamorph.cli.screen import OnProgress, Screen
    from anamorph.evaluation.scores import Score
    from anamorph.inference.run_folder import Run
    from anamorph.report.inputs import ReportInputs
    from anamorph.report.verdict import Verdict

Result = TypeVar("Result")
TONES = {"good": "green", "warn": "yellow", "bad": "red", "plain": ""}


def recorded(
    run: Run,
    screen: Screen,
    work: Callable[[OnProgress], tuple[Result, ReportInputs]],
    failed: ReportInputs,
) -> tuple[Result, ReportInputs]:
    """Do the work, write its report, and last of all ``run.json``; a refusal leaves a report too, which says why.

    Args:
        run: not yet entered.
        screen: where progress goes.
        work: gives the result, and what a report shows of it.
        failed: what a report shows of a refusal, but for message, warnings and facts.

    Raises:
        AnamorphError: what stood in the way.
    """
    from dataclasses import replace

    with run:
        try:
            with screen.progress() as progress:
                result, inputs = work(progress)
                progress("report", 0.0)
                _write_report(inputs, run)
                progress("report", 1.0)
        except Exception as error:
            refusal = as_refusal(error)
            if refusal is not None:
                told = replace(
                    failed, status="failed", message=str(refusal), warnings=run.warnings, facts=facts_of(run)
                )
                _write_report(told, run)
            if refusal is None or refusal is error:
                raise
            raise refusal from error
        run.finish()
    return result, inputs


def say_summary(verdict: Verdict, rows: Sequence[Mapping[str, Any]], run: Run, screen: Screen) -> None:
    """The verdict, some scores, how many warnings there were, and where the report is."""
    from anamorph.cli.screen import shown
    from anamorph.report.tables import score_table

    screen.say()
    screen.say(verdict.headline, f"bold {TONES[verdict.tone]}")
    screen.say()
    if rows:
        screen.say(score_table(rows))
        screen.say()
    if run.warnings:
        screen.say(f"warnings: {len(run.warnings)}, above and in the report")
    if "kept" in run.facts:
        screen.say(f"kept: {run.facts['kept']} (began at: {run.facts['start']})")
    if "model" in run.facts:
        screen.say(f"model: {run.facts['model']['name']} ({run.facts['model']['method']})")
    if run.facts.get("modalities"):
        screen.say(f"taken for: {', '.join(f'{side} {name}' for side, name in run.facts['modalities'].items())}")
    screen.say(f"report: {shown(run.folder / 'report.html')}")


def score_rows(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Scores as the report's rows: by stage instead of by method."""

    def stage_of(score: Score) -> Literal["before", "after"]:
        return "before" if score.method == "before" else "after"

    names = ("metric", "label", "unit", "value", "reason")
    return [{name: getattr(score, name) for name in names} | {"stage": stage_of(score)} for score in scores]


def settings_of(request: BaseModel) -> dict[str, Any]:
    """The resolved configuration, files by their names alone, and without what was left at nothing."""
    values = request.model_dump(exclude_none=True, exclude={"out"})
    return {name: value.name if isinstance(value, Path) else value for name, value in values.items()}


def facts_of(run: Run) -> dict[str, Any]:
    """What the run stands on, in words."""
    from anamorph import __version__
    from anamorph.inference.run_folder import environment, peak_memory_mb

    inputs, modalities = run.facts.get("inputs", {}), run.facts.get("modalities", {})
    facts: dict[str, Any] = {"version": f"anamorph {__version__}", "peak memory": f"{peak_memory_mb()} MiB"}
    if "start" in run.facts:
        facts["start"] = run.facts["start"]
    facts |= {
        "inputs": {name: f"{file['name']} (sha256 {file['sha256'][:12]})" for name, file in inputs.items()},
        "modalities": modalities,
        "grids": {side: _grid(geometry) for side, geometry in run.facts.get("geometry", {}).items()},
        "environment": {name: value for name, value in environment().items() if value is not None},
    }
    if "model" in run.facts:
        model = dict(run.facts["model"])
        facts["model"] = {name.replace("_", " "): value for name, value in model.items()} | {
            "weights sha256": model["weights_sha256"][:12]
        }
    return facts


def _write_report(inputs: ReportInputs, run: Run) -> None:
    from anamorph.data.files import atomic_write
    from anamorph.report.page import render

    with atomic_write(run.path("report.html")) as part:
        part.write_text(render(inputs), encoding="utf-8")


def _grid(geometry: Mapping[str, Any]) -> str:
    shape = " x ".join(map(str, geometry["shape"]))
    return f"{shape} voxels of {' x '.join(f'{length:.4g}' for length in geometry['spacing_mm'])} mm"
