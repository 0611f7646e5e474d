"""What any segmentation network can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from anamorph.types import ImageBatch


class SegmentationNetwork(nn.Module, ABC):
    """A network that can take another's place: images of any size in, a number a voxel and class out."""

    @abstractmethod
    def logits(self, image: ImageBatch) -> list[Float[Tensor, "batch outputs *spatial"]]:
        """B C I J (K) -> results of the image's size, B ``outputs`` I J (K), the finest first.

        There are several where coarser stages are supervised, and then while training alone.
        """
