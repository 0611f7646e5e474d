"""Atlases ranked by what their images share with the target."""

from __future__ import annotations

import math

import pytest
import torch

from anamorph.fusion import atlas_similarities, rank_atlases

TARGET = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
SAME = torch.tensor([[[5.0, 5.0], [2.0, 2.0]]])  # another contrast, the same parts
OTHER = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])  # independent of the target
PARTLY = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])


def test_normalised_mutual_information_by_hand() -> None:
    found = atlas_similarities(TARGET, [SAME, OTHER, PARTLY])
    halves, quarter = math.log(2), -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    joint = -0.5 * math.log(0.5) - 2 * 0.25 * math.log(0.25)
    assert found == [pytest.approx(2), pytest.approx(1), pytest.approx((halves + quarter) / joint)]


def test_the_most_similar_atlas_is_first_and_equals_keep_their_order() -> None:
    assert rank_atlases(TARGET, [OTHER, PARTLY, SAME, OTHER, SAME]) == [2, 4, 1, 0, 3]


def test_channels_count_alike_in_3d() -> None:
    two = torch.stack([TARGET[0], OTHER[0]])[..., None]
    assert atlas_similarities(two, [torch.stack([SAME[0], SAME[0]])[..., None]]) == [pytest.approx(1.5)]


def test_flat_images_tell_nothing() -> None:
    flat = torch.zeros(1, 3, 3)
    assert atlas_similarities(flat, [flat, torch.rand(1, 3, 3)]) == [1.0, 1.0]
