r"""macJNet: a network registers two modalities, one network a modality segments, and they teach each other in turn.

    phi        = R(F, M)                      what is warped is sampled there: (M o phi)(x) = M(x + u(x))           (1)
    S_F, S_M   = softmax of the networks of the fixed and of the moving modality, without the background            (2)
    L_F, L_M   = manual labels of a side that has some, else S of that side, held                                   (3)

The registration's turn, in which the segmentation networks are held:

    E_reg      = lambda_sim E_sim + lambda_label E_label + lambda_smo E_smo                                         (4)
    E_sim      = mean over voxels and channels of (macMIND(F) - macMIND(M o phi))^2                         [14]    (5)
    E_label    = 1 - Dice(L_F, L_M o phi)                                                                           (6)
    E_smo      = mean over axes, components and voxels of (dv / dx)^2                                       [15]    (7)

The segmentation's turn, in which the registration is held:

    supervised  = (1 - Dice(S_F, manual L_F)) + (1 - Dice(S_M, manual L_M))       sides that have labels    [16]    (8)
    consistency = 1 - Dice(S_F, S_M o phi)                                        pairs that lack some      [16]    (9)

Dice is soft, a mean over classes: 2 sum(a b) / (sum(a^2) + sum(b^2)); in (8) without the squares, as nnU-Net has it,
and there over results of every depth as well. Terms are means over the pairs of a batch, those that one is not about
counting as 0. v is what ``regularised`` of the network gives: of LapIRN twice the velocity.

Source: Z. Zhou, B. Hong et al. (2023), macJNet: weakly-supervised multimodal image deformable registration using joint
learning framework and multi-sampling cascaded MIND, doi:10.1186/s12938-023-01143-6; numbers in brackets are the
paper's. No code was published. macMIND, and what is open about it: ``losses.macmind``.

Where the paper contradicts itself or is silent: docs/methods/macjnet.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from anamorph.errors import ConfigurationError, InputError
from anamorph.losses import diffusion, soft_dice
from anamorph.losses.segmentation import one_hot
from anamorph.methods.base import Batch, Deformation, Domain, Method, MethodSettings, Weight
from anamorph.methods.network_choice import (
    DynUNetNetworkSettings,
    LapIRNNetworkSettings,
    RegistrationChoice,
    SegmentationChoice,
    registration_network,
    segmentation_network,
)
from anamorph.methods.registration import Similarity, SimilaritySettings, check_similarity, compare
from anamorph.methods.schedule import Schedule
from anamorph.methods.segmentation import ProbabilityBatch, check_classes
from anamorph.networks.dynunet import supervision_weights
from anamorph.networks.segmentation import SegmentationNetwork
from anamorph.spatial.field import warp
from anamorph.types import DisplacementBatch, ImageBatch

REGISTRATION, SEGMENTATION = "registration", "segmentation"
TERMS = {REGISTRATION: ("similarity", "overlap", "smoothness"), SEGMENTATION: ("supervised", "consistency")}
"""Of each player."""
SIDES = ("fixed", "moving")

Side = Literal["fixed", "moving"]
Results = list[Float[Tensor, "batch outputs *spatial"]]
Items = Bool[Tensor, "items"]


class MacJNetWeights(MethodSettings):
    """Weights of the terms; 0 leaves one out. Each player keeps one at least."""

    similarity: Weight = 20.0
    """lambda_sim, of the images."""
    overlap: Weight = 2.0
    """lambda_label, of manual and predicted labels."""
    smoothness: Weight = 0.5
    """lambda_smo, of the velocity or displacement."""
    supervised: Weight = 1.0
    """Of segmentations against manual labels."""
    consistency: Weight = 1.0
    """Of the two segmentations of a pair against each other."""

    @model_validator(mode="after")
    def _check(self) -> MacJNetWeights:
        for player, names in TERMS.items():
            if not any(getattr(self, name) for name in names):
                raise ValueError(f"of {', '.join(names)} ({player}) at least one weight is above 0")
        return self


class MacJNetSettings(SimilaritySettings):
    """Settings of ``MacJNet``."""

    similarity: Similarity = "macmind"
    """Of the warped and the fixed image: any of ``anamorph.losses.SIMILARITIES``."""
    registration: RegistrationChoice = LapIRNNetworkSettings(attention=True)
    """The registration network; a LapIRN has attention gates unless it says otherwise."""
    segmentation: SegmentationChoice = DynUNetNetworkSettings(squeeze_excitation="max")
    """The network of each modality; one of nnU-Net has scSE unless it says otherwise."""
    weights: MacJNetWeights = MacJNetWeights()
    """Of the terms."""

    @field_validator("registration", mode="before")
    @classmethod
    def _with_attention(cls, given: Any) -> Any:
        return _unless_said(given, "lapirn", attention=True)

    @field_validator("segmentation", mode="before")
    @classmethod
    def _with_excitation(cls, given: Any) -> Any:
        return _unless_said(given, "dynunet", squeeze_excitation="max")


def _unless_said(given: Any, kind: str, **usual: Any) -> Any:
    """What the paper's network of that kind has, where plain values leave it open."""
    if isinstance(given, Mapping) and given.get("kind", kind) == kind:
        return {**usual, **given}
    return given


class MacJNet(Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is registered and segmented. The first of its modalities is that of the fixed images, the second
            that of the moving ones; where there is one, it is both, and one network segments them.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes; E-MOD-027, bins of macMIND that 2-D does not have.
    """

    Settings = MacJNetSettings
    items = "pairs"
    players = (REGISTRATION, SEGMENTATION)
    tasks = ("register", "segment")
    schedule = Schedule(epochs=200, batch_size=1, learning_rates={REGISTRATION: 2e-5, SEGMENTATION: 1e-5})

    def __init__(self, settings: MacJNetSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_classes(domain)
        check_similarity(settings, domain)
        self.chosen = settings
        self.modalities: dict[Side, str] = {"fixed": domain.modalities[0], "moving": domain.modalities[:2][-1]}
        self.registration = registration_network(settings.registration, domain)
        self.segmentation = nn.ModuleDict(
            {
                _name(modality): segmentation_network(settings.segmentation, domain)
                for modality in dict.fromkeys(self.modalities.values())
            }
        )

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The registration network, or those that segment."""
        return [self.registration] if player == REGISTRATION else list(self.segmentation.values())

    def weights_of(self, player: str) -> Mapping[str, float]:
        """Of the player's terms, without those of weight 0."""
        weights = {name: getattr(self.chosen.weights, name) for name in TERMS[player]}
        return {name: weight for name, weight in weights.items() if weight}

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Equation (4), or (8) and (9), term by term."""
        computed = self._registration(batch) if player == REGISTRATION else self._segmentation(batch)
        return {name: computed[name]() for name in self.weights_of(player)}

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """What the registration network finds; no labels are asked for."""
        return self.registration.deformation(fixed, moving)

    def segment(self, image: ImageBatch, modality: str = "") -> ProbabilityBatch:
        """What the network of the modality finds.

        Raises:
            InputError: E-MOD-005, a modality that no network was trained on.
            ConfigurationError: E-MOD-010, there are two, and none is named.
        """
        known = list(dict.fromkeys(self.modalities.values()))
        if not modality and len(known) > 1:
            found = "the modality of the image is open"
            raise ConfigurationError("E-MOD-010", found, expected=", ".join(known), do="name it with --modality")
        if modality and modality not in known:
            expected = " or ".join(known)
            raise InputError("E-MOD-005", f"modality {modality}", expected=expected, do="use a model made for it")
        return self._network(modality or known[0]).logits(image)[0].float().softmax(1)

    def _registration(self, batch: Batch) -> dict[str, Callable[[], Tensor]]:
        """Equations (5) to (7)."""
        found = self.registration.deformation(batch["fixed"], batch["moving"])
        return {
            "similarity": lambda: self._similarity(batch, found.displacement),
            "overlap": lambda: soft_dice(
                self._anatomy(batch, "fixed"), warp(self._anatomy(batch, "moving"), found.displacement)
            ),
            "smoothness": lambda: diffusion(self.registration.regularised(found)),
        }

    def _similarity(self, batch: Batch, displacement: DisplacementBatch) -> Tensor:
        moving, mask = batch["moving"], batch.get("moving_mask")
        warped = warp(moving, displacement, outside="border")
        masks = batch.get("fixed_mask"), None if mask is None else warp(mask, displacement.detach())
        return compare(self.chosen, batch["fixed"], warped, *masks, moving)

    def _anatomy(self, batch: Batch, side: Side) -> ImageBatch:
        """Equation (3): B classes I J (K), without gradient."""
        manual, labelled = self._manual(batch, side), batch[f"{side}_labelled"]
        if labelled.all():
            return manual
        with torch.no_grad():
            predicted = self._network(self.modalities[side]).logits(batch[side])[0].float().softmax(1)[:, 1:]
        return torch.where(labelled.view(-1, *[1] * (manual.ndim - 1)), manual, predicted)

    def _segmentation(self, batch: Batch) -> dict[str, Callable[[], Tensor]]:
        """Equations (8) and (9)."""
        found: dict[Side, Results] = {
            side: [result.float() for result in self._network(modality).logits(batch[side])]
            for side, modality in self.modalities.items()
        }
        return {
            "supervised": lambda: sum(
                (self._supervised(batch, side, results) for side, results in found.items()),
                start=found["fixed"][0].new_zeros(()),
            ),
            "consistency": lambda: self._consistency(batch, *(found[side][0] for side in SIDES)),
        }

    def _supervised(self, batch: Batch, side: Side, results: Results) -> Tensor:
        labelled = batch[f"{side}_labelled"]
        if not labelled.any():
            return _nothing(results[0])
        manual, mask = self._manual(batch, side)[labelled], batch.get(f"{side}_mask")
        mask = None if mask is None else mask[labelled]
        depths = [
            weight * soft_dice(result[labelled].softmax(1)[:, 1:], manual, mask, squared=False)
            for weight, result in zip(supervision_weights(len(results)), results, strict=True)
        ]
        return torch.stack(depths).sum() * _share(labelled)

    def _consistency(self, batch: Batch, fixed: ImageBatch, moving: ImageBatch) -> Tensor:
        lacking = ~(batch["fixed_labelled"] & batch["moving_labelled"])
        if not lacking.any():
            return _nothing(fixed) + _nothing(moving)
        with torch.no_grad():
            displacement = self.registration.deformation(*(batch[side][lacking] for side in SIDES)).displacement
        probabilities = [logits[lacking].softmax(1)[:, 1:] for logits in (fixed, moving)]
        masks = [batch[f"{side}_mask"][lacking] if f"{side}_mask" in batch else None for side in SIDES]
        if masks[1] is not None:
            masks[1] = warp(masks[1], displacement)
        return soft_dice(probabilities[0], warp(probabilities[1], displacement), *masks) * _share(lacking)

    def _manual(self, batch: Batch, side: Side) -> ImageBatch:
        """B classes I J (K); background everywhere where there are no labels."""
        return one_hot(batch[f"{side}_labels"], self.domain.classes)[:, 1:]

    def _network(self, modality: str) -> SegmentationNetwork:
        network = self.segmentation[_name(modality)]
        assert isinstance(network, SegmentationNetwork)
        return network


def _name(modality: str) -> str:
    """Of a modality's network among the children: torch separates names by full stops."""
    return modality.replace(".", "_")


def _share(items: Items) -> float:
    """By which a mean over some items counts in a mean over the batch."""
    return float(items.float().mean())


def _nothing(results: ImageBatch) -> Tensor:
    """0, with a gradient of 0."""
    return results.sum() * 0
