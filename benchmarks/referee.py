"""What is said about a map: plain arrays in, numbers out; every score is ``anamorph.evaluation``'s."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import map_coordinates

from anamorph.evaluation.folding import folding
from anamorph.evaluation.landmarks import target_registration_error_mm
from anamorph.evaluation.overlap import label_overlap
from anamorph.evaluation.surface import surface_distances

Numbers = dict[str, float | int | None]


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values of a NIfTI file and its affine, voxel -> RAS mm."""
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image) or image.affine is None:
        raise TypeError(f"{path.name} is no NIfTI file")
    return np.asarray(image.dataobj), image.affine


def load_field(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An ITK displacement field, or an array I J (K) d on the fixed grid, LPS in the file, as d I J (K) in RAS mm.

    Raises:
        ValueError: it does not lie on the grid that ``affine`` and ``shape`` say.
    """
    values, own = (np.load(path, allow_pickle=False), affine) if path.suffix == ".npy" else load(path)
    ndim = len(shape)
    kept = [*range(ndim), len(own) - 1]
    if values.shape[:ndim] != shape or values.shape[-1] != ndim:
        raise ValueError(f"a map of shape {values.shape} for a fixed image of {shape}")
    if not np.allclose(own[np.ix_(kept, kept)], affine, atol=1e-3):
        raise ValueError("the map lies elsewhere than the fixed image")
    field = np.moveaxis(values.reshape(*shape, ndim), -1, 0).astype(np.float64)
    field[:2] *= -1
    return field


def world_points(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """RAS mm of every voxel, d I J (K)."""
    index = np.indices(shape, dtype=np.float64).reshape(len(shape), -1)
    return (affine[:-1, :-1] @ index + affine[:-1, -1:]).reshape(len(shape), *shape)


def voxels_at(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxel coordinates of world points, d I J (K)."""
    inverse = np.linalg.inv(affine)
    return (inverse[:-1, :-1] @ points.reshape(len(points), -1) + inverse[:-1, -1:]).reshape(points.shape)


def lies_inside(points: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which world points lie between the outer voxel centres of a grid, to a thousandth of a voxel."""
    last = np.array(shape).reshape(-1, *[1] * (points.ndim - 1)) - 1
    voxels = voxels_at(points, affine)
    return np.all((voxels >= -1e-3) & (voxels <= last + 1e-3), axis=0)


def pulled(values: np.ndarray, affine: np.ndarray, points: np.ndarray, order: int) -> np.ndarray:
    """Values of an image at world points, zero beyond it: ``order`` 0 for labels, 1 for intensities."""
    return map_coordinates(values, voxels_at(points, affine), order=order, mode="constant")


def error_of_map(displacement: np.ndarray, truth: np.ndarray, where: np.ndarray) -> Numbers:
    """Distance of where a map leads from where it should, mm; a voxel that leads nowhere makes the numbers null."""
    error = target_registration_error_mm(displacement[:, where].T, truth[:, where].T)
    return _summary(error, "error")


def size_of_map(displacement: np.ndarray, where: np.ndarray) -> Numbers:
    """How far a map moves, mm."""
    return _summary(np.linalg.norm(displacement[:, where], axis=0), "displacement")


def overlap_of_labels(
    fixed: np.ndarray, warped: np.ndarray, spacing: Sequence[float] | np.ndarray, labels: Iterable[int]
) -> Numbers:
    """Mean Dice and mean HD95 over labels; HD95 is null where a label was lost, and ``labels_lost`` counts them."""
    names = {label: str(label) for label in labels}
    dice = [row.value for row in label_overlap(fixed, warped, names) if row.metric == "dice"]
    distances = [surface_distances(fixed == label, warped == label, spacing).hd95_mm for label in names]
    return {
        "dice_mean": number(np.mean(dice)),
        "hd95_mean_mm": number(np.mean(distances)),
        "labels": len(names),
        "labels_lost": sum(not math.isfinite(distance) for distance in distances),
    }


def regularity(displacement: np.ndarray, affine: np.ndarray, mask: np.ndarray) -> Numbers:
    """Folded voxels in the whole image and in the mask, and the SD of the log Jacobian in the mask."""
    everywhere, inside = folding(displacement, affine), folding(displacement, affine, mask)
    return {
        "folded_voxels": everywhere.folded_voxels,
        "folded_share": number(everywhere.folded_fraction),
        "folded_share_mask": number(inside.folded_fraction),
        "sd_log_jacobian": number(inside.sd_log_jacobian),
    }


def number(value: float | np.floating) -> float | None:
    """For JSON, which knows neither NaN nor infinity."""
    return round(float(value), 6) if np.isfinite(value) else None


def _summary(distance: np.ndarray, name: str) -> Numbers:
    if not distance.size:
        return {f"{name}_{key}_mm": None for key in ("mean", "median", "p95")}
    values = {"mean": distance.mean(), "median": np.median(distance), "p95": np.percentile(distance, 95)}
    return {f"{name}_{key}_mm": number(value) for key, value in values.items()}
