"""A method as it learns: all that a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import cast

import torch
from torch import Tensor

from anamorph.methods.base import Batch, Method
from anamorph.methods.schedule import Schedule
from anamorph.training.checkpoint import Checkpoint, pack_optimisers, unpack_optimisers
from anamorph.training.distributed import Processes
from anamorph.training.optimisation import average_of, decay
from anamorph.training.players import Players, Turns
from anamorph.training.validation import choice_of


@dataclass
class State:
    """Where a training is, besides weights and optimisers.

    Args:
        step: steps done.
        epoch: epochs done, their validation included.
        halvings: of all rates, after divergences.
        overflows: of float16, in a row.
        best: value of the best validation, higher is better; None before the first.
        best_epoch: when it was, from 1.
        best_scores: all that it measured.
        sums: over the steps of the running epoch.
        hooked: whether the method's own end of the running epoch is done.
        initial: networks that began with the weights of other models, and which those are.
    """

    step: int = 0
    epoch: int = 0
    halvings: int = 0
    overflows: int = 0
    best: float | None = None
    best_epoch: int = 0
    best_scores: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    hooked: bool = False
    initial: dict[str, str] = field(default_factory=dict)


class Learner:
    """The method, the average of its weights, its players, the best weights so far, and where the training is.

    Args:
        method: on the processes' device.
        schedule: how it is trained.
        processes: who train it.
    """

    def __init__(self, method: Method, schedule: Schedule, processes: Processes) -> None:
        self.method, self.schedule, self.processes = method, schedule, processes
        self.players = Players(method, schedule, processes)
        self.average = average_of(method, schedule)
        self.best: dict[str, Tensor] = {}
        self.state = State()

    @property
    def kept(self) -> Method:
        """The method with the weights that are validated and kept: their average, where there is one."""
        return self.method if self.average is None else cast(Method, self.average.module)

    @property
    def factor(self) -> float:
        """What all learning rates are multiplied by in the running epoch."""
        return decay(self.schedule, self.state.epoch) * 0.5**self.state.halvings

    def step(self, batch: Batch | None, share: float, signals: tuple[float, ...]) -> Turns:
        """A turn of every player, and its weights counted into their average; arguments as of ``Players.step``."""
        turns = self.players.step(batch, share, self.factor, signals)
        if self.average is not None and turns.finite:
            self.average.update_parameters(self.method)
        return turns

    def count(self, turns: Turns, seconds: float, waited: float) -> None:
        """A step is done; one that overflowed float16 has no terms."""
        state, overflow = self.state, not turns.finite
        state.step += 1
        state.overflows = state.overflows + 1 if overflow else 0
        told = {"steps": 1.0, "seconds": seconds, "waited": waited, "overflows": float(overflow)}
        for name, value in (told if overflow else {**told, **turns.terms}).items():
            state.sums[name] = state.sums.get(name, 0.0) + value

    def row(self) -> dict[str, float | int]:
        """Of the epoch that ends, for the history: means over its steps."""
        sums = dict(self.state.sums)
        steps, seconds, waited, overflows = (sums.pop(name) for name in ("steps", "seconds", "waited", "overflows"))
        return {
            "epoch": self.state.epoch + 1,
            "step": self.state.step,
            "seconds": round(seconds, 3),
            "waiting": round(waited / seconds, 4),
            "overflows": round(overflows),
            **{f"{player}.rate": self.players.rate_of(player) * self.factor for player in self.method.players},
            **{name: value / (steps - overflows) for name, value in sums.items()},
        }

    def begin_alike(self) -> None:
        """Give every process the weights of the first."""
        self.processes.share(self.method.state_dict().values())

    def share_buffers(self) -> None:
        """Give every process, and the average, the buffers of the first."""
        self.processes.share(self.method.buffers())
        if self.average is not None:
            for mine, theirs in zip(self.average.module.buffers(), self.method.buffers(), strict=True):
                mine.copy_(theirs)

    def judge(self, scores: Mapping[str, float], epoch: int) -> bool:
        """Keep the weights if these scores are the best so far; of equal ones the later, which have learnt more."""
        choice, state = choice_of(scores), self.state
        if choice is None or not math.isfinite(choice) or (state.best is not None and choice < state.best):
            return False
        state.best, state.best_epoch, state.best_scores = choice, epoch, dict(scores)
        self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.kept.state_dict().items()}
        return True

    def finite(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.method.state_dict().values())

    def checkpoint(self, data: str) -> Checkpoint:
        """What to continue from; ``data`` tells what is learnt from."""
        players = self.players.state()
        optimisers, plain = pack_optimisers(players.pop("optimisers"))
        tensors = {"weights": self.method.state_dict(), "optimisers": optimisers}
        if self.average is not None:
            tensors["average"] = self.average.state_dict()
        if self.best:
            tensors["best"] = self.best
        state = {"data": data, "training": asdict(self.state), "optimisers": plain, **players}
        return Checkpoint(self.state.step, tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Be as at the checkpoint."""
        tensors, state = checkpoint.tensors, dict(checkpoint.state)
        self.method.load_state_dict(tensors["weights"])
        if self.average is not None:
            self.average.load_state_dict(tensors["average"])
        state["optimisers"] = unpack_optimisers(tensors["optimisers"], state["optimisers"])
        self.players.load_state(state)
        self.best = dict(tensors.get("best", {}))
        self.state = State(**state["training"])

    def finished(self) -> Method:
        """The method with the best weights, or the last where nothing was validated; not to be trained any more."""
        if self.best:
            self.kept.load_state_dict(self.best)
        return self.kept.eval()
