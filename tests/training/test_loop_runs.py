"""Whole trainings of tiny methods: what is learnt, kept, written, told and continued."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from anamorph.data.configuration import save
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import AnamorphWarning, ConfigurationError
from anamorph.inference.model_folder import read_card, read_model
from anamorph.training.configuration import Machine, configure, read_training
from anamorph.training.loop import train
from tests.training.tiny import Align, Segment, prepared_cohort

CPU = Machine(device="cpu")


@pytest.fixture
def trained(cohort: PreparedCohort, tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """Trains into a folder, and gives the weights of its model."""

    def run(method: str, out: str = "run", machine: Machine = CPU, **values: Any) -> dict[str, Tensor]:
        options = {name: values.pop(name) for name in ("resume", "force", "say", "progress", "draw") if name in values}
        options.setdefault("draw", None)
        folder = train(cohort, configure(method, values), tmp_path / out, machine=machine, **options)
        return dict(read_model(folder, "cpu").method.state_dict())

    return run


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def history(tmp_path: Path, out: str = "run") -> list[dict[str, str]]:
    with (tmp_path / out / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_segmentation_is_learnt(trained, tmp_path: Path) -> None:
    trained("segment", modality="ct", schedule={"epochs": 12})
    rows = history(tmp_path)
    assert float(rows[-1]["network.cross_entropy"]) < 0.7 * float(rows[0]["network.cross_entropy"])
    assert max(float(row["validation.segmentation_dice"]) for row in rows) > 0.9


def test_players_take_turns_and_both_learn(trained, tmp_path: Path) -> None:
    weights = trained("duel")
    assert {name.partition(".")[0] for name in weights} == {"network", "critic"}
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"critic.tell", "network.deceive", "critic.rate", "network.rate"} <= rows[0].keys()
    assert (rows[0]["critic.rate"], rows[0]["network.rate"]) == ("0.001", "0.01")


def test_a_seed_repeats_a_training_and_another_does_not(trained) -> None:
    augmentation = {"translation": 1.0, "noise": 0.1}
    runs = [
        trained("align", f"run{number}", seed=seed, schedule={"augmentation": augmentation})
        for number, seed in enumerate((0, 0, 1))
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_reading_processes_and_time_do_not_change_the_result(trained) -> None:
    machine = Machine(device="cpu", workers=1, checkpoint_minutes=1e-9)
    assert same(trained("align", "one"), trained("align", "two", machine))


def test_the_folder_holds_what_the_run_stands_on_and_what_came_of_it(trained, tmp_path: Path) -> None:
    pictures: list[str] = []
    trained("align", draw=lambda sample, path: pictures.append(path.name))
    out = tmp_path / "run"
    assert sorted(path.name for path in out.iterdir() if path.name != "tensorboard") == [
        "checkpoint", "config.yaml", "environment.json", "history.csv", "model", "plan.yaml", "run.json", "samples"
    ]  # fmt: skip
    assert read_training(out / "config.yaml").pairs.rule == "within"
    assert (out / "plan.yaml").read_text() == (tmp_path / "prepared" / "plan.yaml").read_text()
    assert json.loads((out / "environment.json").read_text())["device"] == "cpu"
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["command"], record["trained"]["steps"]) == ("complete", "train", 15)
    assert "model" in record["outputs"]
    assert pictures == ["epoch_0001.png", "epoch_0002.png", "epoch_0003.png"]
    assert str(tmp_path) not in (out / "run.json").read_text() + (out / "environment.json").read_text()


def test_the_card_tells_how_the_model_was_trained(trained, tmp_path: Path) -> None:
    trained("align", pairs={"fixed_modality": "mr", "moving_modality": "ct"})
    card = read_card(tmp_path / "run" / "model")
    assert list(card.plan.modalities) == ["mr", "ct"]
    assert card.pairs is not None
    assert (card.pairs.rule, card.pairs.fixed_modality) == ("within", "mr")
    assert card.spacings == {"ct": ((2.0, 3.0), (2.0, 3.0)), "mr": ((2.0, 3.0), (2.0, 3.0))}
    assert (card.trained["items"], card.trained["steps"], card.trained["epochs"]) == (5, 9, 3)
    assert set(card.scores) == {"registration_dice"}


def test_the_card_tells_what_the_images_of_each_modality_look_like(trained, tmp_path: Path) -> None:
    """Discs of 0.8 on 0.2, and of 0.3 on 0.7; a training that is resumed says the same, one modality alone nothing."""
    trained("align", "whole")
    whole = read_card(tmp_path / "whole" / "model").appearance
    assert set(whole) == {"ct", "mr"}
    ct, mr = (np.array(whole[name].mean[0]) for name in ("ct", "mr"))
    assert 0.15 < np.median(ct) < 0.3
    assert 0.75 < ct.max() < 0.95
    assert 0.65 < np.median(mr) < 0.75
    assert all(0.5 < seen.largest < 3.0 for seen in whole.values())
    trained("align", "part", schedule={"epochs": 1})
    trained("align", "part", schedule={"epochs": 3}, resume=True)
    assert read_card(tmp_path / "part" / "model").appearance == whole
    trained("segment", "one", modality="ct")
    assert read_card(tmp_path / "one" / "model").appearance == {}


def test_the_weights_that_validated_best_are_kept(trained, tmp_path: Path, monkeypatch) -> None:
    """Rates that rise and then destroy: the best epoch lies before the last."""
    monkeypatch.setattr("anamorph.training.learner.decay", lambda schedule, epoch: 1.0 if epoch < 3 else 300.0)
    trained("segment", modality="ct", schedule={"epochs": 5})
    rows = history(tmp_path)
    dices = [float(row["validation.segmentation_dice"]) for row in rows]
    card = read_card(tmp_path / "run" / "model")
    assert card.scores["segmentation_dice"] == pytest.approx(max(dices))
    assert card.trained["epoch_of_weights"] == 1 + dices.index(max(dices)) < 5


def test_of_equal_validations_the_later_weights_are_kept(trained, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("anamorph.training.learner.choice_of", lambda scores: 0.5)
    trained("segment", modality="ct", schedule={"epochs": 3})
    assert read_card(tmp_path / "run" / "model").trained["epoch_of_weights"] == 3


def test_p04_without_validation_cases_the_last_weights_are_kept_with_a_warning(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "all", 3, 0)
    with pytest.warns(AnamorphWarning, match="W-TRN-012: no validation items"):
        model = train(cohort, configure("segment"), tmp_path / "run", machine=CPU, draw=None)
    assert read_card(model).scores == {}
    assert "W-TRN-012" in json.loads((tmp_path / "run" / "run.json").read_text())["warnings"][0]


def test_the_average_is_validated_and_kept(trained) -> None:
    plain, averaged = (
        trained("segment", name, schedule={"epochs": 2, "average": average}, modality="ct")
        for name, average in (("plain", 0.0), ("averaged", 0.9))
    )
    assert not torch.equal(plain["network.weight"], averaged["network.weight"])
    assert torch.equal(plain["mean"], averaged["mean"])  # buffers are no average


def test_hooks_are_told_where_the_training_is(trained, monkeypatch) -> None:
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(Segment, "begin_step", lambda self, step, steps: told.append(("step", step, steps)))
    plain = Segment.after_epoch

    def after_epoch(self: Segment, epoch: int, batches: Any) -> None:
        told.append(("epoch", epoch, sum(len(batch["index"]) for batch in batches)))
        plain(self, epoch, batches)

    monkeypatch.setattr(Segment, "after_epoch", after_epoch)
    weights = trained("segment", schedule={"epochs": 2, "batch_size": 5})
    assert told == [
        ("step", 0, 4), ("step", 1, 4), ("epoch", 0, 10), ("step", 2, 4), ("step", 3, 4), ("epoch", 1, 10)
    ]  # fmt: skip
    assert weights["mean"].abs().sum() > 0


def test_validation_and_hooks_see_evaluation_mode_and_steps_training_mode(trained, monkeypatch) -> None:
    modes: list[tuple[str, bool]] = []
    for name in ("terms", "register", "after_epoch"):
        plain = getattr(Align, name)

        def spy(self: Align, *arguments: Any, name: str = name, plain: Any = plain) -> Any:
            modes.append((name, self.training))
            return plain(self, *arguments)

        monkeypatch.setattr(Align, name, spy)
    trained("align", schedule={"epochs": 2})
    assert set(modes) == {("terms", True), ("register", False), ("after_epoch", False)}


def test_it_says_how_it_goes(trained) -> None:
    lines: list[str] = []
    stages: list[tuple[str, float]] = []
    trained("align", say=lines.append, progress=lambda stage, done: stages.append((stage, done)))
    assert lines[:3] == [
        "method: align, 158 parameters, on cpu",
        "pairs: 10 to train (within), 4 to validate",
        "steps: 3 epochs of 5",
    ]
    assert lines[3].startswith("epoch 1 of 3: network.similarity 0.")
    assert "validation.registration_dice 0." in lines[3]
    assert lines[3].endswith("the best so far")
    assert "waiting for data" in lines[-2]
    assert lines[-1].startswith("kept: weights of epoch ")
    assert stages[-1] == ("training", 1.0)


def test_a_complete_run_is_not_touched_unless_asked(trained, tmp_path: Path) -> None:
    first = trained("segment")
    with pytest.raises(ConfigurationError, match="E-OUT-016: run: it holds a complete training"):
        trained("segment", seed=1)
    assert same(first, trained("segment", resume=True))  # nothing is left to do
    again = trained("segment", seed=1, force=True)
    assert not same(first, again)
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2", "3", "4"]


def test_more_epochs_continue_a_complete_run(trained, tmp_path: Path) -> None:
    long = trained("align", "long", schedule={"epochs": 4})
    trained("align", schedule={"epochs": 2})
    assert same(long, trained("align", schedule={"epochs": 4}, resume=True))
    rows = [{name: row[name] for name in row if name not in ("seconds", "waiting")} for row in history(tmp_path)]
    others = history(tmp_path, "long")
    assert rows == [{name: row[name] for name in row if name not in ("seconds", "waiting")} for row in others]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"schedule": {"epochs": 1}},
            "schedule.epochs: found 1, expected 2, with which it began; --force",
        ),
        ({"schedule": {"epochs": 3, "batch_size": 1}}, "schedule.batch_size: found 1, expected 2, with"),
        ({"schedule": {"epochs": 2}, "settings": {"width": 5}, "seed": 3}, "seed: found 3 (and 1 more), expected 0, "),
    ],
)
def test_other_settings_cannot_continue_a_run(trained, values: dict, line: str) -> None:
    trained("align", schedule={"epochs": 2})
    with pytest.raises(ConfigurationError) as caught:
        trained("align", resume=True, **values)
    assert str(caught.value).startswith(f"E-TRN-010: run: {line}")


def test_a_run_from_before_labels_could_be_hidden_goes_on(trained, tmp_path: Path) -> None:
    """Its configuration names neither a share of labels nor networks to begin with."""
    whole = trained("duel", "whole", schedule={"epochs": 2})
    trained("duel", "begun", schedule={"epochs": 1})
    file = tmp_path / "begun" / "config.yaml"
    kept = {
        name: part for name, part in yaml.safe_load(file.read_text()).items() if name not in ("labelled", "initial")
    }
    file.write_text(yaml.safe_dump(kept))
    assert same(whole, trained("duel", "begun", schedule={"epochs": 2}, resume=True))
    assert yaml.safe_load(file.read_text())["labelled"] == {"share": 1.0, "seed": 0}
    with pytest.raises(ConfigurationError, match=r"E-TRN-010: begun: labelled.share: found 0.5, expected 1.0"):
        trained("duel", "begun", schedule={"epochs": 3}, labelled={"share": 0.5}, resume=True)


def test_other_data_cannot_continue_a_run(cohort: PreparedCohort, trained) -> None:
    trained("align", schedule={"epochs": 1})
    save(cohort.plan.model_copy(update={"labels": {3: "other"}}), cohort.folder / "plan.yaml")
    with pytest.raises(ConfigurationError, match="E-TRN-011: run: the prepared cohort has changed"):
        trained("align", schedule={"epochs": 2}, resume=True)


@pytest.mark.parametrize("name", ["run.json", "model", "config.yaml"])
def test_what_is_not_known_to_be_ours_is_never_touched(trained, tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("somebody's")
    for options in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(ConfigurationError, match="E-OUT-016"):
            trained("align", **options)
    assert [(path.name, path.read_text()) for path in (tmp_path / "run").iterdir()] == [(name, "somebody's")]


def test_resume_begins_where_there_is_nothing(trained) -> None:
    assert same(trained("align", "one", resume=True), trained("align", "two"))


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_it_trains_wherever_tensors_live(trained, device: torch.device, tmp_path: Path, precision: str) -> None:
    machine = Machine(device=device.type)
    schedule = {"epochs": 2, "precision": precision, "average": 0.5, "augmentation": {"translation": 1.0}}
    trained("duel", "begun", machine, schedule={**schedule, "epochs": 1})
    weights = trained("duel", "begun", machine, schedule=schedule, resume=True)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert json.loads((tmp_path / "begun" / "environment.json").read_text())["device"] == device.type


def test_three_dimensions_masks_and_clipping(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "solid", 2, 1, ("ct",), masks=True, shape=(6, 5, 4))
    values = {"schedule": {"clip_norm": 1.0, "precision": "bfloat16", "decay": "cosine", "optimiser": "sgd"}}
    model = train(cohort, configure("segment", values), tmp_path / "run", machine=CPU, draw=None)
    assert read_model(model, "cpu").method.domain.ndim == 3
