"""How a method is trained: everything that its paper prescribes and a user may change."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Augmentation(BaseModel):
    """Random changes to the training data; 0 switches one off. Spatial ones move image, labels and masks alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the items that each kind is applied to."""
    translation: Annotated[float, Field(ge=0)] = 0.0
    """Largest shift along each axis, in voxels."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest turn about each axis, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative change of size, one factor an axis."""
    elastic: Annotated[float, Field(ge=0)] = 0.0
    """Largest displacement of a control point, in voxels."""
    elastic_spacing: Positive = 16.0
    """Distance of the control points, in voxels."""
    same_for_pair: bool = False
    """Whether the two images of a pair move alike."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Largest standard deviation of Gaussian noise, as a share of the intensities' standard deviation."""
    bias: Annotated[float, Field(ge=0)] = 0.0
    """Largest coefficient of a smooth multiplicative bias field."""
    gamma: Annotated[float, Field(ge=0)] = 0.0
    """Largest logarithm of the exponent applied to the intensities."""
    blur: Annotated[float, Field(ge=0)] = 0.0
    """Largest standard deviation of a Gaussian blur, in voxels."""
    anisotropy: Annotated[float, Field(ge=0)] = 0.0
    """Largest factor by which one axis is sampled more coarsely, 0 or above 1."""


class Schedule(BaseModel):
    """Optimiser, learning rates, length, and what happens between epochs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    epochs: Count = 100
    """Passes over the data."""
    steps_per_epoch: Count | None = None
    """Batches of an epoch; a whole pass if absent."""
    batch_size: Count = 1
    """Items of a batch, over all processes."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """Which optimiser; sgd has Nesterov momentum 0.99."""
    learning_rate: Positive = 1e-4
    """At the beginning."""
    learning_rates: dict[str, Positive] = {}
    """Of single players, where they differ."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of adam and adamw."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of the optimiser."""
    decay: Literal["constant", "half_life", "polynomial", "cosine", "linear"] = "constant"
    """How the rate falls. half_life: halves every ``half_life`` epochs. polynomial: (1 - t)^0.9. cosine: to zero.
    linear: constant for the first half, then to zero."""
    half_life: Positive = 100.0
    """Epochs, for the decay of that name."""
    clip_norm: Positive | None = None
    """Largest norm of a player's gradient."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the forward pass; float16 and bfloat16 are mixed precision."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is validated and kept; 0 for none."""
    validate_every: Count = 1
    """Epochs between validations."""
    augmentation: Augmentation = Augmentation()
    """Random changes to the training data."""
    extra: Annotated[float, Field(ge=0)] = 1.0
    """Items of the split extra in a pass, for each training item; at most all there are, and 0 leaves them out."""
    augment_extra: bool = False
    """Whether extra items are changed at random as well."""
