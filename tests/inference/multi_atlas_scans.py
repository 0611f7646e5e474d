"""Tiny patients: an ellipsoid with two organs in it, bright ones dark in the other modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anamorph.data.cohort import Scan, Split
from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap
from anamorph.pairwise.settings import PairwiseSettings

QUICK = PairwiseSettings(search="header", levels=(2,), iterations=(6,), squarings=4)
CONTRASTS = {"ct": (-900.0, 20.0, 150.0, 60.0), "mr": (0.0, 400.0, 100.0, 800.0)}
"""Values of the surroundings, the body, and the organs 3 and 7."""


def a_scan(
    folder: Path, case: str, modality: str = "ct", shift: tuple[float, ...] = (0.0, 0.0, 0.0), split: Split = "train"
) -> Scan:
    """Files of one patient, ``shift`` mm off the middle; 3-D by default, 2-D where ``shift`` has two numbers."""
    ndim = len(shift)
    shape, spacing = (28, 26, 24)[:ndim], np.array((3.0, 3.5, 4.0)[:ndim])
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = np.diag(spacing)
    middle = (np.array(shape) - 1) / 2 * spacing
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing - middle - shift

    def inside(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        return (((points - centre[:ndim]) / radii[:ndim]) ** 2).sum(-1) < 1

    body, left = inside((0, 0, 0), (33, 36, 38)), inside((-10, 4, 3), (11, 12, 13))
    right = inside((14, -8, -4), (9, 10, 11))
    labels = np.select([right & body, left & body], [7, 3], 0).astype(np.int16)
    ground, tissue, *organs = CONTRASTS[modality]
    values = np.select([labels == 7, labels == 3, body], [organs[1], organs[0], tissue], ground)
    noise = np.random.default_rng(sum(map(ord, case + modality))).normal(0, 8, shape)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{case}_{modality}"
    suffix = ".nii.gz" if ndim == 3 else ".nrrd"
    write(Image.from_array(values + noise, affine), folder / f"{name}{suffix}")
    write(Labelmap.from_array(labels, affine), folder / f"{name}_labels{suffix}")
    return Scan(case, modality, folder / f"{name}{suffix}", folder / f"{name}_labels{suffix}", split=split)


def some_atlases(folder: Path, count: int = 3) -> list[Scan]:
    """CT atlases, each elsewhere."""
    shifts = [(4.0, -3.0, 2.0), (-3.0, 4.0, -4.0), (2.0, 3.0, 4.0), (-4.0, -2.0, 3.0)]
    return [a_scan(folder, f"atlas{place}", "ct", shifts[place]) for place in range(count)]
