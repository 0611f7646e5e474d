"""What methods that segment share: which items teach, probabilities from regressed labels, largest components."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.errors import ConfigurationError
from anamorph.methods.base import Batch, Domain

ProbabilityBatch = Float[Tensor, "batch classes *spatial"]
"""Probabilities of the background and of every class: B (1 + classes) I J (K), summing to one."""


def check_classes(domain: Domain) -> None:
    """Refuse to learn segmentation without labels.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.
    """
    if domain.classes < 1:
        raise ConfigurationError(
            "E-MOD-020", "no labels to learn", expected="a cohort with labels", do="name them in plan.yaml"
        )


def labelled_items(batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """``image``, ``labels`` and any ``mask`` of the items that have labels, and 1 if there are any, else 0.

    Without any label all items are given, so that a term times that number is 0 and still has a gradient, which
    processes that train together must all have.
    """
    labelled = batch["labelled"]
    some = labelled.any()
    chosen = labelled | ~some
    return {name: batch[name][chosen] for name in ("image", "labels", "mask") if name in batch}, some.float()


def probabilities_of_regressed(outputs: ProbabilityBatch) -> ProbabilityBatch:
    """Regressed one-hot labels as probabilities: below 0 is 0, and the channels are divided by their sum.

    The greatest channel stays the greatest; where none is above 0 it gets all.
    """
    positive = outputs.clamp_min(0)
    total = positive.sum(1, keepdim=True)
    winner = torch.zeros_like(outputs).scatter_(1, outputs.argmax(1, keepdim=True), 1.0)
    return torch.where(total > 1e-6, positive / total.clamp_min(1e-6), winner)


def keep_largest_components(probabilities: ProbabilityBatch) -> ProbabilityBatch:
    """Each class keeps the largest connected part of the voxels it wins; elsewhere they become background.

    There the class's probability goes to the background, which then wins. Voxels that share a corner are connected;
    of parts of one size the first in memory is kept.
    """
    import numpy as np
    from scipy import ndimage

    index = probabilities.argmax(1, keepdim=True)
    winners = index[:, 0].cpu().numpy()
    lost = np.zeros(winners.shape, dtype=bool)
    everywhere = np.ones((3,) * (winners.ndim - 1))
    for item, winner in enumerate(winners):
        for label in range(1, probabilities.shape[1]):
            parts = np.zeros(winner.shape, dtype=np.int32)
            ndimage.label(winner == label, everywhere, output=parts)
            sizes = np.bincount(parts.ravel())[1:]
            if len(sizes) > 1:
                lost[item] |= (parts > 0) & (parts != 1 + sizes.argmax())
    if not lost.any():
        return probabilities
    gone = torch.from_numpy(lost).to(probabilities.device).unsqueeze(1)
    moved = torch.where(gone, probabilities.gather(1, index), 0)
    result = probabilities.scatter_add(1, index, -moved)
    result[:, :1] += moved
    return result
