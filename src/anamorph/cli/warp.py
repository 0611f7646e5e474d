"""``anamorph warp``: images, labels, masks and landmarks through any chain of transforms, interpolated once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from anamorph.cli.arguments import Form
from anamorph.cli.convert import described, read_chain
from anamorph.cli.reading import VOXEL_FLAGS, VoxelReading, refuse_overwriting
from anamorph.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np

    from anamorph.cli.screen import Screen
    from anamorph.data.image import Image, Labelmap, Landmarks, Mask
    from anamorph.data.volume import Volume

LANDMARK_SUFFIXES = (".csv", ".fcsv", ".json")
LEAST_EQUAL_NEIGHBOURS = 0.5
"""Share of equal neighbours from which integers are taken for labels: noise keeps images far below."""

Kind = Literal["image", "labels", "mask", "landmarks"]


class WarpRequest(VoxelReading):
    """What to carry where, through what."""

    input: Path
    """Image, label map, mask or landmarks (.csv, .fcsv, .mrk.json) of the moving side."""
    transform: tuple[Path, ...] = Field(min_length=1)
    """Transform files, in the order in which a fixed point goes through them."""
    out: Path
    """File to write: .nii.gz, .nii, .nrrd or .mha; .csv, .fcsv or .mrk.json for landmarks."""
    onto: Path | None = None
    """Image whose grid the result lies on: the fixed image, or the moving one with --inverse. Landmarks need none."""
    kind: Literal["auto", "image", "labels", "mask", "landmarks"] = "auto"
    """What the input is; auto tells labels by their even regions, and says so."""
    inverse: bool = False
    """Carry from the fixed to the moving side."""
    interpolation: Literal["linear", "nearest"] | None = None
    """Default: nearest for labels, linear otherwise. With linear, each label is interpolated alone and the largest
    wins."""
    fill: float | None = None
    """Value of an image where it is not seen; its minimum by default."""
    points_on: Path | None = None
    """Image whose voxels the landmarks of a file in voxel coordinates count."""
    space: Literal["RAS", "LPS", "voxel"] | None = None
    """Coordinate system of a landmark file that does not state it."""
    assume: Literal["itk"] | None = None
    """Read a displacement field that does not state its convention as ITK's (LPS mm)."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all if absent."""
    force: bool = False
    """Replace an existing file."""


FORM = Form(
    WarpRequest,
    positional=("input",),
    groups={"landmark": ("points_on", "space"), "reading": VOXEL_FLAGS},
    metavars={
        "transform": "FILE [FILE ...]", "out": "FILE", "onto": "IMAGE", "points_on": "IMAGE", "max_memory": "SIZE"
    },
    example="anamorph warp labels.nii.gz --transform transform.h5 --onto ct.nii.gz --out warped.nii.gz",
    configurable=True,
)  # fmt: skip


def run(request: WarpRequest, screen: Screen) -> int:
    """Read, warp once and write."""
    import torch

    from anamorph.data.files import read_volume, write
    from anamorph.data.image import Landmarks
    from anamorph.data.landmark_files import write_landmarks
    from anamorph.inference.warp import warp

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    others = [path for path in (request.onto, request.points_on) if path]
    refuse_overwriting(request.out, [request.input, *request.transform, *others], request.force)
    policy = request.policy()
    data, kind = _read(request)
    _refuse_idle_flags(request, kind)
    onto = read_volume(request.onto, policy).grid if request.onto else None
    fixed = (None if isinstance(data, Landmarks) else data.grid) if request.inverse else onto
    transform = read_chain(request.transform, policy, fixed, request.assume)
    how = request.interpolation or ("nearest" if kind == "labels" else "linear")
    screen.say(f"{kind}: {request.input.name}" + ("" if kind == "landmarks" else f", {how} interpolation"))
    screen.say(_route(request, kind))
    warped = warp(
        data,  # pyright: ignore[reportArgumentType]  (what comes back is of the kind that goes in)
        transform,
        onto,
        direction="fixed_to_moving" if request.inverse else "moving_to_fixed",
        interpolation=request.interpolation,
        fill=request.fill,
    )
    if isinstance(warped, Landmarks):
        write_landmarks(warped, request.out)
    else:
        write(warped, request.out)
    screen.say(f"written: {request.out.name}")
    return 0


def _route(request: WarpRequest, kind: Kind) -> str:
    """The way that a point takes: from each voxel of the result to the input, or from each landmark to the result."""
    return described(request.transform, inverse=request.inverse != (kind == "landmarks"))


def _read(request: WarpRequest) -> tuple[Image | Labelmap | Mask | Landmarks, Kind]:
    from anamorph.data.files import read_volume
    from anamorph.data.landmark_files import read_landmarks

    kind = request.kind
    if kind == "landmarks" or (kind == "auto" and request.input.suffix in LANDMARK_SUFFIXES):
        grid = read_volume(request.points_on, request.policy()).grid if request.points_on else None
        return read_landmarks(request.input, grid, request.space), "landmarks"
    volume = read_volume(request.input, request.voxel_policy())
    if kind == "labels" or (kind == "auto" and _looks_like_labels(volume)):
        return volume.labels(), "labels"
    if kind == "mask":
        return volume.mask(), "mask"
    return volume.image(request.voxel_policy()), "image"


def _refuse_idle_flags(request: WarpRequest, kind: Kind) -> None:
    """Refuse flags that would do nothing for this kind of data."""
    used = {
        "image": ("volume", "interpolation", "fill"),
        "landmarks": ("points_on", "space"),
    }.get(kind, ("volume", "interpolation"))
    for name in ("volume", "interpolation", "fill", "points_on", "space"):
        if name not in used and getattr(request, name) is not None:
            found = f"--{name.replace('_', '-')} does nothing for {kind}"
            raise ConfigurationError("E-CFG-007", found, do="leave it out")


def _looks_like_labels(volume: Volume) -> bool:
    """Whether stored integers are even in regions: of neighbours that are not both background, most are alike."""
    import numpy as np

    if volume.scaled or volume.values.dtype.kind not in "biu":
        return False
    values = np.asarray(volume.values)
    alike, pairs = 0, 0
    for before, after in _neighbours(values):
        seen = (before != 0) | (after != 0)
        pairs += int(np.count_nonzero(seen))
        alike += int(np.count_nonzero(seen & (before == after)))
    return pairs > 0 and alike >= LEAST_EQUAL_NEIGHBOURS * pairs


def _neighbours(values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(values[:-1], values[1:]), (values[:, :-1], values[:, 1:])]
