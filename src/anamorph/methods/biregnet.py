r"""BiRegNet: labels teach one network to bring two modalities onto each other, there and back.

    u, v  = LocalNet(A, T)        T: fixed, the target; A: moving, the atlas; u, v: voxels, from two sets of heads  (1)
    A o U : (A o U)(x) = A(x + u(x)), on the grid of T;    T o V : T(x + v(x)), on the grid of A

    L     = lambda_o O + lambda_c C + lambda_b B
    O     = D(L_T, L_A o U) + D(L_A, L_T o V)                          labels, where both images have some          (3)
    D     = mean over sigma of 1 - Dice(G_sigma a, G_sigma b),   Dice = 2 sum(a b) / (sum a + sum b)                (4)
    C     = mean |T - (T o V) o U| + mean |A - (A o U) o V|            consistency image                            (5)
          = D(L_T, (L_T o V) o U) + D(L_A, (L_A o U) o V)              consistency label                            (6)
    B     = bending energy of u plus that of v                                                                      (7)

Dice is a mean over classes without the background; terms are means over the pairs of a batch, those without labels on
both sides counting as 0 in (3) and (6). With ``velocity`` the heads give velocities, which are integrated, and (7) is
about those; with direction ``single`` there is u alone, and the first half of (3) and (7); (2) is of
``networks.local_net``.

Sources: W. Ding, L. Li, X. Zhuang, L. Huang (2022), Cross-modality multi-atlas segmentation via deep registration and
label fusion, arXiv:2202.02000; (2020), Cross-modality multi-atlas segmentation using deep neural networks,
doi:10.1007/978-3-030-59716-0_23 (consistency of labels, bending); as released (github.com/NanYoMy/cmmas).

Deviations, and the settings of 2020: docs/methods/cross_modality_mas.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from anamorph.losses import bending_energy, l1, soft_dice
from anamorph.losses.masks import Loss
from anamorph.losses.segmentation import one_hot
from anamorph.methods.base import Batch, Deformation, Domain, Method, MethodSettings, Weight
from anamorph.methods.local_net import LocalNetRegistrationArchitecture, registration_backbone, squarings_of
from anamorph.methods.schedule import Augmentation, Schedule
from anamorph.methods.segmentation import check_classes
from anamorph.networks.local_net import deformations_of, regularised
from anamorph.spatial.field import warp
from anamorph.types import DisplacementBatch, ImageBatch

Consistency = Literal["image", "label", "none"]
Fields = Sequence[DisplacementBatch]
"""u, and v where both directions are found."""

SIDES = ("fixed", "moving")


class BiRegNetWeights(MethodSettings):
    """Weights of the terms; 0 leaves one out."""

    overlap: Weight = 1.0
    """lambda_o, of labels in both directions."""
    consistency: Weight = 0.1
    """lambda_c, of images or labels and themselves there and back; not of consistency none."""
    bending: Weight = 0.0
    """lambda_b, of displacements or velocities."""


class BiRegNetSettings(LocalNetRegistrationArchitecture):
    """Settings of ``BiRegNet``."""

    consistency: Annotated[Consistency | None, Field(validate_default=True)] = None
    """What has to come back to itself: the image, the label, or none. If absent image, and none of a single
    direction."""
    sigmas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.0, 1.0, 2.0, 4.0)
    """Of the Gaussians that blur labels before they are compared, in voxels."""
    weights: BiRegNetWeights = BiRegNetWeights()
    """Of the terms."""

    @field_validator("consistency")
    @classmethod
    def _spelled_out(cls, consistency: Consistency | None, info: Any) -> Consistency:
        single = info.data.get("direction") == "single"
        if single and consistency not in (None, "none"):
            raise ValueError("nothing comes back of a single direction: none, or direction both")
        return consistency or ("none" if single else "image")

    @model_validator(mode="after")
    def _check(self) -> BiRegNetSettings:
        if not terms_of(self):
            raise ValueError("at least one weight of a term that is there is above 0")
        return self


def terms_of(settings: BiRegNetSettings) -> dict[str, float]:
    """Weights of the terms that the settings have."""
    weights = settings.weights.model_dump()
    if settings.consistency == "none":
        del weights["consistency"]
    return {name: weight for name, weight in weights.items() if weight}


class BiRegNet(Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is registered.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.
    """

    Settings = BiRegNetSettings
    schedule = Schedule(
        epochs=15,
        steps_per_epoch=100,
        batch_size=2,
        learning_rate=1e-3,
        decay="half_life",
        half_life=17.0,
        augmentation=Augmentation(scale=0.1),
    )

    def __init__(self, settings: BiRegNetSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_classes(domain)
        self.chosen = settings
        self.backbone = registration_backbone(settings, domain)

    @classmethod
    def learns_unlabelled(cls, settings: MethodSettings) -> bool:
        """No: without labels, nothing moves is the best answer."""
        return False

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The one network."""
        return [self.backbone]

    def weights_of(self, player: str) -> Mapping[str, float]:
        """Of the terms that the settings have, without those of weight 0."""
        return terms_of(self.chosen)

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Those of L, each by itself."""
        found = self._found(batch["fixed"], batch["moving"])
        fields = [deformation.displacement for deformation in found]
        computed = {
            "overlap": lambda: self._overlap(batch, fields),
            "consistency": lambda: self._consistency(batch, fields),
            "bending": lambda: _sum([bending_energy(regularised(deformation)) for deformation in found]),
        }
        return {name: computed[name]() for name in self.weights_of(player)}

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """What brings moving onto fixed; no labels are asked for."""
        return self._found(fixed, moving)[0]

    def _found(self, fixed: ImageBatch, moving: ImageBatch) -> list[Deformation]:
        """Equation (1): u, and v."""
        return deformations_of(self.backbone, squarings_of(self.chosen), fixed, moving)

    def _overlap(self, batch: Batch, fields: Fields) -> Loss:
        """Equation (3)."""
        labels, fields, share = self._labelled(batch, fields)
        pairs = zip(labels, reversed(labels), fields, strict=False)  # of one field the first pair alone
        return _sum([self._dice(here, warp(other, field)) for here, other, field in pairs]) * share

    def _consistency(self, batch: Batch, fields: Fields) -> Loss:
        """Equation (5) or (6)."""
        if self.chosen.consistency == "image":
            images = [batch[side] for side in SIDES]
            masks = [batch.get(f"{side}_mask") for side in SIDES]
            back = _there_and_back(images, fields, "border")
            return _sum([l1(image, other, mask) for image, other, mask in zip(images, back, masks, strict=True)])
        labels, fields, share = self._labelled(batch, fields)
        back = _there_and_back(labels, fields, "zeros")
        return _sum([self._dice(label, other) for label, other in zip(labels, back, strict=True)]) * share

    def _dice(self, a: ImageBatch, b: ImageBatch) -> Loss:
        """Equation (4)."""
        return soft_dice(a, b, sigmas=self.chosen.sigmas, squared=False)

    def _labelled(self, batch: Batch, fields: Fields) -> tuple[list[Tensor], list[Tensor], float]:
        """Labels of both sides, fields, and their share of the batch, of the pairs that have labels on both.

        Without any, labels of nothing: their loss is 0 and has a gradient, which processes that train together need.
        """
        both = batch["fixed_labelled"] & batch["moving_labelled"]
        if not both.any():
            nothing = batch["fixed"].new_zeros(len(both), self.domain.classes, *batch["fixed"].shape[2:])
            return [nothing, nothing], [*fields], 0.0
        labels = [one_hot(batch[f"{side}_labels"][both], self.domain.classes)[:, 1:] for side in SIDES]
        return labels, [field[both] for field in fields], float(both.float().mean())


def _there_and_back(
    images: Sequence[ImageBatch], fields: Fields, outside: Literal["zeros", "border"]
) -> list[ImageBatch]:
    """(T o V) o U and (A o U) o V."""
    u, v = fields
    fixed, moving = images
    return [
        warp(warp(fixed, v, outside=outside), u, outside=outside),
        warp(warp(moving, u, outside=outside), v, outside=outside),
    ]


def _sum(losses: Sequence[Tensor]) -> Loss:
    return torch.stack([*losses]).sum()
