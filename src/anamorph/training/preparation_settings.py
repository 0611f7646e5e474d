"""What can be decided about the preparation of a cohort; the one schema behind library, YAML and command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from anamorph.data.plan import Intensity


def intensities_of(value: Any) -> Any:
    """``ct=window:-160:240,t1=zscore`` as a mapping; what is no text is left to the validator."""
    if not isinstance(value, str):
        return value
    found: dict[str, Any] = {}
    for part in value.split(","):
        modality, _, words = part.partition("=")
        kind, *rest = words.split(":")
        ends, content = (rest[:2], rest[2:]) if len(rest) > 1 else ([], rest)
        if not modality or not kind or modality in found or len(content) > 1:
            raise ValueError("MODALITY=KIND[:LOW:HIGH][:CONTENT], as in ct=window:-160:240,t1=zscore")
        found[modality] = {"kind": kind} | dict(zip(("low", "high"), ends, strict=False))
        if content:
            found[modality]["content"] = content[0]
    return found


def labels_of(value: Any) -> Any:
    """``2=1,5=1`` as a mapping; what is no text is left to the validator."""
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in value.split(",")]
    if len({label for label, _, _ in parts}) < len(parts) or not all(counted for _, _, counted in parts):
        raise ValueError("LABEL=LABEL, as in 2=1,5=1")
    return {label: counted for label, _, counted in parts}


class PreparationSettings(BaseModel):
    """What is decided about a plan; the rest is proposed, or stays as ``plan.yaml`` has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    spacing: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Voxel size of the network's grid, mm; the training scans' median if absent."""
    shape: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Voxels of the network's grid; enough for the training scans if absent."""
    orientation: str | None = None
    """World directions in which its axes run; RAS if absent, RA in 2-D."""
    centre: Literal["view", "content"] | None = None
    """What stands in its middle: that of the image (if absent) or that of its content."""
    offset: tuple[float, ...] | None = None
    """mm to the right, anterior and superior by which its middle lies off that; none if absent."""
    intensities: Annotated[dict[str, Intensity] | None, BeforeValidator(intensities_of)] = None
    """Of single modalities, as ct=window:-160:240,t1=zscore:1:99:positive: a kind (window, percentiles, zscore, none),
    its ends, and what they are taken from (all, positive, mask). Others are proposed."""
    learn_as: Annotated[dict[int, int] | None, BeforeValidator(labels_of)] = None
    """Labels that count as others, as 2=1,5=1: a tumour as the liver that it is in. They are then none of their own."""
    masks: bool = True
    """Take the masks of the scans along, so that trainings learn from what lies inside; else from all that there is."""
    alignment: Literal["none", "within", "reference", "given"] | None = None
    """Affine alignment beforehand; none if absent."""
    reference: str | None = None
    """CASE_MODALITY of the training scan that all are aligned to; the first if absent."""
    alignment_folder: Path | None = None
    """Of given transforms CASE_MODALITY.tfm, reference world -> the scan's world."""
    max_voxels: Annotated[int, Field(ge=1)] | None = None
    """Most voxels of a proposed grid; 128 x 128 x 128 if absent."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Scans prepared at once; up to four if absent, and one where the engine aligns."""

    @model_validator(mode="after")
    def _check(self) -> PreparationSettings:
        measured = [name for name, how in (self.intensities or {}).items() if how.content == "mask"]
        if measured and not self.masks:
            raise ValueError(f"intensities of {measured[0]} are measured in masks, which are left out")
        return self

    def fields_of_plan(self) -> dict[str, Any]:
        """What is decided, by the plan's names."""
        names = ("spacing", "shape", "orientation", "centre", "offset", "learn_as", "alignment", "reference")
        return {name: value for name in names if (value := getattr(self, name)) is not None}
