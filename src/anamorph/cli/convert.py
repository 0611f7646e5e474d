"""``anamorph convert``: transforms from one format to another, joined and inverted on request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from anamorph.cli.arguments import Form
from anamorph.cli.reading import FLAGS, Reading, refuse_overwriting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anamorph.cli.screen import Screen
    from anamorph.data.image import ReadPolicy
    from anamorph.spatial.grid import Grid
    from anamorph.spatial.transform import Transform


class ConvertRequest(Reading):
    """What to write, and of what."""

    transforms: tuple[Path, ...] = Field(min_length=1)
    """Files in the order in which a fixed point goes through them; the bytes tell the format."""
    out: Path
    """File to write: .h5 (every step as it is), .nii.gz (one displacement field), .tfm, .txt or .mat (one matrix)."""
    onto: Path | None = None
    """Image on whose grid a displacement field is sampled: the fixed image, or the moving one with --inverse."""
    inverse: bool = False
    """Write the map back, from moving to fixed points."""
    assume: Literal["itk"] | None = None
    """Read a displacement field that does not state its convention as ITK's (LPS mm)."""
    force: bool = False
    """Replace an existing file."""


FORM = Form(
    ConvertRequest,
    positional=("transforms",),
    groups={"reading": FLAGS},
    metavars={"transforms": "TRANSFORM [TRANSFORM ...]", "out": "FILE", "onto": "IMAGE", "max_memory": "SIZE"},
    example="anamorph convert affine.tfm field.nii.gz --out transform.h5",
)


def run(request: ConvertRequest, screen: Screen) -> int:
    """Read, join, invert and write."""
    from anamorph.data.files import read_volume
    from anamorph.data.transform_files import write_transform

    inputs = [*request.transforms, *([request.onto] if request.onto else [])]
    refuse_overwriting(request.out, inputs, request.force)
    policy = request.policy()
    onto = read_volume(request.onto, policy).grid if request.onto else None
    transform = read_chain(request.transforms, policy, None if request.inverse else onto, request.assume)
    screen.say(described(request.transforms, request.inverse))
    if request.inverse:
        transform = transform.inverse()
    write_transform(transform, request.out, onto, overwrite=request.force)
    screen.say(f"written: {request.out.name}")
    return 0


def read_chain(
    paths: Sequence[Path], policy: ReadPolicy, fixed: Grid | None, assume: Literal["itk"] | None
) -> Transform:
    """The transforms of several files as one, the first applied first; ``fixed`` is where a B-spline is sampled."""
    from anamorph.data.transform_files import read_transform
    from anamorph.spatial.transform import Chain

    read = [read_transform(path, policy, grid=fixed, assume=assume) for path in paths]
    return read[0] if len(read) == 1 else Chain(tuple(read))


def described(paths: Sequence[Path], inverse: bool) -> str:
    """The order of a chain, in words."""
    if inverse:
        steps = " > ".join(f"{path.name} inverted" for path in reversed(paths))
        return f"moving point > {steps} > fixed point"
    return f"fixed point > {' > '.join(path.name for path in paths)} > moving point"
