"""A feature map is the mean over the channels that the descriptors themselves give."""

from __future__ import annotations

import pytest
import torch

from anamorph.losses import LogPolarBins, macmind, mind, mind_ssc
from anamorph.losses.feature_maps import Descriptor, feature_map


@pytest.mark.parametrize("shape", [(1, 2, 14, 11), (2, 1, 9, 8, 10)], ids=["2d", "3d"])
@pytest.mark.parametrize("alphas", [(0.7, 0.3), (1.0,)])
def test_mean_over_the_channels_of_macmind(shape, alphas, generator) -> None:
    image = torch.rand(shape, generator=generator)
    bins = LogPolarBins(window=3, angles=4, radii=1)
    whole = macmind(image, alphas=alphas, distance=1, patch_size=3, bins=bins)
    found = feature_map(image, "macmind", alphas=alphas, distance=1, patch_size=3, bins=bins)
    torch.testing.assert_close(found, whole.mean(1, keepdim=True))


@pytest.mark.parametrize("shape", [(1, 1, 12, 11), (1, 2, 9, 8, 10)], ids=["2d", "3d"])
def test_mean_over_the_channels_of_mind_and_mind_ssc(shape, generator) -> None:
    image = torch.rand(shape, generator=generator)
    torch.testing.assert_close(feature_map(image, "mind"), mind(image).mean(1, keepdim=True))
    torch.testing.assert_close(feature_map(image, "mind_ssc"), mind_ssc(image).mean(1, keepdim=True))


def test_an_edge_is_darker_than_what_lies_beside_it_and_one_contrast_like_its_inverse() -> None:
    image = torch.zeros(1, 1, 24, 24)
    image[..., 12:, :] = 1.0
    names: tuple[Descriptor, ...] = ("macmind", "mind")
    for name in names:
        found = feature_map(image, name)
        assert float(found[0, 0, 12, 12]) < float(found[0, 0, 2, 12]) - 0.1
        torch.testing.assert_close(feature_map(1 - image, name), found, atol=1e-5, rtol=1e-4)
