"""What the verbs that read single files have in common: how to read them, and not to write over anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from anamorph.errors import ConfigurationError
from anamorph.inference.request import Bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anamorph.data.image import ReadPolicy

FLAGS = ("xform", "strict", "nonfinite", "volume", "max_memory")


class Reading(BaseModel):
    """How to answer what a file leaves open."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    xform: Literal["auto", "sform", "qform"] = "auto"
    """Which NIfTI form places the voxels where the two disagree."""
    strict: bool = False
    """Refuse what would otherwise be a guess."""
    nonfinite: Literal["mask", "refuse"] = "mask"
    """What to do with NaN and Inf in an image."""
    volume: Annotated[int, Field(ge=0)] | None = None
    """Volume of a 4-D file, from 0."""
    max_memory: Bytes | None = None
    """Memory that reading one file may take, in bytes or as 4G."""

    def policy(self) -> ReadPolicy:
        """The same for the readers."""
        from anamorph.data.image import ReadPolicy

        return ReadPolicy(self.xform, self.strict, self.nonfinite, self.volume, self.max_memory)


def refuse_overwriting(out: Path, inputs: Sequence[Path], force: bool) -> None:
    """Refuse an output that exists, unless it may be replaced; one that is an input always.

    Raises:
        ConfigurationError: E-OUT-004, E-OUT-016.
    """
    if out.resolve() in (path.resolve() for path in inputs):
        raise ConfigurationError("E-OUT-004", "the output is an input", file=out, expected="another --out")
    if out.exists() and not force:
        raise ConfigurationError("E-OUT-016", "exists already", file=out, do="choose another --out, or use --force")
