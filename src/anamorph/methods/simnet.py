r"""SimNet: a network learns where an atlas's label, brought onto a target, is right.

    L_i   = L_A o U                the atlas's labels on the target, by the nearest voxel; U: a registration, held
    S     = sigmoid(LocalNet(T, L_i))                                      one number a voxel of the target         (8)
    S*(x) = share of the voxels about x, in a cube, of which L_i is the target's own label                          (9)

    L     = - mean over voxels of S* log S + (1 - S*) log(1 - S)                                                   (10)

Labels of atlases are fused by S:

    label(x) = the l of the greatest sum over i of S_i(x) [L_i(x) = l]

LocalNet is without attention, its five scales summed; it sees the target's image and the atlas's label, as one channel
where there is one class, else as one for the background and for each class. In training L_i is moved by a few voxels
at random, the same for a batch, so that it also sees atlases that fit badly.

Source: W. Ding, L. Li, X. Zhuang, L. Huang (2022), Cross-modality multi-atlas segmentation via deep registration and
label fusion, arXiv:2202.02000, as released (github.com/NanYoMy/cmmas).

Deviations: docs/methods/cross_modality_mas.md.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from anamorph.losses.masks import Loss, weighted_mean
from anamorph.losses.segmentation import ClassBatch, one_hot
from anamorph.losses.windows import LocalMean
from anamorph.methods.base import Batch, Domain, TermWeights, Weight
from anamorph.methods.local_net import LocalNetArchitecture
from anamorph.methods.registration import Count, Odd
from anamorph.methods.schedule import Augmentation, Schedule
from anamorph.methods.similarity_estimation import (
    Similarities,
    SimilarityEstimationSettings,
    SimilarityEstimator,
    both_labelled,
)
from anamorph.networks.local_net import LocalNet
from anamorph.spatial.field import warp
from anamorph.types import ImageBatch


class SimNetWeights(TermWeights):
    """Weight of the only term."""

    cross_entropy: Weight = 1.0
    """Of estimated and true similarity."""


class SimNetSettings(SimilarityEstimationSettings, LocalNetArchitecture):
    """Settings of ``SimNet``."""

    channels: Count = 16
    """Features of the finest scale, doubled at each next one."""
    patch_size: Odd = 3
    """Side of the cube in which labels are compared, voxels."""
    shift: Annotated[int, Field(ge=0)] = 4
    """Largest move of an atlas's labels along each axis in training, voxels."""
    weights: SimNetWeights = SimNetWeights()
    """Of the term."""


class SimNet(SimilarityEstimator):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is segmented.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.
    """

    Settings = SimNetSettings
    schedule = Schedule(
        epochs=50,
        steps_per_epoch=100,
        batch_size=2,
        learning_rate=1e-4,
        decay="half_life",
        half_life=170.0,
        augmentation=Augmentation(translation=10.0, rotation=6.4, scale=0.15, same_for_pair=True),
    )

    def __init__(self, settings: SimNetSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.chosen, self.step = settings, 0
        seen = 1 if domain.classes == 1 else 1 + domain.classes
        self.similarity_network = LocalNet(
            domain.ndim,
            domain.channels + seen,
            [1],
            settings.channels,
            settings.scales,
            normalisation=settings.normalisation,
        )

    def begin_step(self, step: int, steps: int) -> None:
        """The step decides how labels are moved."""
        self.step = step

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Equation (10), of the items that have labels on both sides; others count as 0."""
        both = both_labelled(batch)
        if not both.any():  # a gradient of 0, which processes that train together need
            return {"cross_entropy": sum(p.sum() * 0 for p in self.similarity_network.parameters())}  # pyright: ignore
        items = {name: tensor[both] for name, tensor in batch.items()}
        warped = warp(items["moving_labels"], self._moved(self.onto_target(items)), "nearest")
        target = agreement(items["fixed_labels"], warped, self.chosen.patch_size)
        loss = cross_entropy(self._logits(items["fixed"], warped), target, items.get("fixed_mask"))
        return {"cross_entropy": loss * both.float().mean()}

    def similarity(
        self, target: ImageBatch, warped_labels: ClassBatch, warped: ImageBatch | None = None
    ) -> Similarities:
        """Equation (8); images of atlases are not looked at."""
        return self._logits(target, warped_labels).sigmoid()

    def _logits(self, target: ImageBatch, warped_labels: ClassBatch) -> Similarities:
        classes = self.domain.classes
        labels = one_hot(warped_labels, classes)
        seen = labels[:, 1:] if classes == 1 else labels
        return self.similarity_network(torch.cat([target, seen], 1))[0].to(target.dtype)

    def _moved(self, displacement: Tensor) -> Tensor:
        """With the random move of the step, in training."""
        if not self.training or not self.chosen.shift:
            return displacement
        generator, reach = torch.Generator().manual_seed(self.step), self.chosen.shift
        ndim = displacement.shape[1]
        move = torch.randint(-reach, reach + 1, (1, ndim, *[1] * ndim), generator=generator)
        return displacement + move.to(displacement)


def agreement(one: ClassBatch, other: ClassBatch, patch_size: int) -> Similarities:
    """Equation (9): the share of equal labels in a cube about each voxel, as far as that is inside the image."""
    equal = (one == other).float()
    return LocalMean(equal, None, patch_size)(equal)


def cross_entropy(
    logits: Float[Tensor, "batch 1 *spatial"], share: Similarities, mask: Float[Tensor, "batch 1 *spatial"] | None
) -> Loss:
    """Equation (10), in nats."""
    return weighted_mean(functional.binary_cross_entropy_with_logits(logits, share, reduction="none"), mask)
