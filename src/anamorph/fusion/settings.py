"""What can be chosen in a label fusion; the one schema behind library, YAML and command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fusion = Literal["majority", "global", "local", "block", "local_mi", "non_local", "staple", "joint", "weighted"]

PatchSimilarity = Literal["mind", "ssd", "lncc", "local_mi"]

Positive = Annotated[float, Field(gt=0)]

SEARCHING = {"non_local": ("mind", "ssd", "lncc"), "joint": ("mind", "ssd")}
"""Rules that look for better patches nearby, and what they may compare."""

READ_BY = {
    "similarity": ("global", "local", "block", "non_local", "joint"),
    "sigma": ("local",),
    "block_radius": ("block", "local_mi"),
    "patch_radius": ("global", "non_local", "joint"),
    "search_radius": ("non_local", "joint"),
    "power": ("global", "local", "block", "local_mi"),
    "nearest": ("non_local",),
    "alpha": ("joint",),
    "beta": ("joint",),
    "iterations": ("staple",),
}
"""Field -> the rules that read it; ``bins`` goes with the comparison local_mi."""


class FusionSettings(BaseModel):
    """Settings of a label fusion. Lengths are voxels of the target's grid. A field names the rules that read it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    fusion: Fusion = "joint"
    """The rule. majority and staple look at labels alone; weighted takes its weights from outside; the others compare
    the target with the images of the atlases."""

    similarity: PatchSimilarity = "mind"
    """What is compared around a voxel (global, local, block, non_local, joint). mind: self-similarity descriptors. ssd:
    intensities normalised in each patch. lncc: squared correlation. local_mi: mutual information. mind and local_mi are
    for images of other modalities too, lncc where their contrasts map linearly, ssd for one modality; joint takes mind
    or ssd, non_local anything but local_mi."""

    sigma: Annotated[float, Field(gt=0, le=10)] = 2.0
    """Width of the Gaussian window (local)."""

    block_radius: Annotated[int, Field(ge=1, le=15)] = 5
    """Radius of the box of voxels that is compared (block, local_mi)."""

    patch_radius: Annotated[int, Field(ge=1, le=5)] = 2
    """Radius of a patch (global, non_local, joint)."""

    search_radius: Annotated[int, Field(ge=0, le=5)] = 1
    """How far from its place an atlas's best patch may lie (non_local, joint). 0 trusts the registration."""

    power: Positive | None = None
    """How steeply similar atlases are preferred (global, local, block, local_mi). By default 3 in block and local_mi,
    else 1."""

    nearest: Annotated[int, Field(ge=1, le=100)] = 7
    """Patches that vote, of all those of all atlases (non_local)."""

    alpha: Annotated[float, Field(ge=1e-4, le=100)] = 1.0
    """Regularisation, as a share of the mean expected error of one atlas (joint). More makes the weights equal."""

    beta: Annotated[int, Field(ge=1, le=8)] = 2
    """How steeply the products of two atlases' differences are read as their joint error (joint)."""

    iterations: Annotated[int, Field(ge=1, le=1000)] = 30
    """Most steps of expectation and maximisation (staple)."""

    bins: Annotated[int, Field(ge=4, le=32)] = 8
    """Histogram bins of each image (similarity or rule local_mi)."""

    clean: bool = False
    """Keep the largest component of each label and fill its holes, once labels are fused (all rules)."""

    @model_validator(mode="after")
    def _check(self) -> FusionSettings:
        allowed = SEARCHING.get(self.fusion)
        if allowed and self.similarity not in allowed:
            raise ValueError(f"{self.fusion} compares by {' or '.join(allowed)}, not by {self.similarity}")
        compares = self.similarity if self.fusion in READ_BY["similarity"] else self.fusion
        idle = [name for name, rules in READ_BY.items() if self.fusion not in rules]
        idle += [] if compares == "local_mi" else ["bins"]
        given = [name for name in idle if getattr(self, name) != FusionSettings.model_fields[name].default]
        if given:
            raise ValueError(f"{', '.join(given)} would do nothing with {self.fusion}")
        return self
