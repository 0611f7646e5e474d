"""Losses: pure functions of tensors, 0 at best and minimised.

``SIMILARITIES`` compare ``fixed`` with ``moving`` (already warped): ``similarity(fixed, moving, fixed_mask=None,
moving_mask=None)``.
"""

from anamorph.losses.descriptors import (
    mind,
    mind_similarity,
    mind_ssc,
    mind_ssc_similarity,
    self_similarity_context,
)
from anamorph.losses.information import local_mutual_information, mutual_information, normalized_mutual_information
from anamorph.losses.log_polar import LogPolarBins
from anamorph.losses.macmind import macmind, macmind_similarity
from anamorph.losses.overlap import soft_dice
from anamorph.losses.similarity import l1, lncc, mse, ssim
from anamorph.losses.smoothness import bending_energy, diffusion, folding, volume_change

SIMILARITIES = {
    "mse": mse,
    "l1": l1,
    "lncc": lncc,
    "mi": mutual_information,
    "local_mi": local_mutual_information,
    "nmi": normalized_mutual_information,
    "ssim": ssim,
    "mind": mind_similarity,
    "mind_ssc": mind_ssc_similarity,
    "macmind": macmind_similarity,
}

__all__ = [
    "SIMILARITIES",
    "LogPolarBins",
    "bending_energy",
    "diffusion",
    "folding",
    "l1",
    "lncc",
    "local_mutual_information",
    "macmind",
    "macmind_similarity",
    "mind",
    "mind_similarity",
    "mind_ssc",
    "mind_ssc_similarity",
    "mse",
    "mutual_information",
    "normalized_mutual_information",
    "self_similarity_context",
    "soft_dice",
    "ssim",
    "volume_change",
]
