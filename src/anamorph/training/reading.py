"""Batches read ahead of the step that needs them, by a thread or by processes, and the time spent waiting for them."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor

from anamorph.errors import InputError, ResourceError
from anamorph.inference.memory import available_memory
from anamorph.training.distributed import Processes
from anamorph.training.items import HostBatch, Items, on_device

SHARE_OF_MEMORY = 0.25
"""Of what the machine could still give, that tensors may stay in."""

AHEAD = 2
"""Batches read ahead by the thread, and by each process."""


class Reader:
    """Reads batches of items in a given order.

    A thread is enough where the files lie in the memory: it keeps them, if they fit. Processes read what does not, and
    hand their arrays over through pipes: a small /dev/shm does not matter.

    Args:
        items: to read from.
        workers: processes; 0 for a thread.
        budget: bytes that the thread may keep; a quarter of the free memory if absent.

    Attributes:
        waited: seconds that the caller spent waiting.
    """

    def __init__(self, items: Items, workers: int = 0, budget: int | None = None) -> None:
        self.items, self.waited = items, 0.0
        self._workers: list[BaseProcess] = []
        self._ahead = AHEAD * max(1, workers)
        if workers:
            self._executor: Executor = ProcessPoolExecutor(workers, initializer=_begin_worker, initargs=(items,))
        else:
            keep = items.bytes <= (budget_of_process() if budget is None else budget)
            self.items = replace(items, keep=keep)
            self._executor = ThreadPoolExecutor(1, "anamorph-reading")

    def batches(self, wanted: Iterable[Sequence[int]]) -> Iterator[HostBatch | None]:
        """The batch of each sequence of items; None for an empty one.

        Raises:
            InputError: E-TRN-002, a file is missing or damaged.
            ResourceError: E-TRN-007, a process of the reader has died.
        """
        pending: deque[tuple[Sequence[int], Future[Any] | None]] = deque()
        for items in wanted:
            pending.append((items, self._submit(items) if len(items) else None))
            if len(pending) > self._ahead:
                yield self._result(*pending.popleft())
        while pending:
            yield self._result(*pending.popleft())

    def close(self) -> None:
        """Stop reading."""
        self._executor.shutdown(wait=not self._workers, cancel_futures=True)

    def _submit(self, items: Sequence[int]) -> Future[Any]:
        if isinstance(self._executor, ThreadPoolExecutor):
            return self._executor.submit(self.items.load, items)
        try:
            before = set(multiprocessing.active_children())
            future = self._executor.submit(_load, items)
        except BrokenProcessPool as error:
            raise self._died(items) from error
        self._workers += set(multiprocessing.active_children()) - before
        return future

    def _result(self, items: Sequence[int], future: Future[Any] | None) -> HostBatch | None:
        if future is None:
            return None
        begin = time.perf_counter()
        try:
            return _unwrapped(future.result())
        except BrokenProcessPool as error:
            raise self._died(items) from error
        finally:
            self.waited += time.perf_counter() - begin

    def _died(self, items: Sequence[int]) -> ResourceError:
        names = ", ".join(self.items.name(item) for item in items)
        for worker in self._workers:
            worker.join(5)
        return ResourceError(
            "E-TRN-007", f"a reading process died ({_manner(self._workers)}) at {names}",
            do="see whether memory ran out; --workers 0 reads in this process",
        )  # fmt: skip


def budget_of_process() -> int:
    """Bytes that this process may keep tensors in, next to the others that torchrun started on this machine."""
    neighbours = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(SHARE_OF_MEMORY * available_memory() / (int(neighbours) if re.fullmatch(r"[1-9]\d*", neighbours) else 1))


def _manner(workers: Sequence[BaseProcess]) -> str:
    """How it died; the pool ends the others by SIGTERM."""
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    code = next((code for code in codes if code != -signal.SIGTERM), codes[0] if codes else 0)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


_items: Items | None = None
"""Of a reading process."""


def _begin_worker(items: Items) -> None:
    """Leave signals to the parent, and end with it however it ends; no threads, which do not survive a fork."""
    global _items
    _items = items
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _load(items: Sequence[int]) -> HostBatch | dict[str, Any]:
    """The batch, or the parts of a refusal: an exception with arguments of its own does not survive the way."""
    assert _items is not None
    try:
        return _items.load(items)
    except InputError as error:
        return {"code": error.code, "found": error.found, "file": error.file, "do": error.do}


def _unwrapped(result: HostBatch | dict[str, Any]) -> HostBatch:
    if "code" in result:
        raise InputError(**result)  # pyright: ignore[reportArgumentType]
    return result


class Pass:
    """The training batches without augmentation, in the order of the items; one pass each time it is iterated.

    Extra items are not among them.

    Args:
        items: to read from.
        batch_size: of each but the last.
        processes: who share what is computed.
    """

    def __init__(self, items: Items, batch_size: int, processes: Processes) -> None:
        self.items, self.batch_size, self.processes = items, batch_size, processes

    def __len__(self) -> int:
        return -(-self.items.main // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self._batch(number) for number in range(len(self)))

    def computed(self, compute: Callable[[dict[str, Tensor]], Sequence[Tensor]]) -> Iterator[Sequence[Tensor]]:
        """What is computed of each batch, in order; the processes take turns, and all are given everything.

        Args:
            compute: of a batch; tensors of the same shapes and types for every batch.
        """
        mine: Sequence[Tensor] = ()
        for first in range(0, len(self), self.processes.count):
            number, left = first + self.processes.index, min(self.processes.count, len(self) - first)
            if number < len(self) or not mine:  # who has no batch still needs tensors to be given others in
                mine = compute(self._batch(min(number, len(self) - 1)))
            yield from self.processes.of_each(mine, left)

    def _batch(self, number: int) -> dict[str, Tensor]:
        first = number * self.batch_size
        chosen = range(first, min(first + self.batch_size, self.items.main))
        return on_device(self.items.load(chosen), self.processes.device)
