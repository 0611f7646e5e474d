"""Label an image with a trained model: onto the network's grid, through the network, back onto the image's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.data.files import read
from anamorph.data.image import Image, Labelmap, Mask, ReadPolicy
from anamorph.data.network_grid import image_to_network, labels_to_native
from anamorph.errors import warn
from anamorph.inference.atlas_segmentation import AtlasFit, fit_atlas
from anamorph.inference.memory import check_network_memory
from anamorph.inference.model_domain import (
    admitted,
    finite,
    mask_for,
    own_grid,
    question,
    question_alignment,
    refuse_flat,
    refuse_task,
)
from anamorph.inference.model_folder import Model
from anamorph.inference.stages import Stages
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import resample

CUT_SHARE = 0.01
"""Share of a label's voxels at the edge of the network's view, where the image goes on, from which it seems cut."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A labelled image.

    Args:
        image: what was segmented.
        labels: of every voxel of the image's own grid, or of the network's, with the values and names of the training's
            files.
        probabilities: of the background and of every label of the plan in order, on the same grid, (1 + labels)
            I J (K); None unless asked for.
        seconds: time spent, by stage.
        atlas: how a model with an atlas came to these labels; None of other models.
    """

    image: Image
    labels: Labelmap
    probabilities: Float[Tensor, "classes *spatial"] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    atlas: AtlasFit | None = None

    def volumes(self) -> dict[int, float]:
        """Of every label that the model knows, mm^d."""
        counts = dict(zip(*(part.tolist() for part in np.unique(self.labels.data, return_counts=True)), strict=True))
        return {label: counts.get(label, 0) * self.labels.grid.voxel_volume for label in self.labels.names}


def segment_with(
    model: Model,
    image: Image | str | Path,
    *,
    mask: Mask | str | Path | None = None,
    probabilities: bool = False,
    native: bool = True,
    policy: ReadPolicy | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Segment an image with a trained model, on the device that it was read to.

    Args:
        model: from ``read_model``.
        image: file or image on any grid of the model's dimension; its ``modality`` may be left open where the model
            leaves no choice.
        mask: where intensities are measured, if the plan's content is "mask"; any grid.
        probabilities: whether to keep those as well.
        native: whether labels are given on the image's own grid; if not, on the network's, where they are found.
        policy: how to read files.
        max_memory: bytes to stay within.
        progress: told of stages.

    Raises:
        InputError: E-MOD-005, a modality, dimension or number of channels that the model was not made for.
        ConfigurationError: E-MOD-009, the model does not segment; E-MOD-010, which modality?; E-MOD-012, a mask that
            nothing would look at.
        NumericalError: E-VAL-004, no contrast; E-MOD-013, the network's answer is not finite.
        ResourceError: E-MEM-016.

    Warns:
        W-MOD-005, W-MOD-012, W-MOD-013: voxels, field of view or values far off those of the training. W-MOD-014: the
        training's images were aligned. W-MOD-015: labels that are nowhere. W-MOD-016: labels that seem cut off.
        W-MOD-017: the image looks like another modality.
    """
    refuse_task(model, "segment")
    plan = model.card.plan
    image = admitted(model, image if isinstance(image, Image) else read(image, policy))
    where = None if mask is None else mask_for(image, mask, plan, policy)
    check_network_memory(plan.shape, (image.grid,), model.device, max_memory, classes=len(plan.labels))
    refuse_flat(image)
    question_alignment(model, image)
    stages = Stages(progress)
    with stages("normalise"):
        grid = own_grid(image, plan)
        tensor = image_to_network(image, plan, grid, where)
        question(model, image, grid, tensor, where)
    with stages("network"):
        told = None if progress is None else lambda done: progress("network", done)
        fit = fit_atlas(model, tensor, grid, image.grid, told)
        if fit is None:
            found = predicted_probabilities(model, tensor, image.modality or "")
        else:
            found = finite(fit.probabilities())
    with stages("labels"):
        labels = labels_to_native(found, plan, grid, image.grid if native else grid)
        everything = _on(image.grid, found, grid) if probabilities else None
    _question(labels, found, grid)
    return Segmentation(image, labels, everything, stages.seconds, fit)


def predicted_probabilities(
    model: Model, image: Float[Tensor, "channels *net"], modality: str
) -> Float[Tensor, "classes *net"]:
    """What a model finds in a normalised image on the network's grid, on the CPU: (1 + classes) I J (K).

    Raises:
        NumericalError: E-MOD-013, NaN or Inf.
    """
    with torch.inference_mode():
        return finite(model.method.segment(image[None].to(model.device), modality)[0].float().cpu())


def _on(native: Grid, probabilities: Tensor, grid: Grid) -> Tensor:
    """Probabilities on another grid; outside the network's all is background."""
    result = resample(probabilities, grid, native)
    result[0] += 1 - result.sum(0)
    return result


def _question(labels: Labelmap, probabilities: Tensor, grid: Grid) -> None:
    """Tell of labels that are nowhere, and of those that the edge of the network's view seems to cut."""
    there = set(labels.values())
    missing = [_called(value, name) for value, name in labels.names.items() if value not in there]
    if missing:
        warn("W-MOD-015", f"no voxel of {', '.join(missing)}", file=labels.name or None)
    winner = probabilities.argmax(0)
    edge = _edge_inside(grid, labels.grid)
    cut = [
        _called(value, name)
        for number, (value, name) in enumerate(labels.names.items(), 1)
        if int(((winner == number) & edge).sum()) > CUT_SHARE * max(1, int((winner == number).sum()))
    ]
    if cut:
        found = f"{', '.join(cut)} reach the edge of what the network sees, and seem cut off there"
        warn("W-MOD-016", f"{found}; crop the image about them", file=labels.name or None)


def _called(value: int, name: str) -> str:
    return name if name == f"label {value}" else f"{name} ({value})"


def _edge_inside(grid: Grid, native: Grid) -> Tensor:
    """The outer voxels of a grid beyond which an image goes on."""
    edge = torch.zeros(grid.shape, dtype=torch.bool)
    for axis, n in enumerate(grid.shape):
        for place, step in ((0, -1), (n - 1, 1)):
            middle = (np.array(grid.shape) - 1) / 2
            middle[axis] = place + step
            if native.contains(grid.to_world(middle[None]))[0]:
                edge.select(axis, place).fill_(True)
    return edge
