r"""Which atlases resemble a target most, before anything is registered finely.

    nmi = ( H(f) + H(m) ) / H(f, m)           of target and atlas image, 1 ... 2

from their joint histogram. NMI: Studholme et al. 1999, doi:10.1016/S0031-3203(98)00091-0; atlases selected by it:
Aljabar et al. 2009, doi:10.1016/j.neuroimage.2009.02.018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

BINS = 32
"""Of each image, equal parts of its range."""


def atlas_similarities(
    target: Float[Tensor, "channels *spatial"], images: Sequence[Float[Tensor, "channels *spatial"]]
) -> list[float]:
    """How similar each atlas is to the target; more is better. All on one grid, a coarse one will do.

    Channels count alike.
    """
    fixed = [_binned(channel) for channel in target]
    pairs = ([(f, _binned(m)) for f, m in zip(fixed, images[i], strict=True)] for i in range(len(images)))
    return [sum(_normalised(f, m) for f, m in pair) / len(pair) for pair in pairs]


def rank_atlases(
    target: Float[Tensor, "channels *spatial"], images: Sequence[Float[Tensor, "channels *spatial"]]
) -> list[int]:
    """Indices of the atlases, the most similar first; equals keep their order. Arguments as ``atlas_similarities``."""
    found = atlas_similarities(target, images)
    return sorted(range(len(found)), key=lambda i: -found[i])


def _binned(channel: Tensor) -> Tensor:
    values = channel.float()
    low, high = torch.aminmax(values)
    extent = torch.where(high > low, high - low, 1)
    return ((values - low) / extent * BINS).long().clamp_(0, BINS - 1)


def _entropy(counts: Tensor) -> float:
    p = counts.double() / counts.sum()
    return -float(torch.xlogy(p, p).sum())


def _normalised(fixed: Tensor, moving: Tensor) -> float:
    joint = torch.bincount((fixed * BINS + moving).flatten(), minlength=BINS**2).view(BINS, BINS)
    both = _entropy(joint)
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both if both > 0 else 1.0
