"""What a file holds, whatever its format: voxels as stored, where they are, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Shaped
from torch import Tensor

from anamorph.data.image import Image, Labelmap, Mask, ReadPolicy
from anamorph.errors import InputError, NumericalError, warn
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import resample

SAME_MM = 1e-3
"""Corner distance below which two grids are the same place."""
FEWEST_MASK_VOXELS = 50
SUSPICIOUS_MASK_FRACTION = 0.95

PLAUSIBLE_SPACING_MM = (1e-4, 1e3)
SLICES_AT_ONCE = 16
PARALLEL = 1e-6
"""A slice is parallel to a world plane when its axes leave the plane by less than this fraction of their length."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume of a file.

    Args:
        values: I J (K) in the type and byte order of the file.
        grid: where the voxels are.
        slope: stored values times this ...
        inter: ... plus this are the values meant.
        path: of the file.
    """

    values: Shaped[np.ndarray, "*spatial"]
    grid: Grid
    slope: float = 1.0
    inter: float = 0.0
    path: Path = field(default_factory=Path)

    @property
    def scaled(self) -> bool:
        """Whether the stored values are not the values meant."""
        return (self.slope, self.inter) != (1.0, 0.0)

    def intensities(self) -> Float32[np.ndarray, "1 *spatial"]:
        """The values meant, rescaled in float64 and rounded once, in C order with a channel axis.

        Slab by slab, so that hardly more than the result is held besides ``values``.
        """
        result = np.empty((1, *self.values.shape), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # Inf and NaN are counted by the image
            for start in range(0, self.values.shape[-1], SLICES_AT_ONCE):
                slab = (..., slice(start, start + SLICES_AT_ONCE))
                stored = self.values[slab]
                result[0][slab] = stored * np.float64(self.slope) + self.inter if self.scaled else stored
        return result

    def image(self, policy: ReadPolicy, modality: str | None = None) -> Image:
        """The intensities; NaN and Inf as the policy says."""
        name = self.path.name
        return Image.from_values(self.intensities(), self.grid, modality, nonfinite=policy.nonfinite, name=name)

    def labels(self) -> Labelmap:
        """The values as integers, exactly.

        Raises:
            InputError: values that are no integers, or stored through a scale that makes none.
        """
        values = self.values
        if self.scaled:
            if not (float(self.slope).is_integer() and float(self.inter).is_integer()):
                found = f"labels stored with scl_slope {self.slope:g} and scl_inter {self.inter:g}"
                raise InputError("E-LAB-004", found, file=self.path, do="save the labels as plain integers")
            values = values.astype(np.float64) * self.slope + self.inter
        stored = self.values.dtype.newbyteorder("=")
        labels = Labelmap.from_array(values, self.grid.affine, name=self.path.name)
        return Labelmap(labels.data, labels.grid, stored, name=labels.name)

    def mask(self, grid: Grid | None = None) -> Mask:
        """Where the values exceed 0.5, on ``grid`` if one is given.

        Raises:
            InputError: nothing inside, NaN or Inf, no overlap with ``grid``.
            NumericalError: hardly any voxels inside.
        """
        inside = self._above_half()
        if not inside.any():
            raise InputError("E-MSK-013", "an empty mask", file=self.path, expected="values above 0.5 where to look")
        if grid is not None and (millimetres := self.grid.distance_mm(grid)) > SAME_MM:
            inside = self._resampled(inside, grid, millimetres)
        mask = Mask(inside, grid or self.grid, self.path.name)
        count = int(inside.sum())
        if count < FEWEST_MASK_VOXELS:
            found = f"a mask of {count} voxels"
            raise NumericalError("E-MSK-014", found, file=self.path, expected=f"{FEWEST_MASK_VOXELS} or more")
        touched = all(bool(inside.select(axis, end).any()) for axis in range(inside.ndim) for end in (0, -1))
        fraction = count / inside.numel()
        if touched or fraction > SUSPICIOUS_MASK_FRACTION:
            reach = "touches every border" if touched else "leaves hardly anything out"
            warn("W-MSK-015", f"covers {fraction:.0%} and {reach}; is it inverted? 1 means use", file=self.path)
        return mask

    def _above_half(self) -> Bool[Tensor, "*spatial"]:
        values = self.intensities()[0] if self.scaled else self.values
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError("E-MSK-001", "NaN or Inf in a mask", file=self.path, expected="0 and 1")
        low, high = values.min(), values.max()
        if low < 0 or not ((values == 0) | (values == high)).all():
            warn("W-MSK-015", f"values from {low:g} to {high:g}: inside is what exceeds 0.5", file=self.path)
        return torch.from_numpy(np.ascontiguousarray(values > 0.5))

    def _resampled(self, inside: Bool[Tensor, "*source"], grid: Grid, millimetres: float) -> Bool[Tensor, "*target"]:
        if self.grid.ndim != grid.ndim:
            raise InputError("E-MSK-016", f"a {self.grid.ndim}-D mask", file=self.path, expected=f"{grid.ndim}-D")
        shapes = f"{self.grid.shape} instead of {grid.shape}"
        apart = f"{millimetres:.3g} mm apart" if np.isfinite(millimetres) else shapes
        warn("W-MSK-016", f"lies on another grid ({apart}); resampled in world space", file=self.path)
        result = resample(inside[None].float(), self.grid, grid, mode="nearest")[0] > 0.5
        if not result.any():
            raise InputError("E-MSK-016", "does not overlap the image", file=self.path, expected="a mask in its space")
        return result


def choose_volume(shape: tuple[int, ...], policy: ReadPolicy, path: Path) -> tuple[tuple[int, ...], int, int]:
    """The three spatial lengths of a file's ``shape``, how many volumes it holds and which one to read.

    A 2-D file counts as one slice. Raises ``InputError`` for one axis, vectors, and several volumes without a choice.
    """
    if len(shape) < 2:
        raise InputError("E-GEO-019", f"{len(shape)} axis", file=path, expected="a 2-D or 3-D image")
    spatial = (*shape[:3], 1)[:3]
    if any(length > 1 for length in shape[4:]):
        raise InputError(
            "E-GEO-018",
            f"{len(shape)} axes of shape {shape}: this is a displacement field or another vector image",
            file=path,
            expected="one value a voxel",
            do="give it where a transform is asked for",
        )
    volumes = shape[3] if len(shape) > 3 else 1
    if volumes > 1 and policy.volume is None:
        raise InputError(
            "E-GEO-017", f"{volumes} volumes", file=path, expected="one", do=f"choose --volume 0 to {volumes - 1}"
        )
    volume = policy.volume or 0
    if not 0 <= volume < volumes:
        raise InputError("E-GEO-017", f"no volume {volume}", file=path, expected=f"0 to {volumes - 1}")
    if len(shape) > 3 and volumes == 1:
        warn("W-GEO-016", f"shape {shape} read as {'x'.join(map(str, spatial))}", file=path)
    return spatial, volumes, volume


def in_plane_axes(spatial: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """The axes of an image that extend: three, or the two of a single slice."""
    axes = tuple(axis for axis, length in enumerate(spatial) if length > 1)
    if len(axes) < 2:
        raise InputError("E-GEO-019", f"{'x'.join(map(str, spatial))} voxels", file=path, expected="a 2-D or 3-D image")
    return axes


def affine_problem(affine: np.ndarray, axes: tuple[int, ...]) -> str:
    """Why an affine cannot place the voxels along ``axes``, or an empty string."""
    columns = affine[:-1, [*axes, -1]]
    if not np.isfinite(columns).all():
        return "not finite"
    return "singular" if np.linalg.matrix_rank(columns[:, :-1]) < len(axes) else ""


def place(values: Shaped[np.ndarray, "..."], affine: np.ndarray, policy: ReadPolicy, path: Path) -> Volume:
    """Puts stored voxels (2-D, 3-D or one slice of 3-D) into the world, checking the affine.

    A slice that is parallel to a world plane keeps the plane's two world coordinates; an oblique one gets millimetres
    along its own axes, with a warning.
    """
    axes = in_plane_axes(values.shape, path)
    if problem := affine_problem(affine, axes):
        code = "E-GEO-007" if problem == "not finite" else "E-GEO-006"
        raise InputError(code, f"the voxel-to-world matrix is {problem}", file=path, expected="an invertible one")
    if len(axes) == values.ndim:
        grid = Grid(values.shape, affine)
    else:
        values = values.reshape([values.shape[axis] for axis in axes], order="F")
        grid = Grid(values.shape, flat_affine(affine[:3, [*axes, -1]], path))
    _check_spacing(grid, policy, path)
    return Volume(values, grid, path=path)


def flat_affine(columns: np.ndarray, path: Path) -> np.ndarray:
    """3 x 3 affine of a slice whose two axes and origin are the columns of a 3 x 3 matrix in world coordinates."""
    lengths = np.linalg.norm(columns[:, :2], axis=0)
    across = np.abs(columns[:, :2] / lengths).max(axis=1) < PARALLEL
    if across.any():
        basis = np.eye(3)[~across][:2]
    else:
        basis = np.linalg.qr(columns[:, :2])[0].T
        basis *= np.sign(np.sum(basis * columns[:, :2].T, axis=1))[:, None]
        warn("W-GEO-019", "an oblique slice: placed in mm along its own axes, not in world coordinates", file=path)
    return np.vstack([basis @ columns, [0, 0, 1]])


def _check_spacing(grid: Grid, policy: ReadPolicy, path: Path) -> None:
    low, high = PLAUSIBLE_SPACING_MM
    if low <= grid.spacing.min() and grid.spacing.max() <= high:
        return
    found = f"voxels of {' x '.join(f'{length:.3g}' for length in grid.spacing)} mm"
    if policy.strict:
        raise InputError("E-GEO-010", found, file=path, expected="a plausible size", do="correct the unit")
    warn("W-GEO-010", f"{found}; is the unit right?", file=path)
