"""Refinement at test time: the spatial transformer goes on learning, from one case, what its segmentation looks like.

    L*_a2s = mean over voxels and classes c > 0 of (y_hat - y_a o Phi^-1)^2     (17)
    L*_s2a = mean over voxels and classes c > 0 of (y_hat o Phi - y_a)^2        (18)
    L*     = beta* L*_a2s + gamma* L*_s2a + lambda* L_reg                       (19)

minimised by Adam, begun anew for each case, over a copy of the spatial transformer's weights (21). The copy with the
least L* on the way is kept, that of the one pass included: a refinement is never worse than what it began with, by its
own measure.

Cases know nothing of each other: each has its own weights, its own Adam and its own end. Refined one at a time, neither
their order nor their number changes a bit of what is found. Several at a time go through the same operators as one
batch, in which a case that has come to its end takes no further part; that may round otherwise.

Source: M. Sinclair et al. (2022), Atlas-ISTN, doi:10.1016/j.media.2022.102383, section 2.4; numbers of equations are
the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from anamorph.losses import diffusion, mse
from anamorph.losses.masks import Loss
from anamorph.methods.atlas_istn_settings import RefinementSettings
from anamorph.networks.convolution import arranged, unarranged
from anamorph.networks.spatial_transformer import AtlasTransformation
from anamorph.spatial.field import warp
from anamorph.types import DisplacementBatch, ImageBatch

Atlas = Float[Tensor, "1 channels *spatial"]
Losses = Float[Tensor, " batch"]
Weights = dict[str, Tensor]
Maps = Callable[[Tensor, Tensor | None], AtlasTransformation]
"""The transformation of cases, from the velocity and the affine parameters that a spatial transformer finds."""
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


@dataclass(eq=False)
class _Case:
    """One case on its way.

    Args:
        weights: its copy.
        losses: L*, at first and after each step.
        found: the first transformation and the best.
    """

    weights: Weights
    losses: list[float] = field(default_factory=list)
    found: list[AtlasTransformation] = field(default_factory=list)

    def note(self, loss: float, transformation: AtlasTransformation, place: int) -> None:
        """What the weights gave, as item ``place`` of a batch."""
        if not self.losses or loss < min(self.losses):
            self.found = [*self.found[:1], _item(transformation, place)]
        self.losses.append(loss)

    def ended(self, settings: RefinementSettings) -> bool:
        return len(self.losses) > settings.iterations or converged(self.losses, settings)


def normalised_smoothness(local: DisplacementBatch) -> Loss:
    """L_reg: mean squared forward difference of a displacement in halves of the image, over axes and components.

    The release measures displacements from -1 to 1 between the outer voxels' centres, and differences from voxel to
    voxel. That is the unit in which lambda is 500 to 800.
    """
    halves = [max(n - 1, 1) / 2 for n in local.shape[2:]]
    return diffusion(local / local.new_tensor(halves).view(1, -1, *[1] * len(halves)))


def refine_cases(
    network: nn.Module,
    maps: Maps,
    logits: ImageBatch,
    atlas: Float[Tensor, "1 classes *spatial"],
    settings: RefinementSettings,
    progress: Progress | None = None,
) -> Refinement:
    """Refine every case by itself, whatever mode the caller is in; no argument is changed.

    Args:
        network: the spatial transformer, whose weights are begun with.
        maps: of what such a network finds.
        logits: of the segmentation network, B (1 + classes) I J (K).
        atlas: its labels.
        settings: as chosen.
        progress: told the share that is done.
    """
    cases: list[_Case] = []
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(logits.device.type, enabled=False):
        for some in logits.split(settings.batch):

            def tell(share: float, before: int = len(cases), number: int = len(some)) -> None:
                if progress is not None:
                    progress((before + share * number) / len(logits))

            cases.extend(_refined(network, maps, some[:, 1:], atlas[:, 1:], settings, tell))
    one_pass, refined = (_together([case.found[place] for case in cases]) for place in (0, -1))
    losses = [case.losses for case in cases]
    return Refinement(refined, one_pass, logits, losses, [len(each) - 1 for each in losses])


def _refined(
    network: nn.Module, maps: Maps, logits: ImageBatch, atlas: Atlas, settings: RefinementSettings, tell: Progress
) -> list[_Case]:
    """Some cases, refined in one batch, from which each goes when it has come to its end."""
    cases = [_Case(_copied(network)) for _ in logits]
    optimiser = torch.optim.Adam(
        [weight for case in cases for weight in case.weights.values()], lr=settings.learning_rate, fused=True
    )
    seen, going = torch.cat([logits, atlas.expand_as(logits)], 1), cases
    while going:
        if len(going) == 1:
            seen = arranged(seen)
        found = maps(*_applied(network, [case.weights for case in going], seen))
        objectives = refinement_objective(found, *seen.chunk(2, 1), settings)
        for place, (case, loss) in enumerate(zip(going, objectives.tolist(), strict=True)):
            case.note(loss, found, place)
        on = [not case.ended(settings) for case in going]
        tell(max(len(case.losses) for case in going) / (settings.iterations + 1) if any(on) else 1.0)
        if any(on):
            # Weights that nothing was computed with have no gradient, and Adam leaves them alone.
            optimiser.zero_grad()
            objectives[on].sum().backward()
            optimiser.step()
        if not all(on):
            going = [case for case, stays in zip(going, on, strict=True) if stays]
            seen = seen[on]
        del found, objectives  # else they are held while their successors are made
    return cases


def _copied(network: nn.Module) -> Weights:
    return {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}


def _applied(network: nn.Module, weights: Sequence[Weights], seen: ImageBatch) -> tuple[Tensor, Tensor | None]:
    """The network with weights of its own for each item of ``seen``: velocities, and affine parameters or None."""
    if len(weights) == 1:
        return functional_call(network, weights[0], (seen,))

    def of_one(own: Weights, item: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.squeeze(0) for part in functional_call(network, own, (item[None],)) if part is not None)

    stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    with unarranged():
        velocity, *parameters = torch.vmap(of_one)(stacked, seen)
    return velocity, parameters[0] if parameters else None


def converged(losses: Sequence[float], settings: RefinementSettings) -> bool:
    """Whether the last steps gained next to nothing, or the objective is no number any more."""
    if not math.isfinite(losses[-1]):
        return True
    before, last = losses[: -settings.patience], losses[-settings.patience :]
    return bool(settings.tolerance and before) and min(last) > (1 - settings.tolerance) * min(before)


def refinement_objective(
    found: AtlasTransformation, logits: ImageBatch, atlas: ImageBatch, settings: RefinementSettings
) -> Losses:
    """Equation 19 of each case.

    Args:
        found: between the atlas and the cases.
        logits: of the cases without the background, B classes I J (K).
        atlas: its labels without the background, as often.
        settings: the weights.
    """
    computed: dict[str, Callable[[], Losses]] = {
        "atlas_to_segmentation": lambda: _of_each(mse, logits, warp(atlas, found.inverse, outside="border")),
        "segmentation_to_atlas": lambda: _of_each(mse, atlas, warp(logits, found.forward, outside="border")),
        "smoothness": lambda: _of_each(normalised_smoothness, found.local),
    }
    weights = {name: getattr(settings, name) for name in computed}
    return torch.stack([weight * computed[name]() for name, weight in weights.items() if weight]).sum(0)


def _of_each(measure: Callable[..., Loss], *batches: Tensor) -> Losses:
    """A mean over a batch, of each of its items."""
    return torch.vmap(measure)(*(batch.unsqueeze(1) for batch in batches))


def _item(found: AtlasTransformation, place: int) -> AtlasTransformation:
    """One of a batch, by itself."""
    velocity, matrix = (
        None if part is None else part[place : place + 1].detach().clone() for part in (found.velocity, found.matrix)
    )
    return replace(found, velocity=velocity, matrix=matrix)


def _together(found: Sequence[AtlasTransformation]) -> AtlasTransformation:
    """Of several cases, as one batch."""
    matrices = [each.matrix for each in found if each.matrix is not None]
    velocity = torch.cat([each.velocity for each in found])
    return replace(found[0], velocity=velocity, matrix=torch.cat(matrices) if matrices else None)
