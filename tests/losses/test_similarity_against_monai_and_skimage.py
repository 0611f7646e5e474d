"""Local correlation and Dice against MONAI, structural similarity against scikit-image, where definitions agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceLoss
from monai.losses.image_dissimilarity import LocalNormalizedCrossCorrelationLoss
from skimage.metrics import structural_similarity as referee_ssim

from anamorph.losses import soft_dice
from anamorph.losses.similarity import squared_local_correlation, structural_similarity

SHAPES = [(21, 18), (14, 15, 13)]


def inside(x: torch.Tensor, margin: int) -> torch.Tensor:
    """Away from the border, where the border rules differ."""
    return x[(..., *[slice(margin, -margin)] * (x.ndim - 2))]


@pytest.mark.parametrize("shape", SHAPES)
def test_local_correlation(shape, generator):
    fixed, moving = (torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    referee = LocalNormalizedCrossCorrelationLoss(len(shape), kernel_size=5, reduction="none", smooth_dr=0)
    found = squared_local_correlation(fixed, moving, None, 5, 0.0)
    torch.testing.assert_close(inside(found, 2), -inside(referee(moving, fixed), 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_structural_similarity(shape, generator):
    fixed, moving = (torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    moving = 0.5 * moving + 0.5 * fixed
    f, m = (x[0, 0].numpy() for x in (fixed, moving))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True, "data_range": 2.0}
    expected = np.asarray(referee_ssim(f, m, **options)[1])
    found = structural_similarity(fixed, moving, None, 1.5, 2.0)
    torch.testing.assert_close(inside(found, 5)[0, 0], inside(torch.from_numpy(expected)[None, None], 5)[0, 0])


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_dice(shape, squared, generator):
    fixed, moving = (torch.rand(2, 3, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    referee = DiceLoss(squared_pred=squared, smooth_nr=1e-5, smooth_dr=1e-5)
    torch.testing.assert_close(soft_dice(fixed, moving, squared=squared), referee(moving, fixed))
