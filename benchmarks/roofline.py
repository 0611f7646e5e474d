"""The least time that a computation takes on a machine: a roofline, operator by operator.

    floor = sum over operators of max(flops / peak flops per second, bytes / peak bytes per second)

Operators are the convolutions and their gradients, computed directly, and values read at points (``grid_sample``). The
bytes of an operator are those of its tensors, each moved once. Everything else counts as free: activations,
similarities, the optimiser. Less is only possible by other algorithms (Winograd, Fourier), by fusing layers, or where
a tensor is still in the cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
COUNTED = {
    aten.convolution.default: "convolutions",
    aten.convolution_backward.default: "gradients of convolutions",
    aten.grid_sampler_2d.default: "sampling",
    aten.grid_sampler_2d_backward.default: "sampling",
    aten.grid_sampler_3d.default: "sampling",
    aten.grid_sampler_3d_backward.default: "sampling",
}
"""Operator -> kind."""


@dataclass(frozen=True)
class Operator:
    """One call: its kind, its floating-point operations (a multiplication and an addition are two) and its bytes."""

    kind: str
    flops: int
    bytes: int


class Counter(TorchDispatchMode):
    """Notes the operators that run within; tensors on the device ``meta`` are enough."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[Operator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in COUNTED:
            formula = flop_registry.get(func.overloadpacket)
            flops = 0 if formula is None else formula(*args, **(kwargs or {}), out_val=result)
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.operators.append(Operator(COUNTED[func], int(flops), moved))
        return result


@dataclass(frozen=True)
class Peaks:
    """The most that a machine was seen to do, per second.

    Args:
        matmul_gflops: a large product of matrices, float32 as torch computes it by default.
        convolution_gflops: a large convolution of 64 to 64 channels.
        gradient_gflops: its gradients in image and weight.
        copy_gbytes: a large tensor copied: read once, written once.
    """

    matmul_gflops: float
    convolution_gflops: float
    gradient_gflops: float
    copy_gbytes: float

    @property
    def gflops(self) -> float:
        """What floors are computed with."""
        return max(self.matmul_gflops, self.convolution_gflops, self.gradient_gflops)

    def best(self, other: Peaks) -> Peaks:
        """Of two measurements, the larger of each."""
        mine, theirs = asdict(self), asdict(other)
        return Peaks(**{name: max(mine[name], theirs[name]) for name in mine})

    def floor(self, operators: Sequence[Operator]) -> dict[str, float]:
        """Seconds, by kind."""
        seconds = dict.fromkeys(COUNTED.values(), 0.0)
        for one in operators:
            seconds[one.kind] += max(one.flops / self.gflops, one.bytes / self.copy_gbytes) / 1e9
        return seconds


def elapsed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds until it is done, on a GPU up to the end of its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def repeated(action: Callable[[], object], device: torch.device, most: int, limit: float) -> dict[str, Any]:
    """Median, least and most seconds of up to ``most`` repeats; none begins ``limit`` seconds after the first."""
    seconds: list[float] = []
    while len(seconds) < most and sum(seconds) < limit:
        seconds.append(elapsed(action, device))
    spread = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    return {"seconds": spread, "repeats": len(seconds)}


@torch.no_grad()
def measure_peaks(device: torch.device, *, quick: bool = False, repeats: int = 5) -> Peaks:
    """The best of ``repeats``, after one to warm up; ``quick`` gives numbers that mean nothing."""
    gpu = device.type == "cuda"
    n = 128 if quick else 8192 if gpu else 2048
    shape = (8, 8, 8) if quick else (128, 128, 96) if gpu else (64, 64, 32)
    elements = (4 if quick else 1024 if gpu else 256) * 2**18

    def best(action: Callable[[], object]) -> float:
        return min(list(_seconds(action, device, 1 + repeats))[1:])

    left, right = torch.rand(2, n, n, device=device)
    matmul = 2 * n**3 / best(lambda: left @ right)
    image = torch.rand(1, 64, *shape, device=device).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.rand(64, 64, 3, 3, 3, device=device)
    counter = Counter()
    with counter:
        above = functional.conv3d(image, weight, padding=1)
    flops = counter.operators[0].flops
    convolution = flops / best(lambda: functional.conv3d(image, weight, padding=1))
    three, no = [1, 1, 1], [0, 0, 0]
    gradients = best(
        lambda: aten.convolution_backward(
            above, image, weight, None, three, three, three, False, no, 1, [True, True, False]
        )
    )
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)
    copied = 2 * 4 * elements / best(lambda: target.copy_(source))
    return Peaks(*(value / 1e9 for value in (matmul, convolution, 2 * flops / gradients, copied)))


def _seconds(action: Callable[[], object], device: torch.device, times: int) -> Iterator[float]:
    for _ in range(times):
        yield elapsed(action, device)
