"""What decides the result of ``anamorph register``: the one schema behind flags, YAML and ``run.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from anamorph.pairwise.settings import PairwiseSettings

Modality = Literal["ct", "mr", "t1", "t2", "pd", "flair", "us", "pet"]
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
    fixed_modality: Modality | None = None
    """What the fixed image is; ct chooses a window in HU."""
    moving_modality: Modality | None = None
    """What the moving image is."""
    settings: PairwiseSettings = PairwiseSettings()
    """How to register."""
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

    def inputs(self) -> dict[str, Path]:
        """The files it reads, by the names of their fields."""
        kinds = [f"{side}{kind}" for side in ("fixed", "moving") for kind in ("", "_mask", "_labels", "_landmarks")]
        return {name: path for name in [*kinds, "initial"] if (path := getattr(self, name)) is not None}
