"""What methods share that say how well an atlas fits a target, voxel by voxel: the weights of a label fusion.

They learn from pairs: fixed is the target, moving the atlas. A registration network that was trained before brings the
atlas onto the target, and is held; without one, atlases lie on their targets already.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anamorph.errors import ConfigurationError
from anamorph.losses.segmentation import ClassBatch
from anamorph.methods.base import Batch, Deformation, Domain, Method, MethodSettings
from anamorph.methods.local_net import LocalNetRegistrationArchitecture, local_net_registration
from anamorph.methods.segmentation import check_classes
from anamorph.types import DisplacementBatch, ImageBatch

Similarities = Float[Tensor, "batch 1 *spatial"]
"""From 0 to 1, greater where atlas and target agree: B 1 I J (K)."""


class SimilarityEstimationSettings(MethodSettings):
    """What all of them have."""

    registration: LocalNetRegistrationArchitecture | None = LocalNetRegistrationArchitecture()
    """The network that brings atlases onto targets, as ``biregnet`` has it; its weights come from a trained model
    (``--initial registration=MODEL``). null: atlases lie on their targets already."""


class SimilarityEstimator(Method):
    """Base of such methods; each has a network of the name ``similarity_network``.

    Args:
        settings: as chosen.
        domain: what the images are.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.

    Attributes:
        looks_at_images: whether ``similarity`` needs the atlas's image.
        tasks: to register, where there is a registration network.
    """

    items = "pairs"
    tasks = ()
    judged_by = "objective"
    looks_at_images = False
    similarity_network: nn.Module

    def __init__(self, settings: SimilarityEstimationSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_classes(domain)
        self.registration = None
        if settings.registration is not None:
            self.registration = local_net_registration(settings.registration, domain).eval().requires_grad_(False)
            self.tasks = ("register",)

    @classmethod
    def learns_unlabelled(cls, settings: MethodSettings) -> bool:
        """No: what agrees is known of labels alone."""
        return False

    @abstractmethod
    def similarity(
        self, target: ImageBatch, warped_labels: ClassBatch, warped: ImageBatch | None = None
    ) -> Similarities:
        """How well an atlas that lies on the target agrees with it.

        Args:
            target: image, B C I J (K).
            warped_labels: of the atlas, as classes, 0 the background: B 1 I J (K).
            warped: the atlas's image; of methods that look at images.
        """

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The network that estimates."""
        return [self.similarity_network]

    def train(self, mode: bool = True) -> SimilarityEstimator:
        """The registration network stays as it is: nor do its normalisations follow the batches."""
        super().train(mode)
        if self.registration is not None:
            self.registration.eval()
        return self

    def before_training(self, batches: Any) -> None:
        """Refuse a registration network that would leave every atlas where it lies.

        Raises:
            ConfigurationError: E-MOD-022.
        """
        if self.registration is not None and self.registration.backbone.untrained:
            raise ConfigurationError(
                "E-MOD-022",
                "a registration network that has learnt nothing",
                expected="one of a trained biregnet",
                do="begin with --initial registration=MODEL, or give --set registration=null",
            )

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """What the registration network finds.

        Raises:
            ConfigurationError: E-MOD-009, there is none.
        """
        if self.registration is None:
            raise ConfigurationError("E-MOD-009", "atlases that lie on their targets already", expected="a network")
        return self.registration.deformation(fixed, moving)

    @torch.no_grad()
    def onto_target(self, batch: Batch) -> DisplacementBatch:
        """What brings the atlases of a batch onto their targets."""
        if self.registration is None:
            fixed = batch["fixed"]
            return fixed.new_zeros(len(fixed), fixed.ndim - 2, *fixed.shape[2:])
        return self.registration.deformation(batch["fixed"], batch["moving"]).displacement


def both_labelled(batch: Batch) -> Tensor:
    """Which items have labels on both sides."""
    return batch["fixed_labelled"] & batch["moving_labelled"]
