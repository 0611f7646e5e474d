r"""NeMAR: one translator and one registration network, in both orders, of pairs without labels.

A pair is A (moving) and B (fixed). R registers, T translates, D judges candidates for B beside A.

    phi   = R(A, B)                      on the grid of B: (A o phi)(v) = A(v + u(v))                               (1)
    RT    = T(A) o phi                   translated first                                                           (2)
    TR    = T(A o phi)                   registered first                                                           (3)

    similarity      = |TR - B| + |RT - B|                                                                           (4)
    adversarial     = cost(D(A, TR), real) + cost(D(A, RT), real)                                                   (5)
    smoothness      = mean over axes, components and voxels of (du / dv)^2                                          (6)

    generator       w_1 similarity + w_2 adversarial + w_3 smoothness                                               (7)
    discriminator   w_2 / 2 times cost(D(A, B), real) + cost(D(A, TR), fake) + cost(D(A, RT), fake)                 (8)

Everything is a mean over voxels or patches, of intensities from -1 to 1. With ``diffeomorphic`` R gives velocities, and
(6) is about those.

This is NeMAR as CoCycleReg compares with it: its objective, on CoCycleReg's networks, in 2-D and 3-D. NeMAR's own
network R, its offsets in units of half the image and its smoothness of absolute differences are not here.

Source: M. Arar, Y. Ginger, D. Danon, A. H. Bermano, D. Cohen-Or (2020), Unsupervised multi-modal image registration via
geometry preserving image-to-image translation, arXiv:2003.08073; github.com/moabarar/nemar.

Deviations: docs/methods/cocyclereg.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from anamorph.losses import l1
from anamorph.methods.base import Batch, Deformation, Domain, Weight
from anamorph.methods.both_ways import PaperArchitecture, masks_on, smoothness
from anamorph.methods.network_choice import voxelmorph_network
from anamorph.methods.translation import (
    Fakes,
    Images,
    Shown,
    Translation,
    TranslationSettings,
    TranslationWeights,
    initialise,
    total,
)
from anamorph.spatial.field import warp
from anamorph.types import ImageBatch


class NeMARWeights(TranslationWeights):
    """Weights of the terms; 0 leaves one out."""

    similarity: Weight = 100.0
    """Of both orders."""
    smoothness: Weight = 100.0
    """Of the field; as much, beside one of the similarities, as in CoCycleReg."""


class NeMARSettings(PaperArchitecture, TranslationSettings):
    """Settings of ``NeMAR``."""

    adversarial_loss: Literal["least_squares", "vanilla"] = "vanilla"
    """Of the discriminator's answers."""
    weights: NeMARWeights = NeMARWeights()
    """Of the terms."""


class NeMAR(Translation):
    """See the module.

    Args:
        settings: as chosen.
        domain: the modality of B first, that of A second.
    """

    Settings = NeMARSettings
    tasks = ("register", "translate")
    targets = ("fixed",)
    fakes_each = ("registered_first", "translated_first")
    judged_images = 2

    def __init__(self, settings: NeMARSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.registration = voxelmorph_network(settings, domain)
        initialise(self.registration.backbone, settings.initialisation)

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """Equation (1)."""
        return self.registration.deformation(self.seen(fixed), self.seen(moving))

    def shown(self, images: Images, candidate: ImageBatch) -> Shown:
        """A and the candidate, side by side."""
        return torch.cat([images["moving"], candidate], 1)

    def fakes(self, images: Images) -> Fakes:
        """Equations (3) and (2)."""
        return {"fixed": self._orders(images, self._field(images))}

    def objective(self, batch: Batch, images: Images) -> Mapping[str, Callable[[], Tensor]]:
        """Equation (7), term by term."""
        field = self._field(images)
        orders = self._orders(images, field)

        def similarity() -> Tensor:
            """Equation (4)."""
            masks = masks_on(batch, "fixed", field)
            return total(l1(images["fixed"], found, *masks) for found in orders)

        return {
            "adversarial": lambda: self.adversarial(images, {"fixed": orders}),
            "similarity": similarity,
            "smoothness": lambda: smoothness(field),
        }

    def _field(self, images: Images) -> Deformation:
        return self.registration.deformation(images["fixed"], images["moving"])

    def _orders(self, images: Images, field: Deformation) -> list[ImageBatch]:
        """TR and RT; beyond an image its border value holds."""
        translate, moving = self.translators["fixed"], images["moving"]
        registered_first = translate(warp(moving, field.displacement, outside="border"))
        return [registered_first, warp(translate(moving), field.displacement, outside="border")]
