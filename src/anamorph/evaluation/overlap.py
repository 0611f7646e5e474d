"""How far two segmentations cover the same voxels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from anamorph.evaluation.scores import Score, mean_score

Mask = Bool[np.ndarray, "..."]
Labels = Int[np.ndarray, "..."]

EMPTY_IN_BOTH = "empty in both images"
"""The one reason for which a missing number is no failure: there was nothing to find, and nothing was found."""

CONCISE = ("dice", "jaccard", "volume_similarity")
"""What a single registration is told by."""


def dice(a: Mask, b: Mask) -> float:
    """2 |A n B| / (|A| + |B|): 1 at best, 0 where one is empty, NaN where both are."""
    return _dice(*_counts(a, b))


def jaccard(a: Mask, b: Mask) -> float:
    """|A n B| / |A u B|: 1 at best, 0 where one is empty, NaN where both are."""
    return _jaccard(*_counts(a, b))


def volume_similarity(a: Mask, b: Mask) -> float:
    """1 - ||A| - |B|| / (|A| + |B|): 1 for equal volumes wherever they lie, NaN where both are empty."""
    return _volume_similarity(*_counts(a, b))


def recall(truth: Mask, predicted: Mask) -> float:
    """The share of the truth that is found, |A n B| / |A|: NaN where the truth is empty."""
    return _recall(*_counts(truth, predicted))


def precision(truth: Mask, predicted: Mask) -> float:
    """The share of the prediction that is true, |A n B| / |B|: NaN where the prediction is empty."""
    return _precision(*_counts(truth, predicted))


def relative_volume_difference(truth: Mask, predicted: Mask) -> float:
    """||B| / |A| - 1|: 0 for equal volumes, infinite where the truth alone is empty, NaN where both are."""
    return _relative_volume_difference(*_counts(truth, predicted))


def volumetric_overlap_error(truth: Mask, predicted: Mask) -> float:
    """1 - |A n B| / |A u B|: 0 at best, 1 where one is empty, NaN where both are."""
    return _volumetric_overlap_error(*_counts(truth, predicted))


def label_overlap(
    fixed: Labels,
    warped: Labels,
    names: Mapping[int, str] | None = None,
    measures: Sequence[str] = CONCISE,
    averaged: Sequence[str] = ("dice",),
) -> list[Score]:
    """Dice, Jaccard and volume similarity of every label, and the mean Dice; or other measures and means.

    Args:
        fixed: labels of the fixed image, or the truth.
        warped: labels of the moving image brought onto its grid, or a prediction.
        names: which labels to score and what they are called; without it, all but 0 that occur in either image.
        measures: out of ``MEASURES``.
        averaged: those whose mean over the labels is added, as ``NAME_mean``.
    """
    _same_shape(fixed, warped)
    both, sizes_fixed, sizes_warped = _label_counts(fixed, warped)
    if names is None:
        names = {label: str(label) for label in sorted({*sizes_fixed, *sizes_warped} - {0})}
    rows = []
    for label, name in names.items():
        counts = both.get(label, 0), sizes_fixed.get(label, 0), sizes_warped.get(label, 0)
        reason = emptiness(counts[1] > 0, counts[2] > 0)
        rows += [Score(measure, MEASURES[measure](*counts), label=name, reason=reason) for measure in measures]
    means = [mean_score((row for row in rows if row.metric == measure), f"{measure}_mean") for measure in averaged]
    return [*rows, *means]


def emptiness(in_fixed: bool, in_warped: bool) -> str:
    """Why a comparison of two structures has no proper value; empty where it has."""
    if in_fixed and in_warped:
        return ""
    if not in_fixed and not in_warped:
        return EMPTY_IN_BOTH
    return "empty in the result" if in_fixed else "empty in the truth"


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


def _recall(both: int, a: int, b: int) -> float:
    return both / a if a else math.nan


def _precision(both: int, a: int, b: int) -> float:
    return both / b if b else math.nan


def _relative_volume_difference(both: int, a: int, b: int) -> float:
    if not a:
        return math.inf if b else math.nan
    return abs(b / a - 1)


def _volumetric_overlap_error(both: int, a: int, b: int) -> float:
    return 1 - _jaccard(both, a, b)


MEASURES: dict[str, Callable[[int, int, int], float]] = {
    "dice": _dice,
    "jaccard": _jaccard,
    "volume_similarity": _volume_similarity,
    "recall": _recall,
    "precision": _precision,
    "rvd": _relative_volume_difference,
    "voe": _volumetric_overlap_error,
}
"""Measure -> its value from the voxels in both, in the truth and in the prediction."""
