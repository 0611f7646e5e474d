"""Everything that is said about one case, put together for ``anamorph evaluate``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from anamorph.evaluation.appearance import appearance_scores, intensity_scores
from anamorph.evaluation.folding import folding_scores, inverse_residual_scores, no_inverse_residual
from anamorph.evaluation.landmarks import landmark_scores
from anamorph.evaluation.map_error import map_error_scores
from anamorph.evaluation.metrics import FAILED
from anamorph.evaluation.overlap import MEASURES, label_overlap
from anamorph.evaluation.scores import Score
from anamorph.evaluation.surface import label_surface

Labels = Int[np.ndarray, "..."]
Values = Float[np.ndarray, "..."]
Displacement = Float[np.ndarray, "ndim ..."]
Points = Float[np.ndarray, "_ _"]

NSD_TOLERANCE_MM = 2.0


@dataclass(frozen=True, eq=False)
class LandmarkPairs:
    """Landmarks of both images in one order, N d, RAS mm, and their names."""

    fixed: Points
    moving: Points
    names: Sequence[str] | None = None


def segmentation_scores(
    truth: Labels,
    predicted: Labels,
    spacing_mm: Sequence[float] | np.ndarray,
    names: Mapping[int, str] | None = None,
    *,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
) -> list[Score]:
    """Every overlap and every distance of each label, and the mean of each over the labels.

    Args:
        truth: I J (K).
        predicted: on the same grid.
        spacing_mm: voxel size of that grid.
        names: which labels to score and what they are called; without it, all but 0 that occur in either image.
        nsd_tolerance_mm: of the normalised surface Dice.
    """
    every = tuple(MEASURES)
    return [
        *label_overlap(truth, predicted, names, every, averaged=every),
        *label_surface(truth, predicted, spacing_mm, names, nsd_tolerance_mm, every=True),
    ]


def registration_scores(
    *,
    displacement_mm: Displacement,
    affine: np.ndarray,
    transform: Callable[[Points], Points] | None = None,
    mask: Bool[np.ndarray, "..."] | None = None,
    fixed: Values | None = None,
    warped: Values | None = None,
    seen: Bool[np.ndarray, "..."] | None = None,
    same_scale: bool = False,
    fixed_labels: Labels | None = None,
    warped_labels: Labels | None = None,
    names: Mapping[int, str] | None = None,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    landmarks: LandmarkPairs | None = None,
    true_mm: Displacement | None = None,
    true_mask: Bool[np.ndarray, "..."] | None = None,
    inverse_mm: Displacement | None = None,
    inverse_affine: np.ndarray | None = None,
    no_inverse: str = "",
    backward_mm: Displacement | None = None,
) -> list[Score]:
    """Folding always; everything else where what it needs is given, both sides of it.

    Args:
        displacement_mm: d I J (K), RAS mm, fixed -> moving, on the fixed grid.
        affine: voxel index -> RAS mm of the fixed grid.
        transform: the same map on world points, N d -> N d; for landmarks.
        mask: where the Jacobian is looked at; everywhere if absent.
        fixed, warped: intensities on the fixed grid.
        seen: where both are compared, as the part of the fixed grid that the moving image covers.
        same_scale: whether both are of one modality and one scale, so that SSIM, RMSE and PSNR mean something.
        fixed_labels, warped_labels: on the fixed grid.
        names: as for ``segmentation_scores``.
        nsd_tolerance_mm: of the normalised surface Dice.
        landmarks: of both images.
        true_mm: the true displacement on the fixed grid, NaN where it is unknown.
        true_mask: where the map is compared with the true one.
        inverse_mm: the map back, moving -> fixed, RAS mm, on a grid of its own.
        inverse_affine: of that grid.
        no_inverse: why there is no map back, where one was wanted.
        backward_mm: what the method itself finds for moving -> fixed, on the same grid, where it finds both.
    """
    rows = _with_per_mille(folding_scores(displacement_mm, affine, mask))
    if inverse_mm is not None and inverse_affine is not None:
        rows += inverse_residual_scores(displacement_mm, affine, inverse_mm, inverse_affine)
    elif no_inverse:
        rows += no_inverse_residual(no_inverse)
    if backward_mm is not None and inverse_affine is not None:
        maps = displacement_mm, affine, backward_mm, inverse_affine
        rows += inverse_residual_scores(*maps, metric="inverse_consistency")
    if true_mm is not None:
        rows += map_error_scores(displacement_mm, true_mm, true_mask)
    if landmarks is not None and transform is not None:
        rows += landmark_scores(landmarks.fixed, landmarks.moving, transform, landmarks.names)
    if fixed_labels is not None and warped_labels is not None:
        spacing_mm = np.linalg.norm(affine[:-1, :-1], axis=0)
        rows += segmentation_scores(fixed_labels, warped_labels, spacing_mm, names, nsd_tolerance_mm=nsd_tolerance_mm)
    if fixed is not None and warped is not None:
        rows += appearance_scores(fixed, warped, seen, same_scale=same_scale)
        rows += intensity_scores(fixed, warped, seen) if same_scale else []
    return rows


def cost_scores(
    seconds: float,
    device: Literal["cpu", "gpu"],
    peak_memory_mib: float | None = None,
    peak_gpu_memory_mib: float | None = None,
) -> list[Score]:
    """What a result took: seconds on the CPU or the GPU, and the largest memory held, MiB, of either where known."""
    rows = [Score(f"seconds_{device}", seconds, "s")]
    memory = {"peak_memory_mib": peak_memory_mib, "peak_gpu_memory_mib": peak_gpu_memory_mib}
    return rows + [Score(name, value, "MiB") for name, value in memory.items() if value is not None]


def failed_case(reason: str) -> list[Score]:
    """The one row of a case for which a method has no result at all, and why; ``compare`` counts it as a failure."""
    return [Score(FAILED, math.nan, reason=reason)]


def _with_per_mille(rows: list[Score]) -> list[Score]:
    """The same share of folded voxels in thousandths, as papers state it."""
    (share,) = (row for row in rows if row.metric == "folded_fraction")
    return [*rows, replace(share, metric="folded_per_mille", value=1000 * share.value, unit="‰")]
