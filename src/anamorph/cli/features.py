"""``anamorph features``: what descriptors see in images, as maps and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from anamorph.cli.arguments import Form
from anamorph.cli.reading import VOXEL_FLAGS, VoxelReading, make_folder, refuse_overwriting

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen
    from anamorph.losses.log_polar import LogPolarBins

PICTURE = "features.svg"
Count = Annotated[int, Field(ge=1)]


class FeaturesRequest(VoxelReading):
    """Which images, and what is to be seen in them."""

    images: tuple[Path, ...] = Field(min_length=1)
    """Images, each with a row in the picture; a CT and an MR of one patient, say."""
    out: Path
    """Folder for features.svg and IMAGE_DESCRIPTOR.nii.gz."""
    descriptor: tuple[Literal["macmind", "mind", "mind_ssc"], ...] = ("macmind", "mind")
    """Which, each with a column."""
    distance: Count = 2
    """From a patch to its neighbours, voxels; of macMIND's scales those of the small one."""
    patch_size: Count = 5
    """Side of a patch, voxels, odd."""
    alphas: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.7, 0.3), min_length=1)
    """Weights of macMIND's scales, small to large."""
    window: Count = 5
    """Side of the window that macMIND's bins divide, voxels, odd."""
    angles: Count = 8
    """Sectors of that window in the plane of the first two axes."""
    radii: Count = 2
    """Rings of it there."""
    heights: Count = 1
    """Slices of it along the third axis; 2-D has one."""
    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    """Slice of the picture."""
    at: float | None = None
    """Where it lies, mm in the world; through the middle of what is bright if absent."""
    modality: tuple[str, ...] = ()
    """Of each image, in their order; the picture of a ct has a CT's window."""
    threads: Count | None = None
    """CPU threads; all if absent."""
    force: bool = False
    """Replace existing files."""

    @field_validator("patch_size", "window")
    @classmethod
    def _odd(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("an odd number, so that a voxel is in the middle")
        return size

    @field_validator("alphas")
    @classmethod
    def _some(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not any(alphas):
            raise ValueError("at least one of alphas is above 0")
        return alphas

    @model_validator(mode="after")
    def _check(self) -> FeaturesRequest:
        if not self.descriptor or len(set(self.descriptor)) < len(self.descriptor):
            raise ValueError("each descriptor once")
        if self.modality and len(self.modality) != len(self.images):
            raise ValueError("as many modalities as images")
        if "macmind" in self.descriptor:
            self.bins()
        names = [name_of(path) for path in self.images]
        if len(set(names)) < len(names):
            raise ValueError("images with names of their own, by which the maps are called")
        return self

    def bins(self) -> LogPolarBins:
        """Those of macMIND; a ValueError where one would hold nothing."""
        from anamorph.losses.log_polar import LogPolarBins

        return LogPolarBins(self.window, self.angles, self.radii, self.heights)


FORM = Form(
    FeaturesRequest,
    positional=("images",),
    groups={
        "descriptors": ("descriptor", "distance", "patch_size", "alphas", "window", "angles", "radii", "heights"),
        "picture": ("plane", "at", "modality"),
        "reading": VOXEL_FLAGS,
    },
    metavars={"images": "IMAGE [IMAGE ...]", "out": "FOLDER", "at": "MM", "max_memory": "SIZE"},
    example="anamorph features ct.nii.gz mr.nii.gz --modality ct mr --out features",
    configurable=True,
)


def run(request: FeaturesRequest, screen: Screen) -> int:
    """Read, describe, write."""
    import torch

    from anamorph.data.files import atomic_write, read, write
    from anamorph.inference.features import feature_image
    from anamorph.report.experiment_html import sheet_file
    from anamorph.report.features import Described, sheet_of_features

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    picture = request.out / PICTURE
    maps = {
        (path, kind): request.out / f"{name_of(path)}_{kind}.nii.gz"
        for path in request.images
        for kind in request.descriptor
    }
    for file in (*maps.values(), picture):
        refuse_overwriting(file, request.images, request.force)
    make_folder(request.out)
    described = {}
    with screen.progress() as progress:
        for number, path in enumerate(request.images):
            modality = request.modality[number] if request.modality else None
            image = read(path, request.voxel_policy(), modality)
            found = {}
            for place, kind in enumerate(request.descriptor):
                progress("describe", (number + place / len(request.descriptor)) / len(request.images))
                one = feature_image(
                    image, kind, distance=request.distance, patch_size=request.patch_size, alphas=request.alphas,
                    bins=request.bins(), max_memory=request.max_memory,
                )  # fmt: skip
                write(one, maps[path, kind])
                found[kind] = one.data[0].numpy()
            described[path.name] = Described(image.data[0].numpy(), image.grid.affine, image.modality, found)
        progress("describe", 1.0)
    with atomic_write(picture) as part:
        part.write_text(sheet_file(sheet_of_features(described, request.plane, request.at)), encoding="utf-8")
    screen.say(f"written: {', '.join(file.name for file in (*maps.values(), picture))}")
    return 0


def name_of(path: Path) -> str:
    """Of an image, without what tells the format."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
