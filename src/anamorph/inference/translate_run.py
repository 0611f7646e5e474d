"""A whole translation as ``anamorph translate`` does it: a file in, translated and compared, files out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from anamorph.data.files import atomic_write, read, write
from anamorph.data.image import ReadPolicy
from anamorph.errors import InputError
from anamorph.evaluation.scores import Score, of_case, to_csv
from anamorph.inference.evaluate import of_target, target_label
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.run import geometry_of, hashes_of, refuse_changes, rounded_seconds
from anamorph.inference.run_folder import Run
from anamorph.inference.stages import Stages
from anamorph.inference.translate import (
    Translated,
    TranslationError,
    compare_translation,
    question_truth,
    translate_with,
)
from anamorph.inference.translate_request import TranslationRequest
from anamorph.pairwise.register import Progress


@dataclass(frozen=True, eq=False)
class TranslationResult:
    """What a run found, for the report and for whoever called it.

    Args:
        found: the image and its translation.
        model: what translated it.
        compared: with the truth, where given.
        scores: of that; without a truth there are none.
    """

    found: Translated
    model: Model
    compared: TranslationError | None
    scores: tuple[Score, ...]


def run_translation(request: TranslationRequest, run: Run, progress: Progress | None = None) -> TranslationResult:
    """Translate, compare and write every file but the report and ``run.json``.

    Raises:
        AnamorphError: with the code and the class of what went wrong.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    plain = ReadPolicy(request.xform, request.strict, request.nonfinite, None, request.max_memory)
    run.facts["inputs"] = hashes = hashes_of(request.inputs())
    image = read(request.image, replace(plain, volume=request.volume), request.modality)
    run.facts["geometry"] = {"image": geometry_of(image.grid)}
    truth = None if request.truth is None else read(request.truth, plain)
    if truth is not None and (truth.grid.ndim, len(truth.data)) != (image.grid.ndim, len(image.data)):
        found = f"a {truth.grid.ndim}-D image of {len(truth.data)} channels"
        expected = f"{image.grid.ndim}-D and {len(image.data)} channels, as the image to translate"
        raise InputError("E-GEO-015", found, file=request.truth, expected=expected)
    model = read_model(request.model, request.device)
    run.facts["model"] = model.facts
    found = translate_with(
        model, image, mask=request.mask, policy=plain, max_memory=request.max_memory, progress=progress
    )
    stages, compared, target = Stages(progress), None, found.image.modality or ""
    if truth is not None:
        with stages("evaluate"):
            question_truth(model, found, truth)
            compared = compare_translation(model, found, truth)
    scores = () if compared is None else tuple(of_case(compared.scores, image.name, model.card.method))
    run.facts["seconds"] = rounded_seconds(found.seconds, stages)
    run.facts["translation"] = {
        "from": found.source.modality,
        "to": found.image.modality,
        "scale": found.scale,
        "limits": list(found.limits),
    }
    with stages("write"):
        write(found.image, run.path("translation.nii.gz"))
        if compared is not None:
            write(compared.error, run.path("error.nii.gz"))
            with atomic_write(run.path("scores.csv")) as part:
                part.write_text(to_csv([of_target(row, target_label(target)) for row in scores]), encoding="utf-8")
        refuse_changes(request.inputs(), hashes)
    return TranslationResult(found, model, compared, scores)
