r"""VoxelMorph: one U-Net pass gives the field that brings a moving image onto a fixed one.

    flow = U(moving, fixed)                                          voxels of the image's grid            (1)
    v    = flow on half the grid                                     voxels of the half grid               (2)
    u    = exp(v) on the image's grid,   v integrated on half of it                                        (3)
    warped(x) = moving(x + u(x)),   0 outside                                                              (4)

    L = w_similarity D(fixed, warped) + w_smoothness R + w_overlap O                                       (5)

    D    = any similarity of ``losses``
    R    = 2 mean over axes, components and voxels of (dv / dx)^2                                          (6)
    O    = 1 - Dice of the warped and the fixed labels, where both images have some                        (7)

Without ``diffeomorphic`` u = flow, and R is the mean of (du / dx)^2 without the 2.

Sources: G. Balakrishnan et al. (2019), VoxelMorph, doi:10.1109/TMI.2019.2897538; A. V. Dalca et al. (2019),
doi:10.1016/j.media.2019.07.006 (velocities); their torch release. "VMIND" of macJNet and CoCycleReg is similarity mind.

Deviations: docs/methods/voxelmorph.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from anamorph.losses import diffusion
from anamorph.losses.segmentation import one_hot
from anamorph.methods.base import Batch, Deformation, Domain, Method, TermWeights, Weight
from anamorph.methods.network_choice import VoxelMorphArchitecture, voxelmorph_network
from anamorph.methods.registration import SimilaritySettings, check_similarity, compare, overlap_of_labelled
from anamorph.methods.schedule import Schedule
from anamorph.methods.segmentation import check_classes
from anamorph.networks.registration_unet import deformation_of, flow_of, on_half
from anamorph.spatial.field import exponential, resize_displacement, warp
from anamorph.types import DisplacementBatch, ImageBatch


class VoxelMorphWeights(TermWeights):
    """Weights of the terms; 0 leaves one out."""

    similarity: Weight = 1.0
    """Of the images."""
    smoothness: Weight = 1.0
    """Of the velocity, or of the displacement. The release recommends 1 with lncc, 0.01 with mse."""
    overlap: Weight = 0.0
    """Of labels, where fixed and moving both have some."""


class VoxelMorphSettings(VoxelMorphArchitecture, SimilaritySettings):
    """Settings of ``VoxelMorph``."""

    weights: VoxelMorphWeights = VoxelMorphWeights()
    """Of the terms."""


class VoxelMorph(Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is registered.

    Raises:
        ConfigurationError: E-MOD-020, a weight of the overlap in a domain without classes; E-MOD-027, bins of macMIND
            that 2-D does not have.
    """

    Settings = VoxelMorphSettings
    schedule = Schedule(epochs=1500, steps_per_epoch=100, learning_rate=1e-4)

    def __init__(self, settings: VoxelMorphSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        if settings.weights.overlap:
            check_classes(domain)
        check_similarity(settings, domain)
        self.chosen = settings
        network = voxelmorph_network(settings, domain)
        self.backbone, self.head = network.backbone, network.head

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """U-Net and head."""
        return [self.backbone, self.head]

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Equation (5), term by term."""
        flow = self._flow(batch["fixed"], batch["moving"])
        field, displacement = self._integrated(flow) if self.chosen.diffeomorphic else (flow, flow)
        computed = {
            "similarity": lambda: self._similarity(batch, displacement),
            "smoothness": lambda: diffusion(field) * (2 if self.chosen.diffeomorphic else 1),
            "overlap": lambda: self._overlap(batch, displacement),
        }
        return {name: computed[name]() for name in self.weights_of(player)}

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """The velocity of the half grid, brought to the whole one, and its flow there."""
        squarings = self.chosen.squarings if self.chosen.diffeomorphic else None
        return deformation_of(self._flow(fixed, moving), squarings)

    def _flow(self, fixed: ImageBatch, moving: ImageBatch) -> DisplacementBatch:
        return flow_of(self.backbone, self.head, fixed, moving)

    def _integrated(self, flow: DisplacementBatch) -> tuple[Float[Tensor, "batch ndim *half"], DisplacementBatch]:
        """Velocity on half the grid, displacement on the grid."""
        velocity = on_half(flow)
        return velocity, resize_displacement(exponential(velocity, self.chosen.squarings), flow.shape[2:])

    def _similarity(self, batch: Batch, displacement: DisplacementBatch) -> Tensor:
        moving, mask = batch["moving"], batch.get("moving_mask")
        seen = None if mask is None else warp(mask, displacement.detach())
        warped = warp(moving, displacement)
        return compare(self.chosen, batch["fixed"], warped, batch.get("fixed_mask"), seen, moving)

    def _overlap(self, batch: Batch, displacement: DisplacementBatch) -> Tensor:
        both = batch["fixed_labelled"] & batch["moving_labelled"]
        if not both.any():
            return displacement.sum() * 0
        labels = (batch[name][both] for name in ("fixed_labels", "moving_labels"))
        fixed, moving = (one_hot(found, self.domain.classes)[:, 1:] for found in labels)
        return overlap_of_labelled(fixed, warp(moving, displacement[both]), both)
