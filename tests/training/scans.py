"""Tiny cohorts of real files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.files import read, write
from anamorph.data.image import Image, Labelmap, Mask

THREE: tuple[Split, ...] = ("train", "train", "validation")
FIVE: tuple[Split, ...] = ("train", "train", "train", "validation", "test")
CENTRE = np.array([10.0, 12.0, 15.0])


def body(points: np.ndarray) -> np.ndarray:
    """A ball with a smaller one inside, off its centre, at world points (... d): 0, 1 or 2."""
    middle = CENTRE[: points.shape[-1]]
    outer = np.linalg.norm(points - middle, axis=-1) < 8
    inner = np.linalg.norm(points - middle - 2.5, axis=-1) < 4
    return np.where(inner, 2, np.where(outer, 1, 0))


def grid_of(case: int, modality: str, ndim: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine: the second modality's first axis runs to the left, and its voxels are larger."""
    shape = (12 + case % 2, 13, 14)[:ndim]
    spacing = np.array([2.0, 2.0, 2.5])[:ndim]
    affine = np.diag([*spacing, 1.0])
    if modality == "t2":
        affine = np.diag([-2.5, *spacing[1:], 1.0])
        affine[0, -1] = 24
    return shape, affine


def write_scans(
    folder: Path,
    *,
    ndim: int = 3,
    modalities: Sequence[str] = ("t1", "t2"),
    splits: Sequence[Split] = THREE,
    labelled: Callable[[int], bool] = lambda case: True,
    shift: Callable[[int, str], np.ndarray | float] = lambda case, modality: 0.0,
) -> Cohort:
    """Cases of the body in each modality, as files in ``folder``.

    Args:
        folder: made if need be.
        ndim: 2 or 3.
        modalities: of every case; ct in HU.
        splits: one a case.
        labelled: which cases have labels.
        shift: where the body lies, mm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    scans = []
    for case, split in enumerate(splits):
        for modality in modalities:
            shape, affine = grid_of(case, modality, ndim)
            nodes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
            labels = body(nodes @ affine[:-1, :-1].T + affine[:-1, -1] - shift(case, modality))
            table = {"ct": (-1000.0, 40, 120), "t2": (0, 300, 80)}.get(modality[:2], (0, 100, 200))
            values = np.array(table)[labels] + rng.normal(size=shape)
            stem = folder / f"c{case}_{modality}"
            image, label_file = stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}_labels.nii.gz")
            write(Image.from_array(values, affine), image)
            scan = Scan(f"c{case}", modality, image, split=split)
            if labelled(case):
                write(Labelmap.from_array((labels * 3).astype(np.int16), affine), label_file)  # 0, 3, 6
                scan = replace(scan, labels=label_file)
            scans.append(scan)
    return Cohort(folder, tuple(scans))


def with_mask(scan: Scan) -> Scan:
    """The scan with a mask that leaves out its outermost voxels."""
    grid = read(scan.image).grid
    inside = torch.zeros(grid.shape, dtype=torch.bool)
    inside[(slice(1, -1),) * grid.ndim] = True
    file = scan.image.with_name(f"{scan.name}_mask.nii.gz")
    write(Mask(inside, grid), file)
    return replace(scan, mask=file)
