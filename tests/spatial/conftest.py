"""Random smooth fields and grids that the tests of ``spatial`` share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from anamorph.spatial.field import identity
from anamorph.spatial.grid import Grid


@pytest.fixture(scope="session")
def smooth_field(device: torch.device) -> Callable[..., Tensor]:
    """``smooth_field(shape, seed, amplitude=1.0, channels=d)``: 1 C *shape, float64.

    Each channel is a random wave of at most half a period across the grid that fades out towards the outer voxels,
    where it is zero; ``amplitude`` is its largest value, in voxels for a displacement.
    """

    def make(shape: tuple[int, ...], seed: int, amplitude: float = 1.0, channels: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        position = identity(shape, torch.float64) / (torch.tensor(shape) - 1).view(-1, *[1] * len(shape))
        window = torch.sin(torch.pi * position).prod(0)
        waves = []
        for _ in range(channels or len(shape)):
            direction = torch.randn(len(shape), generator=generator, dtype=torch.float64)
            phase = torch.rand(1, generator=generator, dtype=torch.float64) * 2 * torch.pi
            along = torch.tensordot(direction / direction.norm(), position, dims=1)
            wave = torch.sin(torch.pi * along + phase) * window
            waves.append(amplitude * wave / wave.abs().max())
        return torch.stack(waves)[None].to(device)

    return make


@pytest.fixture(scope="session")
def oblique_grid() -> Callable[..., Grid]:
    """``oblique_grid(shape, seed, shear=0.0)``: random rotation, spacing of 0.5 to 3 mm, the origin up to 3 cm away."""

    def make(shape: tuple[int, ...], seed: int, shear: float = 0.0) -> Grid:
        random = np.random.default_rng(seed)
        ndim = len(shape)
        rotation = np.linalg.qr(random.normal(size=(ndim, ndim)))[0]
        rotation[:, 0] *= np.sign(np.linalg.det(rotation))
        affine = np.eye(ndim + 1)
        affine[:-1, :-1] = rotation @ (np.eye(ndim) + shear * np.eye(ndim, k=1)) @ np.diag(random.uniform(0.5, 3, ndim))
        affine[:-1, -1] = random.uniform(-30, 10, ndim)
        return Grid(shape, affine)

    return make
