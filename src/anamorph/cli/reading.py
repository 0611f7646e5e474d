"""What verbs have in common: how to read files, where to write, and not to write over anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from anamorph.errors import ConfigurationError
from anamorph.inference.request import Bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anamorph.data.image import ReadPolicy

FLAGS = ("xform", "strict", "max_memory")
VOXEL_FLAGS = ("xform", "strict", "nonfinite", "volume", "max_memory")


class Reading(BaseModel):
    """How to answer what any file leaves open."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    xform: Literal["auto", "sform", "qform"] = "auto"
    """Which NIfTI form places the voxels where the two disagree."""
    strict: bool = False
    """Refuse what would otherwise be a guess."""
    max_memory: Bytes | None = None
    """Memory that reading one file may take, in bytes or as 4G."""

    def policy(self) -> ReadPolicy:
        """For files whose voxels do not matter: transforms, and images that lend their grid."""
        from anamorph.data.image import ReadPolicy

        return ReadPolicy(self.xform, self.strict, max_bytes=self.max_memory)


class VoxelReading(Reading):
    """The same for files whose voxels matter."""

    nonfinite: Literal["mask", "refuse"] = "mask"
    """What to do with NaN and Inf in an image."""
    volume: Annotated[int, Field(ge=0)] | None = None
    """Volume of a 4-D file, from 0."""

    def voxel_policy(self) -> ReadPolicy:
        """For the files themselves."""
        return replace(self.policy(), nonfinite=self.nonfinite, volume=self.volume)


def refuse_overwriting(out: Path, inputs: Sequence[Path], force: bool) -> None:
    """Refuse an output that exists, unless it may be replaced; one that is an input always.

    Raises:
        ConfigurationError: E-OUT-004, E-OUT-016.
    """
    if out.resolve() in (path.resolve() for path in inputs):
        raise ConfigurationError("E-OUT-004", "the output is an input", file=out, expected="another --out")
    if out.exists() and not force:
        raise ConfigurationError("E-OUT-016", "exists already", file=out, do="choose another --out, or use --force")


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        ConfigurationError: E-OUT-001.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or "refused").lower()
        raise ConfigurationError("E-OUT-001", f"no folder can be made ({reason})", file=folder) from error
