"""What decides the result of ``anamorph register`` and ``segment``: the schemas behind flags, YAML and ``run.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from anamorph.pairwise.settings import PairwiseSettings

MODALITIES = ("ct", "mr", "t1", "t2", "pd", "flair", "us", "pet")
"""What the pairwise engine takes for a modality; a model has names of its own."""
FACTORS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def bytes_of(value: Any) -> Any:
    """4G, 512M or 4GiB as a number of bytes; what is no text is left to the validator."""
    if not isinstance(value, str):
        return value
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    try:
        return int(float(text.rstrip("KMGT")) * FACTORS.get(text[-1:], 1))
    except (ValueError, OverflowError) as error:
        raise ValueError("a number of bytes, or one with K, M, G or T as in 4G") from error


Bytes = Annotated[int, BeforeValidator(bytes_of), Field(gt=0)]


class RegistrationRequest(BaseModel):
    """Everything that decides the result of ``anamorph register``; stored resolved in ``run.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    fixed: Path
    """Image whose space the result lives in."""
    moving: Path
    """Image to bring there."""
    out: Path
    """Folder for the results."""
    model: Path | None = None
    """Folder of a trained model to register with, in place of the pairwise engine."""
    fixed_mask: Path | None = None
    """Where to look in the fixed image: above 0.5 = use."""
    moving_mask: Path | None = None
    """The same for the moving image."""
    fixed_labels: Path | None = None
    """Labels of the fixed image, for scores."""
    moving_labels: Path | None = None
    """Labels of the moving image: warped, and scored against the fixed ones."""
    fixed_landmarks: Path | None = None
    """Landmarks of the fixed image (.csv, .fcsv, .mrk.json), for scores."""
    moving_landmarks: Path | None = None
    """The same landmarks in the moving image."""
    initial: Path | None = None
    """Linear transform to start from, instead of searching."""
    fixed_modality: str | None = None
    """What the fixed image is: ct (a window in HU), mr, t1, t2, pd, flair, us, pet; or a name that the model knows."""
    moving_modality: str | None = None
    """What the moving image is."""
    settings: PairwiseSettings = PairwiseSettings()
    """How to register; nothing of it goes with a model."""
    xform: Literal["auto", "sform", "qform"] = "auto"
    """Which NIfTI form places the voxels where the two disagree."""
    strict: bool = False
    """Refuse what would otherwise be a guess."""
    nonfinite: Literal["mask", "refuse"] = "mask"
    """What to do with NaN and Inf in an image."""
    fixed_volume: Annotated[int, Field(ge=0)] | None = None
    """Volume of a 4-D fixed file, from 0."""
    moving_volume: Annotated[int, Field(ge=0)] | None = None
    """Volume of a 4-D moving file, from 0."""
    ignore_labels: tuple[int, ...] = ()
    """Labels that are not scored, as 255."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all if absent."""
    max_memory: Bytes | None = None
    """Memory to stay within, bytes or as 4G."""
    allow_flat: bool = False
    """Give the identity where an image shows nothing."""
    strict_qc: bool = False
    """Exit 5 where more than 1 % of the voxels fold."""
    force: bool = False
    """Replace the results of an earlier run."""

    @field_validator("fixed_modality", "moving_modality")
    @classmethod
    def _check_modality(cls, name: str | None, info: Any) -> str | None:
        if name is not None and name not in MODALITIES and info.data.get("model") is None:
            raise ValueError(", ".join(MODALITIES))
        return name

    @field_validator("settings")
    @classmethod
    def _check_settings(cls, settings: PairwiseSettings, info: Any) -> PairwiseSettings:
        changed = [name for name, value in settings if value != getattr(PairwiseSettings(), name)]
        if changed and info.data.get("model") is not None:
            raise ValueError(f"{', '.join(changed)} would do nothing with a model")
        return settings

    def inputs(self) -> dict[str, Path]:
        """The files it reads, by the names of their fields."""
        kinds = [f"{side}{kind}" for side in ("fixed", "moving") for kind in ("", "_mask", "_labels", "_landmarks")]
        return {name: path for name in [*kinds, "initial"] if (path := getattr(self, name)) is not None}


PAIRWISE = "pairwise"
"""The engine among registrations."""
BY_MODEL = ("mask", "refine", "lambda_")
BY_ATLASES = (
    "registration", "registration_settings", "fusion", "fusion_settings", "select", "region", "margin",
    "atlas_modality", "atlas_split", "split", "cache", "scheduler", "workers",
)  # fmt: skip
"""Fields that only one way of segmenting takes."""


class SegmentationRequest(BaseModel):
    """Everything that decides the result of ``anamorph segment``; stored resolved in ``run.json``."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True
    )

    image: Path
    """Image to segment; with --atlases also cohort.csv or its folder, for all its scans of a split."""
    out: Path
    """Folder for the results."""
    model: Path | None = None
    """Folder of a trained model."""
    atlases: Path | None = None
    """cohort.csv, or its folder, of labelled images to segment by; no training is needed."""
    modality: str | None = None
    """What the image is, as the model calls it; needed where it knows several. With --atlases: ct (a window in HU), mr,
    ...; of a cohort, which of its scans."""
    mask: Path | None = None
    """Where intensities are measured, for a model that learnt so: above 0.5 = use."""
    labels: Path | None = None
    """True labels of the image, for scores; a cohort has its own."""
    ignore_labels: tuple[int, ...] = ()
    """Labels not to score."""
    probabilities: bool = False
    """Write the probability of every label as well."""
    refine: Annotated[int, Field(ge=0)] | None = None
    """Steps that a model with an atlas goes on learning from the image, at most; 0: its first pass. Its own if
    absent."""
    lambda_: Annotated[float, Field(ge=0)] | None = Field(default=None, alias="lambda")
    """Smoothness of that refinement: the larger, the nearer to the atlas's own shapes. Its own if absent."""
    registration: Path | None = None
    """What brings atlases onto the image: pairwise, or the folder of a trained model. pairwise if absent."""
    registration_settings: Path | None = None
    """YAML file of the pairwise engine's settings, named as the flags of register: smoothness, levels, ..."""
    fusion: Path | None = None
    """How labels are fused: majority, global, local, block, local_mi, non_local, staple, joint, or the folder of a
    trained model such as SimNet, which weighs them. joint if absent."""
    fusion_settings: Path | None = None
    """YAML file of the fusion's settings: fusion, similarity, patch_radius, ..."""
    select: Annotated[int, Field(ge=1)] | None = None
    """How many atlases are registered, those most like the image first; all if absent."""
    region: Literal["coarse", "gold", "none"] | None = None
    """Where to look closer. coarse: where the atlases' labels are after a coarse alignment. gold: the box of the true
    labels, for comparisons. none: everywhere. coarse if absent."""
    margin: Annotated[float, Field(ge=0)] | None = None
    """Room about that region, mm; 15 if absent."""
    atlas_modality: str | None = None
    """Which scans of the atlases' cohort; needed where it has several modalities."""
    atlas_split: Literal["train", "validation", "test", "extra", "all"] | None = None
    """Which of its cases; train if absent."""
    split: Literal["train", "validation", "test", "extra", "all"] | None = None
    """Which cases of a cohort to segment; test if absent."""
    cache: Path | None = None
    """Folder for what is found of each atlas, to be taken up again; OUT/cache if absent."""
    scheduler: str | None = None
    """Address of a Dask scheduler whose workers register the atlases, as tcp://HOST:8786."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes of this machine that register the atlases; 1: this one alone. If absent one a core, as far as memory
    and work suffice, where Dask is installed and no GPU is used."""
    xform: Literal["auto", "sform", "qform"] = "auto"
    """Which NIfTI form places the voxels where the two disagree."""
    strict: bool = False
    """Refuse what would otherwise be a guess."""
    nonfinite: Literal["mask", "refuse"] = "mask"
    """What to do with NaN and Inf in an image."""
    volume: Annotated[int, Field(ge=0)] | None = None
    """Volume of a 4-D file, from 0."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all if absent."""
    max_memory: Bytes | None = None
    """Memory to stay within, bytes or as 4G."""
    force: bool = False
    """Replace the results of an earlier run."""

    @model_validator(mode="after")
    def _check(self) -> SegmentationRequest:
        if (self.model is None) == (self.atlases is None):
            raise ValueError("either --model or --atlases")
        idle = BY_MODEL if self.model is None else BY_ATLASES
        given = [name.strip("_") for name in idle if getattr(self, name) is not None]
        if given:
            raise ValueError(
                f"{', '.join(given)} would do nothing with {'atlases' if self.model is None else 'a model'}"
            )
        if self.refine == 0 and self.lambda_ is not None:
            raise ValueError("lambda would do nothing without a refinement")
        if self.scheduler is not None and self.workers is not None:
            raise ValueError("either --scheduler or --workers")
        if self.registration_settings is not None and self.registration not in (None, Path(PAIRWISE)):
            raise ValueError("registration_settings are of the pairwise engine")
        if self.fusion_settings is not None and self.fusion is not None:
            raise ValueError("fusion_settings name the fusion")
        if self.fusion == Path("weighted"):
            raise ValueError("weighted takes weights from outside: give the folder of a model such as SimNet")
        if self.margin is not None and self.region == "none":
            raise ValueError("margin would do nothing with the region none")
        return self

    @property
    def refinement(self) -> dict[str, Any]:
        """Changes to the settings of a model with an atlas; empty where nothing was asked."""
        if self.refine == 0:
            return {"test": "one_pass"}
        asked = {"iterations": self.refine, "smoothness": self.lambda_}
        changes = {name: value for name, value in asked.items() if value is not None}
        return {"test": "refine", "refinement": changes} if changes else {}

    def inputs(self) -> dict[str, Path]:
        """The files it reads, by the names of their fields."""
        names = ("image", "mask", "labels", "registration_settings", "fusion_settings")
        return {name: path for name in names if (path := getattr(self, name)) is not None}
