r"""SepCycleReg: CoCycleReg with a cycle for the registration, and one for the translation.

With everything as in ``cocyclereg`` but

    cycle  = |(x o phi_xy) o phi_yx - x| + |T_yx(T_xy(x)) - x|                                                     (12)
           + |(y o phi_yx) o phi_xy - y| + |T_xy(T_yx(y)) - y|                                                     (13)

in place of equations (6) and (9): the ablation of the paper. Nothing of it has been released.

Source: C. Lian et al. (2022), CoCycleReg, doi:10.1016/j.neucom.2022.05.113, section 4.3.2.

Deviations: docs/methods/cocyclereg.md.
"""

from __future__ import annotations

from anamorph.losses import l1
from anamorph.losses.masks import Loss
from anamorph.methods.base import Batch
from anamorph.methods.both_ways import OTHER, SIDES
from anamorph.methods.cycle_registration import CycleRegistration, CycleRegistrationSettings, Fields, moved
from anamorph.methods.translation import Images, total


class SepCycleRegSettings(CycleRegistrationSettings):
    """Settings of ``SepCycleReg``."""


class SepCycleReg(CycleRegistration):
    """See the module."""

    Settings = SepCycleRegSettings

    def cycle(self, batch: Batch, images: Images, there: Images, fields: Fields) -> Loss:
        """Equations (12) and (13)."""
        away = moved({side: images[OTHER[side]] for side in SIDES}, fields)
        home = moved({side: away[OTHER[side]] for side in SIDES}, fields)
        again = self.translated(self.translated(images))
        return total(
            l1(images[side], found[side], batch.get(f"{side}_mask")) for found in (home, again) for side in SIDES
        )
