"""What methods share that register two modalities both ways at once: the dual-head network, and how it is asked.

Fields are named after the grid that they live on: that of ``fixed`` brings moving onto fixed, that of ``moving`` brings
fixed onto moving.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

from anamorph.losses import diffusion
from anamorph.losses.masks import Loss
from anamorph.methods.base import Batch, Deformation, Domain
from anamorph.methods.network_choice import Features, VoxelMorphArchitecture
from anamorph.networks.dual_head import DualHeadNetwork
from anamorph.networks.registration_unet import Down
from anamorph.spatial.field import warp
from anamorph.types import ImageBatch, MaskBatch

Side = Literal["fixed", "moving"]
SIDES: tuple[Side, Side] = ("fixed", "moving")
OTHER: Mapping[Side, Side] = {"fixed": "moving", "moving": "fixed"}


class PaperArchitecture(VoxelMorphArchitecture):
    """The registration network of CoCycleReg's comparisons: VoxelMorph's, with other defaults."""

    encoder: Features = (16, 32, 32, 32, 32)
    """Features of the U-Net, fine to coarse."""
    decoder: Features = (32, 32, 32, 32, 16, 16)
    """Features on the way back; those beyond the scales work at full resolution."""
    down: Down = "stride"
    """stride: the encoder's convolutions but the first halve. pool: max-pooling after each of them."""
    diffeomorphic: bool = False
    """Whether the network finds velocities, whose flows do not fold, or displacements, as in the paper."""


class BothWays(ABC):
    """A method that finds the deformations of a pair in both directions."""

    @abstractmethod
    def register_both(self, fixed: ImageBatch, moving: ImageBatch) -> tuple[Deformation, Deformation]:
        """What brings moving onto fixed, and fixed onto moving; ``fixed`` is of the domain's first modality."""

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """What brings moving onto fixed."""
        return self.register_both(fixed, moving)[0]


def dual_head_network(settings: VoxelMorphArchitecture, domain: Domain) -> DualHeadNetwork:
    """The network with a head for each direction."""
    squarings = settings.squarings if settings.diffeomorphic else None
    shape = settings.encoder, settings.decoder, settings.down
    return DualHeadNetwork(domain.ndim, domain.channels, *shape, squarings)


def smoothness(field: Deformation) -> Loss:
    """``losses.diffusion`` of the displacement, or of the velocity where there is one."""
    return diffusion(field.displacement if field.velocity is None else field.velocity)


def masks_on(batch: Batch, side: Side, field: Deformation) -> tuple[MaskBatch | None, MaskBatch | None]:
    """The mask of a side, and that of the other one brought onto it; None where there are none.

    Args:
        batch: of pairs.
        side: where the masks are wanted.
        field: that of the side.
    """
    own, other = (batch.get(f"{name}_mask") for name in (side, OTHER[side]))
    return own, None if other is None else warp(other, field.displacement.detach())
