"""Slices of the aligned scans of a cohort as 2-D images, on whose fine voxels networks learn in little time.

One scan of a case decides on the plane and its voxels; the others are brought there by one interpolation, labels and
masks by the nearest voxel. World coordinates are those of the plane, as of any file of one slice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anamorph.data.cohort import Scan, Split
from anamorph.data.cohort_files import read_cohort
from anamorph.data.image import Image, Labelmap, Mask
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.options import SlicedOptions
from anamorph.data.phantoms.remapped import original
from anamorph.data.volume import flat_affine
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import resample
from anamorph.types import Interpolation

ACROSS = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane -> axis of the world across it."""


class Sliced(Phantom[SlicedOptions]):
    """Each case of a cohort, its slices one after the other."""

    def __init__(self, options: SlicedOptions, seed: int) -> None:
        super().__init__(options, seed)
        cohort = read_cohort(options.cohort)
        self.slices: list[tuple[tuple[Scan, ...], int, int]] = []
        """Of each slice the scans of its case, its number, and how many there are."""
        for case in cohort.cases:
            scans = tuple(scan for scan in cohort.scans if scan.case == case)
            count = options.slices if scans[0].split == "train" else options.slices_held_back
            self.slices += [(scans, number, count) for number in range(count)]
        self.most, self.label_names = len(self.slices), cohort.label_names

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """One slice of all scans of a case, with its split.

        Raises:
            InputError: E-SYN-012, a scan that is 2-D already, or one too small for the slices that are wanted.
        """
        scans, number, count = self.slices[index]
        originals = [original(scan, labelled=True) for scan in scans]
        for scan, read in zip(scans, originals, strict=True):
            if read.image.grid.ndim != 3:
                raise InputError("E-SYN-012", "a 2-D image", file=scan.image, expected="3-D images to slice")
        decides = next((n for n, read in enumerate(originals) if self._wanted(read) is not None), 0)
        plane, kept = self._plane(scans[decides], originals[decides], number, count)
        flat = Grid(
            tuple(plane.shape[axis] for axis in kept), flat_affine(plane.affine[:3, [*kept, 3]], scans[decides].image)
        )
        cut = tuple(_cut(read, plane, flat) for read in originals)
        name = scans[0].case
        if count > 1:  # sessions of one subject stay in one split
            name = f"{name}{'-' if '_ses-' in name else '_ses-'}slice{number + 1}"
        return PhantomCase(cut, name=name, split=scans[0].split)

    def _wanted(self, read: PhantomScan) -> Tensor | None:
        """Where the labels are that the slice should go through; None where there are none."""
        if read.labels is None or not self.options.through:
            return None
        there = torch.isin(read.labels.data, torch.tensor(self.options.through))
        return there if there.any() else None

    def _plane(self, scan: Scan, read: PhantomScan, number: int, count: int) -> tuple[Grid, tuple[int, ...]]:
        """One of ``count`` layers of a scan's voxels, and the axes that extend in it."""
        grid, wanted = read.image.grid, self._wanted(read)
        axis = int(abs(grid.affine[ACROSS[self.options.plane], :3] / grid.spacing).argmax())
        middle = (grid.shape[axis] - 1) / 2
        if wanted is not None:
            middle = int(wanted.movedim(axis, 0).flatten(1).sum(1).argmax())
        place = round(middle + (number - (count - 1) / 2) * self.options.apart_mm / grid.spacing[axis])
        if not 0 <= place < grid.shape[axis]:
            found = f"slice {number + 1} of {count} lies beyond the image"
            do = "take fewer slices, or some nearer to each other"
            raise InputError("E-SYN-012", found, file=scan.image, expected="all within", do=do)
        start, shape = [0, 0, 0], list(grid.shape)
        start[axis], shape[axis] = place, 1
        return grid.cropped(start, shape), tuple(other for other in range(3) if other != axis)


def _cut(read: PhantomScan, plane: Grid, flat: Grid) -> PhantomScan:
    """A scan in a plane; landmarks, which lie in none, are left out."""

    def there(values: Tensor, grid: Grid, mode: Interpolation) -> Tensor:
        return resample(values, grid, plane, mode=mode, outside="border").reshape(len(values), *flat.shape)

    image, labels, mask = read.image, read.labels, read.mask
    return PhantomScan(
        Image(there(image.data, image.grid, "linear"), flat, image.modality),
        labels=labels
        and Labelmap(there(labels.data[None], labels.grid, "nearest")[0], flat, labels.dtype, labels.names),
        mask=mask and Mask(there(mask.data[None], mask.grid, "nearest")[0], flat),
    )
