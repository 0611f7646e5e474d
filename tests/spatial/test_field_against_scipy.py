"""Interpolation against ``scipy.ndimage.map_coordinates``, which shares no code and counts axes in array order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from anamorph.spatial.field import identity, sample, warp


@pytest.mark.parametrize("shape", [(7, 9), (1, 6), (6, 7, 8), (5, 1, 4), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("outside", ["zeros", "border"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sampling_inside_and_outside(shape: tuple[int, ...], mode, outside, dtype: torch.dtype, device) -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=(2, 3, *shape))
    points = random.uniform(-2, 1, (2, len(shape), 500)) + random.uniform(0, 1, (2, 1, 500)) * (
        np.array(shape)[:, None] + 1
    )
    found = sample(*(torch.tensor(x, dtype=dtype, device=device) for x in (image, points)), mode, outside)

    order = 1 if mode == "linear" else 0
    expected = np.array(
        [[map_coordinates(c, p, order=order, mode="nearest") for c in i] for i, p in zip(image, points, strict=True)]
    )
    if outside == "zeros":
        size = np.array(shape)[:, None]
        expected = expected * ((points >= -0.5) & (points <= size - 0.5)).all(1)[:, None]
        assert (expected == 0).any()
        assert (expected != 0).any()
    np.testing.assert_allclose(found.cpu(), expected, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("shape", [(11, 9), (8, 9, 7)], ids=str)
def test_warping(shape: tuple[int, ...], device: torch.device) -> None:
    random = np.random.default_rng(1)
    image, displacement = random.normal(size=(1, 2, *shape)), random.normal(size=(1, len(shape), *shape)) * 2
    found = warp(*(torch.tensor(x, device=device) for x in (image, displacement)), outside="border")
    points = identity(shape, torch.float64).numpy() + displacement[0]
    expected = [map_coordinates(channel, points, order=1, mode="nearest") for channel in image[0]]
    np.testing.assert_allclose(found[0].cpu(), expected, atol=1e-12)
