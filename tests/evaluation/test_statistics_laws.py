"""How often the test errs where there is no difference, and finds one where there is: simulated, seeded."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.evaluation.statistics import Pairing, paired_tests

STUDIES = 400


def share_of_findings(n, gain, level=0.05, seed=0):
    rng = np.random.default_rng(seed)
    studies = [Pairing(study) for study in rng.normal(gain, 1, (STUDIES, n))]
    tests = paired_tests(studies, level=level, repetitions=999)
    return np.mean([test.significant for test in tests]), np.mean([test.p_wilcoxon <= level for test in tests])


@pytest.mark.parametrize(("n", "most"), [(10, 0.12), (60, 0.08)])
def test_false_findings_stay_near_the_level(n, most):
    bootstrap, wilcoxon = share_of_findings(n, gain=0.0)
    assert 0.02 < bootstrap < most  # too often with few cases: the page on metrics says how much
    assert wilcoxon < 0.08


def test_true_differences_are_found():
    bootstrap, wilcoxon = share_of_findings(30, gain=0.8)
    assert bootstrap > 0.95
    assert wilcoxon > 0.9


def test_the_interval_covers_the_true_gain():
    rng = np.random.default_rng(5)
    tests = paired_tests([Pairing(study) for study in rng.normal(0.4, 1, (STUDIES, 60))], level=0.05, repetitions=999)
    covered = np.mean([test.low <= 0.4 <= test.high for test in tests])
    assert 0.86 < covered < 0.93  # 90 %
