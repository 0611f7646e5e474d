"""nnU-Net-style U-Net: a network that follows the voxels, Dice and cross-entropy, deep supervision.

    dice          = sum_s w_s (1 - mean over items and classes c > 0 of 2 sum(p_c l_c) / (sum(p_c) + sum(l_c)))
    cross_entropy = - sum_s w_s mean over voxels of log p_label

with p the softmax of what is read off at depth s, enlarged to the image, and w_s = 2^-s divided by their sum.

Source: F. Isensee et al. (2021), nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation, doi:10.1038/s41592-020-01008-z. The network is MONAI's DynUNet (``networks/dynunet.py``).

Deviations: the whole image instead of patches and their oversampling, so shape and spacing are those of the plan; no
mirroring, brightness or contrast among the augmentations, and none of them between 2-D planes; coarse results are
enlarged to the labels (nearest), where nnU-Net shrinks the labels; no ensemble, no test-time mirroring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from anamorph.losses import soft_dice
from anamorph.losses.segmentation import cross_entropy, one_hot
from anamorph.methods.base import Batch, Domain, Method, MethodSettings, TermWeights, Weight
from anamorph.methods.schedule import Augmentation, Schedule
from anamorph.methods.segmentation import (
    ProbabilityBatch,
    check_classes,
    keep_largest_components,
    labelled_items,
)
from anamorph.networks.dynunet import DynamicUNet, plan_stages, supervision_weights
from anamorph.types import ImageBatch


class DynUNetWeights(TermWeights):
    """Weights of the terms; 0 leaves one out."""

    dice: Weight = 1.0
    """Of soft Dice over the classes without the background."""
    cross_entropy: Weight = 1.0
    """Of the cross-entropy; macJNet's segmentation network has none."""


class DynUNetSettings(MethodSettings):
    """Settings of ``DynUNet``."""

    features: Annotated[int, Field(ge=1)] = 32
    """Channels of the finest stage, doubled at each next one; 30 in the first nnU-Net."""
    most_features: Annotated[int, Field(ge=1)] = 320
    """The limit to that."""
    deep_supervision: bool = True
    """Whether coarser stages are supervised as well."""
    largest_component: bool = False
    """Whether each class keeps the largest connected part of its prediction."""
    weights: DynUNetWeights = DynUNetWeights()
    """Of the terms."""


class DynUNet(Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is segmented; its shape and spacing decide the network's stages.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.
    """

    Settings = DynUNetSettings
    items = "cases"
    tasks = ("segment",)
    schedule = Schedule(
        epochs=1000,
        steps_per_epoch=250,
        batch_size=2,
        optimiser="sgd",
        learning_rate=1e-2,
        weight_decay=3e-5,
        decay="polynomial",
        clip_norm=12.0,
        augmentation=Augmentation(
            probability=0.2, rotation=30.0, scale=0.3, noise=0.3, gamma=0.4, blur=1.0, anisotropy=2.0
        ),
    )

    def __init__(self, settings: DynUNetSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_classes(domain)
        self.chosen = settings
        self.network = DynamicUNet(
            domain.channels,
            1 + domain.classes,
            plan_stages(domain.shape, domain.spacing),
            settings.features,
            settings.most_features,
            settings.deep_supervision,
        )

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The one network."""
        return [self.network]

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Means over the items that have labels; 0 where none has."""
        items, some = labelled_items(batch)
        labels, mask = items["labels"], items.get("mask")
        crisp = one_hot(labels, self.domain.classes)[:, 1:]
        results = [result.float() for result in self.network(items["image"])]
        depths = supervision_weights(len(results))
        losses: dict[str, Callable[[Tensor], Tensor]] = {
            "dice": lambda x: soft_dice(x.softmax(1)[:, 1:], crisp, mask, squared=False),
            "cross_entropy": lambda x: cross_entropy(x, labels, mask),
        }
        return {
            name: torch.stack([depth * losses[name](x) for depth, x in zip(depths, results, strict=True)]).sum() * some
            for name in self.weights_of(player)
        }

    def segment(self, image: ImageBatch, modality: str = "") -> ProbabilityBatch:
        """Probabilities B (1 + classes) I J (K), of images of any size."""
        found = self.network(image)[0].float().softmax(1)
        return keep_largest_components(found) if self.chosen.largest_component else found
