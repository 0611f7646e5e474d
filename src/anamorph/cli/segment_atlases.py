"""``anamorph segment --atlases``: an image or a cohort and labelled scans in; labels, uncertainty and reports out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from anamorph.cli.run_report import facts_of, recorded, say_summary, score_rows, settings_of

if TYPE_CHECKING:
    from anamorph.cli.screen import OnProgress, Screen
    from anamorph.inference.multi_atlas_run import CaseResult
    from anamorph.inference.request import SegmentationRequest
    from anamorph.inference.run_folder import Run
    from anamorph.report.inputs import ReportInputs


def run_atlases(request: SegmentationRequest, screen: Screen) -> int:
    """Segment one image or all of a cohort, and say how it went."""
    from anamorph.data.cohort_files import is_cohort
    from anamorph.inference.multi_atlas_run import folders_of
    from anamorph.inference.run_folder import Run

    files = (*request.inputs().values(), *folders_of(request))
    run = Run(request.out, "segment", request.model_dump(), files, request.force, screen.warning)
    return (_cohort if is_cohort(request.image) else _image)(request, run, screen)


def _image(request: SegmentationRequest, run: Run, screen: Screen) -> int:
    from anamorph.cli.segment import key_rows
    from anamorph.inference.multi_atlas_run import run_multi_atlas
    from anamorph.report.inputs import ReportInputs
    from anamorph.report.verdict import judge

    def work(progress: OnProgress) -> tuple[CaseResult, ReportInputs]:
        (result,) = run_multi_atlas(request, run, progress)
        return result, report_of(request, result, run)

    refused = ReportInputs(
        title=_title(request, request.image.name), kind="segmentation", settings=settings_of(request)
    )
    result, shown = recorded(run, screen, work, refused)
    say_summary(judge(shown), key_rows(result.scores), run, screen)
    return 0


def _cohort(request: SegmentationRequest, run: Run, screen: Screen) -> int:
    """Each image has a page of its own; one line of each is shown. The exit code tells of failed ones."""
    from anamorph.cli.compare import FAILURES
    from anamorph.cli.screen import shown as path_shown
    from anamorph.data.files import atomic_write
    from anamorph.inference.multi_atlas_run import run_multi_atlas
    from anamorph.report.page import render
    from anamorph.report.verdict import judge

    failed, dice = 0, []
    with run:
        with screen.progress() as progress:
            for result in run_multi_atlas(request, run, progress):
                if result.segmentation is None:
                    failed += 1
                    continue
                shown = report_of(request, result, run)
                with atomic_write(run.path(f"{result.folder}/report.html")) as part:
                    part.write_text(render(shown), encoding="utf-8")
                value = _mean_dice(result)
                dice += [] if value is None else [value]
                end = "" if value is None else f", mean Dice {value:.3f}"
                screen.say(f"{result.name}: {judge(shown).headline}{end}")
        run.facts["failed"] = failed
        run.finish()
    if failed:
        screen.say(f"failed: {failed}, as the warnings and scores.csv tell")
    if dice:
        screen.say(f"mean Dice of {len(dice)}: {sum(dice) / len(dice):.3f}")
    screen.say(f"scores: {path_shown(run.folder / 'scores.csv')}; a report.html in the folder of each image")
    return FAILURES if failed else 0


def report_of(request: SegmentationRequest, result: CaseResult, run: Run) -> ReportInputs:
    """What the report shows of an image that came to its end."""
    from anamorph.report.inputs import ReportInputs

    found = result.segmentation
    assert found is not None
    image = found.image
    return ReportInputs(
        title=_title(request, result.name),
        kind="segmentation",
        affine=image.grid.affine,
        fixed=image.data[0].numpy(),
        fixed_modality=image.modality,
        fixed_labels=None if result.truth is None else result.truth.data.numpy(),
        found_labels=found.labels.data.numpy(),
        uncertainty=found.entropy.numpy(),
        atlases=[asdict(facts) for facts in found.atlases],
        label_names=dict(found.labels.names),
        further_images={"uncertainty": found.entropy.numpy()},
        scores=score_rows(result.scores),
        warnings=[] if result.folder else run.warnings,
        settings=settings_of(request) | {name: run.facts[name] for name in ("registration", "fusion")},
        facts=facts_of(run),
        seconds_by_stage=found.seconds,
    )


def _mean_dice(result: CaseResult) -> float | None:
    """Over the labels; None without a truth."""
    return next((score.value for score in result.scores if score.metric == "dice_mean"), None)


def _title(request: SegmentationRequest, name: str) -> str:
    assert request.atlases is not None
    atlases = request.atlases.parent if request.atlases.suffix == ".csv" else request.atlases
    return f"{name} by the atlases of {atlases.resolve().name}"
