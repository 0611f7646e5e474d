"""``anamorph translate``: a file and a trained model in; a folder with the translated image and its report out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anamorph.cli.arguments import Form
from anamorph.cli.run_report import facts_of, recorded, say_summary, score_rows, settings_of
from anamorph.inference.translate_request import TranslationRequest

if TYPE_CHECKING:
    from anamorph.cli.screen import OnProgress, Screen
    from anamorph.inference.run_folder import Run
    from anamorph.inference.translate_run import TranslationResult
    from anamorph.report.inputs import ReportInputs

FORM = Form(
    TranslationRequest,
    positional=("image",),
    groups={
        "guidance": ("modality", "mask"),
        "scoring": ("truth",),
        "reading": ("xform", "strict", "nonfinite", "volume"),
        "machine": ("device", "threads", "max_memory"),
    },
    metavars={"out": "FOLDER", "model": "FOLDER", "modality": "NAME", "max_memory": "SIZE"},
    example="anamorph translate t1.nii.gz --model runs/cocyclereg/model --modality t1 --out result",
    configurable=True,
)


def run(request: TranslationRequest, screen: Screen) -> int:
    """Translate, and say how it went."""
    from anamorph.inference.run_folder import Run
    from anamorph.inference.translate_run import run_translation
    from anamorph.report.inputs import ReportInputs
    from anamorph.report.verdict import judge

    files = (*request.inputs().values(), request.model)
    run = Run(request.out, "translate", request.model_dump(), files, request.force, screen.warning)

    def work(progress: OnProgress) -> tuple[TranslationResult, ReportInputs]:
        result = run_translation(request, run, progress)
        return result, report_of(request, result, run)

    refused = ReportInputs(title=_title(request), kind="translation", settings=settings_of(request))
    result, shown = recorded(run, screen, work, refused)
    say_summary(judge(shown), score_rows(result.scores), run, screen)
    return 0


def report_of(request: TranslationRequest, result: TranslationResult, run: Run) -> ReportInputs:
    """What the report shows of a run that came to its end."""
    from anamorph.report.inputs import ReportInputs
    from anamorph.report.translation import ERROR, TRANSLATED, TRUE

    found, compared = result.found, result.compared
    images = {TRANSLATED: found.image.data[0].numpy()}
    if compared is not None:
        images |= {TRUE: compared.truth.data[0].numpy(), ERROR: compared.error.data[0].numpy()}
    low, high = found.limits
    scale = {"file": "of the files", "prepared": "of the prepared images"}[found.scale]
    return ReportInputs(
        title=_title(request),
        kind="translation",
        affine=found.source.grid.affine,
        fixed=found.source.data[0].numpy(),
        fixed_modality=found.source.modality,
        moving_modality=found.image.modality,
        windows=result.model.card.plan.windows,
        further_images=images,
        scores=score_rows(result.scores),
        warnings=run.warnings,
        settings=settings_of(request),
        facts={
            "translation": f"{found.source.modality} to {found.image.modality}",
            "intensities": f"{low:g} to {high:g}, {scale}",
        }
        | facts_of(run),
        seconds_by_stage=run.facts["seconds"],
    )


def _title(request: TranslationRequest) -> str:
    from anamorph.inference.model_card import model_name

    return f"{request.image.name} translated by {model_name(request.model)}"
