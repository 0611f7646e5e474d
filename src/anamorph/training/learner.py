"""A method as it learns: all that a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import cast

import torch
from torch import Tensor

from anamorph.methods.base import Method
from anamorph.methods.schedule import Schedule
from anamorph.training.checkpoint import Checkpoint, pack_optimisers, unpack_optimisers
from anamorph.training.distributed import Processes
from anamorph.training.optimisation import average_of
from anamorph.training.players import Players
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


class Learner:
    """The method, the average of its weights, its players, the best weights so far, and where the training is.

    Args:
        method: on the processes' device.
        schedule: how it is trained.
        processes: who train it.
    """

    def __init__(self, method: Method, schedule: Schedule, processes: Processes) -> None:
        self.method, self.processes = method, processes
        self.players = Players(method, schedule, processes)
        self.average = average_of(method, schedule)
        self.best: dict[str, Tensor] = {}
        self.state = State()

    @property
    def kept(self) -> Method:
        """The method with the weights that are validated and kept: their average, where there is one."""
        return self.method if self.average is None else cast(Method, self.average.module)

    def average_in(self) -> None:
        """Count the weights after a step into their average."""
        if self.average is not None:
            self.average.update_parameters(self.method)

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
        """Keep the weights if these scores are the best so far; of equal ones the earlier."""
        choice, state = choice_of(scores), self.state
        if choice is None or not math.isfinite(choice) or (state.best is not None and choice <= state.best):
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
