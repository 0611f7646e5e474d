"""What a descriptor sees in an image, as an image of its own: the mean over its channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from anamorph.data.image import Image
from anamorph.errors import ConfigurationError, ResourceError
from anamorph.inference.memory import PROGRAM_BYTES, available_memory
from anamorph.losses.feature_maps import Descriptor, feature_map
from anamorph.losses.log_polar import LogPolarBins
from anamorph.losses.macmind import ALPHAS, BINS

BYTES_PER_VOXEL = {"macmind": 120, "mind": 70, "mind_ssc": 95}
"""At the peak, the image included."""


def feature_image(
    image: Image,
    descriptor: Descriptor,
    *,
    distance: int = 2,
    patch_size: int = 5,
    alphas: Sequence[float] = ALPHAS,
    bins: LogPolarBins = BINS,
    max_memory: int | None = None,
) -> Image:
    """The mean over a descriptor's channels, on the image's own grid.

    Args:
        image: of any modality; descriptors do not ask for a scale of the intensities.
        descriptor, distance, patch_size, alphas, bins: as in ``feature_map``; lengths are in voxels.
        max_memory: bytes to stay within; None stands for those of the machine.

    Raises:
        ConfigurationError: E-MOD-027, several heights of macMIND's bins in 2-D.
        ResourceError: E-MEM-016.
    """
    if descriptor == "macmind" and image.grid.ndim == 2 and bins.heights > 1:
        found = f"{bins.heights} heights of macMIND's bins in 2-D"
        raise ConfigurationError("E-MOD-027", found, file=image.name or None, expected="one")
    need = PROGRAM_BYTES + BYTES_PER_VOXEL[descriptor] * prod(image.grid.shape)
    budget = available_memory() if max_memory is None else max_memory
    if need > budget:
        found = f"about {need >> 20} MiB are needed, {budget >> 20} MiB allowed"
        do = "use a larger --max-memory, or crop or shrink the images"
        raise ResourceError("E-MEM-016", found, file=image.name or None, do=do)
    with torch.inference_mode():
        found = feature_map(
            image.data[None], descriptor, distance=distance, patch_size=patch_size, alphas=alphas, bins=bins
        )
    return Image(found[0], image.grid, image.modality, name=image.name)
