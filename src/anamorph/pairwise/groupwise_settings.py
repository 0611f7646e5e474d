"""What can be chosen in building an atlas; the one schema behind library, YAML and command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from anamorph.pairwise.settings import PairwiseSettings, Positive, Similarity


class GroupwiseSettings(BaseModel):
    """Settings of a group-wise atlas; the registrations' own mean what they mean in ``PairwiseSettings``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    iterations: Annotated[int, Field(ge=1, le=100)] = 5
    """Most rounds: the first aligns linearly, the others deform."""

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Stop when a round changes the template by less than this share of its contrast; 0 goes on to the last."""

    transform: Literal["rigid", "similarity", "affine", "deformable"] = "deformable"
    """The most general map allowed."""

    unbiased: bool = True
    """Take the mean map of the cases out of the template after every round."""

    search: Literal["header", "auto", "full"] = "auto"
    """Where the first round looks for each case: as the files place it, about its centre too, or under all turns."""

    similarity: Similarity = "lncc"
    """What deformable rounds compare."""

    linear_similarity: Similarity = "nmi"
    """What linear rounds, and the linear part of deformable ones, compare."""

    blur: Annotated[float, Field(ge=0, le=10)] = 2.0
    """Standard deviation of the Gaussian, in voxels of the atlas, that images pass before a linear round compares
    them, so that their noise does not hold them where they are. 0 leaves them sharp."""

    smoothness: Annotated[float, Field(ge=0)] = 0.2
    """Weight of the bending energy of the velocity against the similarity."""

    levels: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (4, 2)
    """Factors by which the working grid shrinks, coarse to fine."""

    steps: tuple[Annotated[int, Field(ge=1, le=10000)], ...] = (50, 30)
    """Steps of a registration at each level."""

    control_spacing: Positive = 4.0
    """Distance of the velocity's spline nodes, in voxels of the level."""

    working_voxels: Annotated[int, Field(ge=1000)] = 1_000_000
    """Most voxels that a registration compares."""

    ct_window: tuple[float, float] = (-450.0, 450.0)
    """HU range kept of an image whose modality is ct, or whose values look like it."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the small random turns that keep the search's starts off the axes."""

    @model_validator(mode="after")
    def _check(self) -> GroupwiseSettings:
        if len(self.levels) != len(self.steps) or not self.levels:
            raise ValueError("levels and steps have the same number of entries, at least one")
        self.engine(2)  # which refuses what it cannot do
        return self

    def kind(self, number: int) -> Literal["rigid", "similarity", "affine", "deformable"]:
        """The map that round ``number``, from 1, looks for."""
        return "affine" if self.transform == "deformable" and number == 1 else self.transform

    def engine(self, number: int) -> PairwiseSettings:
        """How round ``number``, from 1, registers. Every result counts, however little it gains on a blurred template.

        Raises:
            ValueError: what ``PairwiseSettings`` refuses.
        """
        return PairwiseSettings(
            transform=self.kind(number),
            search=self.search,
            seed=self.seed,
            similarity=self.similarity,
            linear_similarity=self.linear_similarity,
            smoothness=self.smoothness,
            levels=self.levels,
            iterations=self.steps,
            control_spacing=self.control_spacing,
            working_voxels=self.working_voxels,
            ct_window=self.ct_window,
            least_gain=0,
        )
