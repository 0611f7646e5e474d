"""The halves of two real brains as a cohort: copies of the left ones to learn from, of the right ones for a test.

    python -m benchmarks.real_halves --data $ANAMORPH_DATA --out DIR
    ANAMORPH_DATA=DIR anamorph experiment experiments/cocyclereg/real_t1_t2.yaml

Every copy is an aligned T1, T2 and FLAIR of half a head, in a random shape and place of its own, on voxels of 2 mm;
right halves are mirrored, so that they look like left ones. What lies beyond the middle is 0, so that the halves share
nothing. One patient lies in the space of the MNI, without skull; the other, with skull and in slices of 3 mm, as the
scanner has it: its middle is the plane about which its T1 is most like its own mirror image, and its scans are brought
to each other by their headers. Labels are classes of the T1's intensity, of the first patient 1 cerebrospinal fluid,
2 grey, 3 white matter, about so.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anamorph.data.files import read, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.phantoms.deformation import random_diffeomorphism
from anamorph.inference.register import register
from anamorph.inference.warp import warp
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain

FOLDER = "halves"
LEFT, RIGHT = 8, 6
"""Copies of each head."""
CORNER_MM, SPACING_MM, SHAPE = (-80.0, -112.0, -76.0), 2.0, (42, 96, 80)
"""A left half in the space of the MNI."""
MIRROR = Affine(np.diag([-1.0, 1.0, 1.0, 1.0]))
CLASSES = 3
MODALITIES = ("t1", "t2", "flair")


@dataclass(frozen=True)
class Brain:
    """Whose halves.

    Args:
        files: by modality, below the folder of the real images.
        upright: whether x = 0 of its world is its middle.
        air: share of the T1's 99th percentile below which there is nothing.
    """

    files: Mapping[str, str]
    upright: bool
    air: float


BRAINS = {
    "mni": Brain({name: f"brain_t1_t2_flair_mni/patient07_{name.upper()}.nii.gz" for name in MODALITIES}, True, 0.0),
    "native": Brain(
        {
            name: f"brain_t1_t2_flair_native/patient04_study1_{word}.nii.gz"
            for name, word in zip(MODALITIES, ("T1W", "T2W", "FLAIR"), strict=True)
        },
        False,
        0.1,
    ),
}


def half_grid() -> Grid:
    """Of every copy."""
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:-1, -1] = CORNER_MM
    return Grid(SHAPE, affine)


def upright(image: Image) -> Affine:
    """From a world whose plane x = 0 is the middle of a head to the image's world, without any stretch.

    The image is registered rigidly to its own mirror image. What brings the one onto the other is, after the mirror, a
    reflection of the head onto itself: its axis is the normal of the plane, and points move across it twice as far as
    it is away. The middle of the image's view comes to lie in that of ``half_grid``, across the plane.
    """
    mirrored = Image(image.data, Grid(image.grid.shape, MIRROR.matrix @ image.grid.affine), image.modality)
    rigid = register(image, mirrored, settings=PairwiseSettings(transform="rigid"), device="cpu").linear
    reflection = Affine(MIRROR.matrix @ rigid.matrix)
    linear = reflection.matrix[:3, :3]
    normal = np.linalg.eigh((linear + linear.T) / 2)[1][:, 0]  # of the eigenvalue -1, the smallest
    normal *= np.sign(normal[0])
    middle = image.grid.centre
    middle = middle + normal * (normal @ (reflection(middle[None])[0] - middle)) / 2
    forward = np.array([0.0, 1.0, 0.0]) - normal[1] * normal
    forward /= np.linalg.norm(forward)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([normal, forward, np.cross(normal, forward)], axis=1)
    matrix[:3, 3] = middle - matrix[:3, :3] @ (half_grid().centre * [0.0, 1.0, 1.0])
    return Affine(matrix)


def half_of(image: Image, side: str, place: Affine) -> Image:
    """The image with 0 beyond the middle of the head, which is x = 0 before ``place``."""
    x = place.inverse()(image.grid.to_world(image.grid.voxels()))[:, 0].reshape(image.grid.shape)
    kept = torch.from_numpy(x < 0 if side == "left" else x > 0)
    return Image(torch.where(kept, image.data.clamp_min(0), 0.0), image.grid, image.modality, name=image.name)


def classes_of(image: Image, air: float) -> Labelmap:
    """What is above air in classes of like intensity, the darkest first: k-means in one dimension."""
    values = image.data[0].numpy()
    inside = values > air * np.percentile(values, 99)
    centres = np.quantile(values[inside], (np.arange(CLASSES) + 0.5) / CLASSES)
    for _ in range(50):
        nearest = np.abs(values[inside][:, None] - centres).argmin(1)
        centres = np.array([values[inside][nearest == number].mean() for number in range(CLASSES)])
    labels = np.zeros(values.shape, np.uint8)
    labels[inside] = 1 + np.abs(values[inside][:, None] - centres).argmin(1)
    return Labelmap.from_array(labels, image.grid.affine)


def write_copies(
    images: Mapping[str, Image],
    labels: Labelmap,
    place: Affine,
    side: str,
    numbers: Sequence[int],
    name: str,
    out: Path,
) -> None:
    """Files ``SIDE-NUMBER-NAME_MODALITY.nii.gz`` and ``SIDE-NUMBER-NAME_tissues.nii.gz``.

    Args:
        images: by modality, of a whole head, aligned.
        labels: of the T1.
        place: from the world of the halves to that of the images.
        side: left or right.
        numbers: of the copies; with the name each decides the shape of its own.
        name: of the brain.
        out: folder.
    """
    grid = half_grid()
    halves = {modality: half_of(image, side, place) for modality, image in images.items()}
    for number in numbers:
        seed = number + 1000 * [*BRAINS].index(name)
        shape = random_diffeomorphism(
            grid, seed, mean_mm=3.0, smoothness_mm=20.0, rotation_degrees=4.0, stretch=0.05, translation_mm=3.0
        )
        there = Chain((shape, place)) if side == "left" else Chain((shape, MIRROR, place))
        stem = f"{side}-{number:02d}-{name}"
        for modality, image in halves.items():
            write(warp(image, there, grid), out / f"{stem}_{modality}.nii.gz")
        seen = warp(labels, there, grid)
        inside = warp(halves["t1"], there, grid, interpolation="nearest").data[0] > 0
        kept = torch.where(inside, seen.data, torch.zeros_like(seen.data))
        write(Labelmap(kept, grid, seen.dtype, seen.names), out / f"{stem}_tissues.nii.gz")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--out", type=Path, required=True, help=f"the copies go to its folder {FOLDER}")
    parser.add_argument("--left", type=int, default=LEFT, help="copies of the left half of each head")
    parser.add_argument("--right", type=int, default=RIGHT, help="copies of the right half of each head")
    arguments = parser.parse_args(words)
    out = arguments.out / FOLDER
    if out.exists():
        parser.error(f"{out} is there already, and whole; move it away, or choose another --out")
    part = out.with_name(f"{FOLDER}.part")  # of an interrupted run as well
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, brain in BRAINS.items():
        images = {modality: read(arguments.data / file, modality=modality) for modality, file in brain.files.items()}
        labels = classes_of(images["t1"], brain.air)
        place = Affine.identity(3) if brain.upright else upright(images["t1"])
        for first, side, count in ((1, "left", arguments.left), (101, "right", arguments.right)):
            write_copies(images, labels, place, side, range(first, first + count), name, part)
            print(f"{count} copies of the {side} half of {name}", flush=True)
    part.rename(out)
    print(f"all in {out}", flush=True)


if __name__ == "__main__":
    main()
