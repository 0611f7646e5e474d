"""The letter B of the Atlas-ISTN paper, section 3.1: random maps of one letter, noise, and clutter on request.

Its generator was not released; all numbers here and the defaults of ``LetterBOptions`` were fitted to the 1000 images
that were. Source: M. Sinclair et al. (2022), Atlas-ISTN, doi:10.1016/j.media.2022.102383.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial import KDTree

from anamorph.data.cohort import Split
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.deformation import preimages, subject_map
from anamorph.data.phantoms.options import LetterBOptions
from anamorph.data.phantoms.shapes import Vector
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine

SIZE = 128
STROKE = 4.6
"""Half the width of a stroke, mm."""
BACKGROUND, FOREGROUND = 100.0, 150.0
DISCS, LARGEST_DISC = 10, 9
"""How many discs of each kind a corrupt image has, of one radius from 1 to this, pixels."""

STEM = ((-17, -36), (-17.5, -12), (-18, 12), (-19, 36))
UPPER_BOWL = ((-17, -36), (-3, -37), (9, -34), (16, -26), (15, -15), (5, -7), (-17, -3))
LOWER_BOWL = ((-17, -3), (0, -4.5), (13, 0), (20, 10), (19, 22), (11, 32), (-3, 36), (-19, 36))
"""Nodes of the strokes before the letter is scaled and tilted: x to the right, y downwards."""
LANDMARKS = {
    "upper left corner": (-17, -36),
    "left end of the bar": (-17, -3),
    "lower left corner": (-19, 36),
    "turn of the upper bowl": (16, -26),
    "waist": (5, -7),
    "turn of the lower bowl": (20, 10),
    "foot of the lower bowl": (-3, 36),
}


class LetterB(Phantom[LetterBOptions]):
    """Pictures of 128 x 128 pixels of 1 mm: axis i to the right, axis j downwards, as PNG files are read."""

    label_names = MappingProxyType({1: "letter"})

    def __init__(self, options: LetterBOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.grid = Grid((SIZE, SIZE), np.diag([-1.0, -1.0, 1.0]))
        strokes = [CubicSpline(*_along(nodes))(np.linspace(0, 1, 400)) for nodes in (STEM, UPPER_BOWL, LOWER_BOWL)]
        self.strokes = KDTree(self._placed(np.concatenate(strokes)))
        self.landmarks = Landmarks(self._placed(np.array(list(LANDMARKS.values()), float)), tuple(LANDMARKS))

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """A letter under a map of its own; corrupt where the options and the split ask for it."""
        to_template = subject_map(self.grid, self.generator(index, 0), self.options)
        letter = self._inside(to_template(self.grid.to_world(self.grid.voxels())))
        landmarks = Landmarks(preimages(to_template, self.landmarks.points), self.landmarks.names)
        visible = letter
        if self.options.corrupt == "all" or self.options.corrupt == split:
            visible = corrupted(letter, self.generator(index, 1))
        noise = self.generator(index, 2).normal(0, self.options.noise, letter.shape)
        image = self._image(np.where(visible, FOREGROUND, BACKGROUND) + noise)
        return PhantomCase((PhantomScan(image, self._labels(letter), landmarks, to_template=to_template),))

    def template(self) -> PhantomScan:
        """The base letter, without noise."""
        letter = self._inside(self.grid.to_world(self.grid.voxels()))
        image = self._image(np.where(letter, FOREGROUND, BACKGROUND))
        return PhantomScan(image, self._labels(letter), self.landmarks, to_template=Affine.identity(2))

    def _placed(self, drawn: np.ndarray) -> np.ndarray:
        """World points of what is drawn about the origin: a little wider, tilted and off the middle."""
        tilt = np.radians(-4)
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        pixels = (drawn * (1.06, 0.925) + (0.8, 2.6)) @ turn.T + (SIZE - 1) / 2
        return self.grid.to_world(pixels)

    def _inside(self, points: np.ndarray) -> np.ndarray:
        """Whether template points (N 2) lie on a stroke, I J."""
        return (self.strokes.query(points, distance_upper_bound=STROKE)[0] < STROKE).reshape(self.grid.shape)

    def _image(self, values: np.ndarray) -> Image:
        whole = np.clip(np.rint(values), 0, 255).astype(np.float32)
        return Image(torch.from_numpy(whole)[None], self.grid, modality="grey")

    def _labels(self, letter: np.ndarray) -> Labelmap:
        labels = torch.from_numpy(letter.astype(np.int32))
        return Labelmap(labels, self.grid, np.dtype(np.uint8), self.label_names)


def corrupted(letter: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A letter among discs of its own brightness, then under discs of the background's; each sort of one size."""
    clutter, erased = (discs(letter.shape, rng, int(rng.integers(1, LARGEST_DISC + 1))) for _ in range(2))
    return (letter | clutter) & ~erased


def discs(shape: tuple[int, ...], rng: np.random.Generator, radius: int) -> np.ndarray:
    """Discs at random pixels, which may overlap and leave the picture."""
    centres = rng.uniform(0, shape, (DISCS, 2))
    pixels = np.moveaxis(np.indices(shape), 0, -1)
    return (np.linalg.norm(pixels[:, :, None] - centres, axis=-1) < radius + 0.5).any(axis=-1)


def _along(nodes: Sequence[Vector]) -> tuple[np.ndarray, np.ndarray]:
    """How far along a curve its nodes are, from 0 to 1, and the nodes."""
    points = np.array(nodes, float)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return length / length[-1], points
