"""Label fusion: what many atlases propose on the target's grid becomes one labelmap."""

from anamorph.fusion.fuse import FUSIONS, Fused, fuse
from anamorph.fusion.selection import atlas_similarities, rank_atlases
from anamorph.fusion.settings import FusionSettings

__all__ = ["FUSIONS", "Fused", "FusionSettings", "atlas_similarities", "fuse", "rank_atlases"]
