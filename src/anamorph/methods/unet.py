"""U-Net: the segmentation network of Atlas-ISTN on its own, and the same with largest connected components.

    y(x)      = ITN(image)(x)                          one number a voxel and class, the background first
    mse       = mean over voxels and classes of (y - G_sigma * onehot(labels))^2
    dice      = 1 - mean over classes c > 0 of 2 sum(p_c l_c) / (sum(p_c) + sum(l_c)),   p = softmax(y), l = onehot
    cross_entropy = - mean over voxels of log p_label

The paper's loss is ``mse``: labels are regressed, and the prediction is the class of the greatest output. As
probabilities the outputs are cut off below 0 and divided by their sum, which keeps that class. With
``largest_component`` each class keeps its largest connected part ("U-net_lcc").

Source: M. Sinclair et al. (2022), Atlas-ISTN: joint segmentation, registration and atlas construction with
image-and-spatial transformer networks, doi:10.1016/j.media.2022.102383, equation 10 and section 3.2.

Deviations: a mask of voxels to use is honoured; probabilities in place of the greatest output alone; how voxels of a
part are connected, which the paper leaves open, is by faces, edges and corners.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from anamorph.losses import mse, soft_dice
from anamorph.losses.segmentation import cross_entropy, one_hot
from anamorph.methods.base import Batch, Domain, Method, MethodSettings, Weight
from anamorph.methods.network_choice import UNetArchitecture, unet_network
from anamorph.methods.schedule import Augmentation, Schedule
from anamorph.methods.segmentation import (
    ProbabilityBatch,
    check_classes,
    keep_largest_components,
    labelled_items,
    probabilities_of_regressed,
)
from anamorph.types import ImageBatch

TERMS: dict[str, tuple[str, ...]] = {"mse": ("mse",), "dice": ("dice",), "dice_ce": ("dice", "cross_entropy")}
"""The terms of each loss."""


class UNetWeights(MethodSettings):
    """Weights of the terms; those that the chosen loss lacks stay as they are."""

    mse: Weight = 1.0
    """Of the squared error of regressed labels."""
    dice: Weight = 1.0
    """Of soft Dice over the classes without the background."""
    cross_entropy: Weight = 1.0
    """Of the cross-entropy."""


class UNetSettings(UNetArchitecture):
    """Settings of ``UNet``."""

    loss: Literal["mse", "dice", "dice_ce"] = "mse"
    """mse: labels are regressed, as in the paper. dice: softmax and soft Dice. dice_ce: cross-entropy as well."""
    label_smoothing_sigma: Annotated[float, Field(ge=0)] = 0.5
    """Of the Gaussian that blurs the regressed labels, in voxels; of loss mse."""
    largest_component: bool = False
    """Whether each class keeps the largest connected part of its prediction."""
    weights: UNetWeights = UNetWeights()
    """Of the terms."""

    @model_validator(mode="after")
    def _check(self) -> UNetSettings:
        for name, weight in self.weights:
            if name not in TERMS[self.loss] and weight != UNetWeights.model_fields[name].default:
                raise ValueError(f"loss {self.loss} has no term {name} to weigh")
        if not any(getattr(self.weights, name) for name in TERMS[self.loss]):
            raise ValueError("at least one weight is above 0")
        return self


class UNet(Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is segmented; any number of modalities goes through the one network.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.
    """

    Settings = UNetSettings
    items = "cases"
    tasks = ("segment",)
    schedule = Schedule(
        epochs=1200,
        batch_size=8,
        learning_rate=1e-3,
        decay="half_life",
        half_life=500.0,
        validate_every=10,
        augmentation=Augmentation(translation=8.0, rotation=15.0, scale=0.1),
    )

    def __init__(self, settings: UNetSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_classes(domain)
        self.chosen = settings
        self.network = unet_network(settings, domain)

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The one network."""
        return [self.network]

    def weights_of(self, player: str) -> Mapping[str, float]:
        """Of the terms of the chosen loss, without those of weight 0."""
        weights = {name: getattr(self.chosen.weights, name) for name in TERMS[self.chosen.loss]}
        return {name: weight for name, weight in weights.items() if weight}

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Means over the items that have labels; 0 where none has."""
        items, some = labelled_items(batch)
        labels, mask, classes = items["labels"], items.get("mask"), self.domain.classes
        outputs = self.network(items["image"]).float()
        computed: dict[str, Callable[[], Tensor]] = {
            "mse": lambda: mse(outputs, one_hot(labels, classes, self.chosen.label_smoothing_sigma), mask),
            "dice": lambda: soft_dice(outputs.softmax(1)[:, 1:], one_hot(labels, classes)[:, 1:], mask, squared=False),
            "cross_entropy": lambda: cross_entropy(outputs, labels, mask),
        }
        return {name: computed[name]() * some for name in self.weights_of(player)}

    def segment(self, image: ImageBatch, modality: str = "") -> ProbabilityBatch:
        """Probabilities B (1 + classes) I J (K), of images of any size."""
        outputs = self.network(image).float()
        found = probabilities_of_regressed(outputs) if self.chosen.loss == "mse" else outputs.softmax(1)
        return keep_largest_components(found) if self.chosen.largest_component else found
