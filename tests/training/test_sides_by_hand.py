"""Which modality is which side: the order in which methods that tell them apart see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anamorph.data.prepared import PreparedCohort
from anamorph.errors import InputError
from anamorph.training.configuration import configure
from anamorph.training.task import Task
from tests.training.tiny import prepared_cohort

SMALL: dict[str, Any] = {
    "registration": {"kind": "voxelmorph", "encoder": (4, 4), "decoder": (4, 4, 4)},
    "segmentation": {"kind": "unet", "channels": (4, 8)},
}
THREE = ("ct", "t1_in", "t2")


def task_of(cohort: PreparedCohort, method: str = "macjnet", **pairs: str) -> Task:
    settings = SMALL if method == "macjnet" else {}
    return Task.of(cohort, configure(method, {"settings": settings, "pairs": pairs}))


def sides(task: Task) -> dict[str, str]:
    method: Any = task.method()
    return method.modalities


@pytest.mark.parametrize(("fixed", "moving"), [("ct", "t2"), ("t2", "ct"), ("t2", "t1_in")])
def test_of_three_modalities_the_two_that_are_named(tmp_path: Path, fixed: str, moving: str) -> None:
    cohort = prepared_cohort(tmp_path / "prepared", 2, 1, THREE)
    task = task_of(cohort, rule="within", fixed_modality=fixed, moving_modality=moving)
    assert sides(task) == {"fixed": fixed, "moving": moving}
    assert list(task.plan.modalities) == [fixed, moving]
    assert cohort.plan.modalities.keys() == set(THREE)
    one = task_of(cohort, "align", rule="within", fixed_modality=fixed, moving_modality=moving)
    assert list(one.plan.modalities)[:2] == [fixed, moving]
    assert set(one.plan.modalities) == set(THREE), "a registration alone may see others than it learnt from"


def test_listed_pairs_tell_the_sides_by_themselves(tmp_path: Path) -> None:
    """Of t2 to ct in every case, with nothing named; the card says so, and the configuration stays as it was given."""
    cohort = prepared_cohort(tmp_path / "prepared", 2, 1, THREE, listed=[(2, 0), (5, 3), (8, 6)])
    task = task_of(cohort)
    assert sides(task) == {"fixed": "t2", "moving": "ct"}
    told = task.facts({}, {})["pairs"]
    assert told == {"rule": "listed", "fixed_modality": "t2", "moving_modality": "ct"}
    assert task.configuration.pairs.fixed_modality is None


def test_one_modality_on_both_sides_has_one_network(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "prepared", 3, 2, THREE)
    task = task_of(cohort, rule="between", fixed_modality="t1_in", moving_modality="t1_in")
    assert sides(task) == {"fixed": "t1_in", "moving": "t1_in"}
    method: Any = task.method()
    assert list(method.segmentation) == ["t1_in"]


@pytest.mark.parametrize(
    ("pairs", "side"),
    [({}, "fixed images of ct, mr"), ({"fixed_modality": "ct", "rule": "between"}, "moving images of ct, mr")],
)
def test_several_modalities_on_a_side_are_refused(cohort: PreparedCohort, pairs: dict[str, str], side: str) -> None:
    with pytest.raises(InputError, match=f"^E-TRN-017: prepared: {side}, expected one modality a side; name --fixed"):
        task_of(cohort, **pairs)
    assert list(task_of(cohort, "align", **pairs).plan.modalities) == ["ct", "mr"]


def test_a_validation_pair_the_other_way_round_is_refused_before_it_is_met(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "prepared", 2, 1, listed=[(0, 1), (2, 3), (5, 4)])
    with pytest.raises(InputError, match="E-TRN-017: prepared: fixed images of ct, mr"):
        task_of(cohort)


def test_who_registers_both_ways_tells_the_sides_and_still_takes_others(tmp_path: Path) -> None:
    """By the card, a pair the other way round is known from one that is not."""
    cohort = prepared_cohort(tmp_path / "prepared", 2, 1, THREE, listed=[(2, 0), (5, 3), (8, 6)])
    told = {name: task_of(cohort, name).facts({}, {})["pairs"] for name in ("vmind", "voxelmorph")}
    assert told["vmind"] == {"rule": "listed", "fixed_modality": "t2", "moving_modality": "ct"}
    assert told["voxelmorph"] == {"rule": "listed", "fixed_modality": None, "moving_modality": None}
    assert set(task_of(cohort, "vmind").plan.modalities) == set(THREE)
