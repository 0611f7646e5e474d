"""A second modality for real images: their intensities sent through a smooth curve that rises and falls.

The curve belongs to the modality, and that of each case strays from it a little. With shading, noise and, on request, a
deformation of its own, the new image tells nothing of the old one but its outlines; labels stay true.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from anamorph.data.cohort import Scan, Split
from anamorph.data.cohort_files import read_cohort
from anamorph.data.files import read, read_labels, read_mask
from anamorph.data.image import Image, Landmarks, Mask
from anamorph.data.landmark_files import read_landmarks
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.deformation import preimages, random_velocity
from anamorph.data.phantoms.label_contrast import labels_at
from anamorph.data.phantoms.options import RemappedOptions
from anamorph.data.phantoms.texture import smooth_noise
from anamorph.errors import ConfigurationError
from anamorph.spatial.field import sample
from anamorph.spatial.transform import Affine, Transform

KNOTS = 7
LOWEST = 0.15
"""Height of a curve's lowest point, so that little of it is cut off at 0 when it strays."""
LEAST_SWING = 0.35
"""How far a curve rises, and falls, at least, as a fraction of its range."""
EMPTY = 0.05
"""An image this share of which has the lowest value has a background, which stays dark."""


class Remapped(Phantom[RemappedOptions]):
    """The images of one modality of a cohort, each with its remapped counterpart."""

    def __init__(self, options: RemappedOptions, seed: int) -> None:
        super().__init__(options, seed)
        cohort = read_cohort(options.cohort)
        modalities = cohort.modalities
        modality = options.modality or (modalities[0] if len(modalities) == 1 else "")
        self.into = options.into or f"{modality}r"
        if modality not in modalities or self.into == modality:
            found = f"no modality {modality!r} to remap" if modality else f"{len(modalities)} modalities"
            found = found if self.into != modality else f"{modality!r} remapped into itself"
            expected = f"one of {', '.join(modalities)}, into another name"
            raise ConfigurationError("E-SYN-007", found, expected=expected, do="say which with --modality")
        self.sources = [scan for scan in cohort.scans if scan.modality == modality]
        self.most, self.label_names = len(self.sources), cohort.label_names
        self.curve = random_curve(np.random.default_rng([seed, 2**31]))

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """An image and its counterpart, with the case's name and split."""
        source = self.sources[index]
        use = split or source.split
        labelled = use != "train" or int((index + 1) * self.options.labelled) > int(index * self.options.labelled)
        first = original(source, labelled=labelled)
        grid = first.image.grid
        truth: Transform = Affine.identity(grid.ndim)
        second = first
        if self.options.mean_mm > 0:
            truth = random_velocity(grid, self.generator(index, 0), self.options.mean_mm, self.options.smoothness_mm)
            second = moved(first, truth)
        image = self._remapped(second.image, self.generator(index, 1))
        return PhantomCase((first, replace(second, image=image)), (truth,), source.case, source.split)

    def _remapped(self, image: Image, rng: np.random.Generator) -> Image:
        """Another curve, shading and noise for every image; values up to about 1000."""
        values = image.data[0].numpy()
        empty = values == values.min()
        low, high = np.percentile(values[~empty] if empty.mean() > EMPTY else values, (0.5, 99.5))
        knots = self.curve + self.options.variation * rng.standard_normal(KNOTS)
        curve = PchipInterpolator(np.linspace(0, 1, KNOTS), knots)
        level = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
        signal = 1000 * np.maximum(curve(level), 0)
        points = (image.grid.to_world(image.grid.voxels()) - image.grid.centre).T
        extent = 1.5 * np.ptp(image.grid.corners, axis=0) + image.grid.spacing.max()
        shading = smooth_noise(rng, extent, 0.5 * float(extent.max()))(points).reshape(values.shape)
        signal = signal * np.exp(self.options.bias * shading)
        signal += 1000 * self.options.noise * rng.standard_normal(values.shape)
        if empty.mean() > EMPTY:
            signal[empty] = 0
        data = torch.from_numpy(np.maximum(signal, 0).astype(np.float32))[None]
        return Image(data, image.grid, self.into)


def random_curve(rng: np.random.Generator) -> np.ndarray:
    """Heights up to 1 at even levels of intensity, which rise by much somewhere and fall by much elsewhere."""
    while True:
        heights = rng.uniform(0, 1, KNOTS)
        heights = LOWEST + (1 - LOWEST) * (heights - heights.min()) / np.ptp(heights)
        rise = (heights - np.minimum.accumulate(heights)).max()
        fall = (np.maximum.accumulate(heights) - heights).max()
        if min(rise, fall) >= LEAST_SWING:
            return heights


def original(scan: Scan, *, labelled: bool) -> PhantomScan:
    """A scan of the cohort as it is."""
    image = read(scan.image, modality=scan.modality)
    return PhantomScan(
        image,
        labels=read_labels(scan.labels) if scan.labels and labelled else None,
        landmarks=read_landmarks(scan.landmarks, image.grid) if scan.landmarks else None,
        mask=read_mask(scan.mask, image.grid) if scan.mask else None,
    )


def moved(scan: PhantomScan, truth: Transform, back: Transform | None = None) -> PhantomScan:
    """A scan deformed by a map of its points, whose inverse ``back`` is found where it is not given."""
    grid = scan.image.grid
    points = grid.to_world(grid.voxels())
    where = preimages(truth, points) if back is None else back(points)
    voxels = torch.from_numpy(np.ascontiguousarray(grid.to_voxel(where).T).reshape(grid.ndim, *grid.shape))
    data = sample(scan.image.data[None].double(), voxels[None], outside="border")[0].float()

    def there(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(labels_at(values, grid, where).reshape(grid.shape))

    labels, mask, landmarks = scan.labels, scan.mask, scan.landmarks
    return PhantomScan(
        Image(data, grid, scan.image.modality),
        labels=labels and replace(labels, data=there(labels.data.numpy())),
        mask=mask and Mask(there(mask.data.numpy().astype(np.int32)) > 0, grid),
        landmarks=landmarks and Landmarks(truth(landmarks.points), landmarks.names),
    )
