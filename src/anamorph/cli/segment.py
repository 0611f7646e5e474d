"""``anamorph segment``: a file and a trained model, or atlases, in; a folder with labels and their report out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from anamorph.cli.arguments import Form
from anamorph.cli.run_report import facts_of, recorded, say_summary, score_rows, settings_of
from anamorph.inference.request import SegmentationRequest

if TYPE_CHECKING:
    import numpy as np

    from anamorph.cli.screen import OnProgress, Screen
    from anamorph.data.image import Image
    from anamorph.evaluation.scores import Score
    from anamorph.inference.atlas_segmentation import AtlasFit
    from anamorph.inference.run_folder import Run
    from anamorph.inference.segment_run import SegmentationResult
    from anamorph.report.inputs import ReportInputs

FORM = Form(
    SegmentationRequest,
    positional=("image",),
    groups={
        "guidance": ("modality", "mask"),
        "refinement": ("refine", "lambda"),
        "fusing": (
            "registration", "registration_settings", "fusion", "fusion_settings", "select", "region", "margin",
            "atlas_modality", "atlas_split", "split", "cache",
        ),
        "scoring": ("labels", "ignore_labels"),
        "reading": ("xform", "strict", "nonfinite", "volume"),
        "machine": ("device", "threads", "max_memory", "workers", "scheduler"),
    },
    metavars={"out": "FOLDER", "model": "FOLDER", "atlases": "COHORT", "modality": "NAME", "max_memory": "SIZE",
              "registration": "NAME", "registration_settings": "FILE", "fusion": "NAME", "fusion_settings": "FILE",
              "atlas_modality": "NAME", "cache": "FOLDER", "scheduler": "ADDRESS"},
    example="anamorph segment ct.nii.gz --model runs/liver/model --out result",
    configurable=True,
)  # fmt: skip

KEY_SCORES = ("dice_mean", "hd95_mean_mm", "dice", "hd95_mm", "volume_mm3", "area_mm2")
"""What the terminal shows, in this order; ``scores.csv`` and the report hold every row."""
MOST_VOXELS_WITH_GRID = 2**25
"""Of an image whose report shows the deformed grid of an atlas; its map takes 12 bytes a voxel."""


def run(request: SegmentationRequest, screen: Screen) -> int:
    """Segment, and say how it went."""
    if request.model is None:
        from anamorph.cli.segment_atlases import run_atlases

        return run_atlases(request, screen)
    from anamorph.inference.run_folder import Run
    from anamorph.inference.segment_run import run_segmentation
    from anamorph.report.inputs import ReportInputs
    from anamorph.report.verdict import judge

    files = (*request.inputs().values(), request.model)
    run = Run(request.out, "segment", request.model_dump(), files, request.force, screen.warning)

    def work(progress: OnProgress) -> tuple[SegmentationResult, ReportInputs]:
        result = run_segmentation(request, run, progress)
        return result, report_of(request, result, run)

    refused = ReportInputs(title=_title(request), kind="segmentation", settings=settings_of(request))
    result, shown = recorded(run, screen, work, refused)
    say_summary(judge(shown), key_rows(result.scores), run, screen)
    return 0


def key_rows(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """What the terminal shows of scores."""
    rows = [row for row in score_rows(scores) if row["metric"] in KEY_SCORES]
    return sorted(rows, key=lambda row: KEY_SCORES.index(row["metric"]))


def report_of(request: SegmentationRequest, result: SegmentationResult, run: Run) -> ReportInputs:
    """What the report shows of a run that came to its end."""
    from anamorph.report.inputs import ReportInputs

    image, labels, atlas = result.segmentation.image, result.segmentation.labels, result.segmentation.atlas
    return ReportInputs(
        title=_title(request),
        kind="segmentation",
        affine=image.grid.affine,
        fixed=image.data[0].numpy(),
        fixed_modality=image.modality,
        fixed_labels=None if result.truth is None else result.truth.data.numpy(),
        found_labels=labels.data.numpy(),
        label_names=dict(labels.names),
        scores=score_rows(result.scores),
        warnings=run.warnings,
        settings=settings_of(request),
        facts=facts_of(run),
        seconds_by_stage=run.facts["seconds"],
        loss_by_stage={} if atlas is None or not atlas.losses else {"network": atlas.losses},
        earlier_labels={} if atlas is None else _earlier(atlas),
        atlas_displacement_mm=None if atlas is None else _to_atlas(atlas, image),
    )


def _earlier(atlas: AtlasFit) -> dict[str, np.ndarray]:
    """What a fitted atlas went by, in order."""
    steps = {"network": atlas.network, "atlas, one pass": atlas.one_pass}
    return {name: labels.data.numpy() for name, labels in steps.items() if labels is not None}


def _to_atlas(atlas: AtlasFit, image: Image) -> np.ndarray | None:
    """Where the atlas has each voxel of an image, d I J (K), mm; None of a large image or a map without an inverse."""
    import math
    import warnings

    from anamorph.errors import AnamorphWarning, NumericalError

    if math.prod(image.grid.shape) > MOST_VOXELS_WITH_GRID:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        try:
            return atlas.to_image.inverse().displacement_on(image.grid)
        except NumericalError:
            return None


def _title(request: SegmentationRequest) -> str:
    from anamorph.inference.model_card import model_name

    assert request.model is not None
    return f"{request.image.name} by {model_name(request.model)}"
