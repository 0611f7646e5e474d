"""Which items a step sees, and with which random numbers: functions of the seed and of positions, with no state.

Positions count through the whole training. The items of a pass are a permutation that follows from the seed and the
number of the pass; every random number follows from the seed and a position. So a run that was stopped continues with
the very items it would have had, on any number of processes.

Extra items stand in one random order, as on a ring, and every pass takes the next of them: none comes twice in a pass,
and all have had their turn before one comes again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

ORDER, ITEM, STEP, EXTRA = range(4)
"""What a random number is for, so that no two draws coincide."""


@dataclass(frozen=True)
class Sampler:
    """The order of the items.

    Args:
        count: of the items that every pass has.
        batch_size: items of a step, over all processes.
        steps_per_epoch: batches of an epoch; a whole pass, with a smaller last batch if need be, where absent.
        seed: of everything.
        extra: number of the extra items, which are numbered after the others.
        drawn: extra items of a pass, at most all.
    """

    count: int
    batch_size: int
    steps_per_epoch: int | None = None
    seed: int = 0
    extra: int = 0
    drawn: int = 0

    @property
    def size(self) -> int:
        """Items of a pass."""
        return self.count + self.drawn

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.steps_per_epoch or -(-self.size // self.batch_size)

    def positions(self, step: int) -> range:
        """Of a step's items. Without ``steps_per_epoch`` an epoch is one pass; with it, passes go on across epochs."""
        if self.steps_per_epoch is not None:
            return range(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, number = divmod(step, self.steps)
        first = epoch * self.size + number * self.batch_size
        return range(first, min(first + self.batch_size, (epoch + 1) * self.size))

    def items(self, positions: Sequence[int]) -> list[int]:
        """The item at each position."""
        return [self._item(*divmod(position, self.size)) for position in positions]

    def item_seeds(self, positions: Sequence[int]) -> list[int]:
        """One an item, whatever batch or process it is in."""
        return [_seed(self.seed, ITEM, position) for position in positions]

    def step_seed(self, step: int, process: int) -> int:
        """Of what a step draws, as dropout: apart for each process."""
        return _seed(self.seed, STEP, step, process)

    def _item(self, number: int, place: int) -> int:
        """The item at a place of a pass."""
        item = int(_order(self.seed, number, self.size)[place])
        if item < self.count:
            return item
        turn = number * self.drawn + item - self.count
        return self.count + int(_ring(self.seed, self.extra)[turn % self.extra])


def share_of(positions: range, process: int, processes: int) -> range:
    """A process's part of a batch: as even as possible, and empty where there are more processes than items."""
    first, last = (len(positions) * number // processes for number in (process, process + 1))
    return positions[first:last]


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` items, evenly."""
    return [number * count // min(count, most) for number in range(min(count, most))]


def seed_all(seed: int, device: torch.device) -> None:
    """Begin every sequence of random numbers that a method may draw from anew.

    ``torch.manual_seed`` would do, but it queues a call for each seed as long as CUDA is not in use.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@lru_cache(maxsize=2)
def _order(seed: int, number: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, ORDER, number)).permutation(count)


@lru_cache(maxsize=1)
def _ring(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, EXTRA)).permutation(count)


def _seed(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1)[0])
