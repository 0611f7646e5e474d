"""What a method is: named terms of an objective, players who take turns, and a way to use what was learnt.

A method sees tensors on the network's grid, never files. The loop asks ``terms(batch, player)``, weighs them with
``weights_of(player)`` and steps the networks of that player. Both have the same names: a term whose weight is 0 is left
out of both, and is not computed. A batch is a mapping of tensors; labels are classes, 0 background:

==============  =======================================  ==================================================
of a pair       of a case                                shape
==============  =======================================  ==================================================
fixed, moving   image                                    B C I J (K), float32
*_labels        labels                                   B 1 I J (K), int64; 0 everywhere where unlabelled
*_labelled      labelled                                 B, bool: whether there are labels
*_mask          mask                                     B 1 I J (K), float32, 1 = use; only where all have one
(none)          index                                    B, int64: which case of the training set; extra ones follow
==============  =======================================  ==================================================

for ``*`` in fixed, moving.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from anamorph.methods.schedule import Schedule
from anamorph.networks.deformation import Deformation as Deformation
from anamorph.types import ImageBatch

Batch = Mapping[str, Tensor]
Items = Literal["pairs", "cases"]
Weight = Annotated[float, Field(ge=0)]
"""Of a term; 0 leaves the term out."""


class MethodSettings(BaseModel):
    """Base of every method's settings; each adds its own fields and ``weights``, a frozen model of one float a term."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class TermWeights(MethodSettings):
    """Base of ``weights`` models whose fields are all the terms of the one player; at least one is above 0."""

    @model_validator(mode="after")
    def _check(self) -> TermWeights:
        if not any(value for _, value in self):
            raise ValueError("at least one weight is above 0")
        return self


def computed(batches: Iterable[Batch], compute: Callable[[Batch], Sequence[Tensor]]) -> Iterator[Sequence[Tensor]]:
    """What is computed of each batch that a hook is given, in order; the processes of a training share the work.

    Args:
        batches: as a hook is given them.
        compute: of a batch; tensors of the same shapes and types for every batch.
    """
    shared = getattr(batches, "computed", None)
    return map(compute, batches) if shared is None else shared(compute)


@dataclass(frozen=True)
class Domain:
    """What a method is trained on.

    Args:
        shape: voxels of the network's grid.
        spacing: their size, mm.
        channels: of every image.
        classes: number of labels without the background.
        modalities: which there are; the first is the fixed one where a method tells them apart.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    channels: int = 1
    classes: int = 0
    modalities: tuple[str, ...] = ("image",)

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.shape)


class Method(nn.Module, ABC):
    """One paper.

    Class attributes:
        Settings: the model of its settings.
        schedule: the training its paper prescribes.
        items: whether it learns from pairs or from cases.
        players: who takes turns within a step, in order.
        tasks: what the trained method can do; "register" needs ``register``, "segment" needs ``segment``, "translate"
            needs ``translate``. One method's depend on its settings, and each of its kind knows its own.
        judged_by: what tells good weights from others: answers to its tasks, or its objective where what it learns is
            none of them.

    Attributes:
        validating: whether the answers asked for only choose among weights, so that a cheaper way to them will do.
    """

    Settings: ClassVar[type[MethodSettings]]
    schedule: ClassVar[Schedule] = Schedule()
    items: ClassVar[Items] = "pairs"
    players: ClassVar[tuple[str, ...]] = ("network",)
    tasks: tuple[Literal["register", "segment", "translate"], ...] = ("register",)
    judged_by: ClassVar[Literal["answers", "objective"]] = "answers"

    def __init__(self, settings: MethodSettings, domain: Domain) -> None:
        super().__init__()
        self.settings, self.domain = settings, domain
        self.validating = False

    @classmethod
    def learns_unlabelled(cls, settings: MethodSettings) -> bool:
        """Whether items without labels teach it anything; by default those that register do."""
        return "register" in cls.tasks

    @classmethod
    def out_of_reach(cls, settings: MethodSettings, schedule: Schedule) -> str:
        """What of the settings a training of this length never comes to, in words; empty by default."""
        return ""

    @abstractmethod
    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The networks that a player's step changes, and no others."""

    @abstractmethod
    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """The player's objective: a number a term, under the names of ``weights_of(player)``; lower is better.

        Every term is a mean over the batch, so that the gradients of parts of a batch average to those of the whole.
        """

    def weights_of(self, player: str) -> Mapping[str, float]:
        """The weight of each of the player's terms; by default those of the settings' ``weights`` that are not 0.

        Asked before each step: weights may change as the training goes on, their names may not.
        """
        weights: Any = getattr(self.settings, "weights")  # noqa: B009
        return {name: weight for name, weight in weights.model_dump().items() if weight}

    def before_training(self, batches: Any) -> None:
        """Told once, before the first step of a training that begins anew, with an iterable as ``after_epoch``'s.

        Nothing by default; state that it changes is a buffer, so that it is saved and restored.
        """

    def begin_step(self, step: int, steps: int) -> None:
        """Told before each step how far the training is, to freeze or free parts; nothing by default."""

    def after_epoch(self, epoch: int, batches: Any) -> None:
        """Told after each epoch, with an iterable over the training batches without augmentation, one pass each time.

        Extra cases are not among them.

        Nothing by default; state that it changes is a buffer, so that it is saved and restored.
        """

    def template(self) -> Mapping[str, Tensor]:
        """What it holds of the population, to be drawn as the training goes on; empty where a method has none.

        ``image`` 1 C I J (K), and ``labels``, shares of the background and of every class, 1 (1 + classes) I J (K).
        """
        return {}

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """The deformation that brings moving onto fixed; of methods whose tasks include "register"."""
        raise NotImplementedError

    def segment(self, image: ImageBatch, modality: str = "") -> ImageBatch:
        """Probabilities of the background and of every class, B (1 + classes) I J (K); for the task "segment"."""
        raise NotImplementedError

    def translate(self, image: ImageBatch, modality: str = "") -> ImageBatch:
        """An image of one modality as one of the other, on the same scale; for the task "translate"."""
        raise NotImplementedError
