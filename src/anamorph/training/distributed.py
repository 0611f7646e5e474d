"""Processes that train one model together: what they tell each other.

Accelerate finds device, backend and partners from what torchrun sets, on one machine or many. Gradients are averaged
here rather than by ``DistributedDataParallel``, which wraps one module with one fixed set of parameters: here players
take turns through each other's networks, methods freeze and free parts of them, and a process may have no item of a
small last batch. Each process weighs its objective with its share of the batch, and the sum of the gradients is that
of the whole batch.

Buffers, as the statistics of batch normalisation, are each process's own between checkpoints; at a checkpoint and at
the end of an epoch all take those of the first. Every process must see the output folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor, nn

from anamorph.errors import ResourceError
from anamorph.inference.register import resolve_device

PATIENCE = timedelta(minutes=10)
"""How long to wait for the others, who may be writing a checkpoint; one that dies is noticed at once."""


class Processes:
    """This process and its partners; usually it is alone.

    Args:
        device: "auto", "cpu" or "cuda".

    Attributes:
        device: where this process computes.
        index: 0 for the first, which writes.
        count: of all processes.
    """

    def __init__(self, device: str = "auto") -> None:
        chosen = resolve_device(device)
        self._ours = not PartialState._shared_state  # somebody else's Accelerator is left as it is
        self._state = PartialState(cpu=chosen.type == "cpu", timeout=PATIENCE)
        self.index, self.count = self._state.process_index, self._state.num_processes
        self.device = chosen if self.count == 1 else torch.device(self._state.device or chosen)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave together: a process that goes while others still talk to it would take them down."""
        try:
            if error is None:
                self.wait()
            if self._ours:
                self._state.destroy_process_group()
        except RuntimeError:
            if error is None:
                raise
        finally:
            if self._ours:
                PartialState._reset_state()  # else a later training would find a device and partners of this one

    def wait(self) -> None:
        """For all others to come here."""
        if self.count > 1:
            self.total(torch.zeros(1, device=self.device))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor.

        Raises:
            ResourceError: E-TRN-005, another process has died.
        """
        if self.count == 1:
            return tensor
        try:
            return reduce(tensor, "sum")  # pyright: ignore[reportReturnType]  (a tensor gives a tensor)
        except RuntimeError as error:
            raise _lost(error) from error

    def any(self, condition: bool) -> bool:
        """Whether it holds in any process."""
        return (self.count > 1 and bool(self.total(torch.tensor([float(condition)], device=self.device)))) or condition

    def total_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums, in one exchange; a parameter that has none anywhere stays without."""
        if self.count == 1:
            return
        chosen = list(parameters)
        if not chosen:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in chosen]
        present = torch.tensor([float(p.grad is not None) for p in chosen], device=self.device)
        total = self.total(torch.cat([*(gradient.flatten() for gradient in gradients), present]))
        *parts, present = total.split([*(p.numel() for p in chosen), len(chosen)])
        for parameter, part, number in zip(chosen, parts, present.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if number else None

    def of_each(self, tensors: Sequence[Tensor], count: int) -> Iterator[list[Tensor]]:
        """The tensors of the first ``count`` processes, one process after the other; all processes are given all.

        Args:
            tensors: of this process; of the same shapes and types in each.
            count: of the processes to hear.

        Raises:
            ResourceError: E-TRN-005, another process has died.
        """
        for process in range(count):
            if self.count == 1:
                yield list(tensors)
                continue
            try:
                found = [broadcast(tensor.contiguous().clone(), from_process=process) for tensor in tensors]
            except RuntimeError as error:
                raise _lost(error) from error
            yield found  # pyright: ignore[reportReturnType]  (a tensor gives a tensor)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.count == 1:
            return
        try:
            with torch.no_grad():
                for tensor in tensors:
                    tensor.copy_(_broadcast(tensor))
        except RuntimeError as error:
            raise _lost(error) from error


def _broadcast(tensor: Tensor) -> Tensor:
    wire = tensor.detach().contiguous()
    if wire.dtype == torch.bool:
        return _broadcast(wire.to(torch.uint8)).bool()
    return broadcast(wire)  # pyright: ignore[reportReturnType]  (a tensor gives a tensor)


def _lost(error: RuntimeError) -> BaseException:
    if re.search(r"gloo|nccl|connection|timed? ?out|process group|socket|recv", str(error), re.IGNORECASE):
        return ResourceError(
            "E-TRN-005", "another process of this training has died", do="see its message; go on with --resume"
        )
    return error
