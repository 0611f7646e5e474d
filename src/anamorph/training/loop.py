"""The loop that trains every method.

A step takes its items, lets every player take a turn, and is counted. An epoch ends with the method's own hook, a
validation, a row of the history and a checkpoint. Order, augmentation and dropout follow from the seed and the number
of the step, so a checkpoint holds all that the next step depends on, and a run that is killed anywhere continues to the
result that it would have had.

Where a term, a gradient or a weight is not finite, everything goes back to the last end of an epoch, and all rates are
halved. Signals are heeded between steps and between the items of a validation, where the state is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anamorph.data.prepared import PreparedCohort
from anamorph.errors import ConfigurationError, NumericalError, ResourceError, warn
from anamorph.inference.model_folder import write_model
from anamorph.methods.schedule import Augmentation
from anamorph.methods.translation import Translation
from anamorph.training.augmentation import augment
from anamorph.training.checkpoint import Checkpoint, Checkpoints
from anamorph.training.configuration import Machine, TrainingConfiguration
from anamorph.training.distributed import Processes
from anamorph.training.health import HEALTH, warn_of_health
from anamorph.training.history import History
from anamorph.training.initial import begin_with
from anamorph.training.interruption import Interrupted, Interruption, held_back
from anamorph.training.items import HostBatch, on_device, with_extra
from anamorph.training.learner import Learner
from anamorph.training.listener import Listener
from anamorph.training.reading import Pass, Reader
from anamorph.training.run_folder import TrainingRun, opened
from anamorph.training.samples import draw_sample
from anamorph.training.sampling import seed_all, share_of
from anamorph.training.task import Task
from anamorph.training.validation import Sample, Validation, sample_of, template_of

HALVINGS = 3
"""Of the rates, after which a training that diverges is given up."""
OVERFLOWS = 20
"""Steps in a row without a finite gradient in float16, after which it is given up."""


def train(
    prepared: PreparedCohort,
    configuration: TrainingConfiguration,
    out: Path,
    *,
    machine: Machine = Machine(),  # noqa: B008
    progress: Callable[[str, float], None] | None = None,
    say: Callable[[str], None] | None = None,
    draw: Callable[[Sample, Path], None] | None = draw_sample,
    resume: bool = False,
    force: bool = False,
) -> Path:
    """Train a method on a prepared cohort.

    Started by torchrun, this function is called by every process, with the same arguments; the first one writes.

    Args:
        prepared: what is learnt from.
        configuration: all that decides the result.
        out: folder of the run; the model comes to lie in its ``model``.
        machine: what it runs on.
        progress: told a stage and how much of it is done.
        say: told in words how it goes.
        draw: writes a picture of one item now and then.
        resume: continue an unfinished training, or a finished one with more epochs; begin where there is none.
        force: begin again in a folder that holds a training.

    Returns:
        The folder of the model: the weights that validated best, or the last where nothing could be validated.

    Raises:
        InputError: E-TRN-001 nothing to learn from, E-TRN-002 a file of the cohort is damaged, E-TRN-003 no labels,
            E-TRN-013 labels that no extra scan has.
        ConfigurationError: E-TRN-008 another run works in the folder, E-TRN-009 it holds an unfinished training,
            E-TRN-010 that began with other settings, E-TRN-011 or from other data, E-OUT-016 it holds something else,
            E-EVA-015 a network to begin with that does not fit.
        ResourceError: E-TRN-005 another process of the training died, E-TRN-007 a reading process did, E-TRN-016 the
            GPU's memory ran out, E-OUT-003 the disk is full.
        NumericalError: E-TRN-004 the training diverges however low the rate, E-TRN-015 float16 overflows.
        IntegrityError: E-TRN-006, every checkpoint is damaged.
        KeyboardInterrupt: by SIGINT; and SIGTERM does what it does elsewhere. The state is saved before.
    """
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    task = Task.of(prepared, configuration)
    with (
        held_back() as interruption,
        Processes(machine.device) as processes,
        opened(out, task, processes, resume=resume, force=force) as run,
    ):
        processes.wait()  # for the first to have opened the folder
        seed_all(task.configuration.seed, processes.device)
        learner = Learner(task.method().to(processes.device), task.configuration.schedule, processes)
        listener = Listener(processes.first, task, out, progress, say, draw)
        Loop(learner, task, out, machine, interruption, listener).run()
        if run is not None:
            _finish(run, task, learner, listener)
    return out / "model"


def _finish(run: TrainingRun, task: Task, learner: Learner, listener: Listener) -> None:
    """The model, and the last file."""
    state, weights = learner.state, learner.state.best_epoch or learner.state.epoch
    trained: dict[str, Any] = {
        "epochs": state.epoch,
        "steps": state.step,
        "epoch_of_weights": weights,
        "halvings": state.halvings,
    }
    trained |= {"initial": state.initial} if state.initial else {}
    facts = task.facts(trained, state.best_scores)
    write_model(run.path("model"), learner.finished(), task.configuration.method, task.plan, facts=facts)
    run.facts |= {"trained": trained, "scores": state.best_scores, "speed": listener.speed()}
    for name in ("history.csv", "samples", "checkpoint"):
        run.path(name)
    run.finish()


class Diverged(Exception):
    """Something is not finite."""


class Loop:
    """One training.

    Args:
        learner: what is trained.
        task: what it learns, and from what.
        folder: of the run.
        machine: how to read, and how often to save.
        interruption: told of signals.
        listener: told how it goes.
    """

    def __init__(
        self,
        learner: Learner,
        task: Task,
        folder: Path,
        machine: Machine,
        interruption: Interruption,
        listener: Listener,
    ) -> None:
        self.learner, self.task, self.folder, self.machine = learner, task, folder, machine
        self.interruption, self.listener = interruption, listener
        self.schedule, self.processes = task.configuration.schedule, learner.processes
        self.sampler = task.sampler
        self.steps = self.schedule.epochs * self.sampler.steps
        self.reader = Reader(with_extra(task.training, task.extra), machine.workers)
        most = task.configuration.validation_items
        self.validation = Validation(task.validation, learner.players, most) if len(task.validation) else None
        self.checkpoints = Checkpoints(folder / "checkpoint", self.sampler.steps)
        self.positions = range(0)
        self.batches: Iterator[HostBatch | None] = iter(())
        self.history: History | None = None
        self.saved = time.monotonic()

    def run(self) -> None:
        """Train to the end, from the newest checkpoint, or from the beginning where there is none."""
        learner = self.learner
        try:
            self._begin(self.checkpoints.newest())
            while learner.state.epoch < self.schedule.epochs:
                try:
                    while learner.state.step < (learner.state.epoch + 1) * self.sampler.steps:
                        self._step()
                    self._finish_epoch()
                except Diverged as divergence:
                    self._roll_back(divergence)
            self.listener.ends(learner)
        except Interrupted:
            with suppress(Diverged):  # the checkpoint before then remains
                self._save()
                self.listener.interrupted(learner)
            raise
        except torch.OutOfMemoryError as error:
            do = "use a smaller --batch-size, or --precision bfloat16"
            raise ResourceError("E-TRN-016", f"the GPU's memory ran out on {self._names()}", do=do) from error
        finally:
            self.reader.close()
            if self.validation is not None:
                self.validation.reader.close()
            if self.history is not None:
                self.history.close()

    def _begin(self, found: Checkpoint | None) -> None:
        if found is None:
            self.learner.state.initial = begin_with(self.learner.method, self.task.configuration.initial)
            self.learner.begin_alike()
            self.learner.method.eval()
            self.learner.method.before_training(self._everything())
            self.listener.template(template_of(self.learner.method, self.task.plan.spacing), 0)
            self._save()
        elif found.state["data"] != self.task.data:
            do = "give the cohort that it began with, or --force to begin again"
            raise ConfigurationError("E-TRN-011", "the prepared cohort has changed", file=self.folder, do=do)
        else:
            self.learner.restore(found)
        if self.processes.first:
            self.history = History(self.folder, self.learner.state.epoch)
            self.task.warn_of_gaps()
        self.listener.begins(self.learner, self.steps)
        self.batches = self._read_ahead()

    # -- a step --------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Every player's turn on the next items."""
        begin, waited = time.perf_counter(), self.reader.waited
        learner, processes, state = self.learner, self.processes, self.learner.state
        self.positions = self.sampler.positions(state.step)
        mine = share_of(self.positions, processes.index, processes.count)
        seed_all(self.sampler.step_seed(state.step, processes.index), processes.device)
        learner.method.train()
        learner.method.begin_step(state.step, self.steps)
        batch = next(self.batches)
        due = processes.first and time.monotonic() - self.saved > 60 * self.machine.checkpoint_minutes
        turns = learner.step(
            None if batch is None else self._augmented(batch, mine),
            share=len(mine) / len(self.positions),
            signals=(float(self.interruption.pending), float(due)),
        )
        if not turns.finite and self.schedule.precision != "float16":
            raise Diverged("a term or a gradient that is not finite")
        seconds, waited = time.perf_counter() - begin, self.reader.waited - waited
        learner.count(turns, seconds, waited)
        self.listener.step(state.step / self.steps, seconds, waited)
        if state.overflows > OVERFLOWS:
            found = f"float16 overflowed in {state.overflows} steps in a row, the last on {self._names()}"
            raise NumericalError("E-TRN-015", found, do="use --precision bfloat16 or float32, or a lower rate")
        stop, due = (number > 0 for number in turns.signals)
        if stop:
            raise Interrupted
        if due:
            self._save()

    def _augmented(self, batch: HostBatch, positions: range) -> Mapping[str, Tensor]:
        tensors, augmentation = on_device(batch, self.processes.device), self.schedule.augmentation
        if augmentation == Augmentation():
            return tensors
        seeds: list[int | None] = [*self.sampler.item_seeds(positions)]
        if not self.schedule.augment_extra:
            items = self.sampler.items(positions)
            seeds = [seed if item < self.sampler.count else None for item, seed in zip(items, seeds, strict=True)]
        return augment(tensors, augmentation, seeds, self.learner.method.domain.spacing)

    def _read_ahead(self) -> Iterator[HostBatch | None]:
        """This process's part of every batch from the next step on."""
        processes = self.processes
        batches = (self.sampler.positions(step) for step in range(self.learner.state.step, self.steps))
        return self.reader.batches(
            self.sampler.items(share_of(batch, processes.index, processes.count)) for batch in batches
        )

    def _names(self) -> str:
        """The items of the batch at hand."""
        return ", ".join(self.reader.items.name(item) for item in self.sampler.items(self.positions))

    # -- the end of an epoch -------------------------------------------------------------------------------------------

    def _finish_epoch(self) -> None:
        learner, state = self.learner, self.learner.state
        epoch, row, best = state.epoch + 1, learner.row(), False
        if not state.hooked:
            self.processes.share(learner.method.buffers())
            learner.method.eval()
            learner.method.after_epoch(state.epoch, self._everything())
            state.hooked = True
        if epoch % self.schedule.validate_every == 0 or epoch == self.schedule.epochs:
            learner.share_buffers()
            learner.kept.eval().validating = True
            if self.validation is not None:
                scores = self.validation.score(learner.kept, self._between_items)
                row |= {f"validation.{name}": value for name, value in scores.items()}
                row |= {f"{HEALTH}.{name}": value for name, value in self.validation.health.items()}
                best = learner.judge(scores, epoch)
            self._picture(epoch)
            learner.kept.validating = False
        state.epoch, state.sums, state.hooked = epoch, {}, False
        if self.history is not None:
            self.history.add(row)
            if isinstance(learner.method, Translation):
                warn_of_health(self.history.rows, learner.method.modalities)
        self._save()
        self.listener.epoch(row, best)

    def _everything(self) -> Pass:
        """The training batches as a method's hooks see them."""
        return Pass(self.reader.items, self.schedule.batch_size, self.processes)

    def _between_items(self, done: float) -> None:
        if self.processes.any(self.interruption.pending):
            raise Interrupted

    def _picture(self, epoch: int) -> None:
        if self.listener.wants_picture(epoch):
            items = self.reader.items if self.validation is None else self.validation.items
            item = 0 if self.validation is None else self.validation.chosen[0]
            self.listener.picture(sample_of(self.learner.kept, items, item, self.learner.players), epoch)
            self.listener.template(template_of(self.learner.kept, self.task.plan.spacing), epoch)

    # -- back and forth ------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write a checkpoint, unless something in it is not finite."""
        self.learner.share_buffers()
        if not self.learner.finite():
            raise Diverged("a weight that is not finite")
        if self.processes.first:
            self.checkpoints.save(self.learner.checkpoint(self.task.data))
        self.saved = time.monotonic()

    def _roll_back(self, divergence: Diverged) -> None:
        """Begin the epoch anew with half the rates."""
        halvings, step = self.learner.state.halvings + 1, self.learner.state.step
        found = f"{divergence} in epoch {self.learner.state.epoch + 1}, step {step + 1}, on {self._names()}"
        if halvings > HALVINGS:
            do = "look at these images, or train with a lower rate"
            raise NumericalError("E-TRN-004", f"{found}, after {HALVINGS} halvings of the rate", do=do)
        if self.processes.first:
            warn("W-TRN-004", f"{found}; the epoch begins anew with half the rate")
        self.processes.wait()
        checkpoint = self.checkpoints.newest(end_of_epoch=True)
        assert checkpoint is not None
        self.learner.restore(checkpoint)
        self.learner.state.halvings = halvings
        if self.processes.first:
            self.checkpoints.discard_after(checkpoint.step)
        self.batches = self._read_ahead()
