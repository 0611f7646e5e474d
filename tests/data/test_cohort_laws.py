"""Draws of splits, for any cohort: the same whatever the order, subjects never torn, shares kept."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anamorph.data.cohort import Cohort, Pair, Scan, subject_of
from anamorph.errors import InputError


def cohort_of(subjects: int, sessions: int = 1) -> Cohort:
    cases = [f"s{n}_ses-{m}" if sessions > 1 else f"s{n}" for n in range(subjects) for m in range(sessions)]
    return Cohort(Path(), tuple(Scan(case, kind, Path(f"{case}{kind}")) for case in sorted(cases) for kind in "ab"))


shares = st.sampled_from([0.0, 0.1, 0.2, 0.3])


@given(st.integers(8, 40), shares, shares, st.integers(0, 100), st.randoms(use_true_random=False))
def test_p10_a_draw_does_not_depend_on_the_order(
    subjects: int, validation: float, test: float, seed: int, order: random.Random
) -> None:
    cohort = cohort_of(subjects, 2)
    shuffled = list(cohort.scans)
    order.shuffle(shuffled)
    drawn, other = (
        {scan.name: scan.split for scan in c.divided(validation=validation, test=test, seed=seed).scans}
        for c in (cohort, Cohort(Path(), tuple(shuffled)))
    )
    assert drawn == other
    split_of: dict[str, set[str]] = {}
    for scan in cohort.divided(validation=validation, test=test, seed=seed).scans:
        split_of.setdefault(subject_of(scan.case), set()).add(scan.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    counts = [sum(split in splits for splits in split_of.values()) for split in ("validation", "test")]
    assert counts == [max(1, round(subjects * share)) if share else 0 for share in (validation, test)]


def test_p10_the_draw_itself() -> None:
    """By SHA-256 of ``0:s0`` and so on; another version of any library must not change it."""
    drawn = cohort_of(10).divided(validation=0.2, test=0.2)
    tests, validations = (
        [case for case in drawn.cases if case in drawn.of_split(split).cases] for split in ("test", "validation")
    )
    assert (tests, validations) == (["s0", "s3"], ["s5", "s6"])


def test_seeds_differ() -> None:
    draws = {cohort_of(30).divided(test=0.2, seed=seed).of_split("test").cases for seed in range(10)}
    assert len(draws) > 5


def test_nothing_asked_nothing_drawn() -> None:
    cohort = cohort_of(3).divided()
    assert cohort == cohort_of(3)
    assert cohort.of_split("test").divided().scans == ()


def test_the_last_by_name() -> None:
    cohort = cohort_of(9, 2).held_back(validation=1, test=2)
    assert cohort.of_split("test").cases == ("s7_ses-0", "s7_ses-1", "s8_ses-0", "s8_ses-1")
    assert cohort.of_split("validation").cases == ("s6_ses-0", "s6_ses-1")
    assert cohort.held_back(test=1).of_split("test").cases[:2] == ("s5_ses-0", "s5_ses-1")


def test_cases_outside_of_train_stay_where_they_are() -> None:
    cohort = cohort_of(10)
    before = cohort.divided(test=0.3).of_split("test").cases
    after = cohort.divided(test=0.3).divided(validation=0.3).of_split("test").cases
    assert before == after


def test_extra_cases_are_neither_drawn_nor_counted_unless_there_are_some() -> None:
    cohort = cohort_of(10)
    scans = (*cohort.scans, *(Scan(f"x{n}", "a", Path(f"x{n}"), split="extra") for n in range(20)))
    found = Cohort(Path(), scans).divided(validation=0.2, test=0.2)
    assert {name: len(found.of_split(name).cases) for name in found.splits} == {
        "train": 6, "validation": 2, "test": 2, "extra": 20,
    }  # fmt: skip
    assert found.of_split("test").scans == cohort.divided(validation=0.2, test=0.2).of_split("test").scans
    assert cohort.splits == ("train", "validation", "test")


def test_torn_pairs_are_left_out() -> None:
    cohort = cohort_of(10)
    listed = [Pair(cohort.scans[0], scan) for scan in cohort.scans[1:]]
    drawn = Cohort(Path(), cohort.scans, tuple(listed)).divided(test=0.5)
    own = drawn.scans[0].split
    assert 0 < len(drawn.listed) < len(listed)
    assert all(pair.fixed.split == pair.moving.split == own for pair in drawn.listed)


def test_p04_too_few_subjects() -> None:
    with pytest.raises(
        InputError, match="E-COH-034: 2 training subjects to hold 2 back from, expected some left to train on"
    ):
        cohort_of(2).divided(validation=0.1, test=0.1)
    with pytest.raises(InputError, match="E-COH-034"):
        cohort_of(1, sessions=3).divided(test=0.1)


def test_cases_named_for_the_test() -> None:
    """Sessions stay together, test cases of before go, and pairs with them."""
    before = cohort_of(6, 2).held_back(validation=1, test=1)
    of = {scan.name: scan for scan in before.scans}
    pairs = [("s0_ses-0_a", "s0_ses-1_a"), ("s0_ses-0_a", "s1_ses-0_a"), ("s5_ses-0_a", "s5_ses-1_a")]
    listed = tuple(Pair(of[fixed], of[moving]) for fixed, moving in pairs)
    found = Cohort(Path(), before.scans, listed).with_test(["s0*", "s[2-3]_ses-1"])
    assert found.of_split("test").cases == tuple(f"s{n}_ses-{m}" for n in (0, 2, 3) for m in (0, 1))
    assert found.of_split("validation").cases == ("s4_ses-0", "s4_ses-1")
    assert found.of_split("train").cases == ("s1_ses-0", "s1_ses-1")
    assert [(pair.name, pair.split) for pair in found.listed] == [("s0_ses-0_a-s0_ses-1_a", "test")]


def test_named_cases_that_were_for_the_test_already_stay_there() -> None:
    found = cohort_of(6).held_back(test=2).with_test(["s5", "s0"])
    assert found.of_split("test").cases == ("s0", "s5")
    assert "s4" not in found.cases


def test_patterns_that_name_nothing_or_everything() -> None:
    with pytest.raises(InputError, match=r"E-COH-037: no case that 'S1' names.*the first of 3 is s0"):
        cohort_of(3).with_test(["s0", "S1"])
    with pytest.raises(InputError, match="E-COH-034: 3 subjects for the test, expected some left to train on"):
        cohort_of(3).with_test(["*"])


@given(st.integers(2, 6), st.integers(0, 20), st.integers(1, 3))
def test_every_subject_is_the_test_of_one_fold(folds: int, more: int, sessions: int) -> None:
    """And helps to learn in the others; folds are as large as one another, but for one subject."""
    cohort = cohort_of(folds + more, sessions)
    parts = cohort.folds(folds)
    tests = [{subject_of(scan.case) for scan in part.of_split("test").scans} for part in parts]
    assert sorted(subject for one in tests for subject in one) == sorted({subject_of(case) for case in cohort.cases})
    assert max(map(len, tests)) - min(map(len, tests)) <= 1
    assert all(len(part.scans) == len(cohort.scans) and not part.of_split("validation").scans for part in parts)


def test_folds_are_even_in_every_modality_and_neighbours_stay_together() -> None:
    """Four subjects of each of two modalities, another for validation, and a pair that is torn apart but once."""
    names = [(f"ct{n}", "ct") for n in range(4)] + [(f"mr{n}", "mr") for n in range(4)]
    scans = [Scan(case, kind, Path(case)) for case, kind in names] + [Scan("mr9", "mr", Path("9"), split="validation")]
    cohort = Cohort(Path(), tuple(scans), (Pair(scans[0], scans[4]), Pair(scans[1], scans[6])))
    first, second = cohort.folds(2)
    assert first.of_split("test").cases == ("ct0", "ct1", "mr0", "mr1")
    assert second.of_split("test").cases == ("ct2", "ct3", "mr2", "mr3")
    assert [part.of_split("validation").cases for part in (first, second)] == [("mr9",), ("mr9",)]
    assert [[pair.name for pair in part.listed] for part in (first, second)] == [["ct0_ct-mr0_mr"]] * 2
    assert [pair.split for part in (first, second) for pair in part.listed] == ["test", "train"]


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_that_nobody_is_in(folds: int) -> None:
    with pytest.raises(InputError, match=f"E-COH-039: .*3 subjects in train and test for {folds} folds"):
        cohort_of(3).folds(folds)
