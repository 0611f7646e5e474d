"""How much memory a registration takes, told before it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

import torch

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

BYTES_PER_NETWORK_VOXEL = 1200
"""Feature maps of a network in use on a CPU, on its own grid: by default settings 400 (U-Net), 700 (VoxelMorph), 1000
(DynUNet) and 1150 (LapIRN). A GPU has memory of its own."""
BYTES_PER_CLASS = 45
"""More, for each class of a segmentation: what the refinement of an atlas with 35 classes takes beyond one with 5."""

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
            raise _too_little(need, budget)
        smaller = max(LEAST_WORKING_VOXELS, min(settings.working_voxels, prod(fixed.shape)) // 2)
        settings = settings.model_copy(update={"working_voxels": smaller})
    if settings is not wished:
        warn("W-MEM-016", f"working grid reduced to {settings.working_voxels} voxels to stay within the memory")
    return settings


def check_network_memory(
    shape: Sequence[int],
    inputs: Sequence[Grid],
    device: torch.device,
    max_memory: int | None = None,
    *,
    classes: int = 0,
) -> None:
    """Refuse what a trained model cannot do within the memory.

    Args:
        shape: of the network's grid.
        inputs: the fixed and the moving grid, or the one that is segmented.
        device: where the network computes.
        max_memory: bytes allowed; None stands for those of the machine.
        classes: that it tells apart.

    Raises:
        ResourceError: E-MEM-016.
    """
    budget = available_memory() if max_memory is None else max_memory
    network = (BYTES_PER_NETWORK_VOXEL + BYTES_PER_CLASS * classes) * prod(shape) if device.type == "cpu" else 0
    voxels = [prod(grid.shape) for grid in inputs]
    outputs = sum(
        each * count for each, count in zip((BYTES_PER_FIXED_VOXEL, BYTES_PER_MOVING_VOXEL), voxels, strict=False)
    )
    need = PROGRAM_BYTES + BYTES_PER_IMAGE_VOXEL * sum(voxels) + max(outputs, network)
    if need > budget:
        raise _too_little(need, budget)


def _too_little(need: int, budget: int) -> ResourceError:
    return ResourceError(
        "E-MEM-016",
        f"about {_size(need)} are needed, {_size(budget)} allowed",
        do="use a larger --max-memory, or crop or shrink the images",
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
