"""What an experiment's file says of its cases: made or gathered, sliced, remapped, deformed, joined by others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from anamorph.data.cohort import Split
from anamorph.data.configuration import merged
from anamorph.data.phantoms.options import Deformation, Slicing

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
Number = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Label = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+.-]*$")]
"""Of a folder or a part of a case's name."""


class FilePattern(BaseModel):
    """Scans by the names of their files."""

    model_config = STRICT

    modality: Name
    """Of all of them."""
    image: str
    """Below the folder, with one * for what tells the cases apart, as *_SS.nii.gz; without it a single case."""
    labels: str | None = None
    """Likewise, with the same in place of *."""
    case: str = "*"
    """Name of the case, where * stands for the same."""


class Gathering(BaseModel):
    """Real images, below the folder that ``ANAMORPH_DATA`` names."""

    model_config = STRICT

    layout: (
        Literal[
            "nnunet", "bids", "learn2reg", "chaos", "mmwhs", "brats", "ixi", "freesurfer", "first", "patients",
            "splits", "stacks", "folders",
        ]
        | None
    ) = None  # fmt: skip
    """How they lie there, as for ``anamorph gather``."""
    files: tuple[FilePattern, ...] = ()
    """Which they are, in place of a layout."""
    folder: str
    """Below ``ANAMORPH_DATA``."""
    modality: str | None = None
    """Of layouts that do not tell."""
    modalities: tuple[Name, ...] = ()
    """Only scans of these."""
    exclude: tuple[str, ...] = ()
    """Patterns of the names of cases that are left out."""
    usual_contrast: Name | None = None
    """Only the cases in the middle, ranked by the standard deviation of this modality's values."""
    usual_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """How many of them that is."""
    merge: dict[Label, Label] = {}
    """Label -> the one that it counts as in all that follows; labels are written anew."""
    test_cases: tuple[str, ...] = ()
    """Patterns of the test cases' names."""
    validation: Number = 0
    """The last cases before those of the test."""
    test: Number = 0
    """The last cases."""
    validation_share: Share = 0.0
    """Share of the training subjects drawn for validation, in place of the last ones."""
    test_share: Share = 0.0
    """Share of them drawn for test."""
    seed: Number = 0
    """Of that draw."""

    @model_validator(mode="after")
    def _check(self) -> Gathering:
        if (self.layout is None) == (not self.files):
            raise ValueError("images are gathered either by a layout or by their files")
        shares = self.validation_share + self.test_share
        if shares and (self.validation or self.test):
            raise ValueError("cases are held back either by shares or by numbers")
        if shares >= 1:
            raise ValueError("the shares leave nothing to train on")
        if self.seed and not shares:
            raise ValueError("the seed is of a draw, and no share is drawn")
        if self.usual_contrast is None and self.usual_share != Gathering.model_fields["usual_share"].default:
            raise ValueError("usual_share would change nothing without usual_contrast")
        return self


class Synthesis(BaseModel):
    """Phantoms, as ``anamorph synthesise`` makes them."""

    model_config = STRICT

    kind: str
    """Which."""
    cases: Annotated[int, Field(ge=1)] | None = None
    """How many."""
    seed: Number = 0
    """Of the phantoms."""
    validation: Number = 0
    """The last cases before those of the test."""
    test: Number = 0
    """The last cases."""
    options: dict[str, JsonValue] = {}
    """Of the kind."""


class Source(BaseModel):
    """Where cases come from."""

    model_config = STRICT

    gather: Gathering | None = None
    """Real images."""
    synthesise: Synthesis | None = None
    """Phantoms."""

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.gather is None) == (self.synthesise is None):
            raise ValueError("a cohort is either gathered or synthesised")
        return self


class FurtherCases(Source):
    """Cases that join a cohort, all of one split, as those of another site."""

    split: Split = "test"
    """What they are used for."""


class ElasticDeformation(Deformation):
    """One modality of aligned images deformed once, so that every method sees the same, and the true maps are known."""

    seed: Number = 0
    """Of the deformations."""

    @property
    def phantoms(self) -> Synthesis:
        """The same as phantoms of kind deformed, but for the cohort that they are made of."""
        given = self.model_dump(mode="json", exclude_unset=True, exclude={"seed"})
        return Synthesis(kind="deformed", seed=self.seed, options=given)


class CohortRecipe(Source):
    """All cases; images are sliced first, then remapped, then deformed."""

    slices: Slicing | None = None
    """2-D images in place of the 3-D ones."""
    remap: Synthesis | None = None
    """A second modality for them, of kind remapped."""
    deform: ElasticDeformation | None = None
    """An elastic deformation of one modality."""
    more: dict[Name, FurtherCases] = {}
    """Further cases; the name joins those of the cases: CASE_NAME. Phantoms have the cohort's kind and options where
    they do not say otherwise. They are neither sliced, remapped nor deformed."""

    @model_validator(mode="before")
    @classmethod
    def _alike(cls, values: Any) -> Any:
        """Kind and options of the first phantoms, handed on to further ones of that kind."""
        match values:
            case {"synthesise": {"kind": kind, **given}, "more": dict() as more}:
                shared = {"synthesise": {"kind": kind, "options": given.get("options", {})}}
            case _:
                return values
        handed_on = {}
        for name, further in more.items():
            match further:
                case {"synthesise": dict() as phantoms} if phantoms.get("kind", kind) == kind:
                    further = merged(shared, further)
            handed_on[name] = further
        return {**values, "more": handed_on}
