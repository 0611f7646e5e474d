"""nnU-Net-style U-Net: a network that follows the voxels, Dice and cross-entropy, deep supervision.

    dice          = sum_s w_s (1 - mean over items and classes c > 0 of 2 sum(p_c l_c) / (sum(p_c) + sum(l_c)))
    cross_entropy = - sum_s w_s mean over voxels of log p_label

with p the softmax of what is read off at depth s, enlarged to the image, and w_s = 2^-s divided by their sum. With a
weight of ``self_training`` cases without labels learn from the network's own predictions q:

    self_training = w_dice dice(q) + w_cross_entropy cross_entropy(q)

q is made by weights that are frozen at the start of each cycle: its most probable classes in place of labels, or with
targets "soft" its probabilities; then dice has squares in its denominator and the entropy of q is taken off the
cross-entropy, so that both are 0 where p = q. Manual labels teach as before.

Source: F. Isensee et al. (2021), nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation, doi:10.1038/s41592-020-01008-z. The network is MONAI's DynUNet (``networks/dynunet.py``). Self-training:
macJNet, doi:10.1186/s12938-023-01143-6, says "pre-trained in cycle self-training" and no more; what it comes to here is
D.-H. Lee (2013), Pseudo-label, in cycles as Q. Xie et al. (2020), doi:10.1109/CVPR42600.2020.01070.

Deviations: the whole image instead of patches and their oversampling, so shape and spacing are those of the plan; no
mirroring, brightness or contrast among the augmentations, and none of them between 2-D planes; coarse results are
enlarged to the labels (nearest), where nnU-Net shrinks the labels; no ensemble, no test-time mirroring.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from anamorph.losses import soft_dice
from anamorph.losses.segmentation import cross_entropy, divergence, one_hot
from anamorph.methods.base import Batch, Domain, Method, MethodSettings, Weight
from anamorph.methods.network_choice import DynUNetArchitecture, dynunet_network
from anamorph.methods.schedule import Augmentation, Schedule
from anamorph.methods.segmentation import (
    ProbabilityBatch,
    check_classes,
    keep_largest_components,
    labelled_items,
)
from anamorph.networks.dynunet import DynamicUNet, supervision_weights
from anamorph.types import ImageBatch

SELF_TRAINING = "self_training"


class DynUNetWeights(MethodSettings):
    """Weights of the terms; 0 leaves one out."""

    dice: Weight = 1.0
    """Of soft Dice over the classes without the background."""
    cross_entropy: Weight = 1.0
    """Of the cross-entropy; macJNet's segmentation network has none."""
    self_training: Weight = 0.0
    """Of both on cases without labels, by the network's own predictions."""

    @model_validator(mode="after")
    def _check(self) -> DynUNetWeights:
        if not self.dice and not self.cross_entropy:
            raise ValueError("dice or cross_entropy is above 0")
        return self


class SelfTrainingSettings(MethodSettings):
    """How cases without labels are learnt from, with a weight of ``self_training``."""

    begin: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the training that learns from manual labels alone before."""
    cycles: Annotated[int, Field(ge=1)] = 4
    """Parts of the rest; at the start of each, predictions are renewed."""
    targets: Literal["hard", "soft"] = "hard"
    """hard: the most probable class of each voxel. soft: the probabilities."""


class DynUNetSettings(DynUNetArchitecture):
    """Settings of ``DynUNet``."""

    largest_component: bool = False
    """Whether each class keeps the largest connected part of its prediction."""
    self_training: SelfTrainingSettings = SelfTrainingSettings()
    """With a weight of that name."""
    weights: DynUNetWeights = DynUNetWeights()
    """Of the terms."""


class DynUNet(Method):
    """See the module. With self-training it holds its weights twice, as they are and as they were frozen.

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
    cycle: Tensor

    def __init__(self, settings: DynUNetSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_classes(domain)
        self.chosen = settings
        self.network = dynunet_network(settings, domain)
        self.teacher: DynamicUNet | None = None
        if settings.weights.self_training:
            self.teacher = copy.deepcopy(self.network).requires_grad_(False)
            self.register_buffer("cycle", torch.tensor(0))

    @classmethod
    def learns_unlabelled(cls, settings: MethodSettings) -> bool:
        """With self-training."""
        return isinstance(settings, DynUNetSettings) and bool(settings.weights.self_training)

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The one network."""
        return [self.network]

    def begin_step(self, step: int, steps: int) -> None:
        """Freeze the weights that predict when a cycle begins."""
        if self.teacher is None:
            return
        begin = round(self.chosen.self_training.begin * steps)
        cycle = 0 if step < begin else 1 + (step - begin) * self.chosen.self_training.cycles // (steps - begin)
        if cycle != int(self.cycle):
            self.teacher.load_state_dict(self.network.state_dict())
            self.cycle.fill_(cycle)

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Means over the items that have labels, and over those that have none; 0 where there are no such items."""
        weights = self.weights_of(player)
        taught = self._taught(batch) if SELF_TRAINING in weights else {}
        if taught and not batch["labelled"].any():
            found = {name: term * 0 for name, term in taught.items()}
        else:
            items, some = labelled_items(batch)
            found = {name: term * some for name, term in self._compared(items).items()}
        if SELF_TRAINING in weights:
            weighted = [weights[name] * term for name, term in (taught or found).items()]
            found[SELF_TRAINING] = torch.stack(weighted).sum() * (1.0 if taught else 0.0)
        return found

    def segment(self, image: ImageBatch, modality: str = "") -> ProbabilityBatch:
        """Probabilities B (1 + classes) I J (K), of images of any size."""
        return self._probabilities(self.network, image)

    def _probabilities(self, network: nn.Module, image: ImageBatch) -> ProbabilityBatch:
        found = network(image)[0].float().softmax(1)
        return keep_largest_components(found) if self.chosen.largest_component else found

    def _taught(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the items without labels, by what the frozen weights predict; none before the first cycle."""
        if self.teacher is None or not self.cycle or batch["labelled"].all():
            return {}
        items, _ = labelled_items({**batch, "labelled": ~batch["labelled"]})
        with torch.no_grad():
            predicted = self._probabilities(self.teacher.eval(), items["image"])
        items["labels"] = predicted.argmax(1, keepdim=True)
        return self._compared(items, predicted if self.chosen.self_training.targets == "soft" else None)

    def _compared(self, items: Mapping[str, Tensor], soft: ProbabilityBatch | None = None) -> dict[str, Tensor]:
        """Both terms over all depths, against the items' labels or probabilities."""
        labels, mask = items["labels"], items.get("mask")
        classes = (one_hot(labels, self.domain.classes) if soft is None else soft)[:, 1:]
        results = [result.float() for result in self.network(items["image"])]
        depths = supervision_weights(len(results))
        losses: dict[str, Callable[[Tensor], Tensor]] = {
            "dice": lambda x: soft_dice(x.softmax(1)[:, 1:], classes, mask, squared=soft is not None),
            "cross_entropy": lambda x: cross_entropy(x, labels, mask) if soft is None else divergence(x, soft, mask),
        }
        return {
            name: torch.stack([depth * loss(x) for depth, x in zip(depths, results, strict=True)]).sum()
            for name, loss in losses.items()
            if getattr(self.chosen.weights, name)
        }
