"""A share of the training subjects shows its labels: nested, alike for every method, the others as if without."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.data.prepared import PreparedCohort
from anamorph.errors import ConfigurationError, InputError
from anamorph.training.configuration import LabelChoice, PairChoice, configure
from anamorph.training.items import Items, choose_items
from anamorph.training.task import Task
from tests.training.test_sides_by_hand import SMALL
from tests.training.tiny import SHAPE, prepared_cohort

WITHIN = {"rule": "within", "fixed_modality": "ct", "moving_modality": "mr"}


@pytest.fixture
def many(tmp_path: Path) -> PreparedCohort:
    """Twelve training cases, of which c1 and c4 have no labels, and three for validation."""
    return prepared_cohort(tmp_path / "many", 12, 3, unlabelled=("c1", "c4"))


def shown(items: Items) -> set[str]:
    """Cases of the items whose every label is shown."""
    return {items.scans[items.index[item, 0]].scan.case for item in items.labelled.nonzero()[0]}


def cases(cohort: PreparedCohort, share: float, seed: int = 0, modality: str | None = None) -> Items:
    return choose_items(cohort, "train", "cases", PairChoice(), modality, LabelChoice(share=share, seed=seed))


def task_of(cohort: PreparedCohort, method: str, values: dict[str, Any], share: float) -> Task:
    return Task.of(cohort, configure(method, {**values, "labelled": {"share": share}}))


def test_a_smaller_share_is_part_of_a_larger(many: PreparedCohort) -> None:
    sets = [shown(cases(many, share / 20)) for share in range(21)]
    assert [len(found) for found in sets] == [0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 8, 8, 8, 9, 10, 10]
    assert all(smaller <= larger for smaller, larger in pairwise(sets))
    assert sets[-1] == {f"c{number}" for number in range(12)} - {"c1", "c4"}
    assert shown(cases(many, 0.5)) != shown(cases(many, 0.5, seed=1))


def test_the_rank_is_that_of_a_digest_and_so_the_same_everywhere(many: PreparedCohort) -> None:
    names = [f"c{number}" for number in range(12) if number not in (1, 4)]
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"labels:7:{name}".encode()).hexdigest())
    assert shown(cases(many, 0.3, seed=7)) == set(ranked[:3])


def test_every_method_sees_the_labels_of_the_same_subjects(many: PreparedCohort) -> None:
    pairs = choose_items(many, "train", "pairs", PairChoice.model_validate(WITHIN), None, LabelChoice(share=0.4))
    both, one = cases(many, 0.4), cases(many, 0.4, modality="mr")
    assert len(shown(pairs)) == 4
    assert shown(pairs) == shown(both) == shown(one)
    assert len(pairs) == 12, "pairs without labels teach the registration"


def test_what_is_hidden_is_as_if_it_were_not_there(many: PreparedCohort) -> None:
    items = cases(many, 0.4)
    rows = [number for number in range(len(items)) if not items.labelled[number]]
    batch, before = items.load(rows), cases(many, 1.0).load(rows)
    assert before["labelled"].sum() == 12
    assert not batch["labelled"].any()
    assert not batch["labels"].any()
    assert batch["labels"].shape == (16, *SHAPE)
    assert np.array_equal(batch["image"], before["image"])
    some = items.labelled.nonzero()[0].tolist()
    assert items.load(some)["labelled"].all()
    assert items.load(some)["labels"].any(axis=(1, 2)).all()


def test_all_labels_are_as_before(many: PreparedCohort) -> None:
    items = cases(many, 1.0)
    assert not items.hidden
    assert items.without_hidden() is items
    assert len(Task.of(many, configure("segment")).training) == 24, "those without labels stay as they were"


def test_who_learns_from_labels_alone_does_not_see_the_others(many: PreparedCohort) -> None:
    small = {"features": 4}
    supervised = task_of(many, "dynunet", {"settings": small}, 0.4)
    taught = task_of(many, "dynunet", {"settings": {**small, "weights": {"self_training": 1.0}}}, 0.4)
    assert shown(supervised.training) == shown(taught.training)
    assert (len(supervised.training), len(taught.training)) == (12, 24)  # the two without labels stay
    assert supervised.training.labelled.sum() == 8
    joint = task_of(many, "macjnet", {"settings": SMALL, "pairs": WITHIN}, 0.4)
    assert (len(joint.training), joint.training.labelled.sum()) == (12, 4)
    assert joint.facts({}, {})["trained"]["labelled_items"] == 4
    assert "labelled_items" not in task_of(many, "segment", {}, 1.0).facts({}, {})["trained"]


def test_validation_keeps_all_labels(many: PreparedCohort) -> None:
    task = task_of(many, "segment", {}, 0.1)
    assert task.validation.labelled.all()


@pytest.mark.parametrize(
    ("method", "values", "line"),
    [
        ("segment", {}, "none of 24 training cases has labels, expected some with labels; show a share"),
        (
            "macjnet",
            {"settings": SMALL, "pairs": WITHIN},
            "none of 12 training pairs has labels, .*; show a share .* or train lapirn",
        ),
    ],
)
def test_no_labels_at_all_are_refused_where_a_network_segments(many: PreparedCohort, method, values, line) -> None:
    with pytest.raises(InputError, match=f"^E-TRN-003: many: {line}"):
        task_of(many, method, values, 0.0)
    assert len(task_of(many, "align", {"pairs": WITHIN}, 0.0).training) == 12


def test_pairs_labelled_on_one_side_are_enough(tmp_path: Path) -> None:
    """The fixed side of between-case pairs has labels, the moving one none."""
    cohort = prepared_cohort(tmp_path / "one", 2, 0, unlabelled=("c1",), listed=[(0, 3)])
    items = choose_items(cohort, "train", "pairs", PairChoice(rule="listed"))
    assert (items.labelled.tolist(), items.any_labelled.tolist()) == ([False], [True])
    assert len(Task.of(cohort, configure("macjnet", {"settings": SMALL})).training) == 1


@pytest.mark.parametrize(("given", "line"), [({"share": 1.5}, "labelled.share: found 1.5"), ({"shares": 1}, "did you")])
def test_m10_shares_that_do_not_fit(given: dict[str, float], line: str) -> None:
    with pytest.raises(ConfigurationError, match=f"E-CFG-010: .*{line}"):
        configure("segment", {"labelled": given})
