"""How far two segmentations cover the same voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from anamorph.evaluation.scores import Score, mean_score

Mask = Bool[np.ndarray, "..."]
Labels = Int[np.ndarray, "..."]


def dice(a: Mask, b: Mask) -> float:
    """2 |A n B| / (|A| + |B|): 1 at best, 0 where one is empty, NaN where both are."""
    return _dice(*_counts(a, b))


def jaccard(a: Mask, b: Mask) -> float:
    """|A n B| / |A u B|: 1 at best, 0 where one is empty, NaN where both are."""
    return _jaccard(*_counts(a, b))


def volume_similarity(a: Mask, b: Mask) -> float:
    """1 - ||A| - |B|| / (|A| + |B|): 1 for equal volumes wherever they lie, NaN where both are empty."""
    return _volume_similarity(*_counts(a, b))


def label_overlap(fixed: Labels, warped: Labels, names: Mapping[int, str] | None = None) -> list[Score]:
    """Dice, Jaccard and volume similarity of every label, and the mean Dice.

    Args:
        fixed: labels of the fixed image.
        warped: labels of the moving image brought onto its grid.
        names: which labels to score and what they are called; without it, all but 0 that occur in either image.
    """
    _same_shape(fixed, warped)
    both, sizes_fixed, sizes_warped = _label_counts(fixed, warped)
    if names is None:
        names = {label: str(label) for label in sorted({*sizes_fixed, *sizes_warped} - {0})}
    rows = []
    for label, name in names.items():
        counts = both.get(label, 0), sizes_fixed.get(label, 0), sizes_warped.get(label, 0)
        reason = emptiness(counts[1] > 0, counts[2] > 0)
        rows += [
            Score("dice", _dice(*counts), label=name, reason=reason),
            Score("jaccard", _jaccard(*counts), label=name, reason=reason),
            Score("volume_similarity", _volume_similarity(*counts), label=name, reason=reason),
        ]
    return [*rows, mean_score((row for row in rows if row.metric == "dice"), "dice_mean")]


def emptiness(in_fixed: bool, in_warped: bool) -> str:
    """Why a comparison of two structures has no proper value; empty where it has."""
    if in_fixed and in_warped:
        return ""
    if not in_fixed and not in_warped:
        return "empty in both images"
    return "empty in the warped image" if in_fixed else "empty in the fixed image"


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"two images on one grid have one shape, found {a.shape} and {b.shape}")


def _counts(a: Mask, b: Mask) -> tuple[int, int, int]:
    _same_shape(a, b)
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a)), int(np.count_nonzero(b))


def _label_counts(a: Labels, b: Labels) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Voxels of each label in both, in ``a``, in ``b``; one pass, whatever the number of labels."""

    def sizes(labels: np.ndarray) -> dict[int, int]:
        return dict(zip(*(found.tolist() for found in np.unique(labels, return_counts=True)), strict=True))

    return sizes(a[a == b]), sizes(a), sizes(b)


def _dice(both: int, a: int, b: int) -> float:
    return 2 * both / (a + b) if a + b else math.nan


def _jaccard(both: int, a: int, b: int) -> float:
    return both / (a + b - both) if a + b else math.nan


def _volume_similarity(both: int, a: int, b: int) -> float:
    return 1 - abs(a - b) / (a + b) if a + b else math.nan
