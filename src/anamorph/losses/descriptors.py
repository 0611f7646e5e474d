r"""MIND, the self-similarity context and MIND-SSC: a place described by how its patches differ from each other.

For a layout of patches (offsets o_i from a voxel x) and a set of edges (i, j) between them:

    D_ij(x) = mean_t ( I(x + o_i + t) - I(x + o_j + t) )^2       t over a patch of R1^d voxels        (eq. 6, 9, 12)
    V(x)    = mean of D_ij(x) over the edges                                                           (eq. 7; in eq. 8)
    channel = exp( -D_ij(x) / V(x) )                                                                   (eq. 5, 8)

    name                       edges                                                               3-D   2-D
    mind                       centre - neighbour, at distance L                                     6     4
    mind_ssc                   neighbour - neighbour, at distance sqrt(2) L                         12     4
    self_similarity_context    both                                                                 18     8

    similarity(F, M) = mean over voxels and channels of the squared difference of the channels         (eq. 14)

Equation numbers are those of the macJNet paper (doi:10.1186/s12938-023-01143-6). MIND: Heinrich et al. 2012,
doi:10.1016/j.media.2012.05.008. MIND-SSC: Heinrich et al. 2013, doi:10.1007/978-3-642-40811-3_24.

Choices, where the papers are silent or differ from each other:

- L = 2 and R1 = 5, the macJNet paper's values for macMIND, are the defaults of all, so that they differ by their edges
  alone.
- V is at least 0.001 times its mean over the (weighted) image, a unit of measurement through which no gradient flows.
  The paper has no floor; without one, noise in the air looks like anatomy and a constant image divides 0 by 0. A
  constant image gives ones.
- ``mind_ssc`` first subtracts the smallest D of each voxel, as the widely used implementations do; eq. 5, and ``mind``,
  do not.
- Eq. 8 sums its exponentials over the edges, which would leave one channel; here each edge is a channel, as eq. 11
  needs.
- Border: beyond it the image goes on with its outermost values (replicate padding). Nothing else is padded, so every
  formula above holds at the border as it stands.
- Masks weigh the voxels where channels are compared. A channel at x reads intensities up to L + (R1 - 1) / 2 voxels
  away along each axis; what a mask hides has no influence farther away than that.
- Channels of a multi-channel image are described one by one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.losses.descriptor_distance import Description, descriptor_distance
from anamorph.losses.masks import Loss
from anamorph.losses.self_similarity import (
    VARIANCE_FLOOR,
    DescriptorBatch,
    SelfSimilarity,
    extended,
    rim,
    spokes,
    spokes_and_rim,
    uniform,
)
from anamorph.types import ImageBatch, MaskBatch


def mind(
    image: ImageBatch, *, distance: int = 2, patch_size: int = 5, variance_floor: float = VARIANCE_FLOOR
) -> DescriptorBatch:
    """Modality independent neighbourhood descriptor: 6 channels in 3-D, 4 in 2-D, in (0, 1].

    Args:
        image: intensities, B C *spatial.
        distance: L, from the centre to its neighbours, in voxels.
        patch_size: R1, side of a patch in voxels, odd.
        variance_floor: least V as a fraction of its mean: raise it where noise in flat regions must not count.

    Returns:
        B (C * channels) *spatial.
    """
    edges = spokes(image.ndim - 2)
    return describe(image, SelfSimilarity(edges, distance, patch_size, variance_floor=variance_floor))


def mind_ssc(
    image: ImageBatch, *, distance: int = 2, patch_size: int = 5, variance_floor: float = VARIANCE_FLOOR
) -> DescriptorBatch:
    """MIND with self-similarity context: 12 channels in 3-D, 4 in 2-D, in (0, 1]; the largest at each voxel is 1.

    Arguments and result as in ``mind``.
    """
    edges = rim(image.ndim - 2)
    return describe(image, SelfSimilarity(edges, distance, patch_size, from_least=True, variance_floor=variance_floor))


def self_similarity_context(image: ImageBatch, *, distance: int = 2, patch_size: int = 5) -> DescriptorBatch:
    """One scale of macMIND before the averages over bins: 18 channels in 3-D, 8 in 2-D, in (0, 1].

    Arguments and result as in ``mind``.
    """
    return describe(image, SelfSimilarity(spokes_and_rim(image.ndim - 2), distance, patch_size))


def mind_similarity(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    distance: int = 2,
    patch_size: int = 5,
) -> Loss:
    """Mean squared difference of the ``mind`` channels; masks weigh voxels, B 1 *spatial. Once differentiable."""
    scale = SelfSimilarity(spokes(fixed.ndim - 2), distance, patch_size)
    return descriptor_distance(fixed, moving, fixed_mask, moving_mask, Description((scale,), (1.0,)))


def mind_ssc_similarity(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None = None,
    moving_mask: MaskBatch | None = None,
    *,
    distance: int = 2,
    patch_size: int = 5,
) -> Loss:
    """Mean squared difference of the ``mind_ssc`` channels; masks weigh voxels, B 1 *spatial. Once differentiable."""
    scale = SelfSimilarity(rim(fixed.ndim - 2), distance, patch_size, from_least=True)
    return descriptor_distance(fixed, moving, fixed_mask, moving_mask, Description((scale,), (1.0,)))


def describe(image: ImageBatch, scale: SelfSimilarity, margin: int = 0) -> Float[Tensor, "batch descriptors *grid"]:
    """Channels of one scale on the image's grid and ``margin`` voxels beyond: B (C * channels) *grid."""
    channels: Tensor = _Channels.apply(extended(image, scale.reach + margin), uniform(image), scale)  # pyright: ignore
    return channels.reshape(image.shape[0], -1, *channels.shape[2:])


class _Channels(torch.autograd.Function):
    """Keeps only the image for the backward pass, which computes the channels again."""

    @staticmethod
    def forward(ctx, padded: Tensor, weight: Tensor, scale: SelfSimilarity) -> Tensor:
        ctx.save_for_backward(padded, weight)
        ctx.scale = scale
        return scale.channels(padded, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.scale.adjoint(*ctx.saved_tensors, *gradient), None, None
