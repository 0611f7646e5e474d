"""The U-Net of nnU-Net, from MONAI's blocks, with kernels and strides that follow the voxels.

Two convolutions a stage, each with instance normalisation and leaky ReLU; strided convolutions down, transposed up.
With ``squeeze_excitation``, as in macJNet, each decoding stage ends with scSE (``networks.squeeze_excitation``).

Source: F. Isensee et al. (2021), nnU-Net, doi:10.1038/s41592-020-01008-z; M. Cardoso et al. (2022), MONAI,
arXiv:2211.02701. The rule of ``plan_stages`` is that of nnU-Net's experiment planning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.convolution import take_over
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.networks.segmentation import SegmentationNetwork
from anamorph.networks.squeeze_excitation import Combination, ConcurrentSqueezeExcitation
from anamorph.types import ImageBatch

SMALLEST = 4
"""Edge, in voxels, below which no feature map is made smaller."""
FEWEST_STAGES = 3
"""Of MONAI's network; where the image has fewer, the deepest keep their size."""


class Stages(NamedTuple):
    """Kernels and strides of the stages, from fine to coarse; the first stride is 1."""

    kernels: list[list[int]]
    strides: list[list[int]]


def plan_stages(shape: Sequence[int], spacing: Sequence[float]) -> Stages:
    """Halve axes until all are small, the finely sampled ones first, so that voxels become isotropic.

    An axis is halved while it has 8 voxels or more and its voxels are less than twice as long as the shortest of such
    axes; one that is alone needs 12. Kernels are 1 along an axis until its voxels are less than twice as long as the
    shortest of all, and 3 from then on.

    Args:
        shape: voxels.
        spacing: their size, in any unit.
    """
    size, length, axes = list(shape), list(spacing), range(len(shape))
    kernel = [1] * len(shape)
    kernels, strides = [], [[1] * len(shape)]
    while True:
        divisible = [axis for axis in axes if size[axis] >= 2 * SMALLEST]
        shortest = min((length[axis] for axis in divisible), default=0.0)
        halved = [axis for axis in divisible if length[axis] < 2 * shortest]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * SMALLEST):
            break
        kernel = [3 if k == 3 or length[axis] < 2 * min(length) else 1 for axis, k in enumerate(kernel)]
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in axes])
        for axis in halved:
            size[axis], length[axis] = math.ceil(size[axis] / 2), 2 * length[axis]
    kernels.append([3] * len(shape))
    while len(strides) < FEWEST_STAGES:
        kernels.append([3] * len(shape))
        strides.append([1] * len(shape))
    return Stages(kernels, strides)


class DynamicUNet(SegmentationNetwork):
    """MONAI's DynUNet for inputs of any size, 2-D or 3-D.

    Its blocks and their weights are used, not its way through them: that lists every weight twice, which safetensors
    refuses, and holds on to the last batch.

    Args:
        inputs: channels of the image.
        outputs: channels of the result.
        stages: as planned.
        features: channels of the finest stage; doubled at each next one.
        most_features: the limit to that.
        deep_supervision: whether results are also read off at coarser stages while training: at all but the two
            coarsest, as in nnU-Net.
        squeeze_excitation: how the halves of scSE are joined after each decoding stage; None for no scSE.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stages: Stages,
        features: int,
        most_features: int,
        deep_supervision: bool,
        squeeze_excitation: Combination | None = None,
    ) -> None:
        super().__init__()
        from monai.networks.nets.dynunet import DynUNet  # costs seconds

        heads = len(stages.strides) - 3 if deep_supervision else 0
        widths = [min(features * 2**stage, most_features) for stage in range(len(stages.strides))]
        blocks: Any = DynUNet(
            len(stages.strides[0]), inputs, outputs, stages.kernels, stages.strides, stages.strides[1:],
            filters=widths, deep_supervision=heads > 0, deep_supr_num=max(1, heads),
            norm_name=("INSTANCE", {"affine": True}), act_name=("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
        )  # fmt: skip
        take_over(blocks)
        self.encode = nn.ModuleList([blocks.input_block, *blocks.downsamples, blocks.bottleneck])
        self.decode = blocks.upsamples
        self.heads = nn.ModuleList([blocks.output_block, *(blocks.deep_supervision_heads if heads else [])])
        self.excite = nn.ModuleList(
            nn.Identity()
            if squeeze_excitation is None
            else ConcurrentSqueezeExcitation(len(stages.strides[0]), width, combination=squeeze_excitation)
            for width in reversed(widths[:-1])
        )
        self.multiples = [math.prod(along) for along in zip(*stages.strides, strict=True)]

    def forward(self, image: ImageBatch) -> list[Float[Tensor, "batch outputs *spatial"]]:
        """B ``inputs`` I J (K) -> results B ``outputs`` I J (K), the finest first; the only one when evaluating."""
        x = pad_to_multiple(image, self.multiples)
        shape, skips = x.shape[2:], []
        for encode in self.encode:
            x = encode(x)
            skips.append(x)
        skips.pop()
        decoded: list[Tensor] = []
        for decode, excite in zip(self.decode, self.excite, strict=True):
            x = excite(decode(x, skips.pop()))
            decoded.append(x)
        heads = list(self.heads) if self.training else [self.heads[0]]
        results = [head(x) for head, x in zip(heads, reversed(decoded), strict=False)]
        return [
            crop_to(functional.interpolate(x, shape) if x.shape[2:] != shape else x, image.shape[2:]) for x in results
        ]

    def logits(self, image: ImageBatch) -> list[Float[Tensor, "batch outputs *spatial"]]:
        """As ``forward``."""
        return self(image)


def supervision_weights(number: int) -> list[float]:
    """1, 1/2, 1/4, ... divided by their sum."""
    weights = [0.5**depth for depth in range(number)]
    return [weight / sum(weights) for weight in weights]
