"""R05-R09: a training that is killed, told to stop, or started twice goes on to the same result."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anamorph.cli.main import VERBS, main
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import AnamorphWarning, ConfigurationError
from anamorph.inference.model_folder import read_model
from anamorph.methods import METHODS
from anamorph.training.configuration import Machine, configure
from anamorph.training.learner import Learner
from anamorph.training.loop import Loop, train
from anamorph.training.validation import Validation
from tests.training import tiny
from tests.training.tiny import prepared_cohort
from tests.training.together import codes, start

VALUES = {"schedule": {"epochs": 4, "batch_size": 2, "average": 0.5, "augmentation": {"translation": 1.0}}}
EAGER = Machine(device="cpu", checkpoint_minutes=1e-9)


@pytest.fixture(autouse=True)
def tiny_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in tiny.TINY.items():
        monkeypatch.setitem(METHODS, name, method)


@pytest.fixture
def cohort(tmp_path: Path) -> PreparedCohort:
    return prepared_cohort(tmp_path / "prepared", 3, 1)


def weights_of(run: Path) -> dict[str, Tensor]:
    return dict(read_model(run / "model", "cpu").method.state_dict())


def alike(one: Path, other: Path) -> bool:
    """Bit by bit, and the course as well."""
    a, b = weights_of(one), weights_of(other)
    courses = [[line.split(",")[5:] for line in (run / "history.csv").read_text().splitlines()] for run in (one, other)]
    return all(torch.equal(a[name], b[name]) for name in a) and courses[0] == courses[1]


@pytest.fixture
def whole(cohort: PreparedCohort, tmp_path: Path) -> Path:
    """A run that nothing stopped."""
    train(cohort, configure("align", VALUES), tmp_path / "whole", machine=Machine(device="cpu"), draw=None)
    return tmp_path / "whole"


class Killed(BaseException):
    """Nobody catches it: what is left is what is on the disk."""


def test_r05_a_crash_at_20_moments_changes_nothing(
    cohort: PreparedCohort, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run dies 20 times, each time within a step or while something is being written, and goes on each time."""
    chance, out, crashes = random.Random(0), tmp_path / "run", 0
    for _ in range(20):
        left = chance.randint(2, 40)

        def count(left: list[int]) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with monkeypatch.context() as patched:
            for module, name in ((os, "fsync"), (os, "replace"), (torch.Tensor, "backward")):
                plain, counter = getattr(module, name), [left]

                def dies(*arguments: Any, plain: Any = plain, counter: list[int] = counter, **more: Any) -> Any:
                    count(counter)
                    return plain(*arguments, **more)

                patched.setattr(module, name, dies)
            try:
                train(cohort, configure("align", VALUES), out, machine=EAGER, draw=None, resume=True)
            except Killed:
                crashes += 1
    train(cohort, configure("align", VALUES), out, machine=EAGER, draw=None, resume=True)
    assert crashes >= 5
    assert alike(whole, out)


def test_r05_kill_9_at_random_moments_changes_nothing(cohort: PreparedCohort, tmp_path: Path, whole: Path) -> None:
    chance, out, killed = random.Random(1), tmp_path / "run", 0
    arguments = cohort.folder, out, "align", VALUES, {"checkpoint_minutes": 1e-9}
    while killed < 4:
        process = start(tiny.run, *arguments, log=tmp_path / "log", more={"resume": True})
        wait_for(lambda: (out / "run.json").exists(), process)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()  # a fast machine may have ended the run by itself: then one more is begun
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0), (tmp_path / "log").read_text()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            assert alike(whole, out)
            shutil.rmtree(out)
    process = start(tiny.run, *arguments, log=tmp_path / "log", more={"resume": True})
    assert codes([process]) == [0], (tmp_path / "log").read_text()
    assert alike(whole, out)


def wait_for(condition: Callable[[], bool], process: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition() and process.exitcode is None:
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def command_line(*words: str) -> None:
    VERBS.setdefault("train", "Train.")
    raise SystemExit(main(["train", *words]))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_r06_a_signal_saves_the_state_and_ends_with_its_code(
    cohort: PreparedCohort, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    words = ["align", str(cohort.folder), "--out", str(out), "--device", "cpu", "--epochs", "2000", "--batch-size", "3"]
    process = start(command_line, *words, log=tmp_path / "log")
    wait_for(lambda: (out / "history.csv").exists(), process)
    assert process.pid is not None
    os.kill(process.pid, number)
    begin = time.monotonic()
    assert codes([process]) == [code], (tmp_path / "log").read_text()
    assert time.monotonic() - begin < 10
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert not (out / ".lock").exists()
    rows = (out / "history.csv").read_text().splitlines()
    newest = max(path.name for path in (out / "checkpoint").iterdir())
    assert int(newest.removeprefix("step_")) >= 2 * (len(rows) - 1) > 0


@pytest.mark.parametrize("where", ["step", "validation", "hook"])
def test_r06_whatever_it_is_doing_it_goes_on_to_the_same_result(
    cohort: PreparedCohort, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    place, name = {
        "step": (Loop, "_augmented"), "validation": (Validation, "_measure"), "hook": (tiny.Align, "after_epoch")
    }[where]  # fmt: skip
    plain, calls = getattr(place, name), [0]

    def told_to_stop(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            signal.raise_signal(signal.SIGINT)
        return plain(*arguments)

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(place, name, told_to_stop)
        with pytest.raises(KeyboardInterrupt):
            train(cohort, configure("align", VALUES), out, machine=Machine(device="cpu"), draw=None)
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    with pytest.raises(ConfigurationError, match=r"E-TRN-009: run: .*\(interrupted\); --resume goes on with it"):
        train(cohort, configure("align", VALUES), out, machine=Machine(device="cpu"), draw=None)
    train(cohort, configure("align", VALUES), out, machine=Machine(device="cpu"), draw=None, resume=True)
    assert alike(whole, out)


@pytest.mark.parametrize("file", ["weights", "average", "best", "optimisers"])
def test_r07_a_damaged_checkpoint_costs_an_epoch_and_no_more(
    cohort: PreparedCohort, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "row", dies_at_third_call(Learner.row))
        with pytest.raises(Killed):
            train(cohort, configure("align", VALUES), out, machine=Machine(device="cpu"), draw=None)
    newest = max((out / "checkpoint").iterdir())
    damaged = newest / f"{file}.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.warns(AnamorphWarning, match=f"W-TRN-006: {newest.name}: damaged"):
        train(cohort, configure("align", VALUES), out, machine=Machine(device="cpu"), draw=None, resume=True)
    assert alike(whole, out)
    assert any("W-TRN-006" in line for line in json.loads((out / "run.json").read_text())["warnings"])


def dies_at_third_call(plain: Callable[..., Any]) -> Callable[..., Any]:
    calls = [0]

    def dies(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise Killed
        return plain(*arguments)

    return dies


def test_r08_a_second_run_in_the_same_folder_is_refused(cohort: PreparedCohort, tmp_path: Path) -> None:
    out = tmp_path / "run"
    endless = {"schedule": {"epochs": 5000}}
    process = start(tiny.run, cohort.folder, out, "align", endless, log=tmp_path / "log")
    wait_for(lambda: (out / "history.csv").exists(), process)
    for options in ({}, {"resume": True}, {"force": True}):
        with pytest.raises(ConfigurationError) as caught:
            train(cohort, configure("align", endless), out, machine=Machine(device="cpu"), draw=None, **options)
        assert (caught.value.code, caught.value.exit_code) == ("E-TRN-008", 2)
        assert f"process {process.pid}, begun" in str(caught.value)
    assert process.is_alive()
    process.kill()
    process.join()


def test_r09_the_lock_of_a_killed_run_is_void(cohort: PreparedCohort, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(tiny.run, cohort.folder, out, "align", {"schedule": {"epochs": 5000}}, log=tmp_path / "log")
    wait_for(lambda: (out / "history.csv").exists(), process)
    process.kill()
    process.join()
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    killed = pytest.warns(AnamorphWarning, match=f"W-TRN-008: run: process {process.pid}")
    with pytest.warns(AnamorphWarning, match="W-OUT-001: run"), killed:
        train(cohort, configure("align", VALUES), out, machine=Machine(device="cpu"), draw=None, force=True)
    assert json.loads((out / "run.json").read_text())["status"] == "complete"
    assert not (out / ".lock").exists()
