"""P01-P09, P15, R11, R12: data, numbers and processes that fail a training."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from anamorph.data.prepared import PreparedCohort
from anamorph.errors import AnamorphError, AnamorphWarning, InputError, NumericalError, ResourceError
from anamorph.inference.model_folder import read_model
from anamorph.methods import METHODS
from anamorph.methods.base import Batch, Domain
from anamorph.training.configuration import Machine, configure
from anamorph.training.loop import train
from anamorph.training.sampling import seed_all
from anamorph.training.task import Task
from tests.training import tiny
from tests.training.tiny import Align, Duel, Steady, prepared_cohort
from tests.training.together import codes, together

CPU = Machine(device="cpu")


@pytest.fixture(autouse=True)
def tiny_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in tiny.TINY.items():
        monkeypatch.setitem(METHODS, name, method)


@pytest.fixture
def cohort(tmp_path: Path) -> PreparedCohort:
    return prepared_cohort(tmp_path / "prepared")


@pytest.fixture
def trained(cohort: PreparedCohort, tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    def run(method: str, out: str = "run", machine: Machine = CPU, **values: Any) -> dict[str, Tensor]:
        resume = values.pop("resume", False)
        train(cohort, configure(method, values), tmp_path / out, machine=machine, draw=None, resume=resume)
        return weights_of(tmp_path / out)

    return run


def weights_of(run: Path) -> dict[str, Tensor]:
    return dict(read_model(run / "model", "cpu").method.state_dict())


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_p01_an_unreadable_case_is_refused_before_anything_is_learnt(
    cohort: PreparedCohort, tmp_path: Path, damage: str
) -> None:
    file = cohort.by_name["c3_mr"].file
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(prepared_cohort(tmp_path / "solid", 1, 0, shape=(4, 4, 4)).scans[0].file.read_bytes())
    with pytest.raises(InputError) as caught:
        train(cohort, configure("align"), tmp_path / "run", machine=CPU, draw=None)
    assert caught.value.code == "E-TRN-002"
    assert str(caught.value).startswith("E-TRN-002: c3_mr.safetensors: c3_mr: ")
    assert not (tmp_path / "run").exists()


def test_p03_cases_without_labels_are_learnt_from_too(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "some", 4, 2, unlabelled=("c0", "c1", "c5"))
    train(cohort, configure("segment"), tmp_path / "run", machine=CPU, draw=None)
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(tmp_path / "run").values())


def test_p03_but_a_segmentation_needs_some(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "none", 2, 0, unlabelled=("c0", "c1"))
    with pytest.raises(InputError, match="E-TRN-003: none: none of 4 training cases has labels"):
        train(cohort, configure("segment"), tmp_path / "run", machine=CPU, draw=None)


def test_p04_one_case_and_none_to_validate(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "one", 1, 0)
    with pytest.warns(AnamorphWarning, match="W-TRN-012"):
        train(cohort, configure("align"), tmp_path / "run", machine=CPU, draw=None)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "complete"


def test_p04_nothing_to_train_on(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "none", 0, 2)
    with pytest.raises(InputError, match=r"E-TRN-001: .*scans of the training split: none"):
        train(cohort, configure("align"), tmp_path / "run", machine=CPU, draw=None)


# -- numbers -----------------------------------------------------------------------------------------------------------


class Poisoned:
    """NaN in the terms, or in the gradient alone, at given steps, the first ``times`` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: str, steps: set[int], times: int) -> None:
        self.step, self.left = -1, times
        plain = Align.terms

        def begin_step(method: Align, step: int, steps: int) -> None:
            self.step = step

        def terms(method: Align, batch: Batch, player: str) -> dict[str, Tensor]:
            found = plain(method, batch, player)
            if method.training and self.step in steps and self.left > 0:
                self.left -= 1
                poison = torch.tensor(torch.nan)
                if where == "terms":
                    found["similarity"] = found["similarity"] * poison
                else:
                    found["similarity"].register_hook(lambda gradient: gradient * poison)
            return found

        monkeypatch.setattr(Align, "begin_step", begin_step)
        monkeypatch.setattr(Align, "terms", terms)


@pytest.mark.parametrize("where", ["terms", "gradient"])
def test_p02_what_is_not_finite_begins_the_epoch_anew(trained, tmp_path, monkeypatch, where) -> None:
    Poisoned(monkeypatch, where, {7}, times=2)
    with pytest.warns(AnamorphWarning, match=r"W-TRN-004: .* epoch 2, step 8, on c\d_\w\w-c\d_\w\w, c") as warned:
        weights = trained("align")
    assert len([one for one in warned if "W-TRN-004" in str(one.message)]) == 2
    assert [float(row["network.rate"]) for row in rows_of(tmp_path / "run")] == [0.01, 0.0025, 0.0025]
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == ["1", "2", "3"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_p02_after_three_times_it_stops_and_names_the_batch(trained, tmp_path, monkeypatch, recwarn) -> None:
    Poisoned(monkeypatch, "terms", {7}, times=1000)
    with pytest.raises(NumericalError) as caught:
        trained("align")
    assert (caught.value.code, caught.value.exit_code) == ("E-TRN-004", 5)
    assert "step 8, on c" in str(caught.value)
    assert "after 3 halvings" in str(caught.value)
    run = tmp_path / "run"
    assert not (run / "model").exists()
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["error"]["code"]) == ("failed", "E-TRN-004")
    for file in (run / "checkpoint").rglob("weights.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values())


def test_p02_a_divergence_goes_on_alike_after_a_crash(trained, monkeypatch, recwarn) -> None:
    """The second run dies after each step in turn, with a checkpoint after every step."""
    with monkeypatch.context() as patched:
        Poisoned(patched, "terms", {7}, times=1)
        whole = trained("align", "whole")
    eager = Machine(device="cpu", checkpoint_minutes=1e-9)
    for step in (6, 7, 8, 9):
        with monkeypatch.context() as patched:
            Poisoned(patched, "terms", {7}, times=1)
            crash = Crash(patched, Align, step)
            with pytest.raises(Crash.Crashed):
                trained("align", f"run{step}", eager)
            assert crash.done
        with monkeypatch.context() as patched:
            Poisoned(patched, "terms", {7}, times=int(step <= 7))
            parts = trained("align", f"run{step}", eager, resume=True)
        assert all(torch.equal(whole[name], parts[name]) for name in whole), step


class Crash:
    """The first time that a step is taken, a method fails in the middle of it."""

    class Crashed(Exception):
        pass

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type[Align], step: int) -> None:
        self.done = False
        plain = kind.begin_step

        def begin_step(method: Align, number: int, steps: int) -> None:
            plain(method, number, steps)
            if number == step:
                self.done = True
                raise Crash.Crashed

        monkeypatch.setattr(kind, "begin_step", begin_step)


def test_p02_a_rate_that_is_too_high_ends_in_a_refusal_not_in_a_crash(trained, recwarn) -> None:
    with pytest.raises(NumericalError, match="E-TRN-004"):
        trained("steady", schedule={"learning_rate": 1e30, "optimiser": "sgd", "epochs": 30})


def test_p15_float16_that_overflows_for_good_is_refused(trained, monkeypatch) -> None:
    plain = Align.terms

    def terms(method: Align, batch: Batch, player: str) -> dict[str, Tensor]:
        found = plain(method, batch, player)
        found["similarity"].register_hook(lambda gradient: gradient * torch.inf)
        return found

    monkeypatch.setattr(Align, "terms", terms)
    with pytest.raises(NumericalError) as caught:
        trained("align", schedule={"precision": "float16", "epochs": 9})
    assert (caught.value.code, caught.value.exit_code) == ("E-TRN-015", 5)
    assert "21 steps in a row" in str(caught.value)


def test_p15_single_overflows_are_skipped_and_counted(trained, tmp_path, monkeypatch) -> None:
    plain, calls = Align.terms, iter(range(1000))

    def terms(method: Align, batch: Batch, player: str) -> dict[str, Tensor]:
        found = plain(method, batch, player)
        if next(calls) in (1, 2, 7):
            found["similarity"].register_hook(lambda gradient: gradient * torch.inf)
        return found

    monkeypatch.setattr(Align, "terms", terms)
    trained("align", schedule={"precision": "float16", "batch_size": 2})
    assert [row["overflows"] for row in rows_of(tmp_path / "run")] == ["2", "1", "0"]


# -- again from the middle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "average"), [("align", 0.9), ("duel", 0.0)])
def test_p09_ten_epochs_are_five_and_five(tmp_path, monkeypatch, method: str, average: float) -> None:
    """Dropout, batch normalisation, order, augmentation and optimisers go on as if nothing had been."""
    cohort = prepared_cohort(tmp_path / "small", 3, 1)
    schedule = {
        "epochs": 10, "batch_size": 4, "average": average, "decay": "cosine",
        "augmentation": {"translation": 1.0, "noise": 0.1},
    }  # fmt: skip

    def trained(out: str, resume: bool = False) -> dict[str, Tensor]:
        configuration = configure(method, {"schedule": schedule})
        train(cohort, configuration, tmp_path / out, machine=CPU, draw=None, resume=resume)
        return weights_of(tmp_path / out)

    whole = trained("whole")
    kind = Align if method == "align" else Duel
    with monkeypatch.context() as patched:
        Crash(patched, kind, 5 * 2)
        with pytest.raises(Crash.Crashed):
            trained("run")
    torch.manual_seed(99)  # nothing hangs on what the process did before
    parts = trained("run", resume=True)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    numbers = [
        [{name: row[name] for name in row if name not in ("seconds", "waiting")} for row in rows_of(tmp_path / run)]
        for run in ("whole", "run")
    ]
    assert numbers[0] == numbers[1]


# -- processes ---------------------------------------------------------------------------------------------------------


def test_p06_two_processes_end_in_order_20_of_20_times(cohort: PreparedCohort, tmp_path: Path) -> None:
    values = {"schedule": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 3}, "validation_items": 1}
    for number in range(20):
        out = tmp_path / f"run{number}"
        processes = together(tiny.run, cohort.folder, out, "steady", values, log=tmp_path / "log")
        assert codes(processes) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
        assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_two_processes_take_the_same_first_step_as_one(cohort: PreparedCohort, tmp_path: Path, trained) -> None:
    """By plain gradient descent the first step is the gradient of the whole batch of three: two items and one."""
    values = {"schedule": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 3, "optimiser": "sgd"}}
    processes = together(tiny.run, cohort.folder, tmp_path / "two", "steady", values, log=tmp_path / "log")
    alone, start = trained("steady", "one", **values), first_weights("steady", cohort)
    assert codes(processes) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    shared = weights_of(tmp_path / "two")
    for name, tensor in alone.items():
        assert torch.allclose(shared[name] - start[name], tensor - start[name], rtol=1e-5, atol=1e-9), name
        assert not torch.equal(tensor, start[name])


def first_weights(method: str, cohort: PreparedCohort) -> dict[str, Tensor]:
    seed_all(0, torch.device("cpu"))
    return {name: tensor.clone() for name, tensor in Task.of(cohort, configure(method)).method().state_dict().items()}


def test_p08_uneven_shares_and_a_last_batch_of_one(cohort: PreparedCohort, tmp_path: Path, trained) -> None:
    """Ten pairs in batches of three: the last batch of each epoch has one, of which the first process has none."""
    values = {"schedule": {"epochs": 2, "batch_size": 3, "optimiser": "sgd"}}
    processes = together(tiny.run, cohort.folder, tmp_path / "two", "steady", values, log=tmp_path / "log")
    alone = trained("steady", "one", **values)
    assert codes(processes) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    shared = weights_of(tmp_path / "two")
    assert all(torch.allclose(shared[name], alone[name], rtol=1e-3, atol=1e-5) for name in alone)
    for one, two in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        for name in ("network.similarity", "network.smoothness", "validation.registration_dice"):
            assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-3)


def test_p07_a_run_of_two_processes_goes_on_in_one(cohort: PreparedCohort, tmp_path: Path, trained) -> None:
    schedule = {"batch_size": 3, "optimiser": "sgd"}
    values = {"schedule": {**schedule, "epochs": 1}}
    processes = together(tiny.run, cohort.folder, tmp_path / "run", "steady", values, log=tmp_path / "log")
    alone = trained("steady", "one", schedule={**schedule, "epochs": 2})
    assert codes(processes) == [0, 0], (tmp_path / "log.0").read_text()
    resumed = trained("steady", schedule={**schedule, "epochs": 2}, resume=True)
    assert all(torch.allclose(resumed[name], alone[name], rtol=1e-3, atol=1e-5) for name in alone)


def test_p05_the_others_end_soon_after_one_dies(cohort: PreparedCohort, tmp_path: Path, trained) -> None:
    values = {"schedule": {"epochs": 500, "batch_size": 2}}
    out = tmp_path / "run"
    processes = together(run_and_report, cohort.folder, out, values, log=tmp_path / "log")
    wait_for(lambda: (out / "history.csv").exists())
    pid = processes[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    found = codes(processes)
    assert time.monotonic() - begin < 60
    assert found[0] == 4, (tmp_path / "log.0").read_text()
    assert found[1] == -signal.SIGKILL
    assert "E-TRN-005" in (tmp_path / "log.0").read_text()
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert (out / "checkpoint").is_dir()


def test_r12_a_killed_reading_process_ends_the_training_with_a_name(
    cohort: PreparedCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = [0.0]

    def begin_step(method: Align, step: int, steps: int) -> None:
        if step == 3:
            begun[0] = time.monotonic()
            child = multiprocessing.active_children()[0].pid
            assert child is not None
            os.kill(child, signal.SIGKILL)

    monkeypatch.setattr(Align, "begin_step", begin_step)
    machine = Machine(device="cpu", workers=1)
    with pytest.raises(ResourceError) as caught:
        train(cohort, configure("align", {"schedule": {"epochs": 50}}), tmp_path / "run", machine=machine, draw=None)
    assert time.monotonic() - begun[0] < 30
    assert (caught.value.code, caught.value.exit_code) == ("E-TRN-007", 4)
    assert re.search(r"signal SIGKILL\) at c\d_(ct|mr)-c\d_(ct|mr), c\d_", str(caught.value))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert multiprocessing.active_children() == []


def run_and_report(prepared: Path, out: Path, values: dict[str, Any]) -> None:
    """As the command line does: one line and an exit code."""
    try:
        tiny.run(prepared, out, "steady", values)
    except AnamorphError as error:
        print(error, flush=True)
        raise SystemExit(error.exit_code) from None


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_steady_has_nothing_that_differs_between_parts_of_a_batch() -> None:
    domain = Domain(tiny.SHAPE, tiny.SPACING)
    kinds = {type(module).__name__ for module in Steady(tiny.AlignSettings(), domain).modules()}
    assert not kinds & {"BatchNorm2d", "Dropout"}
