"""Translate an image with a trained model: onto the network's grid, through a translator, back onto its own grid.

Intensities of a translated image are those of files of its modality where the plan prepares these by a window, which
has an inverse: of a CT between the window's ends, in HU; or where it leaves them as they are. Where percentiles or the
mean of each image decide, nothing is known of the file that there might have been, and the prepared scale stays: 0 to 1
for percentiles. What the network does not see has the lowest value that there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anamorph.data.files import read
from anamorph.data.image import Image, Mask, ReadPolicy
from anamorph.data.intensity import normalise
from anamorph.data.network_grid import image_to_network, mask_to_network
from anamorph.data.plan import Intensity, Plan
from anamorph.errors import InputError
from anamorph.evaluation.appearance import intensity_scores, structural_similarity
from anamorph.evaluation.scores import Score
from anamorph.inference.memory import check_network_memory
from anamorph.inference.model_domain import (
    admitted,
    finite,
    mask_for,
    own_grid,
    question,
    question_alignment,
    question_values,
    refuse_flat,
    refuse_task,
)
from anamorph.inference.model_folder import Model
from anamorph.inference.stages import Stages
from anamorph.inference.warp import warp
from anamorph.methods.both_ways import OTHER
from anamorph.methods.translation import Translation
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Transform, resample

Scale = Literal["file", "prepared"]
INSIDE = "inside the mask"
"""Label of what is measured there alone."""


@dataclass(frozen=True, eq=False)
class Translated:
    """A translated image.

    Args:
        source: what was translated; where ``native`` is told, as the network saw it.
        image: as one of the other modality, on the source's grid.
        seen: which of its voxels the network saw.
        scale: of its intensities: those of files of its modality, or the prepared ones.
        limits: that they lie between.
        seconds: time spent, by stage.
        native: grid of the image that was read, where source and translation are left on the network's.
    """

    source: Image
    image: Image
    seen: Bool[Tensor, "*spatial"]
    scale: Scale
    limits: tuple[float, float]
    seconds: Mapping[str, float] = field(default_factory=dict)
    native: Grid | None = None


@dataclass(frozen=True, eq=False)
class TranslationError:
    """A translated image beside the true one.

    Args:
        truth: on the source's grid and the scale of the translation.
        error: the translation less the truth; 0 where it is not known.
        scores: RMSE, PSNR and SSIM where both are known, and of that inside the mask where there is one; of several
            channels each.
    """

    truth: Image
    error: Image
    scores: tuple[Score, ...]


def translate_with(
    model: Model,
    image: Image | str | Path,
    *,
    mask: Mask | str | Path | None = None,
    native: bool = True,
    policy: ReadPolicy | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Translated:
    """Translate an image with a trained model, on the device that it was read to.

    Args:
        model: from ``read_model``.
        image: file or image on any grid of the model's dimension; its ``modality`` may be left open where the model
            translates but one.
        mask: where intensities are measured, if the plan's content is "mask"; any grid.
        native: bring the translation back onto the image's own grid; if not, it stays on the network's.
        policy: how to read files.
        max_memory: bytes to stay within.
        progress: told of stages.

    Raises:
        InputError: E-MOD-005, a modality, dimension or number of channels that the model was not made for.
        ConfigurationError: E-MOD-009, the model does not translate; E-MOD-010, which modality?; E-MOD-012, a mask that
            nothing would look at.
        NumericalError: E-VAL-004, no contrast; E-MOD-013, the network's answer is not finite.
        ResourceError: E-MEM-016.

    Warns:
        W-MOD-005, W-MOD-012, W-MOD-013: voxels, field of view or values far off those of the training. W-MOD-014: the
        training's images were aligned. W-MOD-017: the image looks like another modality.
    """
    refuse_task(model, "translate")
    plan, method = model.card.plan, model.method
    assert isinstance(method, Translation)
    image = image if isinstance(image, Image) else read(image, policy)
    if image.modality is None:
        image = replace(image, modality=method.modalities[OTHER[method.target_of(name=image.name)]])
    image = admitted(model, image)
    source = image.modality or ""
    target = method.modalities[method.target_of(source, image.name)]
    where = None if mask is None else mask_for(image, mask, plan, policy)
    check_network_memory(plan.shape, (image.grid,), model.device, max_memory)
    refuse_flat(image)
    question_alignment(model, image)
    stages = Stages(progress)
    with stages("normalise"):
        grid = own_grid(image, plan)
        tensor = image_to_network(image, plan, grid, where)
        question(model, image, grid, tensor, where)
    with stages("network"), torch.inference_mode():
        found = finite(method.translate(tensor[None].to(model.device), source)[0].float().cpu())
    low, high = method.translation.intensities
    scale, ends = in_file(torch.tensor([low, high]), plan.modalities[target])
    limits = float(ends[0]), float(ends[1])
    if not native:
        source_seen = replace(image, data=in_file(tensor, plan.modalities[source])[1], grid=grid, valid=None)
        values = in_file(found.clamp(low, high), plan.modalities[target])[1]
        result = replace(source_seen, data=values, modality=target)
        seen = torch.ones(grid.shape, dtype=torch.bool)
        return Translated(source_seen, result, seen, scale, limits, stages.seconds, image.grid)
    with stages("resample"):
        *channels, share = resample(torch.cat([found - low, torch.ones_like(found[:1])]), grid, image.grid)
        values = (torch.stack(channels) + low).clamp(low, high)
        result = replace(image, data=in_file(values, plan.modalities[target])[1], modality=target, valid=None)
    return Translated(image, result, share > 0.5, scale, limits, stages.seconds)


def in_file(prepared: Float[Tensor, "..."], intensity: Intensity) -> tuple[Scale, Float[Tensor, "..."]]:
    """Prepared intensities as files of the modality have them, where that is known; else as they are."""
    if intensity.kind == "window":
        return "file", intensity.low + prepared * (intensity.high - intensity.low)
    return ("file" if intensity.kind == "none" else "prepared"), prepared


def question_truth(model: Model, found: Translated, truth: Image) -> None:
    """Tell where what is given for the true image does not look like one of the translation's modality.

    Args:
        model: that translated.
        found: by it.
        truth: on any grid of the model's dimension and channels.

    Warns:
        W-MOD-013, W-MOD-017: as ``question_values``.
    """
    truth = replace(truth, modality=found.image.modality, name=f"the true image {truth.name}".strip())
    plan = model.card.plan
    grid = own_grid(truth, plan)
    question_values(model, truth, grid, image_to_network(truth, plan, grid))


def compare_translation(
    model: Model, found: Translated, truth: Image, *, transform: Transform | None = None, mask: Mask | None = None
) -> TranslationError:
    """How far a translation is from the true image of the same patient.

    Args:
        model: that translated.
        found: by it.
        truth: of the translation's modality, on any grid; it is brought onto the source's, and its intensities are
            prepared as those of the training were, though never measured in a mask. Where the translation is on the
            network's grid, it then goes on to that as images of the training do.
        transform: source world -> the truth's world; one world if absent.
        mask: on the grid of the source as it was read.

    Raises:
        InputError: E-GEO-015, it lies elsewhere.
    """
    truth = replace(truth, modality=found.image.modality)
    prepared, inside = _prepared(model.card.plan, truth, found.native or found.image.grid, transform)
    if found.native is not None:
        plan, grid = _as_it_is(model.card.plan), found.image.grid
        prepared = replace(prepared, data=image_to_network(prepared, plan, grid), grid=grid)
        inside = resample(inside, found.native, grid)
        mask = None if mask is None else Mask(mask_to_network(mask.data, found.native, grid), grid)
    known = (inside[0] > 0.5) & found.seen
    if not bool(known.any()):
        raise InputError(
            "E-GEO-015", "no voxel where the translation is", file=truth.name or None,
            expected="an image of the same patient and place", do="register it first",
        )  # fmt: skip
    error = torch.where(known, found.image.data - prepared.data, 0.0)
    scores = list[Score]()
    for number, (true, made) in enumerate(zip(prepared.data.numpy(), found.image.data.numpy(), strict=True)):
        label = "" if len(prepared.data) == 1 else f"channel {number}"
        scores += [replace(row, label=label) for row in channel_scores(true, made, known.numpy())]
        if mask is not None:
            label = f"{label}, {INSIDE}" if label else INSIDE
            part = (known & mask.data).numpy()
            scores += [replace(row, label=label) for row in channel_scores(true, made, part)]
    return TranslationError(prepared, Image(error, found.image.grid, name=truth.name), tuple(scores))


def _prepared(
    plan: Plan, truth: Image, grid: Grid, transform: Transform | None
) -> tuple[Image, Float[Tensor, "1 *spatial"]]:
    """The truth on a grid and the scale of translations, and how far it is known there, 0 to 1."""
    intensity = plan.modalities[truth.modality or ""]
    _, values = in_file(normalise(truth.data, intensity, None, truth.valid), intensity)
    inside = torch.ones(1, *truth.grid.shape) if truth.valid is None else truth.valid[None].float()
    prepared = Image(values, truth.grid, truth.modality, name=truth.name)
    if transform is not None or not truth.grid.same_as(grid):
        inside = resample(inside, truth.grid, grid, transform)
        prepared = warp(prepared, transform or Affine.identity(truth.grid.ndim), grid)
    return prepared, inside


def _as_it_is(plan: Plan) -> Plan:
    """The plan for intensities that are prepared already."""
    return plan.model_copy(update={"modalities": dict.fromkeys(plan.modalities, Intensity(kind="none"))})


def channel_scores(
    truth: Float[np.ndarray, "..."], made: Float[np.ndarray, "..."], known: Bool[np.ndarray, "..."]
) -> list[Score]:
    """RMSE, PSNR and SSIM of what is known."""
    rows = intensity_scores(truth, made, known)
    reason = next((row.reason for row in rows if row.reason), "")
    similarity = structural_similarity(truth, made, known)
    return [*rows, Score("structural_similarity", similarity, reason="" if np.isfinite(similarity) else reason)]
