"""Random changes to a batch: images move with their labels, masks and points, and their intensities vary.

An item's changes depend on its seed alone, not on the batch it is in: a resumed run, or one dealt out to processes,
sees the same data. An item's maps are drawn before its intensities, those of ``fixed`` before those of ``moving``.

Spatial kinds make one map, applied once:

    augmented(x) = original(A(x + e(x)))       A: scale, then rotation about the middle of the grid (in mm), translation
                                               e: cubic B-spline of random coefficients, in voxels

Intensities are read linearly, labels and masks from the nearest voxel. What comes from beyond the image has its
smallest value (of that channel), the background's label and no mask. Coefficients of e up to 0.40 of their spacing
(0.48 in 2-D) never fold: Y. Choi and S. Lee (2000), doi:10.1006/gmod.2000.0531.

Kinds of intensity follow, in this order: gamma, bias, blur, anisotropy, noise. Gamma and bias are MONAI's; its blur
darkens the border, and its noise and low resolution know neither the image's contrast nor a single axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.losses.windows import LocalMean, gaussian_taps
from anamorph.methods.base import Batch
from anamorph.methods.schedule import Augmentation
from anamorph.pairwise.velocity import along_axes, spline_matrix
from anamorph.spatial.affine import affine_displacement, matrix_from_parameters
from anamorph.spatial.field import resize, sample, warp
from anamorph.types import DisplacementBatch, ImageBatch

BELONGINGS = {
    "image": ("labels", "mask"),
    "fixed": ("fixed_labels", "fixed_mask"),
    "moving": ("moving_labels", "moving_mask"),
}
"""What moves with each image."""

ITERATIONS = 60
"""Of the search for a moved point; each halves the error where the map stretches little."""


@torch.no_grad()
def augment(
    batch: Batch, augmentation: Augmentation, seeds: Sequence[int | None], spacing: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """A batch with random changes; tensors that nothing happens to are the very same.

    Args:
        batch: pairs or cases, as in ``methods/base.py``, on any device.
        augmentation: kinds and sizes.
        seeds: one an item; None for one that stays as it is.
        spacing: mm per voxel of the grid, for rotations; cubes if absent.
    """
    images = [name for name in BELONGINGS if name in batch]
    first = batch[images[0]]
    if len(seeds) != len(first):
        raise ValueError(f"one seed an item, found {len(seeds)} for {len(first)}")
    changed: dict[str, dict[int, Tensor]] = {}
    for item, seed in enumerate(seeds):
        if seed is None:
            continue
        generator = torch.Generator().manual_seed(seed)
        maps = spatial_displacements(augmentation, first.shape[2:], len(images), generator, spacing, first.device)
        for name, displacement in zip(images, maps, strict=True):
            image = before = batch[name][item : item + 1]
            if displacement is not None:
                image = _warp(image, displacement)
                for other in BELONGINGS[name]:
                    if other in batch:
                        moved = warp(batch[other][item : item + 1], displacement, mode="nearest")
                        changed.setdefault(other, {})[item] = moved
            image = _with_other_intensities(image, augmentation, generator)
            if image is not before:
                changed.setdefault(name, {})[item] = image
    result = dict(batch)
    for name, items in changed.items():
        result[name] = torch.cat([items.get(item, batch[name][item : item + 1]) for item in range(len(seeds))])
    return result


def spatial_displacements(
    augmentation: Augmentation,
    shape: Sequence[int],
    images: int,
    generator: torch.Generator,
    spacing: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> list[DisplacementBatch | None]:
    """The maps of an item's images, 1 d I J (K) in voxels; None for one that stays where it is.

    Args:
        augmentation: kinds and sizes.
        shape: of the grid.
        images: their number, 2 for a pair.
        generator: on the CPU; seeded with an item's seed it gives the maps that ``augment`` uses.
        spacing: mm per voxel.
        device: of the result.
    """
    if images > 1 and augmentation.same_for_pair:
        return spatial_displacements(augmentation, shape, 1, generator, spacing, device) * images
    return [_spatial_displacement(augmentation, shape, generator, spacing, device) for _ in range(images)]


def move_points(
    points: Float[Tensor, "batch ndim points"], displacement: DisplacementBatch
) -> Float[Tensor, "batch ndim points"]:
    """Where points of an image lie once it is warped: y with y + u(y) = point.

    Args:
        points: voxel coordinates, B d N.
        displacement: of the warp, B d I J (K), without folds.
    """
    moved = points
    for _ in range(ITERATIONS):
        moved = moved - (moved + sample(displacement, moved, outside="border") - points) / 2
    return moved


def _spatial_displacement(
    augmentation: Augmentation,
    shape: Sequence[int],
    generator: torch.Generator,
    spacing: Sequence[float] | None,
    device: torch.device | str,
) -> DisplacementBatch | None:
    """``affine_displacement(A) + L e``, which is A(x + e(x)) - x for A(x) = L x + t."""
    matrix = _affine(augmentation, shape, generator, spacing)
    bend = _elastic(augmentation, shape, generator, device)
    if matrix is None:
        return bend
    whole = affine_displacement(matrix.to(device, torch.float32), shape)
    return whole if bend is None else whole + torch.einsum("bij,bj...->bi...", matrix[:, :-1, :-1].to(bend), bend)


def _affine(
    augmentation: Augmentation, shape: Sequence[int], generator: torch.Generator, spacing: Sequence[float] | None
) -> Tensor | None:
    """A random matrix between voxel coordinates, 1 (d+1) (d+1), float64."""
    ndim, pairs = len(shape), len(shape) * (len(shape) - 1) // 2
    edge = torch.ones(ndim) if spacing is None else torch.tensor(spacing)
    p = augmentation.probability
    shift = _drawn(augmentation.translation, ndim, p, generator)
    turn = _drawn(math.radians(augmentation.rotation), pairs, p, generator)
    stretch = _drawn(augmentation.scale, ndim, p, generator)
    if shift is turn is stretch is None:
        return None
    still, straight = torch.zeros(ndim), torch.zeros(pairs)
    parts = [
        still if shift is None else shift * edge,
        straight if turn is None else turn,
        still if stretch is None else stretch.log1p(),
        straight,
    ]
    centre = [(n - 1) / 2 * e for n, e in zip(shape, edge.tolist(), strict=True)]
    in_mm = matrix_from_parameters(torch.cat(parts).double().unsqueeze(0), "affine", ndim, centre)
    to_mm = torch.cat([edge, torch.ones(1)]).double()
    return in_mm * to_mm / to_mm.unsqueeze(1)


def _elastic(
    augmentation: Augmentation, shape: Sequence[int], generator: torch.Generator, device: torch.device | str
) -> DisplacementBatch | None:
    """A random cubic B-spline, 1 d I J (K) in voxels; the first control point lies one spacing before the grid."""
    positions = [1 + np.arange(n) / augmentation.elastic_spacing for n in shape]
    lattice = (1, len(shape), *[math.floor(along[-1]) + 3 for along in positions])
    drawn = _drawn(augmentation.elastic, math.prod(lattice), augmentation.probability, generator)
    if drawn is None:
        return None
    matrices = [
        torch.from_numpy(spline_matrix(nodes, along)).float()
        for nodes, along in zip(lattice[2:], positions, strict=True)
    ]
    return along_axes(drawn.view(lattice).to(device), matrices)


def _drawn(size: float, number: int, probability: float, generator: torch.Generator) -> Tensor | None:
    """Numbers between -size and size, or None where the kind is off or passes this item by."""
    if size == 0 or float(torch.rand(1, generator=generator)) >= probability:
        return None
    return size * (2 * torch.rand(number, generator=generator) - 1)


def _warp(image: ImageBatch, displacement: DisplacementBatch) -> ImageBatch:
    lowest = _lowest(image)
    return warp(image - lowest, displacement) + lowest


def _lowest(image: ImageBatch) -> Float[Tensor, "batch channels *ones"]:
    """The smallest value of each channel."""
    return image.amin(tuple(range(2, image.ndim)), keepdim=True)


def _with_other_intensities(image: ImageBatch, augmentation: Augmentation, generator: torch.Generator) -> ImageBatch:
    """One image, 1 C I J (K), after the kinds that fall to it."""

    def size_of(kind: float) -> float | None:
        found = _drawn(kind, 1, augmentation.probability, generator)
        return None if found is None else float(found)

    if (logarithm := size_of(augmentation.gamma)) is not None:
        image = _gamma(image, math.exp(logarithm))
    if size_of(augmentation.bias) is not None:
        image = _bias(image, augmentation.bias, generator)
    if sigma := size_of(augmentation.blur):
        image = LocalMean(image, None, gaussian_taps(abs(sigma)))(image)
    if (more := size_of(max(0.0, augmentation.anisotropy - 1))) is not None:
        image = _anisotropy(image, 1 + abs(more), generator)
    if (deviation := size_of(augmentation.noise)) is not None:
        spread = image.std(correction=0) * abs(deviation)
        image = image + spread * torch.randn(image.shape, generator=generator).to(image)
    return image


def _gamma(image: ImageBatch, exponent: float) -> ImageBatch:
    """Each channel to a power between its extremes."""
    from monai.transforms.intensity.array import AdjustContrast  # costs seconds
    from monai.utils.type_conversion import convert_to_tensor

    adjust = AdjustContrast(exponent)
    return torch.stack([convert_to_tensor(adjust(channel), track_meta=False) for channel in image[0]]).unsqueeze(0)


def _bias(image: ImageBatch, size: float, generator: torch.Generator) -> ImageBatch:
    """What lies above each channel's smallest value times one smooth field, the exponential of a random polynomial."""
    from monai.transforms.intensity.array import RandBiasField  # costs seconds
    from monai.utils.type_conversion import convert_to_tensor

    random = RandBiasField(coeff_range=(-size, size), prob=1.0)
    random.set_random_state(seed=int(torch.randint(2**31, (1,), generator=generator)))
    field = convert_to_tensor(random(torch.ones(1, *image.shape[2:])), track_meta=False)
    lowest = _lowest(image)
    return lowest + (image - lowest) * field.to(image)


def _anisotropy(image: ImageBatch, factor: float, generator: torch.Generator) -> ImageBatch:
    """As if one axis had been sampled ``factor`` times more coarsely, and interpolated since."""
    axis = int(torch.randint(image.ndim - 2, (1,), generator=generator))
    coarse = list(image.shape[2:])
    coarse[axis] = max(1, round(coarse[axis] / factor))
    return resize(resize(image, coarse), image.shape[2:])
