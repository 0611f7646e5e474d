"""CoCycleReg's registration network: one backbone, and a head for each direction.

    features               = U-Net(moving, fixed)                      of ``networks.registration_unet``
    what brings moving onto fixed = head 1(features),   fixed onto moving = head 2(features)

in voxels. Either head gives a displacement, or the velocity that it holds on half the grid, as in VoxelMorph. Nothing
but training makes the two inverse to each other.

Source: C. Lian et al. (2022), CoCycleReg, doi:10.1016/j.neucom.2022.05.113, figure 3, and its release.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from anamorph.networks.deformation import Deformation
from anamorph.networks.registration_unet import Down, RegistrationUNet, deformation_of, field_head
from anamorph.types import ImageBatch


class DualHeadNetwork(nn.Module):
    """Images of any size, 2-D or 3-D.

    Args:
        ndim: 2 or 3.
        channels: of one image.
        encoder, decoder, down: of the U-Net.
        squarings: of the integration of velocities; None where the heads give displacements.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        encoder: Sequence[int],
        decoder: Sequence[int],
        down: Down = "stride",
        squarings: int | None = None,
    ) -> None:
        super().__init__()
        self.squarings = squarings
        self.backbone = RegistrationUNet(ndim, 2 * channels, encoder, decoder, down)
        self.onto_fixed = field_head(ndim, self.backbone.outputs)
        self.onto_moving = field_head(ndim, self.backbone.outputs)

    def deformations(self, fixed: ImageBatch, moving: ImageBatch) -> tuple[Deformation, Deformation]:
        """What brings moving onto fixed, and fixed onto moving (B C I J (K))."""
        features = self.backbone(torch.cat([moving, fixed], 1))
        # Not in half precision, whatever it is computed in: that holds no coordinate.
        onto_fixed, onto_moving = (head(features).to(fixed.dtype) for head in (self.onto_fixed, self.onto_moving))
        return deformation_of(onto_fixed, self.squarings), deformation_of(onto_moving, self.squarings)
