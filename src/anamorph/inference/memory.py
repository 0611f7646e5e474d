"""How much memory a registration takes, told before it starts."""

from __future__ import annotations

import os
from math import prod

from anamorph.errors import ResourceError, warn
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid

PROGRAM_BYTES = 500 * 2**20
"""Python, torch and their libraries."""

BYTES_PER_IMAGE_VOXEL = 14
"""An input as read, normalised and on its way to the working grid."""

BYTES_PER_FIXED_VOXEL = 48
"""What lives on the fixed grid at the end: displacement, determinant, warped image and the scores' copies."""

BYTES_PER_MOVING_VOXEL = 16
"""The inverse displacement on the moving grid."""

BYTES_PER_WORKING_VOXEL = {"mind": 110, "mind_ssc": 200, "macmind": 400}
"""Descriptors of both images, their level and its gradients; what is not listed compares images."""

BYTES_PER_COMPARED_VOXEL = 80

LEAST_WORKING_VOXELS = 50_000


def available_memory() -> int:
    """Bytes the machine could still give, as far as it says."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def estimated_memory(fixed: Grid, moving: Grid, settings: PairwiseSettings) -> int:
    """Bytes at the peak of a registration and the writing of its results."""
    voxels = prod(fixed.shape), prod(moving.shape)
    working = min(voxels[0], settings.working_voxels)
    per_working = BYTES_PER_WORKING_VOXEL.get(settings.similarity, BYTES_PER_COMPARED_VOXEL)
    inputs = BYTES_PER_IMAGE_VOXEL * sum(voxels)
    outputs = BYTES_PER_FIXED_VOXEL * voxels[0] + BYTES_PER_MOVING_VOXEL * voxels[1]
    return PROGRAM_BYTES + inputs + max(outputs, per_working * working)


def fit_to_memory(
    fixed: Grid, moving: Grid, settings: PairwiseSettings, max_memory: int | None = None
) -> PairwiseSettings:
    """The settings, with a working grid coarse enough to fit.

    Raises:
        ResourceError: E-MEM-016, it does not fit however coarse the working grid.
    """
    budget = available_memory() if max_memory is None else max_memory
    wished = settings
    while (need := estimated_memory(fixed, moving, settings)) > budget:
        if settings.working_voxels <= LEAST_WORKING_VOXELS:
            raise ResourceError(
                "E-MEM-016",
                f"about {_size(need)} are needed, {_size(budget)} allowed",
                do="use a larger --max-memory, or crop or shrink the images",
            )
        smaller = max(LEAST_WORKING_VOXELS, min(settings.working_voxels, prod(fixed.shape)) // 2)
        settings = settings.model_copy(update={"working_voxels": smaller})
    if settings is not wished:
        warn("W-MEM-016", f"working grid reduced to {settings.working_voxels} voxels to stay within the memory")
    return settings


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
