"""Sharpness, foreground and outliers of images and numbers worked out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from anamorph.evaluation.atlas_quality import change, foreground, mean_length_mm, otsu_threshold, robust_z, sharpness


def test_the_gradient_of_a_ramp_is_its_slope_in_mm() -> None:
    ramp = np.broadcast_to(0.6 * np.arange(30.0)[:, None], (30, 20)).copy()
    inner = np.zeros(ramp.shape, bool)
    inner[8:-8, 4:-4] = True
    assert sharpness(ramp, np.diag([2.0, 3.0, 1.0]), inner) == pytest.approx(0.3)
    turned = np.array([[0.0, -3.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert sharpness(ramp, turned, inner) == pytest.approx(0.3)
    assert math.isnan(sharpness(ramp, np.eye(3), np.zeros(ramp.shape, bool)))


def test_blur_makes_a_disc_less_sharp_and_noise_hardly_sharper() -> None:
    nodes = np.stack(np.meshgrid(np.arange(60), np.arange(60), indexing="ij"))
    disc = (np.hypot(*(nodes - 30)) < 14).astype(float)
    rings = [sharpness(gaussian_filter(disc, sigma), np.eye(3), foreground(disc)) for sigma in (0.5, 2.0, 4.0)]
    assert rings[0] > 1.2 * rings[1] > 1.3 * rings[2]
    flat = np.ones((20, 20))
    assert sharpness(flat, np.eye(3)) == 0


def test_otsu_as_scikit_image_has_it() -> None:
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.normal(0.2, 0.05, 900), rng.normal(0.7, 0.1, 700)]).reshape(40, 40)
    assert otsu_threshold(image) == pytest.approx(threshold_otsu(image), abs=2 * np.ptp(image) / 256)
    assert otsu_threshold(np.full((3, 3), 2.0)) == 2.0


def test_the_foreground_is_what_is_bright_and_a_margin() -> None:
    image = np.zeros((11, 11))
    image[5, 5] = 1
    assert foreground(image).sum() == 13  # a diamond of radius 2
    assert foreground(np.zeros((4, 4))).all()


def test_mean_length() -> None:
    displacement = np.zeros((2, 2, 2))
    displacement[:, 0, 0] = 3, 4
    assert mean_length_mm(displacement) == 1.25
    assert mean_length_mm(displacement, np.array([[True, False], [False, False]])) == 5
    assert math.isnan(mean_length_mm(displacement, np.zeros((2, 2), bool)))


def test_change_is_a_share_of_the_contrast_and_blind_to_noise() -> None:
    ramp = np.broadcast_to(np.arange(40.0)[:, None], (40, 30)).copy()
    inner = np.zeros(ramp.shape, bool)
    inner[8:-8, 8:-8] = True
    assert change(ramp, ramp + 2.0, inner) == pytest.approx(2 / np.arange(8, 32).std(), rel=1e-6)
    noise = np.random.default_rng(0).normal(0, 2.0, ramp.shape)
    assert change(ramp, ramp + noise, inner) < 0.4 * np.std(noise) / np.arange(8, 32).std()
    assert change(ramp, ramp) == 0
    assert change(np.ones((4, 4)), np.ones((4, 4))) == 0


def test_robust_z() -> None:
    # Median 3, deviations 2 1 0 1 97, their median 1.
    assert robust_z([1.0, 2.0, 3.0, 4.0, 100.0]) == pytest.approx([0.6745 * n for n in (-2, -1, 0, 1, 97)])
    assert robust_z([2.0, 2.0, 2.0]) == [0, 0, 0]
    # More than half are equal: the mean deviation 1/4 times sqrt(pi / 2) stands in.
    assert robust_z([1.0, 1.0, 1.0, 2.0])[-1] == pytest.approx(4 / math.sqrt(math.pi / 2))
    assert math.isnan(robust_z([1.0, math.nan, 2.0])[1])
    assert robust_z([]) == []
