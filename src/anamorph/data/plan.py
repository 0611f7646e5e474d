"""The plan of a prepared cohort: the network's grid, the intensities of each modality, the labels, the alignment.

``anamorph prepare`` writes it as ``plan.yaml``, to be read and edited; a model folder carries it, so that new images
are brought before the network as the training images were.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PLAN_VERSION = 1

DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
"""World coordinate and sign of each letter of an orientation."""


class Intensity(BaseModel):
    """How the values of one modality are brought to a common range."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    kind: Literal["window", "percentiles", "zscore", "none"] = "percentiles"
    """window: low..high in the file's own values (HU) to 0..1. percentiles: those two percentiles of the content to
    0..1. zscore: zero mean and unit variance of the content, between those percentiles. none: as they are."""
    low: float = 1.0
    """Lower end: a value for window, a percentile for percentiles and zscore."""
    high: float = 99.0
    """Upper end."""
    clip: bool = True
    """Whether values beyond the ends are set to the ends; without it they go on linearly (range matching)."""
    content: Literal["all", "positive", "mask"] = "all"
    """Which voxels the percentiles, mean and variance are taken from: all, those above 0, those of the mask."""

    @model_validator(mode="after")
    def _check(self) -> Intensity:
        if self.low >= self.high:
            raise ValueError("low is below high")
        if self.kind in ("percentiles", "zscore") and (self.low < 0 or self.high > 100):
            raise ValueError("percentiles lie between 0 and 100")
        return self


class Plan(BaseModel):
    """What is done to every image before it meets a network, and undone to every prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    version: Literal[1] = PLAN_VERSION
    """Of this file's layout."""
    orientation: str = "RAS"
    """World directions in which the network's axes run; RA in 2-D."""
    spacing: tuple[Annotated[float, Field(gt=0)], ...]
    """mm per voxel of the network's grid."""
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    """Voxels of the network's grid, any number; a network that needs a multiple of something pads by itself."""
    centre: Literal["view", "content"] = "view"
    """What stands in the middle of the network's grid: the middle of the image, or of its content."""
    offset: tuple[float, ...] | None = None
    """mm to the right, anterior and superior by which the middle of the network's grid lies off that, to see a part of
    the image that lies aside, as a liver."""
    middle: tuple[float, ...] | None = None
    """World point that stands there instead, mm; where all images are aligned to one world."""
    modalities: dict[str, Intensity]
    """Intensity of each modality."""
    channels: Annotated[int, Field(ge=1)] = 1
    """Channels of every image."""
    labels: dict[int, str] = {}
    """Label value in the files -> name; the network's classes are 0 for the background, then these in order."""
    learn_as: dict[int, int] = {}
    """Label value in the files -> the one of ``labels`` that it counts as, as a tumour counts as the liver it is in."""
    alignment: Literal["none", "within", "reference", "given"] = "none"
    """Affine alignment beforehand. within: a case's scans to its first modality. reference: all to one scan.
    given: by the transforms of a folder, ``CASE_MODALITY.tfm``, reference world -> the scan's world."""
    reference: str = ""
    """``CASE_MODALITY`` of the scan that all are aligned to."""

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def windows(self) -> dict[str, tuple[float, float]]:
        """Ends of those modalities that are prepared by a window."""
        return {name: (one.low, one.high) for name, one in self.modalities.items() if one.kind == "window"}

    @model_validator(mode="after")
    def _check(self) -> Plan:
        if not len(self.shape) == len(self.spacing) == len(self.orientation) or self.ndim not in (2, 3):
            raise ValueError("orientation, spacing and shape have an entry for each of two or three axes")
        places = [DIRECTIONS.get(letter, (-1, 0))[0] for letter in self.orientation]
        if sorted(places) != list(range(self.ndim)):
            raise ValueError(f"orientation names each axis once, as in {'RAS'[: self.ndim]}")
        if self.middle is not None and len(self.middle) != self.ndim:
            raise ValueError("middle has a coordinate for each axis")
        if self.offset is not None and len(self.offset) != self.ndim:
            raise ValueError("offset has a length for each axis")
        if 0 in self.labels:
            raise ValueError("label 0 is the background")
        for label, counted in self.learn_as.items():
            if label in self.labels or label == 0:
                raise ValueError(f"label {label} counts as {counted}: it is no label of its own, nor the background")
            if counted not in self.labels:
                raise ValueError(f"label {label} counts as {counted}, which is not among the labels")
        if self.alignment == "reference" and not self.reference:
            raise ValueError("alignment to a reference needs its name")
        return self
