"""Pairs and cases as indices, and the tensors of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.prepared import PreparedCohort
from anamorph.errors import InputError
from anamorph.training.configuration import PairChoice, configure
from anamorph.training.items import choose_items, on_device, resolved
from anamorph.training.task import Task
from tests.training.tiny import SHAPE, prepared_cohort


@pytest.fixture
def mixed(tmp_path: Path) -> PreparedCohort:
    """Three modalities, some cases unlabelled, pairs listed in both splits."""
    return prepared_cohort(
        tmp_path / "mixed", 4, 2, ("ct", "mr", "us"), unlabelled=("c1",), listed=((0, 4), (7, 2), (13, 17))
    )


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("rule", ["listed", "within", "between"])
@pytest.mark.parametrize(("fixed", "moving"), [(None, None), ("ct", None), (None, "mr"), ("mr", "ct"), ("ct", "ct")])
def test_pairs_are_those_of_the_cohort(mixed, split, rule, fixed, moving) -> None:
    items = choose_items(mixed, split, "pairs", PairChoice(rule=rule, fixed_modality=fixed, moving_modality=moving))
    expected = mixed.cohort.of_split(split).pairs(rule, fixed, moving)
    assert [items.name(item) for item in range(len(items))] == [pair.name for pair in expected]


def test_cases_are_scans_of_one_modality_or_of_all(mixed: PreparedCohort) -> None:
    all_of_them, some = (choose_items(mixed, "train", "cases", PairChoice(), modality) for modality in (None, "mr"))
    assert (len(all_of_them), len(some)) == (12, 4)
    assert [some.name(item) for item in range(4)] == ["c0_mr", "c1_mr", "c2_mr", "c3_mr"]
    assert some.modality(2) == "mr"
    assert some.labelled.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("modalities", "listed", "rule"),
    [(("ct", "mr"), ((0, 1),), "listed"), (("ct", "mr"), (), "within"), (("ct",), (), "between")],
)
def test_the_rule_that_suits_a_cohort(tmp_path: Path, modalities, listed, rule) -> None:
    cohort = prepared_cohort(tmp_path / "prepared", 2, 1, modalities, listed=listed)
    assert resolved(PairChoice(), cohort).rule == rule
    assert resolved(PairChoice(rule="between"), cohort).rule == "between"


def test_a_batch_of_pairs(mixed: PreparedCohort) -> None:
    items = choose_items(mixed, "train", "pairs", PairChoice(rule="within", fixed_modality="ct", moving_modality="mr"))
    batch = on_device(items.load([0, 1]), torch.device("cpu"))
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == {
        "fixed": ((2, 1, *SHAPE), torch.float32),
        "moving": ((2, 1, *SHAPE), torch.float32),
        "fixed_labels": ((2, 1, *SHAPE), torch.int64),
        "moving_labels": ((2, 1, *SHAPE), torch.int64),
        "fixed_labelled": ((2,), torch.bool),
        "moving_labelled": ((2,), torch.bool),
    }
    assert torch.equal(batch["fixed"][0], mixed.by_name["c0_ct"].load()["image"])
    assert torch.equal(batch["moving"][1], mixed.by_name["c1_mr"].load()["image"])
    assert batch["moving_labelled"].tolist() == [True, False]
    assert batch["moving_labels"][0].sum() > 0 == batch["moving_labels"][1].sum()


def test_a_batch_of_cases_knows_which_they_are_and_has_masks_where_all_have(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "masked", 3, 0, masks=True)
    batch = on_device(choose_items(cohort, "train", "cases", PairChoice()).load([4, 1]), torch.device("cpu"))
    assert batch["index"].tolist() == [4, 1]
    assert batch["mask"].shape == batch["labels"].shape == (2, 1, *SHAPE)
    assert batch["mask"].dtype == torch.float32


def test_many_pairs_take_no_memory_but_their_indices(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "many", 60, 0)
    items = choose_items(cohort, "train", "pairs", PairChoice(rule="between"))
    assert len(items) == 120 * 118
    assert items.index.nbytes == len(items) * 8


def test_kept_tensors_are_read_once(cohort: PreparedCohort) -> None:
    items = Task.of(cohort, configure("align")).training
    kept = replace(items, keep=True)
    before = kept.load([0])
    items.load([0])
    cohort.by_name["c0_ct"].file.unlink()
    assert np.array_equal(kept.load([0])["fixed"], before["fixed"])
    with pytest.raises(InputError, match=r"E-TRN-002: c0_ct.safetensors: c0_ct: its tensors are not there"):
        items.load([0])


REFUSED: list[tuple[Callable[[PreparedCohort], Task], str]] = [
    (
        lambda cohort: Task.of(cohort, configure("align", {"pairs": {"rule": "within", "fixed_modality": "us"}})),
        "E-TRN-001: prepared: no pairs within fixed us to train on; scans of the training split: 5 ct, 5 mr; ",
    ),
    (
        lambda cohort: Task.of(cohort, configure("align", {"pairs": {"rule": "listed"}})),
        "E-TRN-001: prepared: no pairs listed to train on; scans of the training split: 5 ct, 5 mr, 0 listed pairs; ",
    ),
    (
        lambda cohort: Task.of(cohort, configure("segment", {"modality": "us"})),
        "E-TRN-001: prepared: no images of modality us to train on; ",
    ),
]


@pytest.mark.parametrize(("ask", "line"), REFUSED)
def test_nothing_to_train_on_is_refused_with_what_there_is(cohort: PreparedCohort, ask, line: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(cohort)
    assert str(caught.value).startswith(line)


def test_a_modality_chosen_for_the_fixed_images_comes_first(cohort: PreparedCohort) -> None:
    pairs = {"rule": "within", "fixed_modality": "mr", "moving_modality": "ct"}
    assert list(Task.of(cohort, configure("align", {"pairs": pairs})).plan.modalities) == ["mr", "ct"]
    assert list(Task.of(cohort, configure("align")).plan.modalities) == ["ct", "mr"]


def test_the_card_tells_voxel_sizes_along_the_networks_axes(cohort: PreparedCohort) -> None:
    turned = cohort.scans[1].native.affine[:, [1, 0, 2]] * np.array([2, 3, 1])
    object.__setattr__(cohort.scans[1], "native", type(cohort.scans[1].native)((8, 10), turned))
    facts = Task.of(cohort, configure("align")).facts({}, {})
    assert facts["spacings"] == {"ct": ((2.0, 3.0), (2.0, 3.0)), "mr": ((2.0, 3.0), (6.0, 6.0))}
