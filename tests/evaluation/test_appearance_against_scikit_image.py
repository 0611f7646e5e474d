"""The same SSIM, NMI, RMSE and PSNR as scikit-image, the same correlation as numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import mean_squared_error as peer_mse
from skimage.metrics import normalized_mutual_information as peer_nmi
from skimage.metrics import peak_signal_noise_ratio as peer_psnr
from skimage.metrics import structural_similarity as peer_ssim

from anamorph.evaluation.appearance import (
    mutual_information_nats,
    normalised_cross_correlation,
    normalised_mutual_information,
    peak_signal_to_noise_db,
    root_mean_square_error,
    structural_similarity,
)


def related_images(shape, seed):
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.standard_normal(shape), 1.5) * 40 + 100
    return image, np.sin(image / 4) * 30 + image + rng.standard_normal(shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(18, 16, 14), (40, 33)])
def test_structural_similarity(shape, seed):
    a, b = related_images(shape, seed)
    _, theirs = peer_ssim(
        a, b, data_range=np.ptp(a), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert structural_similarity(a, b) == pytest.approx(theirs.mean(), rel=1e-6)
    mask = a > np.median(a)
    inside = peer_ssim(
        a, b, data_range=np.ptp(a[mask]), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1][mask]
    assert structural_similarity(a, b, mask) == pytest.approx(inside.mean(), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [16, 64])
def test_normalised_mutual_information(bins, seed):
    # With 2 % of the values at either end, the percentiles that bound the bins are the smallest and the largest value.
    a, b = (np.clip(image, *np.percentile(image, (2, 98))) for image in related_images((18, 16, 14), seed))
    assert normalised_mutual_information(a, b, bins=bins) == pytest.approx(peer_nmi(a, b, bins=bins), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_mutual_information_of_a_joint_gaussian(seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((60, 60, 60))
    b = 0.8 * a + 0.6 * rng.standard_normal(a.shape)
    assert mutual_information_nats(a, b, bins=32) == pytest.approx(-0.5 * np.log(1 - 0.8**2), abs=0.03)


def test_correlation():
    a, b = related_images((18, 16, 14), 0)
    assert normalised_cross_correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("shape", [(18, 16, 14), (40, 33)])
def test_errors_of_intensity(shape):
    a, b = related_images(shape, 0)
    assert root_mean_square_error(a, b) == pytest.approx(np.sqrt(peer_mse(a, b)))
    assert peak_signal_to_noise_db(a, b) == pytest.approx(peer_psnr(a, b, data_range=np.ptp(a)))
    mask = a > np.median(a)
    assert root_mean_square_error(a, b, mask) == pytest.approx(np.sqrt(peer_mse(a[mask], b[mask])))
    expected = peer_psnr(a[mask], b[mask], data_range=np.ptp(a[mask]))
    assert peak_signal_to_noise_db(a, b, mask) == pytest.approx(expected)
