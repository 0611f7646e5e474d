r"""LapIRN: a pyramid of three residual networks, each of which refines the field of the coarser one.

One level, with features of width W:

    f = E(x)                     convolution k3, LeakyReLU(0.2), convolution k3                   the skip
    g = R(D(f) + e')             D: convolution k3 of stride 2; R: five residual blocks           e': see below
    e = U(g)                     transposed convolution k2 of stride 2                            to the next level
    h = softsign(H(e, f'))       convolution k3 to W, LeakyReLU(0.2), convolution k3 to d         in (-1, 1)

f' is f, or with ``attention``, as in macJNet, f after an attention gate that g opens (``networks.attention_gate``).

Level k works on images averaged to 1/4, 1/2 and 1 of their size. With F the field of the coarser level on the grid of
this one, in its voxels, and the unit r = (N - 1) / 2 of an axis of N voxels,

    F_1 = range_flow r h_1                                                    from moving, fixed
    F_k = F + range_flow r h_k                                                from warped moving, fixed, F / r

e' is the coarser level's e, which has the size of D(f). Convolutions have no bias and nothing is normalised.

Source: T. C. W. Mok and A. C. S. Chung (2020), Large deformation diffeomorphic image registration with Laplacian
pyramid networks, doi:10.1007/978-3-030-59716-0_21, as released; docs/methods/lapirn.md says where this departs from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.attention_gate import AttentionGate
from anamorph.networks.convolution import Conv3d, ConvTranspose3d
from anamorph.networks.deformation import Deformation, RegistrationNetwork
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.spatial.field import exponential, resize, resize_displacement, warp
from anamorph.types import DisplacementBatch, ImageBatch

LEVELS = 3
BLOCKS = 5
MULTIPLE = 2**LEVELS
"""The coarsest level halves its grid once more."""


class _ResidualBlock(nn.Module):
    """x + C2(a(C1(a(x)))), then a again; a = LeakyReLU(0.2)."""

    def __init__(self, conv: type[nn.Conv2d] | type[nn.Conv3d], width: int) -> None:
        super().__init__()
        self.first = conv(width, width, 3, padding=1, bias=False)
        self.second = conv(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(functional.leaky_relu(self.first(functional.leaky_relu(x, 0.2)), 0.2))
        return functional.leaky_relu(inner + x, 0.2)


class PyramidLevel(nn.Module):
    """One level: its input and the coarser level's embedding -> increment of the field in (-1, 1), embedding.

    Args:
        ndim: 2 or 3.
        inputs: channels of the input.
        width: of all features.
        attention: whether the skip passes a gate.
    """

    def __init__(self, ndim: int, inputs: int, width: int, attention: bool = False) -> None:
        super().__init__()
        conv = Conv3d if ndim == 3 else nn.Conv2d
        transposed = ConvTranspose3d if ndim == 3 else nn.ConvTranspose2d
        self.encoder = nn.Sequential(
            conv(inputs, width, 3, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            conv(width, width, 3, padding=1, bias=False),
        )
        self.down = conv(width, width, 3, stride=2, padding=1, bias=False)
        self.residual = nn.Sequential(*(_ResidualBlock(conv, width) for _ in range(BLOCKS)))
        self.up = transposed(width, width, 2, stride=2, bias=False)
        self.head = nn.Sequential(
            conv(2 * width, width, 3, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            conv(width, ndim, 3, padding=1, bias=False),
            nn.Softsign(),
        )
        self.gate = AttentionGate(ndim, width, width) if attention else None

    def forward(
        self, x: Float[Tensor, "batch inputs *spatial"], coarser: Float[Tensor, "batch width *half"] | None
    ) -> tuple[DisplacementBatch, Float[Tensor, "batch width *spatial"]]:
        """B ``inputs`` I J (K), even sizes -> B d I J (K), B ``width`` I J (K)."""
        skip = self.encoder(x)
        below = self.down(skip)
        below = self.residual(below if coarser is None else below + coarser)
        embedding = self.up(below)
        if self.gate is not None:
            skip = self.gate(skip, below)
        return self.head(torch.cat([embedding, skip], 1)).contiguous(), embedding


class LaplacianPyramid(RegistrationNetwork):
    """The three levels.

    Args:
        ndim: 2 or 3.
        channels: of one image.
        width: of all features.
        range_flow: see the module.
        squarings: of the flow through which a level sees the moving image; None where fields are displacements.
        attention: whether the skip of each level passes a gate.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        width: int,
        range_flow: float,
        squarings: int | None,
        *,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.range_flow, self.squarings = range_flow, squarings
        inputs = [2 * channels + (0 if level == 0 else ndim) for level in range(LEVELS)]
        self.levels = nn.ModuleList(PyramidLevel(ndim, count, width, attention) for count in inputs)

    def forward(self, fixed: ImageBatch, moving: ImageBatch, level: int = LEVELS) -> Float[Tensor, "batch ndim *grid"]:
        """Velocity or displacement of the first ``level`` levels, in voxels of that level's grid.

        The grid is the images' one, made up to a multiple of ``MULTIPLE`` at the upper ends and coarser by a factor of
        ``2 ** (LEVELS - level)``, on the same field of view.
        """
        both = pad_to_multiple(torch.cat([moving, fixed], 1), [MULTIPLE] * (fixed.ndim - 2))
        field = embedding = None
        for number in range(level):
            images = resize(both, [n >> (LEVELS - 1 - number) for n in both.shape[2:]])
            unit, coarser = _half_extent(images), None
            if field is not None:
                coarser = resize_displacement(field, images.shape[2:])
                images = torch.cat([*self._pulled(images, field), coarser / unit], 1)
            increment, embedding = self.levels[number](images, embedding)
            increment = increment.to(both.dtype) * (self.range_flow * unit)
            field = increment if coarser is None else coarser + increment
        assert field is not None
        return field

    def deformation(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """Of all levels."""
        return deformation_of(self(fixed, moving), LEVELS, fixed.shape[2:], self.squarings)

    def regularised(self, deformation: Deformation) -> DisplacementBatch:
        """Twice the velocity, or displacement: the release's field, in units of the image's extent, times N - 1."""
        return 2 * (deformation.displacement if deformation.velocity is None else deformation.velocity)

    def _pulled(
        self, images: Float[Tensor, "batch both *spatial"], field: Float[Tensor, "batch ndim *coarser"]
    ) -> tuple[ImageBatch, ImageBatch]:
        """Moving image through what the coarser level found, fixed image."""
        moving, fixed = images.chunk(2, 1)
        displacement = field if self.squarings is None else exponential(field, self.squarings)
        return warp(moving, resize_displacement(displacement, images.shape[2:]), outside="border"), fixed


def _half_extent(images: ImageBatch) -> Tensor:
    """(N - 1) / 2 of each axis, 1 d 1 1 (1): what 1 is in the normalised units of the release, in voxels."""
    shape = images.shape[2:]
    return images.new_tensor([(n - 1) / 2 for n in shape]).view(1, -1, *[1] * len(shape))


def deformation_of(
    field: Float[Tensor, "batch ndim *grid"], level: int, shape: Sequence[int], squarings: int | None
) -> Deformation:
    """What the field of a level (``LaplacianPyramid.forward``) comes to on an image's grid, and its flow there.

    Args:
        field: in voxels of its level.
        level: 1, 2 or 3.
        shape: of the image.
        squarings: of the flow; None where the field is a displacement.
    """
    fine = [n * 2 ** (LEVELS - level) for n in field.shape[2:]]
    field = crop_to(resize_displacement(field, fine), shape)
    return Deformation(field) if squarings is None else Deformation(exponential(field, squarings), field, squarings)
