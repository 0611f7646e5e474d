"""What a method is told before its first step, weights that change, and an atlas that is learnt through all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anamorph.data.prepared import PreparedCohort
from anamorph.inference.model_folder import read_model
from anamorph.losses.segmentation import one_hot
from anamorph.methods.atlas_istn import AtlasISTN
from anamorph.methods.base import Domain
from anamorph.methods.schedule import Schedule
from anamorph.training.configuration import Machine, configure
from anamorph.training.distributed import Processes
from anamorph.training.loop import train
from anamorph.training.players import Players
from tests.training import tiny
from tests.training.tiny import Segment, SegmentSettings, prepared_cohort
from tests.training.together import codes, together

ATLAS: dict[str, Any] = {
    "settings": {
        "channels": (2, 3),
        "stn_channels": (3, 3),
        "affine_from_epoch": 1,
        "fade_in_epoch": 1,
        "update_rate": 0.3,
        "weights": {"smoothness": 5.0},
    },
    "modality": "ct",
    "schedule": {"epochs": 3, "batch_size": 2, "learning_rate": 1e-2, "validate_every": 2},
}


class Killed(BaseException):
    """Nobody catches it."""


@pytest.fixture
def trained(cohort: PreparedCohort, tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    def run(method: str, values: Mapping[str, Any], out: str = "run", **options: Any) -> dict[str, Tensor]:
        machine = options.pop("machine", Machine(device="cpu"))
        folder = train(cohort, configure(method, values), tmp_path / out, machine=machine, draw=None, **options)
        return dict(read_model(folder, "cpu").method.state_dict())

    return run


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_told_once_of_all_cases_and_not_again_when_it_goes_on(trained, monkeypatch) -> None:
    told: list[tuple[str, bool, int]] = []

    def before_training(self: Segment, batches: Any) -> None:
        told.append(("before", self.training, sum(len(batch["index"]) for batch in batches)))
        self.mean.fill_(7)

    monkeypatch.setattr(Segment, "before_training", before_training)
    monkeypatch.setattr(Segment, "after_epoch", lambda self, epoch, batches: None)
    monkeypatch.setattr(Segment, "begin_step", lambda self, step, steps: told.append(("step", self.training, step)))
    values = {"schedule": {"epochs": 1, "batch_size": 5, "average": 0.5}}
    weights = trained("segment", values)
    assert told == [("before", False, 10), ("step", True, 0), ("step", True, 1)]
    assert (weights["mean"] == 7).all()
    trained("segment", {"schedule": {**values["schedule"], "epochs": 2}}, resume=True)
    assert told[3:] == [("step", True, 2), ("step", True, 3)]
    trained("segment", values, force=True)
    assert told[5] == ("before", False, 10)


def test_a_method_knows_when_it_is_validated(trained, monkeypatch) -> None:
    known: list[tuple[str, bool]] = []
    for name in ("segment", "terms", "after_epoch"):
        plain = getattr(Segment, name)

        def spy(self: Segment, *arguments: Any, name: str = name, plain: Any = plain) -> Any:
            known.append((name, self.validating))
            return plain(self, *arguments)

        monkeypatch.setattr(Segment, name, spy)
    trained("segment", {"schedule": {"epochs": 2}})
    assert set(known) == {("segment", True), ("terms", False), ("after_epoch", False)}


def test_weights_are_asked_before_each_step(monkeypatch, generator: torch.Generator) -> None:
    """A weight of 0 and then 2: the second step goes twice as far as the plain one."""
    batch = {
        "image": torch.rand(2, 1, 6, 6, generator=generator),
        "labels": torch.ones(2, 1, 6, 6).long(),
        "labelled": torch.ones(2).bool(),
    }
    weight = {"cross_entropy": 1.0}
    monkeypatch.setattr(Segment, "weights_of", lambda self, player: weight)
    torch.manual_seed(0)
    method = Segment(SegmentSettings(), Domain((6, 6), (1.0, 1.0), classes=1))
    first = method.network.weight.detach().clone()
    players = Players(method, Schedule(optimiser="adamw", learning_rate=1e-12), Processes("cpu"))
    gradients = []
    for value in (1.0, 0.0, 2.0):
        weight["cross_entropy"] = value
        turns = players.step(batch, 1.0, 1.0)
        gradient = method.network.weight.grad
        assert gradient is not None
        gradients.append(gradient.clone())
        assert turns.terms["network.cross_entropy"] > 0.1  # as it is, not weighed
        torch.testing.assert_close(method.network.weight.detach(), first)
    assert not gradients[1].any()
    torch.testing.assert_close(gradients[2], 2 * gradients[0])


# -- an atlas ----------------------------------------------------------------------------------------------------------


def test_the_atlas_begins_with_the_cases_and_changes_with_every_epoch(cohort, trained, monkeypatch) -> None:
    seen: list[Tensor] = []
    plain = AtlasISTN.after_epoch

    def after_epoch(self: AtlasISTN, epoch: int, batches: Any) -> None:
        seen.append(self.atlas_labels.clone())
        plain(self, epoch, batches)
        seen.append(self.atlas_labels.clone())

    monkeypatch.setattr(AtlasISTN, "after_epoch", after_epoch)
    weights = trained("atlas-istn", ATLAS)
    tensors = [scan.load() for scan in cohort.scans if scan.scan.split == "train" and scan.scan.modality == "ct"]
    labels = torch.stack([found["labels"].long() for found in tensors])[:, None]
    torch.testing.assert_close(seen[0], one_hot(labels, 1, 0.5).mean(0, keepdim=True))
    assert len(seen) == 6
    assert torch.equal(seen[1], seen[2])
    assert torch.equal(seen[3], seen[4])
    assert all(not torch.equal(seen[i], seen[i + 1]) for i in (0, 2, 4))
    assert any(torch.equal(weights["atlas_labels"], seen[i]) for i in (3, 5))  # of the epoch that validated best
    assert int(weights["epoch"]) in (2, 3)


@pytest.mark.parametrize(("average", "unbiased"), [(0.0, False), (0.5, True)])
def test_an_interrupted_atlas_goes_on_to_the_same_bits(trained, monkeypatch, average: float, unbiased: bool) -> None:
    """Killed within steps and between the update of the atlas and the next checkpoint."""
    settings = {**ATLAS["settings"], "unbiased": unbiased}
    values = {**ATLAS, "settings": settings, "schedule": {**ATLAS["schedule"], "average": average}}
    whole = trained("atlas-istn", values, "whole")
    eager = Machine(device="cpu", checkpoint_minutes=1e-9)
    for name, calls in (("terms", 2), ("after_epoch", 1), ("terms", 3), ("after_epoch", 2)):
        plain, left = getattr(AtlasISTN, name), [calls]

        def dies(self: AtlasISTN, *arguments: Any, plain: Any = plain, left: list[int] = left) -> Any:
            found = plain(self, *arguments)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return found

        with monkeypatch.context() as patched:
            patched.setattr(AtlasISTN, name, dies)
            with pytest.raises(Killed):
                trained("atlas-istn", values, "killed", machine=eager, resume=True)
    assert same(whole, trained("atlas-istn", values, "killed", machine=eager, resume=True))


def test_two_processes_learn_the_atlas_of_one(tmp_path: Path, trained) -> None:
    """By plain gradient descent; the sums of gradients round otherwise, so bits differ."""
    schedule = {**ATLAS["schedule"], "batch_size": 3, "optimiser": "sgd", "learning_rate": 1e-3}
    values = {**ATLAS, "schedule": schedule, "validation_items": 1}
    log = tmp_path / "log"
    processes = together(tiny.run, tmp_path / "prepared", tmp_path / "two", "atlas-istn", values, log=log)
    alone = trained("atlas-istn", values, "one")
    assert codes(processes) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    shared = read_model(tmp_path / "two" / "model", "cpu").method.state_dict()
    for name in alone:
        torch.testing.assert_close(shared[name], alone[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "unbiased"), [(1, False), (2, True), (5, False)])
def test_processes_that_share_the_pass_find_the_atlas_of_one(
    tmp_path: Path, trained, batch_size: int, unbiased: bool
) -> None:
    """With rates so small that the weights stay: five cases in five batches, three, or one, for two processes."""
    schedule = {**ATLAS["schedule"], "batch_size": batch_size, "optimiser": "sgd", "learning_rate": 1e-30, "epochs": 2}
    values = {**ATLAS, "schedule": schedule, "validation_items": 1}
    values["settings"] = {**ATLAS["settings"], "unbiased": unbiased}
    log = tmp_path / "log"
    processes = together(tiny.run, tmp_path / "prepared", tmp_path / "two", "atlas-istn", values, log=log)
    alone = trained("atlas-istn", values, "one")
    assert codes(processes) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    shared = read_model(tmp_path / "two" / "model", "cpu").method.state_dict()
    first = trained("atlas-istn", {**values, "settings": {**ATLAS["settings"], "update_rate": 0.0}}, "first")
    for name in ("atlas_labels", "atlas_image"):
        assert torch.equal(shared[name], alone[name])
        assert not torch.equal(first[name], alone[name])


def test_an_atlas_of_three_dimensions_with_masks_and_mixed_precision(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "solid", 3, 1, ("ct",), masks=True, shape=(6, 5, 4), unlabelled=["c1"])
    schedule = {**ATLAS["schedule"], "precision": "bfloat16"}
    settings = {**ATLAS["settings"], "validation": "refine", "refinement": {"iterations": 2}}
    values = {"settings": settings, "schedule": schedule}
    model = train(cohort, configure("atlas-istn", values), tmp_path / "run", machine=Machine(device="cpu"), draw=None)
    method = read_model(model, "cpu").method
    assert isinstance(method, AtlasISTN)
    torch.testing.assert_close(method.atlas_labels.sum(1), torch.ones(1, 6, 5, 4))
    assert method.atlas_labels.dtype == torch.float32
