r"""Mutual information and its relatives, by Parzen windows on a joint histogram.

    p(a, b) = sum_x w(x) B(a - f(x)) B(b - m(x)) / sum_x w(x)            B: cubic B-spline, f and m in units of bins
    I(F, M) = sum_ab p(a, b) log( p(a, b) / (p(a) p(b)) )                in nats
    H(F)    = I(F, F),   H(M) = I(M, M)

    mutual_information              1 - I / max(H(F), H(M))
    local_mutual_information        1 - sum_patches I / sum_patches max(H(F), H(M))
    normalized_mutual_information   2 - (H(F) + H(M)) / H(F, M),   H(F, M) = H(F) + H(M) - I(F, M)

Why H is a self-information: with windows as narrow as a bin it is Shannon's entropy. Wider windows blur the joint
histogram of even two identical images, plain entropies count that blur as information, and no pair could reach 0. What
one image can tell of *itself* through the same windows is the fair best. Bijective maps of the bins aside, 0 is reached
by identical images; an adversarial search over histograms found losses down to -0.01, with six bins of which few
were occupied.

How it is fast: each voxel is shared linearly between the four nearest nodes of a joint histogram with ``SUBDIVISIONS``
nodes a bin, and the windows are applied to that table (Wand 1994, doi:10.1080/10618600.1994.10474656). That
interpolates B within 0.5 percent of its peak; the gradient is the exact one of what is computed. Nothing of size voxels
x bins exists, and voxels pass in chunks.

No voxel needs its neighbours here, so a random subset of voxels may be given as ``B C samples``
(``local_mutual_information`` apart).

Sources: Thevenaz and Unser 2000, doi:10.1109/83.887976 (B-spline windows); Studholme et al. 1999,
doi:10.1016/S0031-3203(98)00091-0 (NMI); Vinh et al. 2010, JMLR 11:2837 (the distance 1 - I / max H).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anamorph.losses.masks import Loss, voxel_weight
from anamorph.types import ImageBatch, MaskBatch

SUBDIVISIONS = 8
"""Nodes of the joint histogram in each bin."""

CHUNK = 2**18
"""Voxels in flight: enough to keep vector units busy, few enough to stay in cache."""

NEGLIGIBLE = 1e-9
"""Nats. Makes two constant images match (0) and a constant tell nothing of another image (1)."""

Limits = tuple[float, float] | None


def mutual_information(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    bins: int = 32,
    fixed_limits: Limits = None,
    moving_limits: Limits = None,
) -> Loss:
    """One minus mutual information over the larger self-information: 0 for identical images, 1 for independent ones.

    Identical images reach 0 within 0.005, the error of the interpolated windows. Once differentiable.

    Args:
        fixed, moving: intensities, B C *spatial, or samples B C N.
        fixed_mask, moving_mask: weights of voxels, B 1 *spatial.
        bins: along each image's intensities.
        fixed_limits, moving_limits: intensities that the first and last bin stand for; beyond them all is alike. By
            default the extremes under the mask, item by item. Give them when ``moving`` changes from call to call, as
            in an optimisation: extremes move in jumps.
    """
    weight = voxel_weight(fixed, moving, fixed_mask, moving_mask)
    found = _of_whole_images(fixed, moving, weight, fixed_limits, moving_limits, bins)
    return (1 - (found.shared + NEGLIGIBLE) / (found.largest + NEGLIGIBLE)).mean().to(fixed.dtype)


def normalized_mutual_information(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    bins: int = 32,
    fixed_limits: Limits = None,
    moving_limits: Limits = None,
) -> Loss:
    """Two minus Studholme's normalized mutual information: 0 for identical images, 1 for independent ones.

    It is less swayed by the size of the overlap than mutual information. Arguments as in ``mutual_information``.
    """
    weight = voxel_weight(fixed, moving, fixed_mask, moving_mask)
    found = _of_whole_images(fixed, moving, weight, fixed_limits, moving_limits, bins)
    separate = found.fixed + found.moving
    joint = separate - found.shared
    return (2 - (separate + 2 * NEGLIGIBLE) / (joint + NEGLIGIBLE)).mean().to(fixed.dtype)


def local_mutual_information(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    bins: int = 16,
    patch_size: int = 16,
    fixed_limits: Limits = None,
    moving_limits: Limits = None,
) -> Loss:
    """Mutual information in each patch of a grid of patches; a patch counts by its information and its weight.

    A relation of intensities that drifts over the image (bias fields) is no hindrance, since each patch has its own
    histogram. Bins are those of the whole image, so a flat, noisy patch does not pose as structure.

    Args:
        patch_size: side of a patch in voxels; the last ones may stand out of the image, where nothing counts.
        fixed, moving, fixed_mask, moving_mask, bins, fixed_limits, moving_limits: as in ``mutual_information``.
    """
    weight = voxel_weight(fixed, moving, fixed_mask, moving_mask)
    limits = [_limits(fixed, weight, fixed_limits), _limits(moving, weight, moving_limits)]
    inside = fixed.new_ones(fixed.shape[0], 1, *fixed.shape[2:]) if weight is None else weight
    parts = _patches(inside, patch_size).expand(-1, fixed.shape[1], -1, -1).flatten(0, 2)
    patches = [_patches(image, patch_size) for image in (fixed, moving)]
    limits = [low_high.repeat_interleave(patches[0].shape[2], 0) for low_high in limits]
    found = _informations(patches[0].flatten(0, 2), patches[1].flatten(0, 2), parts, limits[0], limits[1], bins)
    share = parts.sum(1).view(-1, patches[0].shape[2])
    shared = (found.shared.view_as(share) * share).sum(1)
    largest = (found.largest.view_as(share) * share).sum(1)
    return (1 - (shared + NEGLIGIBLE) / (largest + NEGLIGIBLE)).mean().to(fixed.dtype)


def _of_whole_images(
    fixed: ImageBatch,
    moving: ImageBatch,
    weight: MaskBatch | None,
    fixed_limits: Limits,
    moving_limits: Limits,
    bins: int,
) -> _Informations:
    """One row for each channel of each item."""
    limits = _limits(fixed, weight, fixed_limits), _limits(moving, weight, moving_limits)
    return _informations(_rows(fixed), _rows(moving), _weight_rows(fixed, weight), *limits, bins)


class _Informations(NamedTuple):
    """In nats, one number a row."""

    shared: Tensor
    fixed: Tensor
    moving: Tensor

    @property
    def largest(self) -> Tensor:
        return torch.maximum(self.fixed, self.moving)


def _informations(
    fixed: Tensor, moving: Tensor, weight: Tensor | None, fixed_limits: Tensor, moving_limits: Tensor, bins: int
) -> _Informations:
    """I(F, M), I(F, F) and I(M, M) of each row of samples (rows samples)."""
    if bins < 4:
        raise ValueError(f"a cubic window spans four bins, found {bins} bins")
    windows = _parzen_windows(bins, fixed.device)
    nodes = windows.shape[1]
    table: Tensor = _JointHistogram.apply(fixed, moving, weight, fixed_limits, moving_limits, nodes)  # pyright: ignore
    own = [torch.einsum("an,rn,bn->rab", windows, table.sum(axis), windows) for axis in (2, 1)]
    return _Informations(_information(windows @ table @ windows.T), _information(own[0]), _information(own[1]))


def _information(joint: Tensor) -> Tensor:
    """Mutual information of joint histograms (rows a b), in nats; 0 of an empty one."""
    total = joint.sum((1, 2), keepdim=True)
    p = joint / torch.where(total > 0, total, 1)
    tiny = torch.finfo(p.dtype).tiny  # log of an empty cell stays finite, and so does its gradient
    independent = torch.log(p.sum(2, keepdim=True) + tiny) + torch.log(p.sum(1, keepdim=True) + tiny)
    return (p * (torch.log(p + tiny) - independent)).sum((1, 2))


def _parzen_windows(bins: int, device: torch.device) -> Tensor:
    """Weight of each bin for an intensity at each node: bins x nodes, columns sum to one.

    The first node is bin 1 and the last is bin ``bins - 2``, so that no window leaves the table.
    """
    nodes = torch.arange((bins - 3) * SUBDIVISIONS + 1, dtype=torch.float64, device=device) / SUBDIVISIONS + 1
    distance = (torch.arange(bins, dtype=torch.float64, device=device)[:, None] - nodes).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    return torch.where(distance < 1, near, (2 - distance).clamp_min(0) ** 3 / 6)


def _rows(image: ImageBatch) -> Tensor:
    return image.reshape(image.shape[0] * image.shape[1], -1)


def _weight_rows(image: ImageBatch, weight: MaskBatch | None) -> Tensor | None:
    return None if weight is None else weight.expand(-1, image.shape[1], *image.shape[2:]).reshape(_rows(image).shape)


def _limits(image: ImageBatch, weight: MaskBatch | None, limits: Limits) -> Tensor:
    """Lowest and highest intensity of each row, rows x 2."""
    rows = _rows(image.detach())
    if limits is not None:
        if not limits[0] < limits[1]:
            raise ValueError(f"limits are a lower and a higher intensity, found {limits}")
        return rows.new_tensor(limits).expand(len(rows), 2)
    counts = None if weight is None else _weight_rows(image, weight) > 0  # pyright: ignore[reportOptionalOperand]
    low = rows if counts is None else torch.where(counts, rows, torch.inf)
    high = rows if counts is None else torch.where(counts, rows, -torch.inf)
    return torch.stack([low.amin(1), high.amax(1)], 1).nan_to_num(posinf=0.0, neginf=0.0)


def _patches(image: Tensor, size: int) -> Tensor:
    """``B C *spatial`` cut into ``B C patches voxels``, filled up with zeros."""
    shape = image.shape[2:]
    counts = [math.ceil(n / size) for n in shape]
    fill = [
        extent for n, count in zip(reversed(shape), reversed(counts), strict=True) for extent in (0, count * size - n)
    ]
    image = F.pad(image, fill)
    for axis, count in enumerate(counts):
        image = image.unflatten(2 + 2 * axis, (count, size))
    ndim = len(shape)
    image = image.permute(0, 1, *[2 + 2 * a for a in range(ndim)], *[3 + 2 * a for a in range(ndim)])
    return image.reshape(*image.shape[:2], math.prod(counts), size**ndim)


class _JointHistogram(torch.autograd.Function):
    """Samples (rows samples) shared linearly between the nodes of one table a row: rows x nodes x nodes, float64."""

    @staticmethod
    def forward(
        ctx,
        fixed: Tensor,
        moving: Tensor,
        weight: Tensor | None,
        fixed_limits: Tensor,
        moving_limits: Tensor,
        nodes: int,
    ) -> Tensor:
        ctx.save_for_backward(fixed, moving, weight, fixed_limits, moving_limits)
        ctx.nodes = nodes
        table = torch.zeros(len(fixed), nodes, nodes, dtype=torch.float64, device=fixed.device)
        for rows, part in _chunks(*fixed.shape):
            i, s = _nodes(_positions(fixed[rows, part], fixed_limits[rows], nodes), nodes)
            j, t = _nodes(_positions(moving[rows, part], moving_limits[rows], nodes), nodes)
            cell = _cells(i, j, nodes).flatten()
            upper = s if weight is None else s * weight[rows, part]
            lower = 1 - s if weight is None else weight[rows, part] - upper
            flat = table[rows].view(-1)
            for row, share in ((0, lower), (nodes, upper)):
                right = share * t
                flat[row:].index_add_(0, cell, (share - right).flatten().double())
                flat[row + 1 :].index_add_(0, cell, right.flatten().double())
        return table

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        fixed, moving, weight, fixed_limits, moving_limits = ctx.saved_tensors
        nodes, table = ctx.nodes, gradients[0].to(fixed.dtype)
        wants_fixed, wants_moving = ctx.needs_input_grad[:2]
        fixed_gradient = torch.empty_like(fixed) if wants_fixed else None
        moving_gradient = torch.empty_like(moving) if wants_moving else None
        for rows, part in _chunks(*fixed.shape):
            f = _positions(fixed[rows, part], fixed_limits[rows], nodes)
            m = _positions(moving[rows, part], moving_limits[rows], nodes)
            (i, s), (j, t) = _nodes(f, nodes), _nodes(m, nodes)
            cell, flat = _cells(i, j, nodes), table[rows].flatten()
            here, right, below, beyond = (flat[offset:].take(cell) for offset in (0, 1, nodes, nodes + 1))
            w = 1 if weight is None else weight[rows, part]
            if fixed_gradient is not None:
                along = torch.lerp(below - here, beyond - right, t)
                fixed_gradient[rows, part] = along * _nodes_per_unit(f, fixed_limits[rows], nodes) * w
            if moving_gradient is not None:
                along = torch.lerp(right - here, beyond - below, s)
                moving_gradient[rows, part] = along * _nodes_per_unit(m, moving_limits[rows], nodes) * w
        return fixed_gradient, moving_gradient, None, None, None, None


def _chunks(rows: int, samples: int) -> list[tuple[slice, slice]]:
    """Blocks of at most ``CHUNK`` samples: several short rows together, or parts of a long one."""
    height = max(1, CHUNK // samples)
    return [
        (slice(row, min(row + height, rows)), slice(start, start + CHUNK))
        for row in range(0, rows, height)
        for start in range(0, samples, CHUNK)
    ]


def _positions(values: Tensor, limits: Tensor, nodes: int) -> Tensor:
    """Intensities in units of nodes, 0 at the lower limit and ``nodes - 1`` at the upper one."""
    return (values - limits[:, :1]) * _scale(limits, nodes)


def _scale(limits: Tensor, nodes: int) -> Tensor:
    extent = limits[:, 1:] - limits[:, :1]
    return torch.where(extent > 0, (nodes - 1) / extent, 0)


def _nodes_per_unit(positions: Tensor, limits: Tensor, nodes: int) -> Tensor:
    """Derivative of the position in the intensity, beyond the limits 0."""
    return torch.where(positions == positions.clamp(0, nodes - 1), _scale(limits, nodes), 0)


def _nodes(positions: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The node below each position (an integer, as a float) and how far on to the next one, 0 to 1."""
    inside = positions.clamp(0, nodes - 1)
    node = inside.floor().clamp_max_(nodes - 2)
    return node, inside.sub_(node)


def _cells(i: Tensor, j: Tensor, nodes: int) -> Tensor:
    """Index of node (i, j) of each row in the rows' tables laid end to end."""
    cells = (i * nodes + j).long()  # exact: a table has fewer cells than float32 has whole numbers
    return cells if len(i) == 1 else cells.add_(torch.arange(len(i), device=i.device)[:, None] * nodes**2)
