"""The same interval as scipy's percentile bootstrap, the same p as a bootstrap written in one line."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from anamorph.evaluation.statistics import Pairing, bootstrap_means, paired_tests


@pytest.mark.parametrize("n", [8, 25, 120])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_the_interval(n, shape):
    rng = np.random.default_rng(n)
    gains = rng.normal(0.2, 1, n) if shape == "normal" else rng.exponential(1, n) - 0.5
    (ours,) = paired_tests([Pairing(gains)], level=0.01)
    theirs = stats.bootstrap(
        (gains,), np.mean, n_resamples=10_000, confidence_level=0.98, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    error = 4 * gains.std() / np.sqrt(n) * 0.05  # two estimates of a 1 % quantile from 10 000 draws each
    assert ours.low == pytest.approx(theirs.low, abs=error)
    assert ours.high == pytest.approx(theirs.high, abs=error)


@pytest.mark.parametrize("seed", range(3))
def test_the_one_sided_p(seed):
    gains = np.random.default_rng(seed).normal(0.25, 1, 40)
    (ours,) = paired_tests([Pairing(gains)])
    drawn = np.random.default_rng(99).choice(gains, (10_000, 40)).mean(axis=1)
    assert ours.p == pytest.approx((drawn <= 0).mean(), abs=0.015)
    assert ours.p_wilcoxon == pytest.approx(ours.p, abs=0.1)


def test_resamples_have_the_right_spread():
    values = np.random.default_rng(0).normal(size=(30, 2))
    means = bootstrap_means(values, 20_000)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=0.005)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / np.sqrt(30), rtol=0.02)


@pytest.mark.parametrize("n", [7, 12, 31, 50, 51, 90])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.4])
def test_wilcoxon(n, shift):
    gains = np.random.default_rng(n).normal(shift, 1, n)
    (ours,) = paired_tests([Pairing(gains)], repetitions=999)
    theirs = stats.wilcoxon(gains, alternative="greater", method="exact" if n <= 50 else "asymptotic")
    assert ours.p_wilcoxon == pytest.approx(theirs.pvalue, rel=1e-9)


def test_wilcoxon_with_ties_and_zeros():
    gains = np.array([1, 1, -1, 2, 0, 3, 3, -2, 0, 1], float)
    (ours,) = paired_tests([Pairing(gains)], repetitions=999)
    every_sign = stats.PermutationMethod(n_resamples=10_000)
    theirs = stats.wilcoxon(gains[gains != 0], alternative="greater", method=every_sign)
    assert ours.p_wilcoxon == pytest.approx(theirs.pvalue)
    (rounded,) = paired_tests([Pairing(gains * (0.1 + 0.2) / 0.3)], repetitions=999)
    assert rounded.p_wilcoxon == ours.p_wilcoxon
