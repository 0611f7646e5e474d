"""What decides the result of ``anamorph translate``: the schema behind flags, YAML and ``run.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from anamorph.inference.request import Bytes


class TranslationRequest(BaseModel):
    """Everything that decides the result of ``anamorph translate``; stored resolved in ``run.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    image: Path
    """Image to translate."""
    out: Path
    """Folder for the results."""
    model: Path
    """Folder of a trained model that translates."""
    modality: str | None = None
    """What the image is, as the model calls it; needed where it translates both ways."""
    mask: Path | None = None
    """Where intensities are measured, for a model that learnt so: above 0.5 = use."""
    truth: Path | None = None
    """The true image of the other modality, of the same patient and in the same place, for errors."""
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

    def inputs(self) -> dict[str, Path]:
        """The files it reads, by the names of their fields."""
        return {name: path for name in ("image", "mask", "truth") if (path := getattr(self, name)) is not None}
