"""Between an image's own grid and the one that networks see, there and back.

The network's grid lies along the world's axes, in the plan's orientation, spacing and shape. Where an image is aligned
to another world by A, the grid of that world goes with it: its affine is A times the affine there, so it may shear. A
voxel of the network is then the same anatomy in all images, and everything found there goes back through that grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int16, Int64, Integer, Shaped
from scipy.ndimage import find_objects, gaussian_filter
from torch import Tensor

from anamorph.data.files import label_dtype
from anamorph.data.image import Image, Labelmap, Mask
from anamorph.data.intensity import rescaling
from anamorph.data.plan import DIRECTIONS, Intensity, Plan
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Velocity, resample

CONTENT_SHARE = 0.1
"""Brightness, between background and bright tissue, from which a voxel counts as content."""

ON_LATTICE = 1e-4
"""How far, in voxels, a matrix may stray from whole numbers to count as one of them."""

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian of unit deviation."""

TRUNCATE = 3.0
"""Deviations at which the Gaussian is cut off."""

FADED = 0.01
"""Share of valid voxels below which a resampled voxel is background."""

Box = tuple[Any, ...]


def network_grid(
    image: Image, plan: Plan, alignment: Affine | None = None, *, middle: np.ndarray | None = None
) -> Grid:
    """The network's grid in the image's own world.

    Where nothing is aligned and an axis keeps its spacing, its voxels are the image's, so that nothing is blurred.

    Args:
        image: what is to be seen.
        plan: axes, spacing, shape, and what stands in the middle.
        alignment: reference world -> the image's world.
        middle: world point in the middle of the grid, in the reference's world; by default the plan's, and if it has
            none the image's own, carried back there, with the plan's offset.

    Raises:
        InputError: E-COH-041, image or alignment are of another dimension than the plan.
    """
    ndim = plan.ndim
    for what, found in (("image", image.grid.ndim), ("alignment", ndim if alignment is None else alignment.ndim)):
        if found != ndim:
            expected = f"{ndim}-D as the plan says"
            raise InputError("E-COH-041", f"a {found}-D {what}", file=image.name or None, expected=expected)
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = 0
    for column, (letter, spacing) in enumerate(zip(plan.orientation, plan.spacing, strict=True)):
        axis, sign = DIRECTIONS[letter]
        affine[axis, column] = sign * spacing
    matrix = np.eye(ndim + 1) if alignment is None else alignment.matrix
    own = middle is None and plan.middle is None
    if middle is None:
        middle = _planned_middle(image, plan, alignment)
    affine[:-1, -1] = middle - affine[:-1, :-1] @ ((np.array(plan.shape) - 1) / 2)
    if own and alignment is None:
        affine = _on_lattice(affine, image.grid)
    return Grid(plan.shape, matrix @ affine)


def _planned_middle(image: Image, plan: Plan, alignment: Affine | None) -> np.ndarray:
    """In the reference's world: the plan's middle, or the image's own carried back there, and the offset from it."""
    if plan.middle is not None:
        middle = np.array(plan.middle)
    else:
        middle = middle_of(image, plan)
        if alignment is not None:
            middle = alignment.inverse()(middle[None])[0]
    return middle + np.array(plan.offset or [0.0] * plan.ndim)


def middle_of(image: Image, plan: Plan) -> np.ndarray:
    """World point in the middle of the image, or of the box around its content (98 % of it along each axis)."""
    if plan.centre == "view":
        return image.grid.centre
    values = image.data[0]
    background, bright = (float(end) for end in np.percentile(values.numpy(), [0.5, 99.0]))
    content = values > background + CONTENT_SHARE * (bright - background)
    if not bool(content.any()):
        return image.grid.centre
    voxel = []
    for axis, n in enumerate(image.grid.shape):
        others = [a for a in range(content.dim()) if a != axis]
        below = np.cumsum(content.sum(others, dtype=torch.float64).numpy())
        first, last = np.searchsorted(below, below[-1] * np.array([0.01, 0.99])).clip(0, n - 1)
        voxel.append((first + last) / 2)
    return image.grid.to_world(np.array(voxel))


def image_to_network(
    image: Image, plan: Plan, grid: Grid, mask: Mask | None = None, *, measured_on: Image | None = None
) -> Float32[Tensor, "channels *net"]:
    """Normalised intensities on the network's grid: C I J (K).

    Normalised first and interpolated then, so that a hot voxel is cut before it spreads. Where the network's voxels are
    larger, a Gaussian smooths beforehand. Voxels that are not valid have no part in it; outside the image is its
    background.

    Args:
        image: its ``modality`` names the plan's intensity; without one, the plan's only intensity holds.
        plan: channels and intensities.
        grid: from ``network_grid``.
        mask: on the grid of what is measured, for an intensity whose content is "mask".
        measured_on: where percentiles, mean and variance are taken from; the image itself if absent.

    Raises:
        InputError: E-COH-042, a modality that the plan does not know; E-COH-043, other channels than the plan's.
    """
    intensity = intensity_of(image, plan)
    if len(image.data) != plan.channels:
        found = f"{len(image.data)} channels"
        raise InputError("E-COH-043", found, file=image.name or None, expected=f"{plan.channels} as the plan says")
    inside, measured = None if mask is None else mask.data, measured_on or image
    result = torch.empty((plan.channels, *grid.shape))
    for channel, values in enumerate(image.data):
        scale = rescaling(measured.data[channel], intensity, inside, measured.valid)
        seen = scale(values) - scale.ground
        if image.valid is None:
            result[channel] = _resampled(seen[None], image.grid, grid)[0]
        else:
            weight = image.valid.float()
            total, weight = _resampled(torch.stack([seen * weight, weight]), image.grid, grid)
            result[channel] = torch.where(weight > FADED, total / weight.clamp_min(FADED), 0.0)
        result[channel] += scale.ground
    return result


def intensity_of(image: Image, plan: Plan) -> Intensity:
    """The plan's intensity for an image.

    Raises:
        InputError: E-COH-042, the plan does not know its modality.
    """
    if image.modality is None and len(plan.modalities) == 1:
        return next(iter(plan.modalities.values()))
    if image.modality not in plan.modalities:
        found = "no modality" if image.modality is None else f"modality {image.modality!r}"
        raise InputError("E-COH-042", found, file=image.name or None, expected=" or ".join(plan.modalities))
    return plan.modalities[image.modality]


def labels_to_network(labels: Labelmap, plan: Plan, grid: Grid) -> Int64[Tensor, "*net"]:
    """Classes on the network's grid: 0, and 1, 2, ... in the order of the plan's labels; other values become 0.

    Each class is interpolated alone, and the largest share wins, the lower class at a tie. A label that counts as
    another (``plan.learn_as``) is one with it before.
    """
    classes = torch.from_numpy(_classes(counted_as(labels.data.numpy(), plan.learn_as), list(plan.labels)))
    if _is_lattice(grid.to_grid(labels.grid)):
        return resample(classes[None], labels.grid, grid, mode="nearest")[0].long()
    boxes = {number: box for number, box in enumerate(find_objects(classes.numpy()), 1) if box is not None}
    return _elected(lambda number, box: classes[box] == number, boxes, labels.grid, grid).long()


def counted_as(labels: Integer[np.ndarray, "..."], learn_as: Mapping[int, int]) -> Integer[np.ndarray, "..."]:
    """Label values with those that count as others replaced; the very same where none does."""
    if not learn_as:
        return labels
    result = labels.astype(np.result_type(labels.dtype, *map(np.min_scalar_type, learn_as.values())))
    for label, counted in learn_as.items():
        result[labels == label] = counted
    return result


def mask_to_network(mask: Bool[Tensor, "*source"], source: Grid, grid: Grid) -> Bool[Tensor, "*net"]:
    """Which voxels of the network's grid lie in a mask on ``source`` by more than half."""
    return _resampled(mask[None].float(), source, grid)[0] > 0.5


def labels_to_native(probabilities: Float[Tensor, "classes *net"], plan: Plan, grid: Grid, native: Grid) -> Labelmap:
    """The likeliest label of every voxel of an image's own grid; outside the network's grid the background.

    Args:
        probabilities: of the background and the plan's labels in order, summing to 1: (1 + classes) I J (K).
        plan: the labels' values and names.
        grid: where the probabilities are.
        native: the image's grid.

    Raises:
        ValueError: the number of probabilities is not that of the plan's labels and one.
    """
    if len(probabilities) != 1 + len(plan.labels):
        raise ValueError(f"{len(probabilities)} probabilities for {len(plan.labels)} labels and the background")
    layers = probabilities.detach()
    if _is_lattice(native.to_grid(grid)):
        winner = resample(layers.argmax(0)[None].short(), grid, native, mode="nearest")[0]
    else:
        # Whatever wins between voxels has this much in one of them, so a class is looked at nowhere else.
        least = 0.5 / len(layers)
        found = {
            number: find_objects((layer >= least).to("cpu", torch.uint8).numpy()) for number, layer in enumerate(layers)
        }
        boxes = {number: objects[0] for number, objects in found.items() if objects and number > 0}
        winner = _elected(lambda number, box: layers[number][box], boxes, grid, native)
    values = np.array([0, *plan.labels], dtype=np.int64)
    dtype = label_dtype(values, np.dtype(np.uint8))
    wide = np.int32 if np.iinfo(np.int32).min <= values.min() and values.max() <= np.iinfo(np.int32).max else np.int64
    return Labelmap(torch.from_numpy(values.astype(wide)[winner.cpu().numpy()]), native, dtype, dict(plan.labels))


def network_transform(
    displacement: Float[Tensor, "ndim *net"],
    fixed_grid: Grid,
    moving_grid: Grid,
    velocity: Float[Tensor, "ndim *net"] | None = None,
    squarings: int = 7,
) -> Chain:
    """The map from fixed world to moving world that a displacement of the network's voxels stands for.

    With F and M the affines of the two grids, a fixed point F(x) goes to M(x + u(x)): by F's linear part times u on the
    fixed grid, and then by M F^-1.

    Args:
        displacement: d I J (K), voxels.
        fixed_grid: the network's grid in the fixed image's world.
        moving_grid: the same in the moving image's.
        velocity: the stationary velocity whose flow the displacement is, voxels; with it the map has an exact inverse.
        squarings: of that flow.
    """
    linear = torch.tensor(fixed_grid.affine[:-1, :-1]).to(displacement)
    between = Affine(moving_grid.affine @ fixed_grid.inverse_affine)
    if velocity is None:
        return Chain((Field(torch.tensordot(linear, displacement, dims=1), fixed_grid), between))
    return Chain((Velocity(torch.tensordot(linear, velocity, dims=1), fixed_grid, squarings), between))


def _on_lattice(affine: np.ndarray, grid: Grid) -> np.ndarray:
    """Moved by less than a voxel of ``grid``, so that voxels meet along axes that both share."""
    between = grid.inverse_affine @ affine
    shift = np.zeros(grid.ndim)
    for axis, row in enumerate(between[:-1, :-1]):
        if np.abs(np.sort(np.abs(row)) - np.eye(grid.ndim)[-1]).max() < ON_LATTICE:
            shift[axis] = np.floor(between[axis, -1] + 0.5 + ON_LATTICE) - between[axis, -1]
    moved = affine.copy()
    moved[:-1, -1] += grid.affine[:-1, :-1] @ shift
    return moved


def _is_lattice(between: np.ndarray) -> bool:
    """Whether a matrix between voxels puts them onto voxels."""
    return bool(np.abs(between - np.rint(between)).max() < ON_LATTICE)


def _sigma(source: Grid, target: Grid) -> np.ndarray:
    """Deviation of the Gaussian, in voxels of ``source``, that makes its voxels as wide as those of ``target``.

    Source: M. J. Cardoso et al. (2015), Scale factor point spread function matching: beyond aliasing in image
    resampling, doi:10.1007/978-3-319-24571-3_81.
    """
    factor = np.linalg.norm(target.to_grid(source)[:-1, :-1], axis=1)
    return np.sqrt(np.maximum(factor**2 - 1, 0)) / FWHM * (factor > 1 + ON_LATTICE)


def _resampled(data: Shaped[Tensor, "channels *source"], source: Grid, target: Grid) -> Float[Tensor, "channels *net"]:
    """``resample``, after smoothing where the target is coarser."""
    sigma = _sigma(source, target)
    if sigma.any():
        values = data.cpu().numpy()
        data = torch.from_numpy(
            np.stack([gaussian_filter(channel, sigma, mode="nearest", truncate=TRUNCATE) for channel in values])
        )
    return resample(data, source, target)


def _elected(
    layer: Callable[[int, Box], Tensor], boxes: Mapping[int, Box], source: Grid, target: Grid
) -> Int16[Tensor, "*net"]:
    """The number of the layer with the largest share at each voxel of ``target``; the lower at a tie, 0 outside.

    One layer at a time, and none beyond the box where it is; so memory does not grow with their number.

    Args:
        layer: a layer's number (0 the background) and a box -> its values there.
        boxes: where each layer other than the background is, in rising order of their numbers.
        source: where the layers are.
        target: where the winner is wanted.
    """
    best = _resampled(layer(0, (...,))[None].float(), source, target)[0]
    winner = torch.zeros(target.shape, dtype=torch.int16, device=best.device)
    margin = [math.ceil(TRUNCATE * sigma) + 1 for sigma in _sigma(source, target)]
    for number, box in boxes.items():
        start = [max(0, side.start - room) for side, room in zip(box, margin, strict=True)]
        stop = [min(n, side.stop + room) for n, side, room in zip(source.shape, box, margin, strict=True)]
        part = layer(number, tuple(slice(a, b) for a, b in zip(start, stop, strict=True))).float()
        here = source.cropped(start, part.shape)
        region = _region(here, target)
        if region is None:
            continue
        there = target.cropped([side.start for side in region], [side.stop - side.start for side in region])
        share = _resampled(part[None], here, there)[0].to(best.device)
        better = share > best[region] + 1e-6
        best[region] = torch.where(better, share, best[region])
        winner[region] = torch.where(better, number, winner[region])
    return winner


def _region(part: Grid, target: Grid) -> Box | None:
    """The voxels of ``target`` that may lie within ``part``."""
    ends = np.array(list(product(*[(-0.5, n - 0.5) for n in part.shape])))
    corners = target.to_voxel(part.to_world(ends))
    first = np.floor(corners.min(0)).clip(0).astype(int)
    stop = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, target.shape)
    return None if (stop <= first).any() else tuple(slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))


def _classes(labels: np.ndarray, values: list[int]) -> np.ndarray:
    """Label values as their place in ``values``, counted from 1, and 0 for all others; int16."""
    if not values:
        return np.zeros(labels.shape, dtype=np.int16)
    order = np.argsort(values)
    known = np.array(values, dtype=np.int64)[order]
    place = np.searchsorted(known, labels).clip(max=len(known) - 1)
    return np.where(known[place] == labels, order[place] + 1, 0).astype(np.int16)
