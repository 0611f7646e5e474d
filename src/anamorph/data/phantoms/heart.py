"""Hearts in CT angiography and bright-blood MR.

Every subject is the mean heart under a random map, in which each chamber also grows or shrinks by itself. The solids
are evaluated at the images of the voxels, so nothing is resampled. Blood is equally bright in several chambers and
vessels, and the wall of the left ventricle like other muscle, so that they differ by shape and place alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from anamorph.data.cohort import Split
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.deformation import pair_map, preimages, subject_map
from anamorph.data.phantoms.heart_anatomy import (
    CHAMBER_CENTRES,
    LABEL_NAMES,
    HeartSolids,
    mark_landmarks,
    paint_heart,
)
from anamorph.data.phantoms.heart_thorax import paint_thorax
from anamorph.data.phantoms.options import HeartOptions
from anamorph.data.phantoms.scanners import QUALITIES, computed_tomography, magnetic_resonance, sliced
from anamorph.data.phantoms.texture import smooth_noise
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform, Velocity

FIELD_OF_VIEW_MM = np.array([144.0, 144.0, 128.0])
THORAX_MM = (260.0, 260.0, 240.0)
"""A box that holds every scan."""
CHAMBER_MM, CHAMBER_GROWTH = 30.0, 0.10
"""How far about its centre a chamber grows, and the standard deviation of the rate at which it does there."""
TEMPLATE_SEED = 0
"""Of the unevenness and the vessels of the lungs of the mean heart: it is the same for every seed."""

TISSUES = {
    # CT HU and its texture, balanced steady-state MR signal and its texture, T1-weighted gradient echo of hard scanners
    "air": (-1000, 0, 0, 0, 0),
    "fat": (-98, 9, 640, 50, 820),
    "muscle": (58, 10, 270, 25, 430),
    "myocardium": (108, 12, 300, 28, 440),
    "valve": (95, 8, 330, 20, 400),
    "left blood": (370, 12, 860, 35, 730),
    "right blood": (300, 26, 850, 40, 725),
    "right atrial blood": (300, 55, 840, 50, 725),
    "lung": (-830, 40, 60, 20, 60),
    "lung vessel": (40, 150, 380, 110, 330),
    "cortical bone": (520, 60, 60, 15, 80),
    "marrow": (180, 45, 420, 50, 620),
    "disc": (85, 12, 330, 30, 380),
    "cartilage": (110, 15, 260, 25, 350),
    "liver": (112, 12, 330, 30, 520),
    "gas": (-960, 12, 8, 3, 8),
}


class Heart(Phantom[HeartOptions]):
    """CT to the left, back and head; MR to the right, front and head."""

    label_names = LABEL_NAMES

    def __init__(self, options: HeartOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.quality = QUALITIES[options.scanner]
        rng = np.random.default_rng(TEMPLATE_SEED)
        bumps = [smooth_noise(rng, THORAX_MM, 30.0) for _ in range(3)]
        self.anatomy = Anatomy(lambda p: np.stack([1.2 * bump(p) for bump in bumps]))
        solids = HeartSolids(smooth_noise(rng, THORAX_MM, 5.0))
        paint_thorax(self.anatomy, solids, (smooth_noise(rng, THORAX_MM, 16.0), smooth_noise(rng, THORAX_MM, 16.0)))
        paint_heart(self.anatomy, solids)
        mark_landmarks(self.anatomy)

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """One subject; where there are two scans, the CT is the fixed one."""
        ct_grid, mr_grid = self._grid((-1.0, -1.0, 1.0)), self._grid((1.0, 1.0, 1.0))
        subject = self._subject(ct_grid, self.generator(index, 0))
        landmarks = preimages(subject, self.anatomy.landmark_points())
        wanted = self.options.scans
        if wanted == "unpaired":
            wanted = "mr" if index % 2 else "ct"
        scans, truth = [], ()
        if wanted != "mr":
            scans.append(self._scan("ct", ct_grid, subject, landmarks, self.generator(index, 1)))
        if wanted == "pair":
            truth = (pair_map(ct_grid, self.generator(index, 3), self.options),)
        if wanted != "ct":
            scans.append(self._scan("mr", mr_grid, subject, landmarks, self.generator(index, 2), *truth))
        return PhantomCase(tuple(scans), truth)

    def template(self) -> PhantomScan:
        """The mean heart in an ideal CT."""
        grid = self._grid((-1.0, -1.0, 1.0))
        return self._scan("ct", grid, Affine.identity(3), self.anatomy.landmark_points(), None)

    def _grid(self, axes: tuple[float, float, float]) -> Grid:
        shape = np.maximum(np.rint(FIELD_OF_VIEW_MM / self.options.spacing), 1).astype(int)
        affine = np.diag([*np.array(axes) * self.options.spacing, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
        return sliced(Grid(tuple(shape.tolist()), affine), self.quality)

    def _subject(self, grid: Grid, rng: np.random.Generator) -> Chain:
        """A subject's map to the mean heart, chambers of other sizes included."""
        velocity, affine = subject_map(grid, rng, self.options).transforms
        assert isinstance(velocity, Velocity)
        points = velocity.grid.to_world(velocity.grid.voxels())
        growth = np.zeros_like(points)
        strength = self.options.subject_mm / HeartOptions.model_fields["subject_mm"].default
        for centre in CHAMBER_CENTRES.values():
            from_centre = points - centre
            near = np.exp(-(from_centre**2).sum(axis=1, keepdims=True) / (2 * CHAMBER_MM**2))
            growth += rng.normal(0, CHAMBER_GROWTH) * strength * near * from_centre
        total = velocity.velocity + torch.from_numpy(growth.T.reshape(velocity.velocity.shape))
        return Chain((Velocity(total, velocity.grid), affine))

    def _scan(
        self,
        modality: str,
        grid: Grid,
        subject: Transform,
        landmarks: np.ndarray,
        rng: np.random.Generator | None,
        from_first: Transform | None = None,
    ) -> PhantomScan:
        """A scan of a subject, moved by ``from_first``; without random numbers an ideal one."""
        world = grid.to_world(grid.voxels())
        own = world if from_first is None else preimages(from_first, world)
        points = subject(own).T
        tissues = self._tissues(modality, rng)
        edge = float(grid.voxel_volume ** (1 / 3))
        (value, texture), labels = self.anatomy.render(points, tissues, "air", edge)
        to_template = subject
        if from_first is not None:
            landmarks, to_template = from_first(landmarks), Chain((from_first.inverse(), subject))
        if rng is not None:
            fine, coarse = smooth_noise(rng, THORAX_MM, 5.0), smooth_noise(rng, THORAX_MM, 16.0)
            value += texture * (fine(own.T) + coarse(own.T)) / np.float32(np.sqrt(2))
        image = value.reshape(grid.shape)
        if rng is not None and modality == "ct":
            image = computed_tomography(image, rng, 22.0, self.quality)
        elif rng is not None:
            image = magnetic_resonance(image, grid, rng, 32.0, 0.22, self.quality, np.array([-0.3, 0.9, 0.0]))
        return PhantomScan(
            Image(torch.from_numpy(np.ascontiguousarray(image, np.float32))[None], grid, modality),
            Labelmap(torch.from_numpy(labels.reshape(grid.shape)), grid, np.dtype(np.uint8), LABEL_NAMES),
            Landmarks(landmarks, tuple(self.anatomy.landmarks)),
            to_template=to_template,
        )

    def _tissues(self, modality: str, rng: np.random.Generator | None) -> Mapping[str, tuple[float, float]]:
        """Value and texture of each tissue in one scan: contrast agent and sequence vary from scan to scan."""
        hard = self.options.scanner == "hard"
        if modality == "ct":
            values = {name: (float(row[0]), float(row[1])) for name, row in TISSUES.items()}
        else:
            values = {name: (float(row[4 if hard else 2]), float(row[3])) for name, row in TISSUES.items()}
        if rng is None:
            return values
        spread = 8.0 if modality == "ct" else 22.0
        for name in ("fat", "muscle", "myocardium", "valve", "marrow", "disc", "cartilage", "liver"):
            values[name] = (values[name][0] + rng.normal(0, spread), values[name][1])
        left = rng.uniform(210, 300) if hard else rng.uniform(300, 450)
        right = left * (rng.uniform(0.8, 1.15) if hard else rng.uniform(0.5, 1.05))
        if modality == "mr":
            left = right = values["left blood"][0] * rng.uniform(0.92, 1.08)
        for name, value in (("left blood", left), ("right blood", right), ("right atrial blood", right)):
            values[name] = (value, values[name][1])
        return values
