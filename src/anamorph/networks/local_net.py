r"""LocalNet: a U-Net with residual blocks whose every scale adds to the result.

With widths w_i = c 2^i at the scales i = 0 ... n - 1, fine to coarse, and L(x) = relu(norm(convolution k3 of x)):

    h_i = L(x_i)                                   at i = 0 of kernel 7; the skip                              (1)
    x_(i+1) = pool(relu(norm(conv L(h_i)) + h_i))  max-pooling by two                                          (2)
    d_(n-1) = L(x_(n-1))                           the bottom                                                  (3)

    without attention
    t_i = relu(norm(transposed convolution of d_(i+1))) + halves(resize(d_(i+1)))                              (4)
    d_i = relu(norm(conv L(t_i)) + t_i + h_i)      the convolutions do not see the skip                        (5)

    with attention
    t_i = gate(h_i, d_(i+1)) h_i                   what is coarser enters through the gate alone               (6)
    d_i = relu(norm(conv L(t_i)) + t_i)                                                                        (7)

    y   = sum over i of resize(H_i(d_i))           H_i: convolution k3, zero at first                          (8)

``halves`` sums the two halves of the channels. The gate (``networks.attention_gate``) has a map a channel at full
resolution and takes the mean of what it joins. There is one set of heads H a result. Convolutions before a
normalisation have no bias; resizing is linear, over the same field of view.

Sources: Y. Hu et al. (2018), Weakly-supervised convolutional neural networks for multimodal image registration,
doi:10.1016/j.media.2018.07.002 (LocalNet); W. Ding et al. (2022), Cross-modality multi-atlas segmentation via deep
registration and label fusion, arXiv:2202.02000 (attention, two sets of heads), as released
(github.com/NanYoMy/cmmas).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.attention_gate import AttentionGate
from anamorph.networks.convolution import Conv3d, ConvTranspose3d
from anamorph.networks.deformation import Deformation, RegistrationNetwork
from anamorph.networks.normalisation import InstanceNorm3d
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.networks.registration_unet import deformation_of
from anamorph.types import DisplacementBatch, ImageBatch

Normalisation = Literal["batch", "instance"]

Result = Float[Tensor, "batch outputs *spatial"]


class _Layer(nn.Module):
    """norm(convolution), and a rectifier where it is asked for."""

    def __init__(
        self,
        ndim: int,
        before: int,
        after: int,
        normalisation: Normalisation,
        kernel: int = 3,
        *,
        rectified: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        if up:
            transposed = ConvTranspose3d if ndim == 3 else nn.ConvTranspose2d
            self.conv = transposed(before, after, 3, stride=2, padding=1, output_padding=1, bias=False)
        else:
            conv = Conv3d if ndim == 3 else nn.Conv2d
            self.conv = conv(before, after, kernel, padding=kernel // 2, bias=False)
        if normalisation == "batch":
            self.norm = (nn.BatchNorm3d if ndim == 3 else nn.BatchNorm2d)(after)
        else:
            self.norm = (InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d)(after, affine=True)
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return functional.relu(x) if self.rectified else x


class _Residual(nn.Module):
    """relu(norm(conv L(x)) + y)."""

    def __init__(self, ndim: int, width: int, normalisation: Normalisation) -> None:
        super().__init__()
        self.first = _Layer(ndim, width, width, normalisation)
        self.second = _Layer(ndim, width, width, normalisation, rectified=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + y)


class _Decoder(nn.Module):
    """Equations (4) to (7)."""

    def __init__(self, ndim: int, fine: int, coarse: int, normalisation: Normalisation, attention: bool) -> None:
        super().__init__()
        gate = AttentionGate(ndim, fine, coarse, fine, stride=1, combination="mean", channelwise=True)
        self.gate = gate if attention else None
        self.up = None if attention else _Layer(ndim, coarse, fine, normalisation, up=True)
        self.residual = _Residual(ndim, fine, normalisation)

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        if self.gate is not None:
            t = self.gate(skip, below)
            return self.residual(t, t)
        assert self.up is not None
        one, other = _resized(below, skip.shape[2:]).chunk(2, 1)
        t = self.up(below) + one + other
        return self.residual(t, t + skip)


class LocalNet(nn.Module):
    """Results of one or more sets of heads, for inputs of any size, 2-D or 3-D.

    Args:
        ndim: 2 or 3.
        inputs: channels of the input.
        outputs: channels of the result of each set of heads.
        channels: c, of the finest scale.
        scales: n; each halves the one before it.
        attention: whether skips pass a gate.
        normalisation: over the batch, or of each item by itself.
    """

    def __init__(
        self,
        ndim: int,
        inputs: int,
        outputs: Sequence[int],
        channels: int = 4,
        scales: int = 5,
        *,
        attention: bool = False,
        normalisation: Normalisation = "batch",
    ) -> None:
        super().__init__()
        widths = [channels * 2**scale for scale in range(scales)]
        conv = Conv3d if ndim == 3 else nn.Conv2d
        self.multiple = 2 ** (scales - 1)
        self.pool = nn.MaxPool3d(2) if ndim == 3 else nn.MaxPool2d(2)
        self.enter = nn.ModuleList(
            _Layer(ndim, before, after, normalisation, 3 if scale else 7)
            for scale, (before, after) in enumerate(pairwise([inputs, *widths[:-1]]))
        )
        self.encode = nn.ModuleList(_Residual(ndim, width, normalisation) for width in widths[:-1])
        self.bottom = _Layer(ndim, widths[-2], widths[-1], normalisation)
        self.decode = nn.ModuleList(
            _Decoder(ndim, fine, coarse, normalisation, attention) for fine, coarse in pairwise(widths)
        )
        self.heads = nn.ModuleList(
            nn.ModuleList(conv(width, count, 3, padding=1) for width in widths) for count in outputs
        )
        self._draw()

    def _draw(self) -> None:
        """First weights: Xavier's, heads of 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    @property
    def untrained(self) -> bool:
        """Whether every result is still 0, whatever comes in."""
        return not any(bool(parameter.any()) for parameter in self.heads.parameters())

    def forward(self, images: ImageBatch) -> list[Result]:
        """B ``inputs`` I J (K) -> a result B ``outputs`` I J (K) for each set of heads."""
        shape = images.shape[2:]
        x, skips = pad_to_multiple(images, self._multiples(shape)), list[Tensor]()
        whole = x.shape[2:]
        for enter, encode in zip(self.enter, self.encode, strict=True):
            skip = enter(x)
            skips.append(skip)
            x = self.pool(encode(skip, skip))
        features = [self.bottom(x)]
        for decode, skip in zip(reversed(self.decode), reversed(skips), strict=True):
            features.insert(0, decode(skip, features[0]))
        return [crop_to(_summed(heads, features, whole), shape) for heads in self.heads]  # pyright: ignore[reportArgumentType]

    def _multiples(self, shape: Sequence[int]) -> list[int]:
        """Two voxels at least at the bottom: one has no deviation to be normalised by."""
        alone = all(n <= self.multiple for n in shape)
        return [self.multiple * (2 if alone and axis == 0 else 1) for axis in range(len(shape))]


class LocalNetRegistration(RegistrationNetwork):
    """The network that registers.

    Args:
        backbone: of the two images; its first result is the field of the moving image, a second one, where there is
            one, that of the fixed image onto the moving one.
        squarings: of the velocities' integration; None where the results are displacements.
    """

    def __init__(self, backbone: LocalNet, squarings: int | None = None) -> None:
        super().__init__()
        self.backbone, self.squarings = backbone, squarings

    def deformation(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """The first of ``deformations_of``."""
        return deformations_of(self.backbone, self.squarings, fixed, moving)[0]

    def regularised(self, deformation: Deformation) -> DisplacementBatch:
        """The velocity where there is one, else the displacement."""
        return regularised(deformation)


def deformations_of(
    backbone: LocalNet, squarings: int | None, fixed: ImageBatch, moving: ImageBatch
) -> list[Deformation]:
    """What brings moving onto fixed and, of two sets of heads, fixed onto moving; with gradient.

    Velocities are integrated as VoxelMorph's (``networks.registration_unet.deformation_of``). Not in half precision,
    whatever the network is computed in: that holds no coordinate.
    """
    fields = backbone(torch.cat([moving, fixed], 1))
    return [deformation_of(field.to(fixed.dtype), squarings) for field in fields]


def regularised(deformation: Deformation) -> DisplacementBatch:
    """The velocity where there is one, else the displacement."""
    return deformation.displacement if deformation.velocity is None else deformation.velocity


def _summed(heads: nn.ModuleList, features: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Equation (8)."""
    parts = [_resized(head(found), shape) for head, found in zip(heads, features, strict=True)]
    return torch.stack(parts).sum(0)


def _resized(x: Tensor, shape: Sequence[int]) -> Tensor:
    if [*x.shape[2:]] == [*shape]:
        return x
    mode = "trilinear" if x.ndim == 5 else "bilinear"
    return functional.interpolate(x, size=[*shape], mode=mode, align_corners=False)
