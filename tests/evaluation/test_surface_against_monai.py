"""The same surface distances as MONAI on random blobs with unequal voxel sides."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anamorph.evaluation.surface import normalised_surface_dice, surface_distances

SPACING = {3: (0.7, 1.3, 2.5), 2: (0.7, 1.9)}


@pytest.fixture(scope="module")
def monai_metrics():
    import monai.metrics

    return monai.metrics


def blobs(shape, seed):
    rng = np.random.default_rng(seed)
    a, b = (gaussian_filter(rng.standard_normal(shape), 2.0) > 0.06 for _ in range(2))
    return a | np.roll(b, 2, 0), b


def as_batch(mask):
    return torch.from_numpy(mask)[None, None].float()


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(20, 17, 15), (26, 31)])
def test_random_blobs(shape, seed, monai_metrics):
    a, b = blobs(shape, seed)
    spacing = list(SPACING[len(shape)])
    distances = surface_distances(a, b, spacing)
    pair = as_batch(a), as_batch(b)
    settings = {"include_background": True, "spacing": spacing}
    hd = monai_metrics.compute_hausdorff_distance(*pair, **settings)
    hd95 = monai_metrics.compute_hausdorff_distance(*pair, percentile=95, **settings)
    assd = monai_metrics.compute_average_surface_distance(*pair, symmetric=True, **settings)
    assert distances.hd_mm == pytest.approx(float(hd), rel=1e-5)
    assert distances.hd95_mm == pytest.approx(float(hd95), rel=1e-5)
    assert distances.assd_mm == pytest.approx(float(assd), rel=1e-5)
    asd = monai_metrics.compute_average_surface_distance(pair[1], pair[0], **settings)  # of the prediction, b
    asd_back = monai_metrics.compute_average_surface_distance(*pair, **settings)
    assert distances.asd_mm == pytest.approx(float(asd), rel=1e-5)
    assert distances.assd_balanced_mm == pytest.approx(float(asd + asd_back) / 2, rel=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_surface_dice_does_not_depend_on_the_room_round_the_masks(seed, monai_metrics):
    a, b = (np.pad(mask, 4) for mask in blobs((16, 14, 12), seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        whole = monai_metrics.compute_surface_dice(
            as_batch(a), as_batch(b), [1.5], include_background=True, spacing=[0.7, 1.3, 2.5], use_subvoxels=True
        )
    assert normalised_surface_dice(a, b, (0.7, 1.3, 2.5), 1.5) == pytest.approx(float(whole), rel=1e-5)
