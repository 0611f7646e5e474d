"""Random shapes, or any labelmap, in random contrast: images that teach a network to look at outlines alone.

Every label is where one of several smooth random functions is the largest.

Source: M. Hoffmann et al. (2022), SynthMorph, doi:10.1109/TMI.2021.3116879.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from anamorph.data.cohort import Split
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.deformation import enclosing_lattice, pair_map, preimages, subject_map
from anamorph.data.phantoms.label_contrast import (
    fine_grid,
    labels_at,
    outermost_points,
    random_contrast,
    read_labelmap,
    signal_at,
)
from anamorph.data.phantoms.options import ShapesOptions
from anamorph.data.phantoms.scanners import Quality, magnetic_resonance
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform

MODALITIES = ("a", "b")
MARGIN_MM = 20.0
"""How far random shapes go on beyond the field of view."""
POINTS = 8
"""How many landmarks random shapes have."""


class RandomShapes(Phantom[ShapesOptions]):
    """Two images of each case, on equal grids."""

    def __init__(self, options: ShapesOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.given = [read_labelmap(path, (2, 3)) for path in options.labelmap]
        found = {label for labels in self.given for label in labels.values()} or set(range(options.labels + 1))
        self.label_names = {label: f"label {label}" for label in sorted(found) if label > 0}

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """The second image is deformed against the first; both have contrasts of their own."""
        if self.given:
            labels = self.given[index % len(self.given)]
            grid = fine_grid(labels.grid, self.options.spacing)
            subject: Transform = subject_map(grid, self.generator(index, 0), self.options)
            landmarks = outermost_points(labels)
            landmarks = replace(landmarks, points=preimages(subject, landmarks.points))
        else:
            grid = Grid.from_spacing(self.options.shape, self.options.spacing)
            labels = random_labels(grid, self.options.labels, self.options.size_mm, self.generator(index, 0))
            subject = Affine.identity(grid.ndim)
            landmarks = inner_points(grid, self.generator(index, 1))
        moved = pair_map(grid, self.generator(index, 2), self.options)
        scans = []
        for number, place in enumerate((Affine.identity(grid.ndim), moved)):
            scan = self._scan(MODALITIES[number], labels, grid, subject, place, self.generator(index, 3 + number))
            back = Chain((place.inverse(), subject)) if len(self.given) == 1 else None
            there = replace(landmarks, points=place(landmarks.points))
            scans.append(replace(scan, landmarks=there, to_template=back))
        return PhantomCase(tuple(scans), (moved,))

    def template(self) -> PhantomScan | None:
        """The labelmap in a random contrast, where there is one of yours alone."""
        if len(self.given) != 1:
            return None
        grid, still = fine_grid(self.given[0].grid, self.options.spacing), Affine.identity(self.given[0].grid.ndim)
        scan = self._scan(MODALITIES[0], self.given[0], grid, still, still, np.random.default_rng(self.seed))
        return replace(scan, landmarks=outermost_points(self.given[0]), to_template=still)

    def _scan(
        self,
        modality: str,
        labels: Labelmap,
        grid: Grid,
        subject: Transform,
        moved: Transform,
        rng: np.random.Generator,
    ) -> PhantomScan:
        values = labels.data.numpy()
        where = subject(preimages(moved, grid.to_world(grid.voxels())))
        contrast = random_contrast(values, rng, background=not self.given)
        signal = signal_at(values, labels.grid, where, contrast, rng, 0.4 * self.options.spacing)
        quality = Quality(noise=float(rng.uniform(0.3, 1.5)), shading=1.0, blur=float(rng.uniform(0.2, 0.9)), slices=1)
        image = magnetic_resonance(signal.reshape(grid.shape), grid, rng, 25.0, 0.15, quality)
        found = labels_at(values, labels.grid, where).reshape(grid.shape)
        return PhantomScan(
            Image(torch.from_numpy(image.astype(np.float32))[None], grid, modality),
            Labelmap(torch.from_numpy(found), grid, np.dtype(np.uint8), self.label_names),
        )


def random_labels(grid: Grid, number: int, size_mm: float, rng: np.random.Generator) -> Labelmap:
    """Labels 0 to ``number`` on a lattice a little finer than a grid that reaches beyond it."""
    lattice = enclosing_lattice(grid, MARGIN_MM, 0.8 * float(grid.spacing.min()))
    labels, largest = np.zeros(lattice.shape, np.int32), smooth_heights(lattice, 0.4 * size_mm, rng)
    for label in range(1, number + 1):
        heights = smooth_heights(lattice, 0.4 * size_mm, rng)
        labels[heights > largest] = label
        np.maximum(largest, heights, out=largest)
    return Labelmap(torch.from_numpy(labels), lattice, np.dtype(np.uint8))


def smooth_heights(lattice: Grid, step_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A random function of zero mean and unit variance: a cubic spline whose knots are ``step_mm`` apart."""
    knots = [int(np.ceil(n * width / step_mm)) + 3 for n, width in zip(lattice.shape, lattice.spacing, strict=True)]
    heights = gaussian_filter(rng.standard_normal(knots), 1.5, mode="wrap")
    heights = (heights - heights.mean()) / heights.std()
    for axis, (n, width) in enumerate(zip(lattice.shape, lattice.spacing, strict=True)):
        to_voxels = CubicSpline(np.arange(knots[axis]), np.eye(knots[axis]))(1 + np.arange(n) * width / step_mm)
        heights = np.moveaxis(np.tensordot(to_voxels, heights, axes=(1, axis)), 0, axis)
    return heights.astype(np.float32)


def inner_points(grid: Grid, rng: np.random.Generator) -> Landmarks:
    """Points in the inner part of a field of view."""
    voxels = rng.uniform(0.2, 0.8, (POINTS, grid.ndim)) * (np.array(grid.shape) - 1)
    return Landmarks(grid.to_world(voxels), tuple(f"point {number + 1}" for number in range(POINTS)))
