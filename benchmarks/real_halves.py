"""The halves of one real brain as a cohort: copies of the left one to learn from, of the right one for a test.

    python -m benchmarks.real_halves --data $ANAMORPH_DATA --out DIR
    ANAMORPH_DATA=DIR anamorph experiment experiments/cocyclereg/real_t1_t2.yaml

Every copy is an aligned T1, T2 and FLAIR of half a brain, in a random shape and place of its own, on voxels of 2 mm;
right halves are mirrored, so that they look like left ones. What lies beyond the middle is 0, so that the halves share
nothing. Labels are classes of the T1's intensity: 1 cerebrospinal fluid, 2 grey, 3 white matter, about so.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from anamorph.data.files import read, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.phantoms.deformation import random_diffeomorphism
from anamorph.inference.warp import warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain

FILES = {name: f"brain_t1_t2_flair_mni/patient07_{name.upper()}.nii.gz" for name in ("t1", "t2", "flair")}
FOLDER = "halves"
LEFT, RIGHT = 10, 3
"""Copies."""
CORNER_MM, SPACING_MM, SHAPE = (-80.0, -112.0, -76.0), 2.0, (42, 96, 80)
"""A left half in the space of the MNI."""
MIRROR = Affine(np.diag([-1.0, 1.0, 1.0, 1.0]))
CLASSES = 3


def half_grid() -> Grid:
    """Of every copy."""
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:-1, -1] = CORNER_MM
    return Grid(SHAPE, affine)


def half_of(image: Image, side: str) -> Image:
    """The image with 0 beyond the middle, x = 0."""
    x = image.grid.to_world(image.grid.voxels())[:, 0].reshape(image.grid.shape)
    kept = torch.from_numpy(x < 0 if side == "left" else x > 0)
    return Image(torch.where(kept, image.data.clamp_min(0), 0.0), image.grid, image.modality, name=image.name)


def classes_of(image: Image) -> Labelmap:
    """What is above 0 in classes of like intensity, the darkest first: k-means in one dimension."""
    values = image.data[0].numpy()
    inside = values > 0
    centres = np.quantile(values[inside], (np.arange(CLASSES) + 0.5) / CLASSES)
    for _ in range(50):
        nearest = np.abs(values[inside][:, None] - centres).argmin(1)
        centres = np.array([values[inside][nearest == number].mean() for number in range(CLASSES)])
    labels = np.zeros(values.shape, np.uint8)
    labels[inside] = 1 + np.abs(values[inside][:, None] - centres).argmin(1)
    return Labelmap.from_array(labels, image.grid.affine)


def write_copies(images: Mapping[str, Image], labels: Labelmap, side: str, numbers: Sequence[int], out: Path) -> None:
    """Files ``SIDE-NUMBER_MODALITY.nii.gz`` and ``SIDE-NUMBER_tissues.nii.gz``.

    Args:
        images: by modality, of a whole brain, aligned.
        labels: of the same.
        side: left or right.
        numbers: of the copies; each decides the shape of its own.
        out: folder.
    """
    grid = half_grid()
    halves = {name: half_of(image, side) for name, image in images.items()}
    for number in numbers:
        shape = random_diffeomorphism(
            grid, number, mean_mm=3.0, smoothness_mm=20.0, rotation_degrees=4.0, stretch=0.05, translation_mm=3.0
        )
        place = shape if side == "left" else Chain((shape, MIRROR))
        name = f"{side}-{number:02d}"
        for modality, image in halves.items():
            write(warp(image, place, grid), out / f"{name}_{modality}.nii.gz")
        seen = warp(labels, place, grid)
        inside = warp(halves["t1"], place, grid, interpolation="nearest").data[0] > 0
        kept = torch.where(inside, seen.data, torch.zeros_like(seen.data))
        write(Labelmap(kept, grid, seen.dtype, seen.names), out / f"{name}_tissues.nii.gz")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--out", type=Path, required=True, help=f"the copies go to its folder {FOLDER}")
    parser.add_argument("--left", type=int, default=LEFT, help="copies of the left half")
    parser.add_argument("--right", type=int, default=RIGHT, help="copies of the right half")
    arguments = parser.parse_args(words)
    images = {name: read(arguments.data / file, modality=name) for name, file in FILES.items()}
    out = arguments.out / FOLDER
    out.mkdir(parents=True)
    labels = classes_of(images["t1"])
    for first, side, count in ((1, "left", arguments.left), (101, "right", arguments.right)):
        write_copies(images, labels, side, range(first, first + count), out)
        print(f"{count} copies of the {side} half in {out}", flush=True)


if __name__ == "__main__":
    main()
