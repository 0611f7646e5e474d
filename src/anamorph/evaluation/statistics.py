"""Numbers of many cases in few words, and whether one method is better than another on the same cases.

The test is Atlas-ISTN's (Sinclair et al. 2022, doi:10.1016/j.media.2022.102383): one-sided, paired, its statistic the
mean difference, its distribution estimated by the percentile bootstrap with 10 000 repetitions; at a level of 1 % one
method is better where the 98 % interval of the mean difference lies above 0. Wilcoxon's signed-rank test stands
beside it: it looks at ranks, so that a single huge difference decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata, wilcoxon

REPETITIONS = 10_000
LEVEL = 0.01
COLUMNS_AT_ONCE = 256
WEIGHTS_AT_ONCE = 4_000_000
MOST_EXACT = 50
"""Differences up to which Wilcoxon's p is computed exactly."""
NOTHING = 1e-12
"""A mean difference this much smaller than the largest difference is rounding, and counts as 0."""


@dataclass(frozen=True)
class Summary:
    """A metric over cases; only finite values take part, so what is missing has to be told beside it.

    Args:
        n: finite values.
        mean: NaN where there is none, like all that follow.
        sd: of the sample (n - 1); NaN for a single value.
        median: of the finite values.
        q1, q3: quartiles.
        smallest, largest: values.
        infinite: values that are infinite.
        undefined: values that are NaN.
    """

    n: int = 0
    mean: float = math.nan
    sd: float = math.nan
    median: float = math.nan
    q1: float = math.nan
    q3: float = math.nan
    smallest: float = math.nan
    largest: float = math.nan
    infinite: int = 0
    undefined: int = 0


def summarise(values: Iterable[float]) -> Summary:
    """The summary of a metric over cases."""
    given = np.array(list(values), dtype=np.float64)
    finite = given[np.isfinite(given)]
    missing = {"infinite": int(np.isinf(given).sum()), "undefined": int(np.isnan(given).sum())}
    if not finite.size:
        return Summary(**missing)
    smallest, q1, median, q3, largest = np.percentile(finite, (0, 25, 50, 75, 100)).tolist()
    sd = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
    return Summary(finite.size, float(finite.mean()), sd, median, q1, q3, smallest, largest, **missing)


@dataclass(frozen=True, eq=False)
class Pairing:
    """By how much one method is better than another on the cases that both have.

    Args:
        gains: one a case, above 0 where the first method is better; finite.
        left_out: cases that only one of them has a finite value for.
    """

    gains: Float[np.ndarray, " cases"]
    left_out: tuple[str, ...] = ()


def pair(better: Mapping[str, float], worse: Mapping[str, float], higher_is_better: bool) -> Pairing:
    """Two methods case by case; a case without a finite value on either side is left out, and named."""
    sign = 1.0 if higher_is_better else -1.0
    both = {case: sign * (value - worse[case]) for case, value in better.items() if case in worse}
    gains = {case: gain for case, gain in both.items() if math.isfinite(gain)}
    return Pairing(np.array(list(gains.values())), tuple(case for case in {**better, **worse} if case not in gains))


@dataclass(frozen=True)
class PairedTest:
    """Whether one method is better than another.

    Args:
        n: pairs of cases.
        gain: mean difference, above 0 where the first method is better.
        low, high: the interval of the mean difference that leaves out ``level`` on either side.
        p: one-sided, of the bootstrap; corrected where that was asked for.
        p_wilcoxon: one-sided, of the signed-rank test; never corrected.
        significant: p is at most the level.
        left_out: cases that only one of the methods has.
        untested: why there is no test; then all numbers but ``n`` and ``gain`` are NaN.
    """

    n: int
    gain: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_wilcoxon: float = math.nan
    significant: bool = False
    left_out: tuple[str, ...] = ()
    untested: str = ""


def fewest_pairs(level: float = LEVEL) -> int:
    """The number of pairs below which no distribution-free test can reach a level: 2^-n is the least p; 7 for 1 %."""
    return math.ceil(-math.log2(level) - 1e-9)


def paired_tests(
    pairings: Sequence[Pairing], level: float = LEVEL, repetitions: int = REPETITIONS, seed: int = 0
) -> list[PairedTest]:
    """The one-sided test of each pairing: is the first method better?

    Every pairing of n cases sees the same resamples, so a result does not depend on what else is tested.

    Args:
        pairings: any number, of any lengths.
        level: one-sided.
        repetitions: of the bootstrap; 1 / level at least, or it could never reach the level.
        seed: of the resamples.
    """
    if not 0 < level < 0.5 or (repetitions + 1) * level < 1:
        raise ValueError(f"{repetitions} repetitions cannot tell a level of {level}")
    fewest = fewest_pairs(level)
    tests: dict[int, PairedTest] = {}
    by_size: dict[int, list[int]] = {}
    for place, pairing in enumerate(pairings):
        n = len(pairing.gains)
        if n < fewest:
            gain = float(pairing.gains.mean()) if n else math.nan
            why = f"{n} pair{'s' * (n != 1)}, at least {fewest} are needed for a level of {level:g}"
            tests[place] = PairedTest(n, gain, left_out=pairing.left_out, untested=why)
        else:
            by_size.setdefault(n, []).append(place)
    for places in by_size.values():
        for start in range(0, len(places), COLUMNS_AT_ONCE):
            some = places[start : start + COLUMNS_AT_ONCE]
            gains = np.stack([pairings[place].gains for place in some], axis=1)
            means = bootstrap_means(gains, repetitions, seed)
            for column, place in enumerate(some):
                tests[place] = _test(pairings[place], means[:, column], level)
    return [tests[place] for place in range(len(pairings))]


def bootstrap_means(
    values: Float[np.ndarray, "cases columns"], repetitions: int = REPETITIONS, seed: int = 0
) -> Float[np.ndarray, "repetitions columns"]:
    """Means of resamples with replacement, the same resamples for every column; each column sorted."""
    n = len(values)
    rng = np.random.default_rng(seed)
    scale = np.abs(values).max(axis=0) if values.size else 0.0
    rows = max(1, WEIGHTS_AT_ONCE // n)
    blocks = []
    for start in range(0, repetitions, rows):
        times_drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, repetitions - start))
        blocks.append(times_drawn @ values / n)
    means = np.concatenate(blocks)
    means[np.abs(means) <= NOTHING * scale] = 0.0
    return np.sort(means, axis=0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p values for their number, so that the chance of any false finding stays below the level.

    Holm 1979, https://www.jstor.org/stable/4615733. NaN is no test and does not count.
    """
    ranked = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    result, highest = list(p_values), 0.0
    for rank, (p, place) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        result[place] = highest
    return result


def _test(pairing: Pairing, sorted_means: Float[np.ndarray, " repetitions"], level: float) -> PairedTest:
    """The interval's ends are order statistics chosen so that p <= level where, and only where, low > 0."""
    repetitions = len(sorted_means)
    tail = math.floor(level * (repetitions + 1) + 1e-9)
    low, high = float(sorted_means[tail - 1]), float(sorted_means[repetitions - tail])
    p = (1 + int(np.searchsorted(sorted_means, 0.0, side="right"))) / (repetitions + 1)
    gains = pairing.gains
    return PairedTest(len(gains), float(gains.mean()), low, high, p, _signed_rank(gains), low > 0, pairing.left_out)


def _signed_rank(gains: Float[np.ndarray, " cases"]) -> float:
    """Wilcoxon's p that the gains are above 0; cases without a difference are left out, as Wilcoxon has it.

    Up to 50 differences exactly, ties included: where each sign is as likely as the other, the ranks that carry a plus
    add up as independent draws. Beyond, by the normal approximation.
    """
    scale = np.abs(gains).max()
    found = np.round(gains / scale, 12) if scale else gains
    found = found[found != 0]
    if not found.size:
        return 1.0
    if found.size > MOST_EXACT:
        result: Any = wilcoxon(found, alternative="greater", method="asymptotic")
        return float(result.pvalue)
    doubled = np.rint(2 * rankdata(np.abs(found))).astype(int)  # whole numbers: tied ranks end in a half
    chances = np.zeros(doubled.sum() + 1)
    chances[0] = 1.0
    for rank in doubled:
        chances[rank:] = (chances[rank:] + chances[: len(chances) - rank]) / 2
        chances[:rank] /= 2
    return min(1.0, float(chances[doubled[found > 0].sum() :].sum()))
