from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from anamorph.pairwise.register import Volume
from anamorph.spatial.grid import Grid

TISSUES = {"one": np.array([0.0, 0.4, 0.9, 0.2, 1.0, 0.6]), "other": np.array([0.0, 0.8, 0.3, 1.0, 0.5, 0.1])}


def tissue(points: np.ndarray) -> np.ndarray:
    """A lopsided body with organs, as tissue indices at world points N d (mm, within about 40 of the origin)."""
    p = points if points.shape[1] == 3 else np.column_stack([points, np.zeros(len(points))])
    x, y, z = p.T
    index = np.zeros(len(p), dtype=int)
    index[(x / 36) ** 2 + (y / 28) ** 2 + (z / 40) ** 2 < 1] = 1
    index[((x - 12) / 16) ** 2 + ((y + 4) / 14) ** 2 + ((z - 6) / 20) ** 2 < 1] = 2
    index[((x + 16) / 10) ** 2 + ((y - 6) / 13) ** 2 + ((z + 8) / 16) ** 2 < 1] = 3
    index[((x - 2) / 6) ** 2 + ((y - 18) / 6) ** 2 + (z / 38) ** 2 < 1] = 4
    index[((x - 16) / 6) ** 2 + ((y + 6) / 5) ** 2 + ((z - 10) / 7) ** 2 < 1] = 5
    return index


@pytest.fixture(scope="session")
def body() -> Callable[..., Volume]:
    """The body in one of two contrasts, on any grid, seen through a map from grid world to body world."""

    def make(grid: Grid, contrast: str, to_body: Callable[[np.ndarray], np.ndarray] | None = None, seed=0, **kind):
        rng = np.random.default_rng(seed)
        values = np.zeros(int(np.prod(grid.shape)))
        offsets = (-0.25, 0.25)
        for shift in np.stack(np.meshgrid(*[offsets] * grid.ndim), -1).reshape(-1, grid.ndim):
            points = grid.to_world(grid.voxels() + shift)
            values += TISSUES[contrast][tissue(points if to_body is None else to_body(points))]
        values = values / 2**grid.ndim + rng.normal(0, 0.02, len(values))
        return Volume(torch.from_numpy(values.reshape(grid.shape).astype(np.float32) * 100), grid, **kind)

    return make


@pytest.fixture(scope="session")
def tissue_at() -> Callable[[np.ndarray], np.ndarray]:
    return tissue


@pytest.fixture(scope="session")
def fixed_grid() -> Grid:
    return Grid((32, 30, 28), np.array([[2.6, 0, 0, -40], [0, 2.6, 0, -38], [0, 0, 3.0, -42], [0, 0, 0, 1]]))


@pytest.fixture(scope="session")
def moving_grid() -> Grid:
    """Left-handed, oblique, anisotropic."""
    c, s = np.cos(0.2), np.sin(0.2)
    axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-2.4, 2.4, 3.5])
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ (np.array([36, 34, 27]) - 1) / 2
    return Grid((36, 34, 27), affine)
