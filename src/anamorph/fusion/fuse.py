"""Labels of many atlases on one grid, fused into one labelmap with its probabilities and its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from anamorph.errors import InputError
from anamorph.fusion.boxes import Contest, boxes, find_contest
from anamorph.fusion.cleaning import clean_labels
from anamorph.fusion.rules import Atlases, Rule, block, global_similarity, local, local_information, majority, weighted
from anamorph.fusion.search import joint, non_local
from anamorph.fusion.settings import FusionSettings
from anamorph.fusion.staple import staple
from anamorph.fusion.votes import Count, count

FUSIONS: dict[str, Callable[[Atlases, FusionSettings], Rule]] = {
    "majority": majority,
    "global": global_similarity,
    "local": local,
    "block": block,
    "local_mi": local_information,
    "non_local": non_local,
    "staple": staple,
    "joint": joint,
    "weighted": weighted,
}


UNINDEXED = (torch.uint16, torch.uint32, torch.uint64)
"""Types of labels that torch keeps but does not write at single voxels."""


@dataclass(frozen=True, eq=False)
class Fused:
    """The result of a label fusion. Its memory knows neither how many atlases nor how many labels there are.

    Args:
        labels: the winner at each voxel, among what atlases propose.
        share: its share of the votes, 0 to 1.
        entropy: of the shares at each voxel, 0 (all agree) to 1 (all possible labels are as likely): the uncertainty.
        places, values, shares: proposals where more than one label was possible: the voxel, counted along the flattened
            grid, the label and its share.
    """

    labels: Integer[Tensor, "*spatial"]
    share: Float[Tensor, "*spatial"]
    entropy: Float[Tensor, "*spatial"]
    places: Int[Tensor, " proposals"]
    values: Int[Tensor, " proposals"]
    shares: Float[Tensor, " proposals"]
    agreed: Integer[Tensor, "*spatial"]

    def probability(self, value: int) -> Float[Tensor, "*spatial"]:
        """The share of the votes that one label has at each voxel, 0 to 1, before any cleaning."""
        result = (self.agreed == value).to(self.share.dtype)
        flat, own = result.view(-1), self.values == value
        flat[self.places] = 0
        flat[self.places[own]] = self.shares[own]
        return result


def fuse(
    labels: Sequence[Integer[Tensor, "..."]],
    settings: FusionSettings | None = None,
    *,
    target: Float[Tensor, "channels ..."] | None = None,
    images: Sequence[Float[Tensor, "channels ..."]] | None = None,
    weights: Sequence[Float[Tensor, "..."]] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fused:
    """Fuse labels that are on the target's grid already; all tensors on one device.

    The grid is worked on box by box and, in a box, only where atlases disagree. A sequence may load its item at each
    access, a few times a box; of items that are mapped from disk, only what is needed is read.

    Args:
        labels: of each atlas, ``*spatial``; any integers.
        settings: the rule and its options.
        target: intensities of the target, ``channels *spatial``.
        images: of each atlas, warped, the same shape.
        weights: of each atlas, for the rule ``weighted``, ``*spatial``; at least 0.
        progress: told the share of the work that is done.

    Raises:
        InputError: E-FUS-001, no atlas, or items that do not match in number or shape; E-FUS-003, E-FUS-004,
            intensities or weights that no rule can use.
        ConfigurationError: E-FUS-002, a rule without the images or weights that it needs.
    """
    settings = settings or FusionSettings()
    atlases = _checked(labels, target, images, weights)
    with torch.no_grad():
        rule = FUSIONS[settings.fusion](atlases, settings)
        return _fused(atlases, rule, settings.clean, progress or (lambda share: None))


def _fused(atlases: Atlases, rule: Rule, clean: bool, progress: Callable[[float], None]) -> Fused:
    first = atlases.labels[0]
    kept = torch.int64 if atlases.dtype in UNINDEXED else atlases.dtype
    fused = torch.empty(atlases.shape, dtype=kept, device=first.device)
    share = torch.ones(atlases.shape, device=first.device)
    entropy = torch.zeros(atlases.shape, device=first.device)
    proposals: list[tuple[Tensor, Tensor, Tensor]] = []
    parts, candidates = boxes(atlases.shape, rule.per_voxel, rule.halo), 0
    for done, box in enumerate(parts, start=1):
        agreed, contest = find_contest(atlases.labels, atlases.shape, box, rule.reach)
        fused[box] = agreed.to(fused.dtype)
        if contest is not None:
            votes = rule.vote(contest)
            counted, candidates = count(votes), max(candidates, len(votes.labels))
            fused[contest.box][contest.where] = counted.winners.to(fused.dtype)
            share[contest.box][contest.where] = counted.share
            entropy[contest.box][contest.where] = counted.entropy
            proposals.append((_places(contest, counted), counted.values, counted.shares))
        progress(done / len(parts))
    none = torch.empty(0, device=first.device)
    places, values, shares = (
        torch.cat(column) for column in zip((none.long(), none.long(), none), *proposals, strict=True)
    )
    possible = max(2, min(len(values.unique()), candidates))
    cleaned = clean_labels(fused) if clean else fused
    cleaned = cleaned.to(atlases.dtype)
    return Fused(cleaned, share, entropy.div_(math.log(possible)).clamp_(0, 1), places, values, shares, fused)


def _places(contest: Contest, counted: Count) -> Tensor:
    """Of each proposal, along the flattened grid."""
    flat = torch.zeros_like(counted.voxels)
    inside = contest.coordinates()[:, counted.voxels]
    for along, edge, n in zip(inside, contest.box, contest.shape, strict=True):
        flat = flat * n + along + edge.start
    return flat


def _checked(
    labels: Sequence[Tensor],
    target: Tensor | None,
    images: Sequence[Tensor] | None,
    weights: Sequence[Tensor] | None,
) -> Atlases:
    if not len(labels):
        raise InputError("E-FUS-001", "no atlas", expected="at least one")
    shape, kinds = tuple(labels[0].shape), set()
    if target is not None:
        _check_shape("the target", target.shape[1:], shape)
    for name, items, lead in (("labels", labels, 0), ("image", images, 1), ("weights", weights, 0)):
        if items is None:
            continue
        if len(items) != len(labels):
            raise InputError("E-FUS-001", f"{name} of {len(items)} atlases", expected=f"{len(labels)}, as labels")
        for i in range(len(items)):
            item = items[i]
            _check_shape(f"{name} of atlas {i + 1}", item.shape[lead:], shape)
            kinds |= {item.dtype} if items is labels else set()
    return Atlases(labels, shape, kinds.pop() if len(kinds) == 1 else torch.int64, target, images, weights)


def _check_shape(name: str, found: torch.Size, expected: tuple[int, ...]) -> None:
    if tuple(found) != expected:
        raise InputError(
            "E-FUS-001", f"{name} on a grid of {tuple(found)}", expected=f"{expected}, as the first labels"
        )
