r"""The patch network of 2020: patches of target and atlas are alike where their embeddings are.

    d_s(x) = distance of the target's patch at x and the atlas's at x + s             ``networks.patch_embedding`` (11)
    p_s    = softmax over s of -d_s                      s: no shift, and random ones
    P(x)   = those s for which the Dice of the labels of both patches is above a threshold

    L      = mean of - log sum over P(x) of p_s          over voxels x where P(x) is neither empty nor everything  (12)

The similarity of an atlas that lies on the target is exp(-d_0) (13), its part of p_0 before that is divided by the
sum, so that a weighted vote is one of those probabilities. The paper votes otherwise: where less than 70 % of all
agree, each of the five nearest has one vote.

Source: W. Ding, L. Li, X. Zhuang, L. Huang (2020), Cross-modality multi-atlas segmentation using deep neural networks,
doi:10.1007/978-3-030-59716-0_23, as released (github.com/NanYoMy/cmmas).

Deviations: docs/methods/cross_modality_mas.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from anamorph.losses.masks import Loss, weighted_mean
from anamorph.losses.segmentation import ClassBatch, one_hot
from anamorph.losses.windows import window_sum
from anamorph.methods.base import Batch, Domain, TermWeights, Weight
from anamorph.methods.registration import Count, Odd
from anamorph.methods.schedule import Schedule
from anamorph.methods.similarity_estimation import (
    Similarities,
    SimilarityEstimationSettings,
    SimilarityEstimator,
    both_labelled,
)
from anamorph.networks.patch_embedding import PatchEmbedding, patch_distance
from anamorph.spatial.field import warp
from anamorph.types import ImageBatch

NEVER = -1e4
"""Logit of what has no share."""

Supports = Float[Tensor, "batch supports *spatial"]


class PatchSimNetWeights(TermWeights):
    """Weight of the only term."""

    cross_entropy: Weight = 1.0
    """Of patches with the same labels among all."""


class PatchSimNetSettings(SimilarityEstimationSettings):
    """Settings of ``PatchSimNet``."""

    channels: tuple[Count, Count, Count] = (8, 16, 32)
    """Of the three convolutions."""
    patch_size: Odd = 15
    """Side of a patch, voxels."""
    supports: Annotated[int, Field(ge=2)] = 6
    """Patches of an atlas among which the right ones are to be found: the one in place, and shifted ones."""
    reach: Count = 10
    """Largest shift along each axis, voxels."""
    alike: Annotated[float, Field(gt=0, lt=1)] = 0.85
    """Dice of their labels above which two patches are alike."""
    weights: PatchSimNetWeights = PatchSimNetWeights()
    """Of the term."""


class PatchSimNet(SimilarityEstimator):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is segmented.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.
    """

    Settings = PatchSimNetSettings
    looks_at_images = True
    schedule = Schedule(epochs=30, steps_per_epoch=100, batch_size=1, learning_rate=1e-3)

    def __init__(self, settings: PatchSimNetSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.chosen, self.step = settings, 0
        self.similarity_network = PatchEmbedding(domain.ndim, domain.channels, settings.channels)

    def begin_step(self, step: int, steps: int) -> None:
        """The step decides the shifts."""
        self.step = step

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Equation (12); an item's mean over its voxels, 0 of items that have none or lack labels."""
        displacement, both = self.onto_target(batch), both_labelled(batch)
        one = self.similarity_network(batch["fixed"])
        other = self.similarity_network(warp(batch["moving"], displacement, outside="border"))
        labels = warp(batch["moving_labels"], displacement, "nearest")
        size, logits, alike = self.chosen.patch_size, [], []
        for shift in self._shifts():
            logits.append(-patch_distance(one, shifted(other, shift), size))
            dice = patch_dice(batch["fixed_labels"], shifted(labels, shift), self.domain.classes, size)
            alike.append(dice > self.chosen.alike)
        weight = both.float().view(-1, *[1] * (one.ndim - 1)) * batch.get("fixed_mask", torch.ones_like(one[:, :1]))
        return {"cross_entropy": found_among(torch.cat(logits, 1), torch.cat(alike, 1), weight.detach())}

    def similarity(
        self, target: ImageBatch, warped_labels: ClassBatch, warped: ImageBatch | None = None
    ) -> Similarities:
        """Equation (13); labels are not looked at, the atlas's image is."""
        if warped is None:
            raise ValueError("patches are compared by their images: give the atlas's, warped onto the target")
        one, other = (self.similarity_network(image) for image in (target, warped))
        return torch.exp(-patch_distance(one, other, self.chosen.patch_size)).to(target.dtype)

    def _shifts(self) -> list[list[int]]:
        """None at first, then random ones: other ones in each step of a training, and always the same outside."""
        generator = torch.Generator().manual_seed(self.step if self.training else 0)
        count, reach = self.chosen.supports - 1, self.chosen.reach
        drawn = torch.randint(-reach, reach + 1, (count, self.domain.ndim), generator=generator)
        return [[0] * self.domain.ndim, *drawn.tolist()]


def shifted(values: Tensor, shift: Sequence[int]) -> Tensor:
    """values(x + shift), 0 beyond the image: B C I J (K)."""
    for axis, s in enumerate(shift, start=2):
        n = values.shape[axis]
        pads = [0, 0] * (values.ndim - axis - 1) + [max(-s, 0), max(s, 0)]
        values = functional.pad(values, pads).narrow(axis, max(s, 0), n)
    return values


def patch_dice(one: ClassBatch, other: ClassBatch, classes: int, patch_size: int) -> Similarities:
    """Dice of the labels of two patches about each voxel, mean over the classes in either; 1 where there are none."""
    a, b = (one_hot(labels, classes)[:, 1:] for labels in (one, other))
    shared, either = 2 * window_sum(a * b, patch_size), window_sum(a + b, patch_size)
    present = either > 0.5
    total = torch.where(present, shared / either.clamp_min(1), 0).sum(1, keepdim=True)
    count = present.sum(1, keepdim=True)
    return torch.where(count > 0, total / count.clamp_min(1), 1.0)


def found_among(logits: Supports, alike: Bool[Tensor, "batch supports *spatial"], weight: Similarities) -> Loss:
    """Equation (12), a mean over voxels by their weight, then over items."""
    usable = alike.any(1, keepdim=True) & ~alike.all(1, keepdim=True)
    right = torch.where(alike, logits, NEVER).logsumexp(1, keepdim=True)
    missed = torch.where(usable, logits.logsumexp(1, keepdim=True) - right, 0)
    return weighted_mean(missed, weight * usable)
