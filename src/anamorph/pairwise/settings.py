"""What can be chosen in a pairwise registration; the one schema behind library, YAML and command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Similarity = Literal["mind", "mind_ssc", "macmind", "mi", "local_mi", "nmi", "lncc", "ssim", "mse", "l1"]

Positive = Annotated[float, Field(gt=0)]


class PairwiseSettings(BaseModel):
    """Settings of a pairwise registration. Lengths are voxels of the working grid, which ``working_voxels`` bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    transform: Literal["rigid", "similarity", "affine", "deformable"] = "deformable"
    """The most general map allowed; the stages before it run too."""

    search: Literal["header", "auto", "full"] = "auto"
    """Where to begin. header: as the files place the images. auto: also centres and moderate rotations.
    full: also the 24 axis-aligned turns, for flipped or mislabelled axes."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the small random turns that keep the search's starts off the axes."""

    similarity: Similarity = "mind_ssc"
    """What the deformable stage compares."""

    linear_similarity: Similarity = "nmi"
    """What the search, rigid and affine stages compare."""

    smoothness: Annotated[float, Field(ge=0)] = 0.2
    """Weight of the bending energy of the velocity against the similarity."""

    levels: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (4, 2)
    """Factors by which the working grid shrinks, coarse to fine."""

    iterations: tuple[Annotated[int, Field(ge=1, le=10000)], ...] = (50, 30)
    """Steps at each level."""

    control_spacing: Positive = 4.0
    """Distance of the velocity's spline nodes, in voxels of the level."""

    step_size: Positive = 0.6
    """Largest step of the optimiser at first, in voxels of the working grid."""

    squarings: Annotated[int, Field(ge=1, le=12)] = 7
    """Squarings in the final integration of the velocity."""

    patch_size: Annotated[int, Field(ge=1, le=15)] = 3
    """Side of a patch of mind and mind_ssc, in voxels of the working grid, odd."""

    distance: Annotated[int, Field(ge=1, le=8)] = 1
    """Distance between the patches of mind and mind_ssc, in voxels of the working grid."""

    variance_floor: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Least local variance of mind and mind_ssc, as a share of its mean: below it, texture counts as noise."""

    least_gain: Annotated[float, Field(ge=0, lt=1)] = 0.07
    """Share by which a result must raise an independent NMI to move images that the headers place well, so that an
    aligned pair stays aligned. 0 keeps every result."""

    bins: Annotated[int, Field(ge=8, le=256)] = 32
    """Histogram bins of the information measures."""

    ct_window: tuple[float, float] = (-450.0, 450.0)
    """HU range kept of an image whose modality is ct, or whose values look like it."""

    working_voxels: Annotated[int, Field(ge=1000)] = 3_000_000
    """Most voxels of the working grid; a larger fixed image is registered on a coarser one."""

    least_overlap: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Least share of the smaller image that a start may bring into overlap."""

    @model_validator(mode="after")
    def _check(self) -> PairwiseSettings:
        if len(self.levels) != len(self.iterations) or not self.levels:
            raise ValueError("levels and iterations have the same number of entries, at least one")
        if list(self.levels) != sorted(self.levels, reverse=True):
            raise ValueError("levels run from coarse to fine, as in 4 2")
        if self.ct_window[0] >= self.ct_window[1]:
            raise ValueError("ct_window is low, high")
        if self.patch_size % 2 == 0:
            raise ValueError("patch_size is odd")
        return self
