r"""VMIND: VoxelMorph by a descriptor that does not depend on the modality, as CoCycleReg compares with it.

A pair is x (moving) and y (fixed).

    phi_xy, phi_yx  = R(x, y)            phi_xy lies on the grid of y: (x o phi)(v) = x(v + u(v))                   (1)
    similarity      = D(y, x o phi_xy) + D(x, y o phi_yx)                                                           (2)
    smoothness      = L_regular(phi_xy) + L_regular(phi_yx)                                                         (3)

with D the mean squared difference of MIND, or any similarity of ``losses``, and the network and L_regular of
``cocyclereg``: so that the comparison is about what teaches the network. For one direction at a time, and velocities
integrated on half the grid, take ``voxelmorph`` with ``similarity: mind``.

Sources: C. Lian et al. (2022), CoCycleReg, doi:10.1016/j.neucom.2022.05.113, section 4.3.1; M. P. Heinrich et al.
(2012), MIND, doi:10.1016/j.media.2012.05.008. The thesis that VMIND is cited from was not found.

Deviations: docs/methods/cocyclereg.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from anamorph.methods.base import Batch, Deformation, Domain, Method, TermWeights, Weight
from anamorph.methods.both_ways import (
    OTHER,
    SIDES,
    BothWays,
    PaperArchitecture,
    dual_head_network,
    masks_on,
    smoothness,
)
from anamorph.methods.registration import Similarity, SimilaritySettings, check_similarity, compare
from anamorph.methods.translation import SCHEDULE, Initialisation, initialise, total
from anamorph.spatial.field import warp
from anamorph.types import ImageBatch


class VMINDWeights(TermWeights):
    """Weights of the terms; 0 leaves one out."""

    similarity: Weight = 1.0
    """Of the images, both ways."""
    smoothness: Weight = 0.02
    """Of the two fields. What suits mind; 1 suits lncc and nmi."""


class VMINDSettings(PaperArchitecture, SimilaritySettings):
    """Settings of ``VMIND``."""

    similarity: Similarity = "mind"
    """Of a warped and the other image: any of ``anamorph.losses.SIMILARITIES``."""
    initialisation: Initialisation = "kaiming"
    """First weights of the U-Net, as of ``cocyclereg``."""
    weights: VMINDWeights = VMINDWeights()
    """Of the terms."""


class VMIND(BothWays, Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is registered.

    Raises:
        ConfigurationError: E-MOD-027, bins of macMIND that 2-D does not have.
    """

    Settings = VMINDSettings
    schedule = SCHEDULE

    def __init__(self, settings: VMINDSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_similarity(settings, domain)
        self.chosen = settings
        self.registration = dual_head_network(settings, domain)
        initialise(self.registration.backbone, settings.initialisation)

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The one network."""
        return [self.registration]

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Equations (2) and (3)."""
        found = dict(zip(SIDES, self.register_both(batch["fixed"], batch["moving"]), strict=True))

        def similarity() -> Tensor:
            costs = list[Tensor]()
            for side, field in found.items():
                image, other = batch[side], batch[OTHER[side]]
                warped = warp(other, field.displacement, outside="border")
                costs.append(compare(self.chosen, image, warped, *masks_on(batch, side, field), other))
            return total(costs)

        computed = {
            "similarity": similarity,
            "smoothness": lambda: total(smoothness(found[side]) for side in SIDES),
        }
        return {name: computed[name]() for name in self.weights_of(player)}

    def register_both(self, fixed: ImageBatch, moving: ImageBatch) -> tuple[Deformation, Deformation]:
        """Equation (1)."""
        return self.registration.deformations(fixed, moving)
