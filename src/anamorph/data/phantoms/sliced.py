"""Slices of the aligned scans of a cohort as 2-D images, on whose fine voxels networks learn in little time.

All scans of a case are cut in the same place. World coordinates are those of the plane, as of any file of one slice.
"""

from __future__ import annotations

import torch

from anamorph.data.cohort import Scan, Split
from anamorph.data.cohort_files import read_cohort
from anamorph.data.files import read_labels
from anamorph.data.image import Image, Labelmap, Mask
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.options import SlicedOptions
from anamorph.data.phantoms.remapped import original
from anamorph.data.volume import flat_affine
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid

ACROSS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane -> axis of the world across it."""


class Sliced(Phantom[SlicedOptions]):
    """Each case of a cohort, its slices one after the other."""

    def __init__(self, options: SlicedOptions, seed: int) -> None:
        super().__init__(options, seed)
        cohort = read_cohort(options.cohort)
        self.cases = [(case, tuple(scan for scan in cohort.scans if scan.case == case)) for case in cohort.cases]
        self.most, self.label_names = len(self.cases) * options.slices, cohort.label_names

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """One slice of all scans of a case, with its split.

        Raises:
            InputError: E-SYN-012, a scan that is 2-D already, on another grid than the first of its case, or too small
                for the slices that are wanted.
        """
        (name, scans), number = self.cases[index // self.options.slices], index % self.options.slices
        originals = [original(scan, labelled=True) for scan in scans]
        grid = originals[0].image.grid
        for scan, read in zip(scans, originals, strict=True):
            self._check(scan, read.image.grid, grid)
        axis = int(abs(grid.affine[ACROSS[self.options.plane], :3] / grid.spacing).argmax())
        middle = (self.options.slices - 1) / 2
        place = round(self._middle(scans, grid, axis) + (number - middle) * self.options.apart_mm / grid.spacing[axis])
        if not 0 <= place < grid.shape[axis]:
            found = f"slice {number + 1} of {self.options.slices} lies beyond the image"
            do = "take fewer slices, or some nearer to each other"
            raise InputError("E-SYN-012", found, file=scans[0].image, expected="all within", do=do)
        cut = tuple(_cut(scan, read, axis, place) for scan, read in zip(scans, originals, strict=True))
        if self.options.slices > 1:  # sessions of one subject stay in one split
            name = f"{name}{'-' if '_ses-' in name else '_ses-'}slice{number + 1}"
        return PhantomCase(cut, name=name, split=scans[0].split)

    def _check(self, scan: Scan, grid: Grid, first: Grid) -> None:
        if grid.ndim != 3 or not grid.same_as(first):
            found = "a 2-D image" if grid.ndim == 2 else "another grid than that of the first scan of its case"
            expected = "3-D images, all of a case on one grid"
            raise InputError("E-SYN-012", found, file=scan.image, expected=expected, do="resample them first")

    def _middle(self, scans: tuple[Scan, ...], grid: Grid, axis: int) -> float:
        """The slice of most voxels of the labels that are wanted; the first of several."""
        if self.options.through:
            for scan in scans:
                if scan.labels is None:
                    continue
                there = torch.isin(read_labels(scan.labels).data, torch.tensor(self.options.through))
                counts = there.movedim(axis, 0).flatten(1).sum(1)
                if counts.any():
                    return float(counts.argmax())
        return (grid.shape[axis] - 1) / 2


def _cut(scan: Scan, read: PhantomScan, axis: int, place: int) -> PhantomScan:
    """One slice across an axis of the voxels; landmarks, which lie in none, are left out."""
    image = read.image
    kept = [other for other in range(3) if other != axis]
    start = [place if other == axis else 0 for other in range(3)]
    affine = image.grid.cropped(start, image.grid.shape).affine
    grid = Grid(tuple(image.grid.shape[k] for k in kept), flat_affine(affine[:3, [*kept, 3]], scan.image))
    labels, mask = read.labels, read.mask
    return PhantomScan(
        Image(image.data.select(axis + 1, place).clone(), grid, image.modality),
        labels=labels and Labelmap(labels.data.select(axis, place).clone(), grid, labels.dtype, labels.names),
        mask=mask and Mask(mask.data.select(axis, place).clone(), grid),
    )
