"""A whole segmentation as ``anamorph segment`` does it: a file in, labels found, measured and scored, files out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from anamorph.data.files import atomic_write, read, write
from anamorph.data.image import Image, Labelmap, ReadPolicy
from anamorph.data.transform_files import write_transform
from anamorph.errors import warn
from anamorph.evaluation.cases import segmentation_scores
from anamorph.evaluation.scores import Score, of_case, to_csv
from anamorph.evaluation.topology import topology_scores
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.model_variants import with_settings
from anamorph.inference.multi_atlas_stages import MultiAtlasSegmentation
from anamorph.inference.request import SegmentationRequest
from anamorph.inference.run import geometry_of, hashes_of, labels_of, refuse_changes, rounded_seconds
from anamorph.inference.run_folder import Run
from anamorph.inference.segment import Segmentation, segment_with
from anamorph.inference.stages import Stages
from anamorph.pairwise.register import Progress


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """What a run found, for the report and for whoever called it.

    Args:
        segmentation: the image and its labels.
        model: what found them.
        truth: true labels on the image's grid, where given.
        scores: volumes always; overlap and distances of surfaces with a truth.
    """

    segmentation: Segmentation
    model: Model
    truth: Labelmap | None
    scores: Sequence[Score]


def run_segmentation(request: SegmentationRequest, run: Run, progress: Progress | None = None) -> SegmentationResult:
    """Segment, score and write every file but the report and ``run.json``.

    Raises:
        AnamorphError: with the code and the class of what went wrong.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    plain = ReadPolicy(request.xform, request.strict, request.nonfinite, None, request.max_memory)
    run.facts["inputs"] = hashes = hashes_of(request.inputs())
    image = read(request.image, replace(plain, volume=request.volume), request.modality)
    run.facts["geometry"] = {"image": geometry_of(image.grid)}
    truth = None if request.labels is None else labels_of(image, request.labels, plain)
    assert request.model is not None
    model = read_model(request.model, request.device)
    if request.refinement:
        model = with_settings(model, request.refinement)
    run.facts["model"] = model.facts
    segmentation = segment_with(
        model, image, mask=request.mask, probabilities=request.probabilities, policy=plain,
        max_memory=request.max_memory, progress=progress,
    )  # fmt: skip
    stages = Stages(progress)
    with stages("evaluate"):
        scores = scored(segmentation, truth, request.ignore_labels, model.card.method, image.name)
    run.facts["seconds"] = rounded_seconds(segmentation.seconds, stages)
    if segmentation.image.modality is not None:
        run.facts["modalities"] = {"image": segmentation.image.modality}
    if segmentation.atlas is not None and segmentation.atlas.losses:
        losses = segmentation.atlas.losses
        run.facts["refinement"] = {"steps": len(losses) - 1, "objective_before": losses[0], "objective": min(losses)}
    run.facts["labels"] = {str(value): name for value, name in segmentation.labels.names.items()}
    with stages("write"):
        _write_files(segmentation, scores, run)
        refuse_changes(request.inputs(), hashes)
    return SegmentationResult(segmentation, model, truth, scores)


def scored(
    found: Segmentation | MultiAtlasSegmentation,
    truth: Labelmap | None,
    ignored: Sequence[int],
    method: str,
    case: str,
    knower: str = "the model",
) -> tuple[Score, ...]:
    """Volumes and topology; overlap and distances of surfaces with a truth on the same grid.

    Args:
        found: labels and their volumes.
        truth: true labels.
        ignored: labels not to score.
        method, case: in the rows.
        knower: who knows labels, in words.

    Warns:
        W-LAB-010: labels of the truth that are not known.
    """
    labels = found.labels
    metric, unit = ("volume_mm3", "mm3") if labels.grid.ndim == 3 else ("area_mm2", "mm2")
    rows = [Score(metric, volume, unit, labels.names[value]) for value, volume in found.volumes().items()]
    if truth is None:
        rows += topology_scores(labels.data.numpy(), labels.names)
    else:
        names = {value: name for value, name in labels.names.items() if value not in ignored}
        foreign = sorted({*truth.values()} - {0, *labels.names, *ignored})
        if foreign:
            listed = ", ".join(map(str, foreign[:20])) + (", ..." if len(foreign) > 20 else "")
            does = "does" if knower.startswith("the ") else "do"
            warn("W-LAB-010", f"labels that {knower} {does} not know are not scored: {listed}", file=truth.name or None)
        a, b = truth.data.numpy(), labels.data.numpy()
        ignore = np.isin(a, list(ignored)) if ignored else None
        b = b if ignore is None else np.where(ignore, 0, b)
        rows += segmentation_scores(a, b, labels.grid.spacing, names)
        rows += topology_scores(b, names, truth=a)
    return tuple(of_case(rows, case, method))


def _write_files(found: Segmentation, scores: Sequence[Score], run: Run) -> None:
    write(found.labels, run.path("segmentation.nii.gz"))
    if found.probabilities is not None:
        for value, layer in zip((0, *found.labels.names), found.probabilities, strict=True):
            image = Image(layer[None].contiguous(), found.labels.grid)
            write(image, run.path(f"probability_{value}.nii.gz"))
    if found.atlas is not None:
        for name, labels in (("network", found.atlas.network), ("one_pass", found.atlas.one_pass)):
            if labels is not None:
                write(labels, run.path(f"segmentation_{name}.nii.gz"))
        write_transform(found.atlas.to_image, run.path("atlas_to_image.h5"), overwrite=True)
    with atomic_write(run.path("scores.csv")) as part:
        part.write_text(to_csv(scores), encoding="utf-8")
