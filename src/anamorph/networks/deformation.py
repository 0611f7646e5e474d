"""What a registration network finds, and what any of them can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from anamorph.types import DisplacementBatch, ImageBatch


@dataclass(frozen=True)
class Deformation:
    """What a registration network finds, in voxels of the network's grid.

    Args:
        displacement: moving is pulled: warped(x) = moving(x + u(x)).
        velocity: the stationary velocity whose flow that is, on the same grid, where there is one; its negative gives
            the inverse.
        squarings: of that flow.
    """

    displacement: DisplacementBatch
    velocity: DisplacementBatch | None = None
    squarings: int = 7


class RegistrationNetwork(nn.Module, ABC):
    """A network that can take another's place: images of any size in, a deformation on their grid out."""

    @abstractmethod
    def deformation(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """The deformation that brings moving (B C I J (K)) onto fixed, of the whole network, with its gradient."""

    @abstractmethod
    def regularised(self, deformation: Deformation) -> DisplacementBatch:
        """The field whose ``losses.diffusion`` is the smoothness term of the network's paper, B d I J (K)."""
