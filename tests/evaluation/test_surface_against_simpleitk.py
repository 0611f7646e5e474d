"""The same distances of regions as ITK's Hausdorff filter."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from anamorph.evaluation.surface import region_distances


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.5), (0.8, 1.9)])
def test_random_blobs(spacing, seed):
    shape = (20, 17, 15)[: len(spacing)]
    rng = np.random.default_rng(seed)
    masks = [gaussian_filter(rng.standard_normal(shape), 2.0) > level for level in (0.02, 0.06)]
    peers = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    for peer in peers:
        peer.SetSpacing(spacing[::-1])
    filter_ = sitk.HausdorffDistanceImageFilter()
    filter_.Execute(*peers)
    found = region_distances(*masks, spacing)
    assert found.hd_mm == pytest.approx(filter_.GetHausdorffDistance(), rel=1e-6)
    assert found.average_hd_mm == pytest.approx(filter_.GetAverageHausdorffDistance(), rel=1e-6)
