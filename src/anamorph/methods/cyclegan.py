r"""CycleGAN: translation alone, of images that need not show the same.

x (moving) and y (fixed) are images of two modalities; that they are a pair is not made use of.

    adversarial     = (D_y(T_xy(x)) - 1)^2    + (D_x(T_yx(y)) - 1)^2                                                (1)
    cycle           = |T_yx(T_xy(x)) - x|     + |T_xy(T_yx(y)) - y|                                                 (2)
    identity        = |T_xy(y) - y|           + |T_yx(x) - x|                                                       (3)

    generator       w_1 adversarial + w_2 cycle + w_3 identity                                                      (4)
    discriminator   w_1 / 2 times (D_y(y) - 1)^2 + D_y(T_xy(x))^2 + (D_x(x) - 1)^2 + D_x(T_yx(y))^2                 (5)

Everything is a mean over voxels or patches, of intensities from -1 to 1. With a ``pool`` the discriminators are shown
fakes of earlier steps as well: each new one enters the pool and, once that is full, every other time (at random) one
of the pool comes out in its place.

Source: J.-Y. Zhu, T. Park, P. Isola, A. A. Efros (2017), Unpaired image-to-image translation using cycle-consistent
adversarial networks, doi:10.1109/ICCV.2017.244; github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

Deviations: docs/methods/cocyclereg.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from anamorph.losses import l1
from anamorph.methods.base import Batch, Domain, Weight
from anamorph.methods.both_ways import OTHER, SIDES, Side
from anamorph.methods.translation import (
    Fakes,
    Images,
    Translation,
    TranslationSettings,
    TranslationWeights,
    total,
)
from anamorph.types import ImageBatch


class CycleGANWeights(TranslationWeights):
    """Weights of the terms; 0 leaves one out."""

    cycle: Weight = 10.0
    """Of what is translated there and back."""
    identity: Weight = 5.0
    """Of what is translated into the modality that it has."""


class CycleGANSettings(TranslationSettings):
    """Settings of ``CycleGAN``."""

    pool: Annotated[int, Field(ge=0)] = 0
    """Fakes of either modality that are kept for the discriminators; 50 in CycleGAN's release. Kept in the model's
    memory and in checkpoints, each of them as large as an image."""
    weights: CycleGANWeights = CycleGANWeights()
    """Of the terms."""


class CycleGAN(Translation):
    """See the module.

    Args:
        settings: as chosen.
        domain: the modality of y first, that of x second.
    """

    Settings = CycleGANSettings

    def __init__(self, settings: CycleGANSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        image = (domain.channels, *domain.shape)
        self.pools = nn.ModuleDict({side: Pool(settings.pool, image) for side in SIDES} if settings.pool else {})

    def fakes(self, images: Images) -> Fakes:
        """T_xy(x) and T_yx(y)."""
        return {side: [found] for side, found in self._translated(images).items()}

    def remembered(self, side: Side, fake: ImageBatch) -> ImageBatch:
        """One of the pool, or the fake itself; a validation leaves the pool alone."""
        return self.pools[side](fake) if self.pools and self.training else fake

    def objective(self, batch: Batch, images: Images) -> Mapping[str, Callable[[], Tensor]]:
        """Equation (4), term by term."""
        translated = self._translated(images)

        def distance(found: Images) -> Tensor:
            return total(l1(images[side], found[side], batch.get(f"{side}_mask")) for side in SIDES)

        return {
            "adversarial": lambda: self.adversarial(images, {side: [translated[side]] for side in SIDES}),
            "cycle": lambda: distance(self._translated(translated)),
            "identity": lambda: distance({side: self.translators[side](images[side]) for side in SIDES}),
        }

    def _translated(self, images: Images) -> dict[Side, ImageBatch]:
        """By the side whose modality it has."""
        return {side: self.translators[side](images[OTHER[side]]) for side in SIDES}


class Pool(nn.Module):
    """Images of earlier steps; see the module.

    Args:
        size: how many.
        image: shape of one, C I J (K).
    """

    images: Tensor
    held: Tensor

    def __init__(self, size: int, image: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *image))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    def forward(self, fakes: ImageBatch) -> ImageBatch:
        """Images of the same number, each new or from the pool."""
        shown = list[Tensor]()
        for fake in fakes:
            held, new = int(self.held), fake.detach()
            if held < len(self.images):
                self.images[held] = new
                self.held += 1
            elif float(torch.rand(())) < 0.5:
                place = int(torch.randint(held, ()))
                new, kept = self.images[place].clone(), new
                self.images[place] = kept
            shown.append(new)
        return torch.stack(shown)
