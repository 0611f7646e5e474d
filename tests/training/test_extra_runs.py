"""Trainings with extra cases: which are seen when, what they do not take part in, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anamorph.data.configuration import save
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import AnamorphWarning, InputError
from anamorph.inference.model_folder import read_card, read_model
from anamorph.methods.base import Batch
from anamorph.training.configuration import Machine, configure
from anamorph.training.distributed import Processes
from anamorph.training.items import with_extra
from anamorph.training.loop import train
from anamorph.training.reading import Pass
from anamorph.training.sampling import seed_all
from anamorph.training.task import Task
from tests.training import tiny
from tests.training.tiny import Align, Segment, prepared_cohort
from tests.training.together import codes, together

TRAIN, EXTRA = 4, 6
CPU = Machine(device="cpu")
STEADY = {"schedule": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 3, "optimiser": "sgd"}, "seed": 5}


@pytest.fixture
def cohort(tmp_path: Path) -> PreparedCohort:
    """Four training, two validation and six extra cases, each in ct and mr; two extra ones without labels."""
    return prepared_cohort(tmp_path / "prepared", TRAIN, 2, extra=EXTRA, unlabelled=("c7", "c9"))


@pytest.fixture
def trained(cohort: PreparedCohort, tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    def run(method: str, out: str = "run", machine: Machine = CPU, **values: Any) -> dict[str, Tensor]:
        options = {name: values.pop(name) for name in ("resume", "say") if name in values}
        train(cohort, configure(method, values), tmp_path / out, machine=machine, draw=None, **options)
        return dict(read_model(tmp_path / out / "model", "cpu").method.state_dict())

    return run


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Of every step of the method segment, as it was given them."""
    seen: list[dict[str, Tensor]] = []
    plain = Segment.terms

    def terms(self: Segment, batch: Batch, player: str) -> dict[str, Tensor]:
        if self.training:
            seen.append(dict(batch))
        return plain(self, batch, player)

    monkeypatch.setattr(Segment, "terms", terms)
    return seen


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_an_epoch_has_all_training_cases_and_as_many_extra_ones(trained, batches) -> None:
    """Of the six extra cases the four that have labels, since labels are all that teaches."""
    told: list[str] = []
    trained("segment", modality="ct", schedule={"epochs": 4, "batch_size": 4, "extra": 0.5}, say=told.append)
    assert "cases: 4 to train with 2 of 4 extra ones an epoch, 2 to validate" in told
    assert "steps: 4 epochs of 2" in told
    indices = [int(number) for batch in batches for number in batch["index"]]
    assert [sorted(number for number in indices[first : first + 6] if number < TRAIN) for first in (0, 6, 12, 18)] == [
        [0, 1, 2, 3]
    ] * 4
    extra = [number for number in indices if number >= TRAIN]
    assert sorted(extra[:4]) == sorted(extra[4:]) == [4, 5, 6, 7]
    assert Counter(indices)[0] == 4
    assert all(bool(batch["labelled"].all()) for batch in batches)


def test_more_extra_cases_than_there_are_cannot_be_drawn(cohort: PreparedCohort) -> None:
    drawn = {
        share: Task.of(cohort, configure("segment", {"schedule": {"extra": share}, "modality": "mr"})).sampler.drawn
        for share in (0.0, 0.25, 1.0, 9.0)
    }
    assert drawn == {0.0: 0, 0.25: 1, 1.0: 4, 9.0: 4}


def test_hooks_pass_over_the_training_cases_alone(trained, cohort: PreparedCohort, monkeypatch) -> None:
    told: list[tuple[str, list[int]]] = []
    for name in ("before_training", "after_epoch"):

        def hook(self: Segment, *arguments: Any, name: str = name) -> None:
            told.append((name, [int(number) for batch in arguments[-1] for number in batch["index"]]))

        monkeypatch.setattr(Segment, name, hook)
    trained("segment", modality="ct", schedule={"epochs": 1, "batch_size": 3})
    assert told == [("before_training", [0, 1, 2, 3]), ("after_epoch", [0, 1, 2, 3])]
    task = Task.of(cohort, configure("segment", {"modality": "ct"}))
    images = [batch["image"] for batch in Pass(with_extra(task.training, task.extra), 3, Processes("cpu"))]
    raw = [cohort.by_name[f"c{number}_ct"].load()["image"] for number in range(TRAIN)]
    assert torch.equal(torch.cat(images), torch.stack(raw))


@pytest.mark.parametrize("augmented", [False, True])
def test_extra_cases_stay_as_they_are_unless_they_are_to_change(trained, batches, cohort, augmented: bool) -> None:
    schedule = {"epochs": 2, "batch_size": 4, "augmentation": {"translation": 2.0}, "augment_extra": augmented}
    trained("segment", modality="ct", schedule=schedule)
    task = Task.of(cohort, configure("segment", {"modality": "ct"}))
    items = with_extra(task.training, task.extra)
    assert [items.name(item) for item in range(TRAIN, len(items))] == ["c6_ct", "c8_ct", "c10_ct", "c11_ct"]
    changed: dict[int, set[bool]] = {}
    for batch in batches:
        for place, number in enumerate(batch["index"].tolist()):
            raw = torch.from_numpy(items.load([number])["image"])
            changed.setdefault(number, set()).add(not torch.equal(batch["image"][place : place + 1], raw))
    assert {number for number, found in changed.items() if found == {True}} == set(range(8 if augmented else TRAIN))
    assert {number for number, found in changed.items() if found == {False}} == set(range(8 if augmented else TRAIN, 8))


def test_without_extra_cases_nothing_is_otherwise(trained, tmp_path: Path) -> None:
    """The same training cases alone, and extra ones that are left out, lead to the same bits."""
    values = {"schedule": {"augmentation": {"translation": 1.0}}, "pairs": {"fixed_modality": "ct"}}
    alone = prepared_cohort(tmp_path / "alone", TRAIN, 2)
    train(alone, configure("align", values), tmp_path / "two", machine=CPU, draw=None)
    weights = dict(read_model(tmp_path / "two/model", "cpu").method.state_dict())
    left_out = trained("align", "one", **{**values, "schedule": {**values["schedule"], "extra": 0}})
    assert same(left_out, weights)
    assert "extra_items" not in read_card(tmp_path / "one/model").trained
    assert not same(trained("align", "three", **values), weights)
    card = read_card(tmp_path / "three/model")
    assert (card.trained["items"], card.trained["extra_items"], card.trained["steps"]) == (TRAIN, EXTRA, 12)


class Killed(BaseException):
    """Nobody catches it."""


@pytest.mark.parametrize("calls", [2, 7])
def test_an_interrupted_training_goes_on_to_the_same_bits(trained, monkeypatch, calls: int) -> None:
    values = {"schedule": {"epochs": 3, "augmentation": {"translation": 1.0}}}
    whole, eager, left = trained("align", "whole", **values), Machine(device="cpu", checkpoint_minutes=1e-9), [calls]
    plain = Align.terms

    def dies(self: Align, batch: Batch, player: str) -> dict[str, Tensor]:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return plain(self, batch, player)

    with monkeypatch.context() as patched:
        patched.setattr(Align, "terms", dies)
        with pytest.raises(Killed):
            trained("align", "killed", eager, **values)
    assert same(whole, trained("align", "killed", eager, resume=True, **values))


def test_two_processes_take_the_same_first_step_as_one(cohort: PreparedCohort, trained, tmp_path: Path) -> None:
    """Of a batch of three, one of which at least is extra and augmented otherwise than the others."""
    schedule = {**STEADY["schedule"], "augmentation": {"translation": 1.0}}
    values = {**STEADY, "schedule": schedule}
    processes = together(tiny.run, cohort.folder, tmp_path / "two", "steady", values, log=tmp_path / "log")
    task = Task.of(cohort, configure("steady", values))
    kinds = {item < len(task.training) for item in task.sampler.items(task.sampler.positions(0))}
    seed_all(5, torch.device("cpu"))
    start = {name: tensor.clone() for name, tensor in task.method().state_dict().items()}
    alone = trained("steady", "one", **values)
    assert codes(processes) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    shared = dict(read_model(tmp_path / "two/model", "cpu").method.state_dict())
    assert kinds == {True, False}
    for name, tensor in alone.items():
        assert torch.allclose(shared[name] - start[name], tensor - start[name], rtol=1e-5, atol=1e-9), name
        assert not torch.equal(tensor, start[name])


def test_extra_pairs_are_of_extra_scans(cohort: PreparedCohort) -> None:
    """Also those of scans without labels: a registration learns from them as well."""
    task = Task.of(cohort, configure("align", {"pairs": {"rule": "within", "fixed_modality": "ct"}}))
    items = with_extra(task.training, task.extra)
    names = [items.name(item) for item in range(len(items))]
    assert names[:TRAIN] == [f"c{n}_ct-c{n}_mr" for n in range(TRAIN)]
    assert sorted(names[TRAIN:]) == sorted(f"c{n}_ct-c{n}_mr" for n in range(6, 12))
    between = Task.of(cohort, configure("align", {"pairs": {"rule": "between"}}))
    assert (len(between.training), len(between.extra)) == (8 * 6, 12 * 10)


def test_labels_that_no_extra_scan_has_are_refused(cohort: PreparedCohort, tmp_path: Path) -> None:
    save(cohort.plan.model_copy(update={"labels": {7: "disc", 9: "ring"}}), cohort.folder / "plan.yaml")
    opened = PreparedCohort.open(cohort.folder)
    with pytest.raises(InputError) as caught:
        train(opened, configure("segment"), tmp_path / "run", machine=CPU, draw=None)
    assert str(caught.value).startswith("E-TRN-013: prepared: label 9 (ring) in none of 8 labelled extra scans, ")
    assert not (tmp_path / "run").exists()
    assert len(Task.of(opened, configure("segment", {"schedule": {"extra": 0}})).extra) == 0
    assert len(Task.of(opened, configure("align")).extra) == 2 * EXTRA  # to a registration they are no background


def test_extra_scans_that_are_of_no_use_are_told(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "some", 2, 1, extra=2, unlabelled=("c3", "c4"))
    with pytest.warns(AnamorphWarning, match="W-TRN-013: none of 4 extra scans can be learnt from"):
        model = train(cohort, configure("segment", {"schedule": {"epochs": 1}}), tmp_path / "run", machine=CPU)
    assert "extra_items" not in read_card(model).trained


def test_a_training_that_knew_of_no_extra_cases_is_resumed(tmp_path: Path) -> None:
    """By its config.yaml of then."""
    cohort = prepared_cohort(tmp_path / "prepared", 3, 1)
    train(cohort, configure("align", {"schedule": {"epochs": 1}}), tmp_path / "run", machine=CPU, draw=None)
    file = tmp_path / "run/config.yaml"
    lines = file.read_text().splitlines(keepends=True)
    older = [line for line in lines if "extra:" not in line and "augment_extra:" not in line]
    assert len(lines) - len(older) == 2
    file.write_text("".join(older))
    values = {"schedule": {"epochs": 2}}
    train(cohort, configure("align", values), tmp_path / "run", machine=CPU, draw=None, resume=True)
    train(cohort, configure("align", values), tmp_path / "whole", machine=CPU, draw=None)
    weights = [read_model(tmp_path / name / "model", "cpu").method.state_dict() for name in ("run", "whole")]
    assert same(weights[0], weights[1])
