"""Convolutions in 3-D that are those of ``torch.nn`` but for the arrangement of their input, which a CPU needs.

Two things about torch on a CPU, in float32:

- oneDNN computes most gradients faster where channels lie innermost in memory, and what follows keeps that order.
- A single image of few channels and rows is left to a loop of torch's own, up to ten times slower than oneDNN. With an
  empty image beside it, it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from anamorph.networks.normalisation import InstanceNorm3d

LARGEST_OF_LOOP = 20480
"""Channels x I x J of a single image up to which torch takes its loop (``ConvParams::use_mkldnn``)."""

_as_it_comes = ContextVar("_as_it_comes", default=False)


class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` up to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """As there."""
        return _arranged(super().forward, input)


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


def _arranged(convolve: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Of ``images``, B C I J K."""
    if _left_alone(images):
        return convolve(images)
    images = arranged(images)
    if len(images) == 1 and images.shape[1:4].numel() <= LARGEST_OF_LOOP:
        return convolve(torch.cat([images, torch.zeros_like(images)]))[:1]
    return convolve(images)
