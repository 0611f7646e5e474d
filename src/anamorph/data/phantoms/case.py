"""What a kind of phantom gives: cases, each of one or more scans with all that is true about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np

from anamorph.data.cohort import Split
from anamorph.data.image import Image, Labelmap, Landmarks, Mask
from anamorph.data.phantoms.options import Options
from anamorph.spatial.transform import Transform

KindOptions = TypeVar("KindOptions", bound=Options)


@dataclass(frozen=True, eq=False)
class PhantomScan:
    """An image and what is known about it.

    Args:
        image: with its modality.
        labels, mask: on the image's grid.
        landmarks: named points of its world.
        to_template: map from its world to the template's, where the subject is a deformed template.
    """

    image: Image
    labels: Labelmap | None = None
    landmarks: Landmarks | None = None
    mask: Mask | None = None
    to_template: Transform | None = None


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """The scans of one subject.

    Args:
        scans: the first is the fixed one.
        truth: maps from the first scan's world to that of each other one; empty where they are not known.
        name, split: where they are given by what the case was made from.
        back: maps from each other scan's world to that of the first, where pairs are listed both ways.
    """

    scans: tuple[PhantomScan, ...]
    truth: tuple[Transform, ...] = ()
    name: str = ""
    split: Split | None = None
    back: tuple[Transform, ...] = ()


class Phantom(ABC, Generic[KindOptions]):
    """A population of cases, each decided by the seed and its own number alone."""

    label_names: Mapping[int, str] = MappingProxyType({})
    """What each label is."""
    most: int | None = None
    """How many cases there are; None for as many as wanted."""

    def __init__(self, options: KindOptions, seed: int) -> None:
        self.options, self.seed = options, seed

    @abstractmethod
    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """The case of a number, from 0; ``split`` is what it will be used for, where that is known."""

    def template(self) -> PhantomScan | None:
        """What all subjects are deformations of, where there is such a thing."""
        return None

    def found(self) -> Mapping[str, float]:
        """What was found rather than given, to be told beside the options."""
        return {}

    def generator(self, index: int, stream: int) -> np.random.Generator:
        """The random numbers for one purpose within one case."""
        return np.random.default_rng([self.seed, index, stream])
