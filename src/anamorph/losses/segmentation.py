"""Losses between what a network says of every voxel and labels."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from anamorph.losses.masks import Loss, weighted_mean
from anamorph.losses.windows import LocalMean, gaussian_taps
from anamorph.types import ImageBatch, MaskBatch

ClassBatch = Int[Tensor, "batch 1 *spatial"]
"""The class of each voxel, 0 the background: B 1 I J (K), int64."""


def one_hot(labels: ClassBatch, classes: int, sigma: float = 0.0) -> ImageBatch:
    """Probabilities of the background and every class, B (1 + classes) I J (K), float32, summing to one.

    Args:
        labels: classes from 0 to ``classes``.
        classes: their number without the background.
        sigma: of a Gaussian that blurs them, in voxels; at the image's border only what is inside it counts.
    """
    values = torch.arange(1 + classes, device=labels.device).view(1, -1, *[1] * (labels.ndim - 2))
    crisp = (labels == values).float()
    return LocalMean(crisp, None, gaussian_taps(sigma))(crisp) if sigma > 0 else crisp


def cross_entropy(logits: ImageBatch, labels: ClassBatch, mask: MaskBatch | None = None) -> Loss:
    """Mean over voxels of -log softmax(logits)[label], in nats.

    Args:
        logits: B (1 + classes) I J (K).
        labels: classes from 0 up.
        mask: weights of voxels, B 1 I J (K).
    """
    return weighted_mean(functional.cross_entropy(logits, labels[:, 0], reduction="none").unsqueeze(1), mask)


def divergence(logits: ImageBatch, probabilities: ImageBatch, mask: MaskBatch | None = None) -> Loss:
    """Mean over voxels of sum over classes of q (log q - log softmax(logits)), in nats; 0 where they agree.

    Its gradient is that of the cross-entropy, and of crisp q so is its value (Kullback and Leibler 1951,
    doi:10.1214/aoms/1177729694).

    Args:
        logits: B (1 + classes) I J (K).
        probabilities: q, of the same shape.
        mask: weights of voxels, B 1 I J (K).
    """
    both = torch.xlogy(probabilities, probabilities) - probabilities * functional.log_softmax(logits, 1)
    return weighted_mean(both.sum(1, keepdim=True), mask)
