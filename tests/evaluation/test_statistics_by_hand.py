"""Summaries and tests of a few cases, worked out on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anamorph.evaluation.statistics import (
    Pairing,
    bootstrap_means,
    fewest_pairs,
    holm,
    pair,
    paired_tests,
    summarise,
)


def test_a_summary():
    found = summarise([1.0, 2.0, 3.0, 6.0])
    assert (found.n, found.mean, found.median) == (4, 3, 2.5)
    assert found.sd == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3))
    assert (found.q1, found.q3) == (1.75, 3.75)
    assert (found.smallest, found.largest) == (1, 6)
    assert found.infinite == found.undefined == 0


def test_what_is_not_finite_is_counted():
    found = summarise([1.0, math.inf, math.nan, 3.0, math.nan])
    assert (found.n, found.mean, found.infinite, found.undefined) == (2, 2, 1, 2)


def test_one_value_has_no_spread_and_none_has_nothing():
    assert math.isnan(summarise([2.0]).sd)
    nothing = summarise([math.nan])
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    assert nothing.undefined == 1


def test_pairs_are_formed_by_case_and_the_rest_is_named():
    ours = {"a": 0.9, "b": 0.8, "c": math.nan, "d": 0.7}
    theirs = {"b": 0.6, "a": 0.8, "c": 0.5, "e": 0.4}
    up, down = pair(ours, theirs, higher_is_better=True), pair(ours, theirs, higher_is_better=False)
    np.testing.assert_allclose(up.gains, [0.1, 0.2])
    np.testing.assert_allclose(down.gains, [-0.1, -0.2])
    assert up.left_out == down.left_out == ("c", "d", "e")
    assert pair({"a": math.inf}, {"a": math.inf}, True).left_out == ("a",)


def test_seven_pairs_are_needed_for_one_percent():
    assert [fewest_pairs(level) for level in (0.01, 0.05, 0.25, 0.001)] == [7, 5, 2, 10]
    six, seven, none = paired_tests([Pairing(np.ones(6)), Pairing(np.ones(7)), Pairing(np.empty(0))])
    assert six.untested == "6 pairs, at least 7 are needed for a level of 0.01"
    assert (six.n, six.gain, six.significant) == (6, 1, False)
    assert math.isnan(six.p)
    assert seven.significant
    assert none.untested.startswith("0 pairs")
    assert math.isnan(none.gain)
    (single,) = paired_tests([Pairing(np.ones(1))])
    assert single.untested.startswith("1 pair,")


def test_always_the_same_gain():
    (found,) = paired_tests([Pairing(np.full(10, 0.3))])
    assert [found.low, found.high, found.gain] == pytest.approx([0.3] * 3)
    assert found.p == 1 / 10_001
    assert found.p_wilcoxon == pytest.approx(2**-10)
    (worse,) = paired_tests([Pairing(np.full(10, -0.3))])
    assert worse.p == 1
    assert not worse.significant


def test_no_gain_at_all_is_no_finding():
    zeros, cancelling = paired_tests([Pairing(np.zeros(12)), Pairing(np.repeat([0.1, -0.1], 10))])
    assert zeros.p == zeros.p_wilcoxon == 1
    assert not zeros.significant
    assert 0.4 < cancelling.p < 0.65
    assert cancelling.low == pytest.approx(-cancelling.high, abs=0.01)


def test_rounding_is_no_gain():
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floating point; means of such differences must count as 0.
    gains = np.array([0.1 + 0.2, -0.3] * 5)
    assert np.all(bootstrap_means(gains[:, None])[:, 0][4000:6000] == pytest.approx(0, abs=0.3))
    drawn = bootstrap_means(np.array([[0.1 + 0.2], [-0.3]]), 1000)
    assert {abs(float(mean)) for mean in drawn.round(12).ravel()} == {0.0, 0.3}
    assert np.count_nonzero(drawn == 0) > 300


def test_p_and_the_interval_never_disagree():
    rng = np.random.default_rng(0)
    pairings = [Pairing(rng.normal(shift, 1, 12)) for shift in np.linspace(0, 1.5, 100)]
    for repetitions in (999, 1000, 2345):
        tests = paired_tests(pairings, repetitions=repetitions)
        assert all(test.significant == (test.p <= 0.01) == (test.low > 0) for test in tests)
        assert {test.significant for test in tests} == {True, False}


def test_a_result_does_not_depend_on_what_else_is_tested():
    rng = np.random.default_rng(1)
    pairings = [Pairing(rng.normal(0.3, 1, n)) for n in (8, 20, 8, 33) * 80]
    together = paired_tests(pairings, repetitions=1000)
    for pairing, test in zip(pairings[:8], together[:8], strict=True):
        (alone,) = paired_tests([pairing], repetitions=1000)
        assert (alone.p, alone.p_wilcoxon, alone.gain) == (test.p, test.p_wilcoxon, test.gain)
        assert (alone.low, alone.high) == pytest.approx((test.low, test.high), rel=1e-12)
    assert paired_tests(pairings[:1], repetitions=1000, seed=1)[0].low != pytest.approx(together[0].low, rel=1e-6)


def test_holm_on_paper():
    # 0.01 x 4, 0.02 x 3 and so on, never below an earlier one, never above 1.
    assert holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []
    with_a_gap = holm([0.01, math.nan, 0.04])
    assert with_a_gap[::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(with_a_gap[1])


def test_repetitions_that_cannot_tell_the_level_are_refused():
    with pytest.raises(ValueError, match="cannot tell a level"):
        paired_tests([], repetitions=50)
    with pytest.raises(ValueError, match="cannot tell a level"):
        paired_tests([], level=0.5)
