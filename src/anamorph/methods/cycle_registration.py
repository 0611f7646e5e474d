"""What CoCycleReg and SepCycleReg share: all but the cycle. Numbers are the equations of ``cocyclereg``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from anamorph.losses import l1
from anamorph.losses.masks import Loss
from anamorph.methods.base import Batch, Deformation, Domain, Weight
from anamorph.methods.both_ways import (
    OTHER,
    SIDES,
    BothWays,
    PaperArchitecture,
    Side,
    dual_head_network,
    masks_on,
    smoothness,
)
from anamorph.methods.translation import (
    Fakes,
    Images,
    Translation,
    TranslationSettings,
    TranslationWeights,
    initialise,
    total,
)
from anamorph.spatial.field import warp
from anamorph.types import ImageBatch

Fields = Mapping[Side, Deformation]


class CycleRegistrationWeights(TranslationWeights):
    """Weights of the terms; 0 leaves one out."""

    similarity: Weight = 1.0
    """Of an image, translated and warped, and the other image."""
    cycle: Weight = 1.0
    """Of an image and what of it has gone there and back."""
    smoothness: Weight = 1.0
    """Of the two fields."""


class CycleRegistrationSettings(PaperArchitecture, TranslationSettings):
    """Settings of ``CycleRegistration``."""

    discriminated: Literal["warped", "unwarped"] = "warped"
    """What the discriminators are shown as fake. warped: translated images after their registration, as in the paper's
    equation 4. unwarped: before it, as in the release."""
    weights: CycleRegistrationWeights = CycleRegistrationWeights()
    """Of the terms."""


class CycleRegistration(BothWays, Translation):
    """Base of methods that translate and register both ways.

    Args:
        settings: as chosen.
        domain: the modality of y (fixed) first, that of x (moving) second.
    """

    Settings = CycleRegistrationSettings
    tasks = ("register", "translate")

    def __init__(self, settings: CycleRegistrationSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.chosen = settings
        self.registration = dual_head_network(settings, domain)
        initialise(self.registration.backbone, settings.initialisation)

    @abstractmethod
    def cycle(self, batch: Batch, images: Images, there: Images, fields: Fields) -> Loss:
        """What the method asks of a way there and back.

        Args:
            batch: of pairs, for its masks.
            images: y and x.
            there: y^ and x^', each on the grid of its side.
            fields: phi_xy, on the grid of y, and phi_yx.
        """

    def register_both(self, fixed: ImageBatch, moving: ImageBatch) -> tuple[Deformation, Deformation]:
        """Equation (1)."""
        return self.registration.deformations(self.seen(fixed), self.seen(moving))

    def fakes(self, images: Images) -> Fakes:
        """y^ and x^', or what they are before they are warped."""
        fakes = self.translated(images)
        if self.chosen.discriminated == "warped":
            fakes = moved(fakes, self.fields(images))
        return {side: [fakes[side]] for side in SIDES}

    def objective(self, batch: Batch, images: Images) -> Mapping[str, Callable[[], Tensor]]:
        """Equation (10), term by term."""
        fields, translated = self.fields(images), self.translated(images)
        there = moved(translated, fields)
        fakes = there if self.chosen.discriminated == "warped" else translated

        def similarity() -> Tensor:
            """Equations (5) and (8)."""
            return total(l1(images[side], there[side], *masks_on(batch, side, fields[side])) for side in SIDES)

        return {
            "adversarial": lambda: self.adversarial(images, {side: [fakes[side]] for side in SIDES}),
            "similarity": similarity,
            "cycle": lambda: self.cycle(batch, images, there, fields),
            "smoothness": lambda: total(smoothness(fields[side]) for side in SIDES),
        }

    def fields(self, images: Images) -> dict[Side, Deformation]:
        """phi_xy, on the grid of y, and phi_yx, on that of x."""
        return dict(zip(SIDES, self.registration.deformations(images["fixed"], images["moving"]), strict=True))

    def translated(self, images: Images) -> dict[Side, ImageBatch]:
        """By the side whose modality it has: T_xy of the moving image, and T_yx of the fixed one."""
        return {side: self.translators[side](images[OTHER[side]]) for side in SIDES}


def moved(images: Images, fields: Fields) -> dict[Side, ImageBatch]:
    """Each warped onto the grid of its side; beyond an image its border value holds."""
    return {side: warp(images[side], fields[side].displacement, outside="border") for side in SIDES}
