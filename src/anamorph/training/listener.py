"""What a training tells while it runs: progress, lines of text, pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from anamorph.training.history import Row
from anamorph.training.learner import Learner
from anamorph.training.task import Task
from anamorph.training.validation import Sample

PICTURES = 20
"""Drawn in the course of a training, if it has as many validations."""
SECONDS_BETWEEN_LINES = 10.0
"""Of epochs that bring nothing new."""


class Listener:
    """Passes on what happens; silent in all processes but the first.

    Args:
        first: whether this is the first process.
        task: what is learnt.
        folder: of the run.
        progress: told a stage and how much of it is done.
        say: told in words.
        draw: writes a picture.
    """

    def __init__(
        self,
        first: bool,
        task: Task,
        folder: Path,
        progress: Callable[[str, float], None] | None,
        say: Callable[[str], None] | None,
        draw: Callable[[Sample, Path], None] | None,
    ) -> None:
        self.task, self.samples = task, folder / "samples"
        self._progress = progress if first and progress else lambda stage, done: None
        self._say = say if first and say else lambda line: None
        self._draw = draw if first else None
        self._said = time.monotonic()
        self._seconds = self._waited = 0.0
        self._steps = 0

    def begins(self, learner: Learner, steps: int) -> None:
        """Told before the first step."""
        task, count = self.task, sum(tensor.numel() for tensor in learner.method.parameters())
        rule = f" ({task.configuration.pairs.rule})" if task.training.kind == "pairs" else ""
        if len(task.extra):
            rule += f" with {task.sampler.drawn} of {len(task.extra)} extra ones an epoch"
        processes = learner.processes
        where = processes.device.type + (f", {processes.count} processes" if processes.count > 1 else "")
        self._say(f"method: {task.configuration.method}, {_short(count)} parameters, on {where}")
        self._say(f"{task.training.kind}: {len(task.training)} to train{rule}, {len(task.validation)} to validate")
        epochs = task.configuration.schedule.epochs
        done = f", {learner.state.step} of them done" if learner.state.step else ""
        self._say(f"steps: {epochs} epochs of {steps // epochs}{done}")

    def step(self, done: float, seconds: float, waited: float) -> None:
        """Told after each step how much of all is done, how long it took, and how much of that was waiting."""
        self._steps, self._seconds, self._waited = self._steps + 1, self._seconds + seconds, self._waited + waited
        self._progress("training", done)

    def epoch(self, row: Row, best: bool) -> None:
        """Told after each epoch."""
        epochs, now = self.task.configuration.schedule.epochs, time.monotonic()
        if not best and row["epoch"] < epochs and now - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = now
        told = (name for name in row if "." in name and not name.startswith("health.") and not name.endswith(".rate"))
        terms = [f"{name} {row[name]:.4g}" for name in told]
        mark = ", the best so far" if best else ""
        self._say(f"epoch {row['epoch']} of {epochs}: {', '.join(terms)}{mark}")

    def speed(self) -> dict[str, float]:
        """Mean time of a step of this run, and the share of it spent waiting for data; empty without a step."""
        if not self._steps:
            return {}
        return {"seconds_a_step": self._seconds / self._steps, "waiting": self._waited / self._seconds}

    def wants_picture(self, epoch: int) -> bool:
        """Whether it is time for another one, at the end of an epoch with a validation."""
        schedule = self.task.configuration.schedule
        number, before = (PICTURES * end // schedule.epochs for end in (epoch, epoch - schedule.validate_every))
        return self._draw is not None and number != before

    def picture(self, sample: Sample, epoch: int) -> None:
        """Given an item and what the method makes of it."""
        if self._draw is not None:
            self.samples.mkdir(exist_ok=True)
            self._draw({**sample, "epoch": epoch}, self.samples / f"epoch_{epoch:04d}.png")

    def template(self, sample: Sample, epoch: int) -> None:
        """Given what the method holds of the population; empty where it has nothing of the kind."""
        if sample and self._draw is not None:
            self.samples.mkdir(exist_ok=True)
            self._draw({**sample, "epoch": epoch}, self.samples / f"atlas_{epoch:04d}.png")

    def interrupted(self, learner: Learner) -> None:
        """Told when the state is saved, before the training stops."""
        self._say(f"stopped and saved after step {learner.state.step}; --resume goes on from there")

    def ends(self, learner: Learner) -> None:
        """Told at the end."""
        if self._steps:
            speed = self.speed()
            self._say(f"time: {speed['seconds_a_step']:.3g} s a step, {speed['waiting']:.1%} of it waiting for data")
        state = learner.state
        if state.best_epoch:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in state.best_scores.items())
            self._say(f"kept: weights of epoch {state.best_epoch}, {scores}")


def _short(count: int) -> str:
    return f"{count / 1e6:.3g} million" if count >= 1e6 else str(count)
