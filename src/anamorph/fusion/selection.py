r"""Which atlases resemble a target most, before anything is registered finely.

    nmi                    ( H(f) + H(m) ) / H(f, m)           of target and atlas image, 1 ... 2
    conditional_entropy    -H(l | f)                           of the atlas's labels, given the target's intensities

Both come from joint histograms, in nats. NMI: Studholme et al. 1999, doi:10.1016/S0031-3203(98)00091-0; atlases
selected by it: Aljabar et al. 2009, doi:10.1016/j.neuroimage.2009.02.018. The conditional entropy needs no image of the
atlas, and is what Ding et al. 2020 (doi:10.1007/978-3-030-59716-0_23) rank by, with 100 bins; it favours labels that
fill little of the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from anamorph.errors import ConfigurationError

AtlasMeasure = Literal["nmi", "conditional_entropy"]

BINS = {"nmi": 32, "conditional_entropy": 100}


def atlas_similarities(
    target: Float[Tensor, "channels *spatial"],
    images: Sequence[Float[Tensor, "channels *spatial"]] | None = None,
    labels: Sequence[Integer[Tensor, "*spatial"]] | None = None,
    *,
    measure: AtlasMeasure = "nmi",
) -> list[float]:
    """How similar each atlas is to the target; more is better. All on one grid, a coarse one will do.

    Channels count alike. Bins are equal parts of each image's range.

    Raises:
        ConfigurationError: E-FUS-002, without the images, or labels, that the measure needs.
    """
    given = images if measure == "nmi" else labels
    if given is None:
        needed = "images" if measure == "nmi" else "labels"
        raise ConfigurationError("E-FUS-002", f"{measure} without {needed}", expected=f"the {needed} of the atlases")
    bins = BINS[measure]
    fixed = [_binned(channel, bins) for channel in target]
    if measure == "conditional_entropy":
        return [sum(_conditional(f, given[i], bins) for f in fixed) / len(fixed) for i in range(len(given))]
    pairs = ([(f, _binned(m, bins)) for f, m in zip(fixed, given[i], strict=True)] for i in range(len(given)))
    return [sum(_normalised(f, m, bins) for f, m in pair) / len(pair) for pair in pairs]


def rank_atlases(
    target: Float[Tensor, "channels *spatial"],
    images: Sequence[Float[Tensor, "channels *spatial"]] | None = None,
    labels: Sequence[Integer[Tensor, "*spatial"]] | None = None,
    *,
    measure: AtlasMeasure = "nmi",
) -> list[int]:
    """Indices of the atlases, the most similar first; equals keep their order. Arguments as ``atlas_similarities``."""
    found = atlas_similarities(target, images, labels, measure=measure)
    return sorted(range(len(found)), key=lambda i: -found[i])


def _binned(channel: Tensor, bins: int) -> Tensor:
    values = channel.float()
    low, high = torch.aminmax(values)
    extent = torch.where(high > low, high - low, 1)
    return ((values - low) / extent * bins).long().clamp_(0, bins - 1)


def _entropy(counts: Tensor) -> float:
    p = counts.double() / counts.sum()
    return -float(torch.xlogy(p, p).sum())


def _normalised(fixed: Tensor, moving: Tensor, bins: int) -> float:
    joint = torch.bincount((fixed * bins + moving).flatten(), minlength=bins**2).view(bins, bins)
    both = _entropy(joint)
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both if both > 0 else 1.0


def _conditional(fixed: Tensor, labels: Tensor, bins: int) -> float:
    dense = labels.long().unique(return_inverse=True)[1]
    joint = torch.bincount((dense * bins + fixed).flatten(), minlength=bins)
    return _entropy(torch.bincount(fixed.flatten())) - _entropy(joint)
