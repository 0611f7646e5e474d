"""Entropies that can be written down."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.evaluation.appearance import (
    appearance_scores,
    intensity_scores,
    mutual_information_nats,
    normalised_cross_correlation,
    normalised_mutual_information,
    peak_signal_to_noise_db,
    root_mean_square_error,
    structural_similarity,
)

QUARTERS = np.repeat(np.arange(4.0), 16).reshape(8, 8)


def test_equal_images_share_their_whole_entropy():
    assert mutual_information_nats(QUARTERS, QUARTERS) == pytest.approx(np.log(4))
    assert normalised_mutual_information(QUARTERS, QUARTERS) == pytest.approx(2)


def test_any_one_to_one_change_of_contrast_keeps_it():
    contrast = np.array([3.0, -1.0, 9.0, 0.5])[QUARTERS.astype(int)]
    assert mutual_information_nats(QUARTERS, contrast) == pytest.approx(np.log(4))


def test_independent_images_share_nothing():
    assert mutual_information_nats(QUARTERS, np.tile([0.0, 1.0], (8, 4))) == pytest.approx(0, abs=1e-12)
    assert normalised_mutual_information(QUARTERS, np.tile([0.0, 1.0], (8, 4))) == pytest.approx(1)


def test_half_the_information():
    assert mutual_information_nats(QUARTERS, QUARTERS // 2) == pytest.approx(np.log(2))
    assert normalised_mutual_information(QUARTERS, QUARTERS // 2) == pytest.approx((np.log(4) + np.log(2)) / np.log(4))


def test_a_mask_looks_inside_only():
    spoilt = QUARTERS.copy()
    spoilt[:, 0] = np.random.default_rng(0).normal(size=8)
    mask = np.ones((8, 8), bool)
    mask[:, 0] = False
    assert mutual_information_nats(QUARTERS, spoilt, mask) == pytest.approx(np.log(4))
    assert normalised_cross_correlation(QUARTERS, spoilt, mask) == pytest.approx(1)


def test_one_extreme_voxel_does_not_empty_the_bins():
    image = np.random.default_rng(0).normal(size=(40, 40))
    metal = image.copy()
    metal[0, 0] = 1e6
    assert mutual_information_nats(metal, metal) == pytest.approx(mutual_information_nats(image, image), rel=0.02)


def test_correlation_has_a_sign():
    assert normalised_cross_correlation(QUARTERS, 5 - 2 * QUARTERS) == pytest.approx(-1)


def test_constant_images_have_no_correlation():
    flat = np.ones((8, 8))
    assert np.isnan(normalised_cross_correlation(flat, QUARTERS))
    assert np.isnan(structural_similarity(flat, QUARTERS))
    assert mutual_information_nats(flat, QUARTERS) == pytest.approx(0, abs=1e-12)


def test_rows_of_the_table():
    assert "structural_similarity" not in {row.metric for row in appearance_scores(QUARTERS, QUARTERS)}
    rows = {row.metric: row for row in appearance_scores(QUARTERS, QUARTERS, same_scale=True)}
    assert rows["mutual_information"].unit == "nats"
    assert rows["structural_similarity"].value == pytest.approx(1)
    assert {row.reason for row in rows.values()} == {""}
    with pytest.raises(ValueError, match="one shape"):
        appearance_scores(QUARTERS, QUARTERS[1:])


def test_ssim_of_two_modalities_prefers_the_worse_alignment():
    """Which is why it is not told of them; mutual information is not deceived."""
    row, column = np.mgrid[:32, :32]
    image = np.exp(-((row - 16.0) ** 2 + (column - 16.0) ** 2) / 30)
    inverse, away = 1 - image, np.roll(1 - image, 8, 0)
    assert structural_similarity(image, inverse) < structural_similarity(image, away)
    assert mutual_information_nats(image, inverse) > mutual_information_nats(image, away)


def test_intensities_that_are_off_by_a_known_amount():
    off = QUARTERS + np.tile([0.3, -0.3], (8, 4))
    assert root_mean_square_error(QUARTERS, off) == pytest.approx(0.3)
    assert peak_signal_to_noise_db(QUARTERS, off) == pytest.approx(20)  # a range of 3 is ten times 0.3
    rows = {row.metric: row for row in intensity_scores(QUARTERS, off)}
    assert {row.reason for row in rows.values()} == {""}


def test_intensities_without_a_ratio():
    nothing, flat = np.zeros((8, 8), bool), np.ones((8, 8))
    reasons = {
        "the images are equal": intensity_scores(QUARTERS, QUARTERS),
        "the fixed image is constant": intensity_scores(flat, QUARTERS),
        "the mask is empty": intensity_scores(QUARTERS, QUARTERS, nothing),
        "the warped image is not finite": intensity_scores(QUARTERS, QUARTERS * np.nan),
    }
    for reason, (error, ratio) in reasons.items():
        assert ratio.reason == reason
        assert not np.isfinite(ratio.value)
        assert error.reason == ("" if np.isfinite(error.value) else reason)
    assert reasons["the images are equal"][1].value == np.inf
    with pytest.raises(ValueError, match="one shape"):
        intensity_scores(QUARTERS, QUARTERS[1:])
