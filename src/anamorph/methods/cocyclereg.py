r"""CoCycleReg: registration and translation in one cycle, of pairs without labels.

A pair is x (moving) and y (fixed). One network R gives both fields, T_xy and T_yx translate, D_y and D_x judge.

    phi_xy, phi_yx  = R(x, y)            phi_xy lies on the grid of y: (x o phi)(v) = x(v + u(v))                   (1)
    L_regular(phi)  = mean over axes, components and voxels of (du / dv)^2                                          (2)
    smoothness      = L_regular(phi_xy) + L_regular(phi_yx)                                                         (3)

    y^  = T_xy(x) o phi_xy               there                      x^' = T_yx(y) o phi_yx
    x^  = T_yx(y^) o phi_yx              and back                   y^' = T_xy(x^') o phi_xy

    adversarial     = (D_y(y^) - 1)^2         + (D_x(x^') - 1)^2                                                 (4, 7)
    similarity      = |y^ - y|                + |x^' - x|                                                        (5, 8)
    cycle           = |x^ - x|                + |y^' - y|                                                        (6, 9)

    generator       similarity + w_a adversarial + w_c cycle + w_s smoothness                                  (10, 11)
    discriminator   w_a / 2 times (D_y(y) - 1)^2 + D_y(y^)^2 + (D_x(x) - 1)^2 + D_x(x^')^2

Everything is a mean over voxels or patches, of intensities from -1 to 1. The generator's turn is that of R, T_xy and
T_yx at once. With ``discriminated: unwarped`` the discriminators are shown T_xy(x) and T_yx(y) before they are warped,
as in the release. With ``diffeomorphic`` the heads give velocities, and (2) is about those.

Source: C. Lian, X. Li, L. Kong, J. Wang, W. Zhang, X. Huang, L. Wang (2022), CoCycleReg: collaborative
cycle-consistency method for multi-modal medical image registration, doi:10.1016/j.neucom.2022.05.113, and its release,
github.com/DopamineLcy/cocycle-reg.

Deviations: docs/methods/cocyclereg.md. All but the cycle: ``cycle_registration``.
"""

from __future__ import annotations

from anamorph.losses import l1
from anamorph.losses.masks import Loss
from anamorph.methods.base import Batch
from anamorph.methods.both_ways import SIDES
from anamorph.methods.cycle_registration import CycleRegistration, CycleRegistrationSettings, Fields, moved
from anamorph.methods.translation import Images, total


class CoCycleRegSettings(CycleRegistrationSettings):
    """Settings of ``CoCycleReg``."""


class CoCycleReg(CycleRegistration):
    """See the module."""

    Settings = CoCycleRegSettings

    def cycle(self, batch: Batch, images: Images, there: Images, fields: Fields) -> Loss:
        """Equations (6) and (9)."""
        back = moved(self.translated(there), fields)
        return total(l1(images[side], back[side], batch.get(f"{side}_mask")) for side in SIDES)
