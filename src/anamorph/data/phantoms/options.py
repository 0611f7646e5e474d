"""What can be asked of each kind of phantom. Pydantic alone, so that the command line can show it at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anamorph.errors import ConfigurationError

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Spacing = tuple[Positive, Positive, Positive]
Scanner = Literal["routine", "hard"]
Site = Literal["home", "sister", "contrast", "noisy", "thick"]


class Options(BaseModel):
    """Of every kind.

    An option that would change nothing beside the others is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    truth: bool = True
    """Write the true maps as displacement fields."""

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Refuse options that were given."""
        given = [name for name in names if name in self.model_fields_set]
        if given:
            raise ValueError(f"{', '.join(given)} would change nothing: {why}")


class Subjects(Options):
    """How subjects differ from the template: an affine map about the middle, and a random diffeomorphism."""

    subject_mm: NotNegative = 5.0
    """Mean length of the random deformation between a subject and the template, mm."""
    subject_smoothness_mm: Positive = 25.0
    """Standard deviation of the Gaussian that makes that deformation smooth, mm."""
    subject_degrees: Annotated[float, Field(ge=0, le=90)] = 6.0
    """Largest rotation of a subject about each axis."""
    subject_stretch: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    """Largest logarithm of a subject's scale along, and of the shear between, the axes."""
    subject_shift_mm: NotNegative = 4.0
    """Largest shift of a subject along each axis, mm."""

    @staticmethod
    def own_fields() -> list[str]:
        """Their names."""
        return [name for name in Subjects.model_fields if name not in Options.model_fields]


class Pairs(Options):
    """How the scans of one case lie to each other."""

    mean_mm: NotNegative = 4.0
    """Mean length of the random deformation between the scans of a case, mm."""
    smoothness_mm: Positive = 20.0
    """Standard deviation of the Gaussian that makes that deformation smooth, mm."""
    degrees: Annotated[float, Field(ge=0, le=90)] = 4.0
    """Largest rotation between the scans of a case about each axis."""
    shift_mm: NotNegative = 4.0
    """Largest shift between the scans of a case along each axis, mm."""

    @staticmethod
    def own_fields() -> list[str]:
        """Their names."""
        return [name for name in Pairs.model_fields if name not in Options.model_fields]


class LetterBOptions(Subjects):
    """The letter B of Atlas-ISTN, pixels of 1 mm; the defaults reproduce what was measured on the paper's images."""

    subject_mm: NotNegative = 4.4
    subject_smoothness_mm: Positive = 12.0
    subject_degrees: Annotated[float, Field(ge=0, le=90)] = 20.5
    subject_stretch: Annotated[float, Field(ge=0, le=0.5)] = 0.105
    subject_shift_mm: NotNegative = 9.3
    noise: NotNegative = 25.0
    """Standard deviation of the noise; letter and background differ by 50."""
    corrupt: Literal["none", "test", "all"] = "none"
    """Which images get discs of clutter, and discs that erase parts of the letter."""


class AbdomenOptions(Options):
    """A CT and an MR of one abdomen; the defaults have the voxels and sequences of macJNet's Table 1."""

    protocol: Literal["plain-t1", "portal-t2"] = "plain-t1"
    """Both without contrast agent and MR T1-weighted, or CT in the portal venous phase and MR T2-weighted."""
    ct_spacing: Spacing = (0.664, 0.664, 5.0)
    """Voxels of the CT, mm; the field of view stays the same, and so does the patient."""
    mr_spacing: Spacing = (1.146, 1.146, 3.0)
    """Voxels of the MR, mm."""
    mean_mm: NotNegative = 6.0
    """Mean length of the random part of the deformation, mm; breathing and a new position come on top."""
    structures: Literal["liver", "all"] = "all"
    """Label the liver and its tumour, or all 14 structures."""


class HeartOptions(Subjects, Pairs):
    """The four chambers and the myocardium of the left ventricle, in CT angiography and bright-blood MR."""

    scans: Literal["pair", "unpaired", "ct", "mr"] = "pair"
    """Both modalities of each case, a CT or an MR of each in turn, or one modality alone."""
    spacing: Annotated[float, Field(ge=0.4, le=10)] = 2.0
    """Size of the cubic voxels, mm, before a hard scanner makes slices of them."""
    scanner: Scanner = "routine"
    """hard: more noise, shading and blur, slices three times as thick, other contrast."""

    @model_validator(mode="after")
    def _check(self) -> HeartOptions:
        if self.scans != "pair":
            self.refuse(Pairs.own_fields(), "each case has one scan")
        return self


class BrainOptions(Subjects, Pairs):
    """Brains by synthesis from labels, of a built-in labelmap or of yours."""

    labelmap: tuple[Path, ...] = ()
    """Labelmaps to start from, one case after the other; a built-in brain if absent."""
    tissues: Path | None = None
    """CSV whose columns label and tissue say what each label of the labelmaps is: csf, gm, wm, deep, stem, ..."""
    contrast: Literal["preset", "random"] = "preset"
    """Mean intensities of the sequences, or drawn anew for every label of every image."""
    modalities: Annotated[tuple[Literal["t1", "t2", "flair"], ...], Field(min_length=1)] = ("t1", "t2")
    """Images of each case; the first is the fixed one."""
    spacing: Annotated[float, Field(ge=0.4, le=10)] = 2.0
    """Size of the cubic voxels, mm, before a hard scanner makes slices of them."""
    tumour: bool = False
    """Put a tumour with oedema into the white matter, which pushes what is around it away."""
    tumour_mm: tuple[Positive, Positive] = (8.0, 15.0)
    """Least and largest radius of the tumour, mm."""
    oedema_mm: NotNegative = 10.0
    """How far the oedema reaches beyond it, mm."""
    skull: bool = False
    """Leave skull and scalp around the built-in brain."""
    scanner: Scanner = "routine"
    """hard: more noise, shading and blur, slices three times as thick, other contrast."""
    site: Site | None = None
    """Whose scanner, in place of that: home (as routine), sister (the same sequence elsewhere), contrast (another
    weighting), noisy (a lower field) or thick (the same, and slices twice as thick)."""
    sites: tuple[Site, ...] = ()
    """Sites that the cases come from in turn, in place of one: a cohort that nobody has cleaned."""
    subcortical: bool = False
    """Label thalamus, caudate, putamen, pallidum, hippocampus and brain stem alone, as one structure."""
    subject_mm: NotNegative = 4.0
    mean_mm: NotNegative = 3.0

    @model_validator(mode="after")
    def _check(self) -> BrainOptions:
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError("a modality stands there twice")
        if self.labelmap:
            self.refuse(["skull", "subcortical"], "it belongs to the built-in brain")
        else:
            self.refuse(["tissues"], "they name the labels of a labelmap, and there is none")
        if self.contrast == "random" and not self.tumour:
            self.refuse(["tissues"], "contrasts are random")
        if len(self.modalities) == 1:
            self.refuse(Pairs.own_fields(), "each case has one scan")
        if self.site is not None:
            self.refuse(["scanner", "sites"], "the site decides")
        if self.sites:
            self.refuse(["scanner"], "the sites decide")
        if self.tumour_mm[0] > self.tumour_mm[1]:
            raise ValueError("radii of a tumour are a range, the least first")
        if not self.tumour:
            self.refuse(["tumour_mm", "oedema_mm"], "there is no tumour")
        if self.subcortical and self.tumour:
            raise ValueError("subcortical leaves no label for the tumour")
        return self


class ShapesOptions(Subjects, Pairs):
    """Shapes without anatomy, every label of every image in a contrast of its own."""

    labelmap: tuple[Path, ...] = ()
    """Labelmaps to start from, one case after the other; new random shapes for every case if absent."""
    shape: Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=2, max_length=3)] = (64, 64, 64)
    """Voxels of the images along two or three axes."""
    spacing: Annotated[float, Field(ge=0.4, le=10)] = 2.0
    """Size of the voxels, mm."""
    labels: Annotated[int, Field(ge=1, le=200)] = 12
    """How many labels random shapes have, without the background."""
    size_mm: Positive = 24.0
    """How large random shapes are, mm."""

    @model_validator(mode="after")
    def _check(self) -> ShapesOptions:
        if self.labelmap:
            self.refuse(["shape", "labels", "size_mm"], "the labelmap decides")
        else:
            self.refuse(Subjects.own_fields(), "random shapes are new for every case")
        return self


class RemappedOptions(Options):
    """A second modality for real images, by a smooth remapping of their intensities that neither rises nor falls."""

    cohort: Path
    """cohort.csv, or its folder, of the images."""
    modality: str = ""
    """Which of its modalities; needed where there are several."""
    into: str = ""
    """Name of the new modality; the old one followed by r if absent."""
    variation: Fraction = 0.1
    """How far the curve of each image strays from that of the modality, as a fraction of the range of intensities."""
    mean_mm: NotNegative = 0.0
    """Mean length of a random deformation of the remapped image, mm."""
    smoothness_mm: Positive = 12.0
    """Standard deviation of the Gaussian that makes that deformation smooth, mm."""
    noise: Fraction = 0.03
    """Standard deviation of the noise added, as a fraction of the range of intensities."""
    bias: NotNegative = 0.15
    """Standard deviation of the logarithm of the shading added."""
    labelled: Fraction = 1.0
    """Share of the training cases that keep their labels."""


class Deformation(Options):
    """An elastic deformation of one of the modalities of aligned images."""

    modality: str = ""
    """Which of its modalities is deformed while the others stay; the last by name if absent."""
    control_mm: Positive = 40.0
    """Distance between the control points of an elastic deformation, mm; those on the border stay."""
    magnitude_mm: NotNegative | None = None
    """How far control points move along each axis at most, mm; 10 where no Dice is asked for."""
    smoothness_mm: Positive = 10.0
    """Standard deviation of the Gaussian that smooths the elastic deformation, mm."""
    dice: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Choose the magnitude at which this is the mean Dice of training labels before and after."""
    judged: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Labels that together are the structure of that Dice; each by itself and their mean if absent."""
    judged_cases: Annotated[int, Field(ge=1)] | None = None
    """At most so many training cases are looked at for that Dice, the first by name; 20 if absent."""

    @model_validator(mode="after")
    def _check_dice(self) -> Deformation:
        if self.dice is None and (self.judged or self.judged_cases):
            raise ValueError("judged and judged_cases would change nothing: no Dice is asked for")
        if self.dice is not None and self.magnitude_mm is not None:
            raise ValueError("magnitude_mm would change nothing: the Dice decides")
        return self


class DeformedOptions(Deformation):
    """Aligned images of a cohort, one modality of which is deformed elastically."""

    cohort: Path
    """cohort.csv, or its folder, of the images."""


class Slicing(Options):
    """Slices of aligned images, as 2-D images."""

    plane: Literal["sagittal", "coronal", "axial"] = "axial"
    """Which way slices lie: across the axis of the voxels that runs nearest to right, front or top."""
    through: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Labels of which the slice in the middle has the most voxels; the middle of the image if absent."""
    slices: Annotated[int, Field(ge=1)] = 1
    """How many of each training case; each is a case of its own."""
    slices_held_back: Annotated[int, Field(ge=1)] = 1
    """How many of each other case. Those of one subject are much alike, so that tests of significance promise too much
    of several."""
    apart_mm: Positive = 10.0
    """Distance between them, mm."""

    @model_validator(mode="after")
    def _check_slices(self) -> Slicing:
        if not self.truth:
            raise ValueError("truth would change nothing: there are no maps")
        if self.slices == self.slices_held_back == 1 and self.apart_mm != Slicing.model_fields["apart_mm"].default:
            raise ValueError("apart_mm would change nothing: there is one slice of each case")
        return self


class SlicedOptions(Slicing):
    """Slices of the aligned images of a cohort."""

    cohort: Path
    """cohort.csv, or its folder, of the images."""


OPTIONS: dict[str, type[Options]] = {
    "letter_b": LetterBOptions,
    "abdomen": AbdomenOptions,
    "heart": HeartOptions,
    "brain": BrainOptions,
    "shapes": ShapesOptions,
    "remapped": RemappedOptions,
    "deformed": DeformedOptions,
    "sliced": SlicedOptions,
}
"""Kind -> what can be asked of it."""


def options_for(kind: str, given: Mapping[str, Any]) -> Options:
    """The options of a kind with some of them given.

    Raises:
        ConfigurationError: E-SYN-001, an unknown kind; E-SYN-002, an option of another kind, a value that does not fit,
            or one that is missing.
    """
    if kind not in OPTIONS:
        raise ConfigurationError("E-SYN-001", f"{kind!r} is no kind of phantom", expected=", ".join(OPTIONS))
    try:
        return OPTIONS[kind].model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            others = [other for other, model in OPTIONS.items() if name in model.model_fields]
            found = f"{name} is an option of {', '.join(others)}" if others else f"{name} is an option of no kind"
            own = ", ".join(OPTIONS[kind].model_fields)
            raise ConfigurationError("E-SYN-002", f"{found}, not of {kind}", expected=own) from None
        if problem["type"] == "missing":
            raise ConfigurationError("E-SYN-002", f"{kind} without {name}", expected=f"--{name}") from None
        if problem["type"] == "value_error":
            raise ConfigurationError("E-SYN-002", f"{kind}: {problem.get('ctx', {}).get('error')}") from None
        expected = problem["msg"].removeprefix("Input should be ")
        raise ConfigurationError("E-SYN-002", f"{name}: found {problem['input']!r}", expected=expected) from None
