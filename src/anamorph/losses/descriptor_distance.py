"""Mean squared difference of two images' descriptors, in a memory that does not grow with the number of bins.

Averages over bins are linear, so the *difference* of the self-similarity channels is averaged, once for both images,
channel by channel and bin by bin. What is held at a time is that difference (18 channels for macMIND, where the
descriptor has 288) and the patch differences of one scale of one image. The gradient in the images is computed along
with the value, from the same difference; the backward pass only scales it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anamorph.losses.log_polar import LogPolarBins
from anamorph.losses.masks import Loss, share, voxel_weight
from anamorph.losses.self_similarity import SelfSimilarity, cropped, extended, uniform
from anamorph.types import ImageBatch, MaskBatch


@dataclass(frozen=True)
class Description:
    """A descriptor: self-similarity at one or several scales, perhaps averaged over bins.

    Args:
        scales: the self-similarity of each scale, all with as many edges.
        alphas: weight of each scale.
        concatenated: the weighted scales side by side instead of summed.
        bins: where to average them; ``None`` leaves them as they are.
    """

    scales: tuple[SelfSimilarity, ...]
    alphas: tuple[float, ...]
    concatenated: bool = False
    bins: LogPolarBins | None = None

    @property
    def channels(self) -> int:
        """M, before the averages over bins."""
        return len(self.scales[0].edges) * (len(self.scales) if self.concatenated else 1)

    @property
    def bin_radius(self) -> int:
        """Voxels that the averages over bins add to the reach."""
        return 0 if self.bins is None else self.bins.radius

    @property
    def reach(self) -> int:
        """Voxels beyond its own that a descriptor reads along each axis."""
        return max(scale.reach for scale in self.scales) + self.bin_radius

    def accumulate(self, target: Tensor, padded: Tensor, weight: Tensor, sign: float) -> None:
        """Add ``sign`` times the channels, before the averages over bins, to ``target`` (1 M *inner)."""
        for scale, alpha, part, margin in self._scales(target):
            part.add_(scale.channels(cropped(padded, margin), weight), alpha=sign * alpha)

    def adjoint(self, padded: Tensor, weight: Tensor, gradient: Tensor, sign: float) -> Tensor:
        """Gradient in ``padded`` of the sum of what ``accumulate`` adds times ``gradient``."""
        result = torch.zeros_like(padded)
        for scale, alpha, part, margin in self._scales(gradient):
            own = scale.adjoint(cropped(padded, margin), weight, part)
            cropped(result, margin).add_(own, alpha=sign * alpha)
        return result

    def _scales(self, stack: Tensor) -> list[tuple[SelfSimilarity, float, Tensor, int]]:
        """Each scale, its weight, its part of ``stack`` and the margin of a padded image that it does not read."""
        parts = stack.chunk(len(self.scales), 1) if self.concatenated else [stack] * len(self.scales)
        margins = [self.reach - self.bin_radius - scale.reach for scale in self.scales]
        return list(zip(self.scales, self.alphas, parts, margins, strict=True))

    def weighted_square(self, difference: Tensor, weight: Tensor, replace: bool) -> Tensor:
        """Mean over channels of the weighted squared descriptor; ``difference`` becomes its gradient if ``replace``."""
        total = difference.new_zeros(())
        for channel in difference.split(1, dim=1):
            if self.bins is not None:
                total += self.bins.weighted_square(channel, weight, replace)
                continue
            weighted = channel * weight
            total += (weighted * channel).sum()
            if replace:
                channel.copy_(weighted.mul_(2))
        count = self.channels * (1 if self.bins is None else self.bins.count(difference.ndim - 2))
        if replace:
            difference.div_(count)
        return total / count


def descriptor_distance(
    fixed: ImageBatch,
    moving: ImageBatch,
    fixed_mask: MaskBatch | None,
    moving_mask: MaskBatch | None,
    description: Description,
) -> Loss:
    """Mean over channels and weighted voxels of the squared difference of the descriptors; once differentiable."""
    weight = voxel_weight(fixed, moving, fixed_mask, moving_mask)
    if weight is None:
        weights = uniform(fixed).expand(fixed.shape[0] * fixed.shape[1], *[-1] * (fixed.ndim - 1))
    else:
        weights = share(weight).repeat_interleave(fixed.shape[1], 0)
    images = [extended(image, description.reach) for image in (fixed, moving)]
    return _Distance.apply(*images, weights, description)  # pyright: ignore[reportReturnType]


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fixed: Tensor, moving: Tensor, weights: Tensor, description: Description) -> Tensor:
        wanted = ctx.needs_input_grad[:2]
        gradients = [
            torch.zeros_like(image) if want else None for image, want in zip((fixed, moving), wanted, strict=True)
        ]
        inner = [n + 2 * description.bin_radius for n in weights.shape[2:]]
        total = fixed.new_zeros(())
        for item in range(len(fixed)):
            weight = weights[item : item + 1]
            signed = [(image[item : item + 1], sign) for image, sign in ((fixed, 1.0), (moving, -1.0))]
            difference = fixed.new_zeros(1, description.channels, *inner)
            for image, sign in signed:
                description.accumulate(difference, image, weight, sign)
            total += description.weighted_square(difference, weight, any(wanted)) / len(fixed)
            for gradient, (image, sign) in zip(gradients, signed, strict=True):
                if gradient is not None:
                    gradient[item : item + 1] = description.adjoint(image, weight, difference, sign / len(fixed))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        fixed, moving = ctx.saved_tensors
        return *(None if image is None else image * gradient[0] for image in (fixed, moving)), None, None
