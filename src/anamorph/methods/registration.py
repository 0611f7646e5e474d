"""What methods that register share: images compared as chosen, and labels brought over."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import AfterValidator, Field, field_validator, model_serializer, model_validator
from torch import Tensor

from anamorph import losses
from anamorph.errors import ConfigurationError
from anamorph.losses.log_polar import LogPolarBins
from anamorph.losses.macmind import ALPHAS, BINS
from anamorph.losses.masks import Loss
from anamorph.methods.base import Domain, MethodSettings
from anamorph.types import ImageBatch, MaskBatch

Similarity = Literal["mse", "l1", "lncc", "mi", "local_mi", "nmi", "ssim", "mind", "mind_ssc", "macmind"]


def _odd(width: int) -> int:
    if width % 2 == 0:
        raise ValueError("a window has a voxel in its middle: an odd number")
    return width


Count = Annotated[int, Field(ge=1)]
Odd = Annotated[int, Field(ge=3), AfterValidator(_odd)]
Positive = Annotated[float, Field(gt=0)]

OPTIONS: dict[str, dict[str, str]] = {
    "lncc": {"window": "window", "epsilon": "epsilon"},
    "mi": {"bins": "bins"},
    "nmi": {"bins": "bins"},
    "local_mi": {"bins": "bins", "patch_size": "neighbourhood"},
    "ssim": {"sigma": "sigma"},
    "mind": {"distance": "distance", "patch_size": "patch_size"},
    "mind_ssc": {"distance": "distance", "patch_size": "patch_size"},
    "macmind": {name: name for name in ("distance", "patch_size", "alphas", "concatenated")} | {"bins": "macmind_bins"},
}
"""Argument of a similarity -> the setting that gives it."""

YOUNGER = ("alphas", "concatenated", "log_polar")
"""Settings that models from before do not have."""

INFORMATION = ("mi", "local_mi", "nmi")


_log_polar_bins = lru_cache(LogPolarBins)


class LogPolarSettings(MethodSettings):
    """The bins over which macMIND averages: sectors of rings, cut into slices along the third axis."""

    window: Odd = BINS.window
    """R2, side of the window that they divide."""
    angles: Count = BINS.angles
    """Na, sectors in the plane of the first two axes."""
    radii: Count = BINS.radii
    """Nr, rings in that plane."""
    heights: Count = BINS.heights
    """Nh, slices; 2-D has one."""

    @model_validator(mode="after")
    def _none_empty(self) -> LogPolarSettings:
        _log_polar_bins(self.window, self.angles, self.radii, self.heights)
        return self

    @property
    def bins(self) -> LogPolarBins:
        """As the loss takes them."""
        return _log_polar_bins(self.window, self.angles, self.radii, self.heights)


class SimilaritySettings(MethodSettings):
    """How two images are compared; lengths are voxels of the grid on which they are."""

    similarity: Similarity = "lncc"
    """Of the warped and the fixed image: any of ``anamorph.losses.SIMILARITIES``."""
    window: Odd = 9
    """lncc: side of the box."""
    epsilon: Positive = 1e-4
    """lncc: contrast that counts as none, as a share of each image's variance."""
    patch_size: Odd = 5
    """mind, mind_ssc, macmind: side of a patch."""
    distance: Count = 2
    """mind, mind_ssc, macmind: between patches."""
    bins: Annotated[int, Field(ge=4)] = 32
    """mi, nmi, local_mi: of each image's intensities."""
    neighbourhood: Annotated[int, Field(ge=2)] = 16
    """local_mi: side of the parts of the image that have a histogram each."""
    sigma: Positive = 1.5
    """ssim: of the Gaussian window."""
    alphas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = ALPHAS
    """macmind: weight of each scale, small to large; their number is K."""
    concatenated: bool = False
    """macmind: whether scales stand side by side instead of being summed."""
    log_polar: LogPolarSettings = LogPolarSettings()
    """macmind: its bins."""

    @field_validator("alphas")
    @classmethod
    def _some(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not any(alphas):
            raise ValueError("at least one of alphas is above 0")
        return alphas

    @property
    def macmind_bins(self) -> LogPolarBins:
        """The bins of ``log_polar``."""
        return self.log_polar.bins

    @model_serializer(mode="wrap")
    def _told(self, told: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Without what younger options are by default: what was kept by the words of before stays valid."""
        values = told(self)
        for name in YOUNGER:
            if getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)
        return values


def check_similarity(settings: SimilaritySettings, domain: Domain) -> None:
    """Refuse what cannot be compared in this dimension.

    Raises:
        ConfigurationError: E-MOD-027, several slices of macMIND's bins in 2-D.
    """
    if settings.similarity == "macmind" and domain.ndim == 2 and settings.log_polar.heights > 1:
        found = f"{settings.log_polar.heights} heights of macMIND's bins in 2-D"
        raise ConfigurationError("E-MOD-027", found, expected="one", do="leave log_polar.heights out")


def compare(
    settings: SimilaritySettings,
    fixed: ImageBatch,
    warped: ImageBatch,
    fixed_mask: MaskBatch | None,
    moving_mask: MaskBatch | None,
    moving: Float[Tensor, "batch channels *own"],
) -> Loss:
    """The chosen similarity of images on one grid; 0 at best, a mean over the batch.

    Args:
        settings: which, and its options.
        fixed, warped: on one grid, B C I J (K).
        fixed_mask, moving_mask: on that grid, the moving one warped as its image; None where everything counts.
        moving: the image before it was warped, on any grid. Histograms span its intensities, which stay as they are,
            rather than the warped ones, which would move the bins from step to step.
    """
    similarity = losses.SIMILARITIES[settings.similarity]
    options = {name: getattr(settings, setting) for name, setting in OPTIONS.get(settings.similarity, {}).items()}
    if settings.similarity not in INFORMATION:
        return similarity(fixed, warped, fixed_mask, moving_mask, **options)
    items = []
    for item in range(len(fixed)):
        here = slice(item, item + 1)
        masks = [None if mask is None else mask[here] for mask in (fixed_mask, moving_mask)]
        limits = {"fixed_limits": _limits(fixed[here]), "moving_limits": _limits(moving[here])}
        items.append(similarity(fixed[here], warped[here], *masks, **options, **limits))
    return torch.stack(items).mean()


def _limits(image: Tensor) -> tuple[float, float] | None:
    """Extremes; None of a constant image."""
    low, high = (float(value) for value in image.detach().aminmax())
    return (low, high) if low < high else None


def overlap_of_labelled(fixed: ImageBatch, warped: ImageBatch, both: Bool[Tensor, "items"]) -> Loss:
    """Soft Dice loss of the items that have labels on both sides, summed and divided by the size of the batch.

    Args:
        fixed, warped: probabilities of the classes without the background, of the labelled items alone.
        both: which items of the batch those are; at least one.
    """
    return losses.soft_dice(fixed, warped) * (len(fixed) / len(both))
