"""The spatial transformer of Atlas-ISTN: what it sees becomes a velocity and an affine map, and these a pair of maps.

The network begins at half the resolution (k3 convolutions; channels c0, c1, ... at 1/2, 1/4, ... of the image):

======  ==============================================================================
part    computes
======  ==============================================================================
1/2     conv in -> in with stride 2, no activation; conv in -> c0, ReLU; conv c0 -> c0, ReLU
s > 0   conv c(s-1) -> c(s-1) or c(s) with stride 2, no activation; conv c(s) -> c(s), ReLU
back    x2 linear, concatenated with the skip; conv c(s) + c(s-1) -> c(s-1), ReLU
SVF     conv c0 -> 8, ReLU; conv 8 -> d: velocity, voxels of the whole image
affine  of the coarsest features: mean of 2 voxels an axis, linear -> 32, ReLU, linear -> parameters (zero at first)
======  ==============================================================================

From velocity v (at half the resolution) and affine map T to maps between atlas and case, as points:

    phi    = exp(v), phi^-1 = exp(-v), both brought to the image's grid linearly
    Phi    = T o phi         atlas points -> case points: y o Phi lies where the atlas does       (7)
    Phi^-1 = phi^-1 o T^-1   case points -> atlas points: y_a o Phi^-1 lies where the case does   (8)

T = M_t R D about the middle of the image (1): scales along the axes, then a rotation, then a translation. Lengths are
those of the world, so that R turns without shearing whatever the shape and the spacing.

Source: M. Sinclair et al. (2022), Atlas-ISTN, doi:10.1016/j.media.2022.102383, section 2 and its release; numbers of
equations are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import Conv3d
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.spatial.affine import Matrices, Parameters, affine_displacement, matrix_from_parameters
from anamorph.spatial.field import compose, exponential, resize_displacement
from anamorph.types import DisplacementBatch, ImageBatch

Deformations = Literal["full", "svf", "affine"]
HalfVelocity = Float[Tensor, "batch ndim *half"]
"""Voxels of the half grid, along its axes."""

SVF_FEATURES, AFFINE_FEATURES = 8, 32
FARTHEST, WIDEST, LARGEST = 1.0, math.pi / 4, 1.0
"""Limits of the affine map: translation in halves of the image, rotation in radians, logarithm of the scales."""


@dataclass(frozen=True, eq=False)
class AtlasTransformation:
    """Maps between the atlas and cases, on their common grid, in voxels; each is computed when it is first asked for.

    Args:
        velocity: v, on half of the grid (made up to whole halvings at the upper ends), in voxels of that half grid.
        matrix: T, B (d+1) (d+1), from voxels of the atlas to voxels of the case; None where there is no affine map.
        shape: of the images; the half grid begins where they do, and may reach beyond their upper ends.
        squarings: of the integration.
    """

    velocity: HalfVelocity
    matrix: Matrices | None
    shape: Sequence[int]
    squarings: int = 6

    @cached_property
    def forward(self) -> DisplacementBatch:
        """Phi, as u of Phi(x) = x + u(x), B d I J (K): warped by it, a case lies where the atlas does."""
        matrix, shape, ndim = self.matrix, self.shape, len(self.shape)
        if matrix is None:
            return self.local
        with torch.autocast(matrix.device.type, enabled=False):
            linear = matrix[:, :ndim, :ndim]
            return affine_displacement(matrix, shape) + torch.einsum("bij,bj...->bi...", linear, self.local)

    @cached_property
    def inverse(self) -> DisplacementBatch:
        """Phi^-1, likewise: warped by it, the atlas lies where the case does."""
        local_inverse = self._whole(self._flows[1])
        if self.matrix is None:
            return local_inverse
        with torch.autocast(self.matrix.device.type, enabled=False):
            back = affine_displacement(torch.linalg.inv_ex(self.matrix).inverse, self.shape)
            return compose(local_inverse, back)

    @cached_property
    def local(self) -> DisplacementBatch:
        """Phi without T, likewise: phi, which the regulariser sees."""
        return self._whole(self._flows[0])

    @cached_property
    def _flows(self) -> tuple[HalfVelocity, ...]:
        """exp(v) and exp(-v) on the half grid."""
        return exponential(torch.cat([self.velocity, -self.velocity]), self.squarings).chunk(2)

    def _whole(self, flow: HalfVelocity) -> DisplacementBatch:
        """On the grid of the images."""
        return crop_to(resize_displacement(flow, [2 * n for n in flow.shape[2:]]), self.shape)


class SpatialTransformer(nn.Module):
    """See the module.

    Args:
        shape: voxels of the images, 2-D or 3-D.
        inputs: channels of what it sees.
        channels: at 1/2, 1/4, ... of the resolution.
        kind: "full"; "svf": without the affine map; "affine": without velocities.
    """

    def __init__(
        self, shape: Sequence[int], inputs: int, channels: Sequence[int] = (16, 16, 32), kind: Deformations = "full"
    ) -> None:
        super().__init__()
        ndim = len(shape)
        conv = Conv3d if ndim == 3 else nn.Conv2d
        self.shape, self.ndim = tuple(shape), ndim
        self.multiples = [2 ** len(channels)] * ndim
        coarser = list(pairwise(channels))
        self.first = conv(inputs, inputs, 3, stride=2, padding=1)
        self.widen = conv(inputs, channels[0], 3, padding=1)
        self.down = nn.ModuleList(conv(fine, coarse, 3, stride=2, padding=1) for fine, coarse in coarser)
        self.encode = nn.ModuleList(conv(c, c, 3, padding=1) for c in channels)
        self.decode, self.flow, self.affine = nn.ModuleList(), None, None
        if kind != "affine":
            self.decode.extend(conv(fine + coarse, fine, 3, padding=1) for fine, coarse in coarser)
            features = conv(channels[0], SVF_FEATURES, 3, padding=1)
            self.flow = nn.Sequential(features, nn.ReLU(), conv(SVF_FEATURES, ndim, 3, padding=1))
        if kind != "svf":
            coarsest = math.prod(-(-n // (2 * self.multiples[0])) for n in shape)
            rotations = ndim * (ndim - 1) // 2
            head = nn.Linear(AFFINE_FEATURES, 2 * ndim + rotations)
            self.affine = nn.Sequential(
                nn.Flatten(), nn.Linear(channels[-1] * coarsest, AFFINE_FEATURES), nn.ReLU(), head
            )
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    @property
    def velocity_shape(self) -> tuple[int, ...]:
        """Voxels of the half grid."""
        return tuple(-(-n // m) * m // 2 for n, m in zip(self.shape, self.multiples, strict=True))

    def forward(self, seen: ImageBatch) -> tuple[HalfVelocity, Float[Tensor, "batch parameters"] | None]:
        """Velocity in voxels of the half grid, zero if there is none, and parameters that ``affine_matrix`` takes."""
        x = self.first(pad_to_multiple(seen, self.multiples))
        half = x.shape[2:]
        x = functional.relu(self.widen(x))
        skips: list[Tensor] = []
        for scale, encode in enumerate(self.encode):
            if scale > 0:
                skips.append(x)
                x = self.down[scale - 1](x)
            x = functional.relu(encode(x))
        parameters = None if self.affine is None else self.affine(_halved(x)).float()
        if self.flow is None:
            return x.new_zeros(len(x), self.ndim, *half, dtype=torch.float32), parameters
        for decode in reversed(self.decode):
            skip = skips.pop()
            mode = "trilinear" if self.ndim == 3 else "bilinear"
            x = functional.interpolate(x, size=skip.shape[2:], mode=mode, align_corners=False)
            x = functional.relu(decode(torch.cat([x, skip], 1)))
        return self.flow(x).float() / 2, parameters


def _halved(x: Tensor) -> Tensor:
    """Means of 2 voxels along each axis; the last one of an odd number stays."""
    pool = functional.avg_pool3d if x.ndim == 5 else functional.avg_pool2d
    return pool(x, [min(2, n) for n in x.shape[2:]], stride=2, ceil_mode=True)


def affine_matrix(parameters: Parameters, shape: Sequence[int], spacing: Sequence[float]) -> Matrices:
    """T between voxel coordinates, B (d+1) (d+1), of any numbers; the identity of zeros.

    Args:
        parameters: translation (d), rotation vector (3) or angle (1), scale (d); each is sent through tanh to its
            limits.
        shape: of the image, about whose middle it turns.
        spacing: of its voxels, mm.
    """
    ndim = len(shape)
    steps = torch.tensor([*spacing, 1.0], dtype=parameters.dtype, device=parameters.device)
    extent = torch.tensor(shape, dtype=parameters.dtype, device=parameters.device) * steps[:ndim]
    rotations = ndim * (ndim - 1) // 2
    translation, rotation, scale = parameters.tanh().split([ndim, rotations, ndim], 1)
    shears = torch.zeros_like(parameters[:, :rotations])
    bounded = torch.cat([FARTHEST * extent / 2 * translation, WIDEST * rotation, LARGEST * scale, shears], 1)
    centre = [(n - 1) / 2 * step for n, step in zip(shape, spacing, strict=True)]
    world = matrix_from_parameters(bounded, "affine", ndim, centre)
    return world * steps / steps[:, None]
