"""Weights of voxels."""

from __future__ import annotations

import pytest
import torch

from anamorph.losses.masks import voxel_weight, weighted_mean


def test_a_weighted_mean():
    values = torch.tensor([[[1.0, 2.0, 4.0]], [[8.0, 16.0, 32.0]]])
    weight = torch.tensor([[[1.0, 0.0, 0.5]], [[0.0, 0.0, 0.0]]])
    assert weighted_mean(values, None).item() == 63 / 6
    assert weighted_mean(values, weight).item() == 1.0  # (1 + 2) / 1.5 = 2 of the first item, nothing of the second


def test_the_mean_over_channels_is_a_plain_one():
    values = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    assert weighted_mean(values, torch.tensor([[[0.0, 1.0]]])).item() == 3.5


def test_images_and_masks_on_other_grids_are_refused():
    unchecked = getattr(voxel_weight, "__wrapped__", voxel_weight)  # without the shape types that tests enforce
    image, other = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 1)
    with pytest.raises(ValueError, match="same shape"):
        unchecked(image, other, None, None)
    with pytest.raises(ValueError, match="on the grid"):
        unchecked(image, image, None, other)
