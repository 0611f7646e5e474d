"""What the stages compare two images by: the similarities of ``losses``, set up for intensities in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from anamorph import losses
from anamorph.pairwise.settings import Similarity

Compare = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
"""Fixed, warped, fixed mask, moving mask -> scalar loss."""

INFORMATION = ("mi", "nmi", "local_mi")


def comparison(name: Similarity, bins: int) -> Compare:
    """A similarity by name. Histograms span [0, 1], so that they do not jump as the warped image changes."""
    compare = losses.SIMILARITIES[name]
    if name in INFORMATION:
        return partial(compare, bins=bins, fixed_limits=(0.0, 1.0), moving_limits=(0.0, 1.0))
    return compare
