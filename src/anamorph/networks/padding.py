"""Images of any size before networks that halve them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def pad_to_multiple(x: Tensor, multiples: Sequence[int]) -> Tensor:
    """``x`` (B C I J (K)) made longer at each axis' upper end, up to a multiple; the border value goes on there."""
    missing = [-n % multiple for n, multiple in zip(x.shape[2:], multiples, strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, [pad for n in reversed(missing) for pad in (0, n)], mode="replicate")


def crop_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of ``x`` (B C I J (K)) that is left after ``pad_to_multiple`` is undone; a view."""
    for axis, n in enumerate(shape, start=2):
        x = x.narrow(axis, 0, n)
    return x
