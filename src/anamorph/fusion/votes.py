r"""Votes counted by who agrees with whom, so that neither time nor memory knows how many labels there are.

    S_i(x) = sum_j w_j(x) [ l_j(x) = l_i(x) ]            candidates i, j of voxel x, their labels l and weights w
    share of l_i = max(S_i, 0) / sum of max(S, 0) over the different labels
    entropy      = - sum over the different labels of share log share

The winner has the largest share. **A tie goes to the candidate that comes first** among those whose labels tie: the
earlier atlas, so the better one where atlases are ranked. A result is always a label that a candidate proposes. Where
all weights are nought, all candidates weigh alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

TIED = 1e-6
"""Shares that differ by less are a tie: sums in different orders are no different votes."""

CHUNK = 2**22
"""Candidates in flight."""


class Votes(NamedTuple):
    """What candidates propose at contested voxels, and what their votes weigh; a joint rule's may be negative."""

    labels: Int[Tensor, "candidates voxels"]
    weights: Float[Tensor, "candidates voxels"]


@dataclass(frozen=True, eq=False)
class Count:
    """The votes counted, and every different label with its share: a few a voxel, however many labels exist.

    Args:
        winners: a label a voxel.
        share: of the winner.
        entropy: in nats.
        voxels: whose labels ``values`` are, as positions along the contested voxels.
        values, shares: the different labels proposed there.
    """

    winners: Int[Tensor, " voxels"]
    share: Float[Tensor, " voxels"]
    entropy: Float[Tensor, " voxels"]
    voxels: Int[Tensor, " proposals"]
    values: Int[Tensor, " proposals"]
    shares: Float[Tensor, " proposals"]


def count(votes: Votes) -> Count:
    """Winner, shares and entropy at each voxel."""
    labels, weights = votes
    step = max(1, CHUNK // len(labels))
    parts = [_count(labels[:, i : i + step], weights[:, i : i + step]) for i in range(0, labels.shape[1], step)]
    offsets = [i * step for i in range(len(parts))]
    return Count(
        torch.cat([part.winners for part in parts]),
        torch.cat([part.share for part in parts]),
        torch.cat([part.entropy for part in parts]),
        torch.cat([part.voxels + offset for part, offset in zip(parts, offsets, strict=True)]),
        torch.cat([part.values for part in parts]),
        torch.cat([part.shares for part in parts]),
    )


def first_proposers(labels: Int[Tensor, "candidates voxels"]) -> Tensor:
    """Whether no earlier candidate proposes the same label, candidates x voxels, bool."""
    first = torch.ones_like(labels, dtype=torch.bool)
    for i in range(1, len(labels)):
        first[i] = ~(labels[:i] == labels[i]).any(0)
    return first


def _count(labels: Tensor, weights: Tensor) -> Count:
    weights = torch.where((weights != 0).any(0), weights, torch.ones_like(weights))
    agreed = torch.stack([(weights * (labels == own)).sum(0) for own in labels]).clamp_min_(0)
    first = first_proposers(labels)
    total = (agreed * first).sum(0)
    shares = (agreed / torch.where(total > 0, total, 1)).clamp_max_(1)
    top = shares.amax(0)
    winner = (shares >= top - TIED).to(torch.uint8).argmax(0, keepdim=True)
    entropy = -(torch.xlogy(shares, shares) * first).sum(0)
    voxels, candidates = (first & (shares > 0)).T.nonzero().T
    return Count(
        labels.gather(0, winner)[0],
        top,
        entropy.clamp_min_(0),
        voxels,
        labels[candidates, voxels],
        shares[candidates, voxels],
    )
