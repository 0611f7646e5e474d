"""Convolutions in 3-D that are those of ``torch.nn`` but for the arrangement of their input, which a CPU needs.

Three things about torch on a CPU, the first two in float32:

- oneDNN computes most gradients faster where channels lie innermost in memory, and what follows keeps that order.
- A single image of few channels and rows is left to a loop of torch's own, up to ten times slower than oneDNN. Two
  images are not, so that a single one goes in as its two halves along I, each with the rows of the other that it sees.
  What is transposed, or has few rows, has an empty image beside it.
- oneDNN's gradient of the weights in bfloat16 reads memory that nobody wrote where an axis has fewer voxels than the
  kernel (torch 2.13, on CPUs that compute in that type). Such images are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from anamorph.networks.normalisation import InstanceNorm3d

LARGEST_OF_LOOP = 20480
"""Channels x I x J of a single image up to which torch takes its loop (``ConvParams::use_mkldnn``)."""

FEWEST_ROWS = 8
"""Of a result along I for which halves are taken: of fewer, what both halves see is as much as an empty image."""

_as_it_comes = ContextVar("_as_it_comes", default=False)


class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` up to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """As there."""
        if self._lacks_a_gradient(input):
            with torch.autocast("cpu", enabled=False):
                return self.forward(input.float())
        if self._goes_in_halves(input):
            return self._of_halves(arranged(input))
        return _arranged(super().forward, input)

    def _lacks_a_gradient(self, images: Tensor) -> bool:
        if images.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return False
        return any(n < kernel for n, kernel in zip(images.shape[2:], self.kernel_size, strict=True))

    def _goes_in_halves(self, images: Tensor) -> bool:
        if _left_alone(images) or not _taken_by_loop(images) or isinstance(self.padding, str):
            return False
        return self._rows(images.shape[2]) >= FEWEST_ROWS and self.padding_mode == "zeros"

    def _rows(self, rows: int) -> int:
        """Of the result, for that many rows of the images."""
        return (rows + 2 * int(self.padding[0]) - self._span) // self.stride[0] + 1

    @property
    def _span(self) -> int:
        """Rows from the first to the last that one of the result sees."""
        return self.dilation[0] * (self.kernel_size[0] - 1) + 1

    def _of_halves(self, images: Tensor) -> Tensor:
        """The same of the two halves, laid together."""
        before, *around = map(int, self.padding)
        rows = self._rows(images.shape[2])
        half = (rows + 1) // 2  # of an odd number the middle one is found twice
        seen = (half - 1) * self.stride[0] + self._span
        padded = functional.pad(images, (0, 0, 0, 0, before, before))
        halves = torch.cat([padded.narrow(2, first * self.stride[0], seen) for first in (0, rows - half)])
        found = functional.conv3d(halves, self.weight, self.bias, self.stride, (0, *around), self.dilation, self.groups)
        if rows % 2:
            return torch.cat([found[:1], found[1:, :, 1:]], 2)
        return found.movedim(1, -1).reshape(1, rows, *found.shape[3:], -1).movedim(-1, 1)


class ConvTranspose3d(nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` up to rounding."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As there."""
        return _arranged(lambda images: nn.ConvTranspose3d.forward(self, images, output_size), input)


OURS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: Conv3d,
    nn.ConvTranspose3d: ConvTranspose3d,
    nn.InstanceNorm3d: InstanceNorm3d,
}
"""Layer of torch -> the one that gives the same."""


def take_over(network: nn.Module) -> None:
    """Let the layers of a network out of another library be those of this package; names and weights stay."""
    for module in network.modules():
        module.__class__ = OURS.get(type(module), type(module))


def arranged(images: Tensor) -> Tensor:
    """``images`` (B C I J K) as these convolutions want them in memory; what is used often needs to go there once."""
    return images if _left_alone(images) else images.contiguous(memory_format=torch.channels_last_3d)


@contextmanager
def unarranged() -> Iterator[None]:
    """Within, inputs stay as they come: for ``torch.vmap``, which knows of no arrangement.

    With weights of its own for each item, vmap makes groups of channels of the items, which oneDNN takes as they are.
    """
    token = _as_it_comes.set(True)
    try:
        yield
    finally:
        _as_it_comes.reset(token)


def _left_alone(images: Tensor) -> bool:
    if _as_it_comes.get() or images.device.type != "cpu" or images.dtype != torch.float32:
        return True
    return images.ndim != 5 or not torch.backends.mkldnn.is_available()


def _taken_by_loop(images: Tensor) -> bool:
    return len(images) == 1 and images.shape[1:4].numel() <= LARGEST_OF_LOOP


def _arranged(convolve: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Of ``images``, B C I J K."""
    if _left_alone(images):
        return convolve(images)
    images = arranged(images)
    if _taken_by_loop(images):
        return convolve(torch.cat([images, torch.zeros_like(images)]))[:1]
    return convolve(images)
