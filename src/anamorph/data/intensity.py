"""Intensities of one modality on a common scale, as a plan says.

===========  =====================================================================================
kind         y(x)
===========  =====================================================================================
window       (x - low) / (high - low)
percentiles  (x - p_low) / (p_high - p_low), p the percentiles of the content
zscore       (x - mean) / sd of the content, both from values limited to p_low..p_high where clip
none         x
===========  =====================================================================================

With ``clip`` x is limited to the ends first, so that one hot voxel neither sets the scale nor leaves it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from anamorph.data.plan import Intensity

MOST_VALUES = 4_000_000
"""Evenly spaced voxels that percentiles are taken from at most."""

BACKGROUND_PERCENTILE = 0.5
"""What lies outside an image where the scale itself names no darkest value."""

LEAST_RANGE = 1e-6
"""Share of its largest value that a range has to span; below it, an image shows nothing."""

BELOW_ZERO = 0.1
"""Share of the 99th percentile by which the 1st lies below 0 where 0 is not the darkest that was measured."""

VALUES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Rescaling:
    """y = (x limited to low..high - offset) / scale.

    Args:
        low, high: limits, infinite for none.
        offset, scale: see above.
        ground: y of the background, which holds outside the image.
    """

    low: float
    high: float
    offset: float
    scale: float
    ground: float = 0.0

    def __call__(self, values: Float[Tensor, "*spatial"]) -> Float32[Tensor, "*spatial"]:
        """In double precision, a part at a time: intensities may be as large as float32 holds."""
        result = torch.empty_like(values, dtype=torch.float32)
        step = max(1, VALUES_AT_ONCE // max(1, math.prod(values.shape[1:])))
        for start in range(0, len(values), step):
            part = values[start : start + step].double().clamp(self.low, self.high)
            result[start : start + step] = (part - self.offset) / self.scale
        return result


def normalise(
    values: Float[Tensor, "channels *spatial"],
    intensity: Intensity,
    mask: Bool[Tensor, "*spatial"] | None = None,
    valid: Bool[Tensor, "*spatial"] | None = None,
) -> Float32[Tensor, "channels *spatial"]:
    """Every channel on its own scale; a constant channel becomes 0.

    Args:
        values: finite intensities, C I J (K).
        intensity: how.
        mask: where to take percentiles, mean and variance from, if its content is "mask"; everywhere if absent.
        valid: False where a voxel says nothing, as where the file had NaN.
    """
    return torch.stack([rescaling(channel, intensity, mask, valid)(channel) for channel in values])


def rescaling(
    values: Float[Tensor, "*spatial"],
    intensity: Intensity,
    mask: Bool[Tensor, "*spatial"] | None = None,
    valid: Bool[Tensor, "*spatial"] | None = None,
) -> Rescaling:
    """The scale of one channel; the arguments are those of ``normalise``."""
    if intensity.kind == "window":
        low, high = intensity.low, intensity.high
        return _limited(intensity.clip, low, high, offset=low, scale=high - low)
    seen = values if valid is None or not bool(valid.any()) else values[valid]
    everything = _thinned(seen)
    background = float(np.percentile(everything, BACKGROUND_PERCENTILE))
    if intensity.kind == "none":
        return Rescaling(-math.inf, math.inf, 0.0, 1.0, background)
    content = _thinned(_content(values, seen, intensity, mask, valid))
    low, high = _ends(content, everything, intensity)
    if intensity.kind == "percentiles":
        return _limited(intensity.clip, low, high, offset=low, scale=_nonzero(high - low, low, high))
    ends = (low, high) if intensity.clip else (-math.inf, math.inf)
    background = min(max(background, ends[0]), ends[1])
    mean, deviation = _moments(content, ends)
    if not _counts(deviation, low, high):
        mean, deviation = _moments(everything, ends)
    scale = _nonzero(deviation, low, high)
    return _limited(intensity.clip, low, high, offset=mean, scale=scale, ground=(background - mean) / scale)


def _limited(clip: bool, low: float, high: float, *, offset: float, scale: float, ground: float = 0.0) -> Rescaling:
    ends = (low, high) if clip else (-math.inf, math.inf)
    return Rescaling(*ends, offset, scale, ground)


def _content(values: Tensor, seen: Tensor, intensity: Intensity, mask: Tensor | None, valid: Tensor | None) -> Tensor:
    """The values that count; all that are seen where the choice would leave none."""
    content = seen
    if intensity.content == "positive":
        content = seen[seen > 0]
    elif intensity.content == "mask" and mask is not None:
        content = values[mask if valid is None else mask & valid]
    return content if content.numel() else seen


def _ends(content: np.ndarray, everything: np.ndarray, intensity: Intensity) -> tuple[float, float]:
    """The two percentiles; where one value fills them both, they widen to those of all the others."""
    low, high = (float(end) for end in np.percentile(content, [intensity.low, intensity.high]))
    if not _counts(high - low, low, high):
        rest = everything[(everything < low) | (everything > high)]
        if len(rest):
            ends = np.percentile(rest, [intensity.low, intensity.high])
            low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return low, high


def _moments(values: np.ndarray, ends: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation of the values limited to the ends."""
    limited = values.astype(np.float64).clip(*ends)
    return float(limited.mean()), float(limited.std())


def _counts(length: float, low: float, high: float) -> bool:
    """Whether a length is more than rounding."""
    return length > LEAST_RANGE * max(abs(low), abs(high))


def _nonzero(scale: float, low: float, high: float) -> float:
    return scale if _counts(scale, low, high) else 1.0


def _thinned(values: Tensor) -> np.ndarray:
    flat = values.flatten()
    every = -(-flat.numel() // MOST_VALUES) | 1  # odd, or it would meet the same columns of every row
    return flat[::every].numpy()


def goes_below_zero(values: Float[np.ndarray, "..."]) -> bool:
    """Whether more than noise and ringing lies below 0, as in a CT, or in an MR of zero mean."""
    low, high = np.percentile(values, (1, 99))
    return bool(low < -BELOW_ZERO * abs(high))
