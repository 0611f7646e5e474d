"""Refinement at test time: the spatial transformer goes on learning, from one case, what its segmentation looks like.

    L*_a2s = mean over voxels and classes c > 0 of (y_hat - y_a o Phi^-1)^2     (17)
    L*_s2a = mean over voxels and classes c > 0 of (y_hat o Phi - y_a)^2        (18)
    L*     = beta* L*_a2s + gamma* L*_s2a + lambda* L_reg                       (19)

minimised by Adam, begun anew for each case, over a copy of the spatial transformer's weights (21). The copy with the
least L* on the way is kept, that of the one pass included: a refinement is never worse than what it began with, by its
own measure. Cases are refined one after the other and know nothing of each other, so neither their order nor their
number changes a bit of what is found.

Source: M. Sinclair et al. (2022), Atlas-ISTN, doi:10.1016/j.media.2022.102383, section 2.4; numbers of equations are
the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from anamorph.losses import diffusion, mse
from anamorph.losses.masks import Loss
from anamorph.methods.atlas_istn_settings import RefinementSettings
from anamorph.networks.spatial_transformer import AtlasTransformation
from anamorph.spatial.field import warp
from anamorph.types import DisplacementBatch, ImageBatch

SpatialNetwork = Callable[[ImageBatch], tuple[Tensor, Tensor | None]]
Registration = Callable[[ImageBatch, SpatialNetwork], AtlasTransformation]
"""The transformation of a case, from what the segmentation network says of it, by a spatial transformer."""
Progress = Callable[[float], None]


class Refinement(NamedTuple):
    """What came of the refinement of some cases.

    Args:
        transformation: with the refined weights.
        one_pass: with the weights of the model.
        logits: of the segmentation network, B (1 + classes) I J (K).
        losses: L* of each case, at first and after each step.
        iterations: steps that each case took.
    """

    transformation: AtlasTransformation
    one_pass: AtlasTransformation
    logits: ImageBatch
    losses: list[list[float]]
    iterations: list[int]


def normalised_smoothness(local: DisplacementBatch) -> Loss:
    """L_reg: mean squared forward difference of a displacement in halves of the image, over axes and components.

    The release measures displacements from -1 to 1 between the outer voxels' centres, and differences from voxel to
    voxel. That is the unit in which lambda is 500 to 800.
    """
    halves = [max(n - 1, 1) / 2 for n in local.shape[2:]]
    return diffusion(local / local.new_tensor(halves).view(1, -1, *[1] * len(halves)))


def refine_cases(
    network: nn.Module,
    register: Registration,
    logits: ImageBatch,
    atlas: Float[Tensor, "1 channels *spatial"],
    settings: RefinementSettings,
    progress: Progress | None = None,
) -> Refinement:
    """Refine every case by itself, whatever mode the caller is in; no argument is changed.

    Args:
        network: the spatial transformer, whose weights are begun with.
        register: by such a network.
        logits: of the segmentation network, B (1 + classes) I J (K).
        atlas: its labels.
        settings: as chosen.
        progress: told the share that is done.
    """
    steps, cases = settings.iterations + 1, []
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(logits.device.type, enabled=False):
        target = atlas.clone()
        for number in range(len(logits)):
            seen = logits[number : number + 1].clone()
            found: list[AtlasTransformation] = []
            losses: list[float] = []
            for transformation, loss in _steps(network, register, seen, target, settings):
                # Of the transformations the first and the best are kept.
                found = [*found[:1], transformation] if not losses or loss < min(losses) else found
                losses.append(loss)
                if progress is not None:
                    progress((number + len(losses) / steps) / len(logits))
            if progress is not None:
                progress((number + 1) / len(logits))
            cases.append((found[-1], found[0], losses))
    refined, one_pass, losses_of = zip(*cases, strict=True)
    return Refinement(
        _together(refined), _together(one_pass), logits, [*losses_of], [len(losses) - 1 for losses in losses_of]
    )


def _steps(
    network: nn.Module, register: Registration, seen: ImageBatch, atlas: ImageBatch, settings: RefinementSettings
) -> Iterator[tuple[AtlasTransformation, float]]:
    """The transformation of one case and its objective, at first and after each step of a copy of the weights."""
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    optimiser = torch.optim.Adam(list(weights.values()), lr=settings.learning_rate, fused=True)
    losses: list[float] = []
    while True:
        found = register(seen, lambda both: functional_call(network, weights, (both,)))
        objective = refinement_objective(found, seen[:, 1:], atlas[:, 1:], settings)
        losses.append(float(objective.detach()))
        detached = (None if part is None else part.detach() for part in found)
        yield AtlasTransformation(*detached), losses[-1]  # pyright: ignore[reportArgumentType]
        if len(losses) > settings.iterations or converged(losses, settings):
            return
        optimiser.zero_grad()
        objective.backward()
        optimiser.step()


def converged(losses: Sequence[float], settings: RefinementSettings) -> bool:
    """Whether the last steps gained next to nothing, or the objective is no number any more."""
    if not math.isfinite(losses[-1]):
        return True
    before, last = losses[: -settings.patience], losses[-settings.patience :]
    return bool(settings.tolerance and before) and min(last) > (1 - settings.tolerance) * min(before)


def refinement_objective(
    found: AtlasTransformation, logits: ImageBatch, atlas: ImageBatch, settings: RefinementSettings
) -> Loss:
    """Equation 19.

    Args:
        found: between the atlas and a case.
        logits: of the case without the background, B classes I J (K).
        atlas: its labels without the background.
        settings: the weights.
    """
    computed: dict[str, Callable[[], Tensor]] = {
        "atlas_to_segmentation": lambda: mse(logits, warp(atlas, found.inverse, outside="border")),
        "segmentation_to_atlas": lambda: mse(atlas, warp(logits, found.forward, outside="border")),
        "smoothness": lambda: normalised_smoothness(found.local),
    }
    weights = {name: getattr(settings, name) for name in computed}
    return torch.stack([weight * computed[name]() for name, weight in weights.items() if weight]).sum()


def _together(found: Sequence[AtlasTransformation]) -> AtlasTransformation:
    """Of several cases, as one batch."""
    parts = (None if part[0] is None else torch.cat(part) for part in zip(*found, strict=True))
    return AtlasTransformation(*parts)  # pyright: ignore[reportArgumentType]
