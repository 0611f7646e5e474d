"""A CT and an MR of one abdomen, with the exact map between them.

The anatomy is a stack of solids that can be evaluated at any world point. The CT evaluates it at its own voxels, the MR
at the places where its voxels lie in the CT's world, by the inverse of the true map. Neither image is resampled, so no
interpolation favours one method over another.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.phantoms import abdominal_gut, abdominal_organs, abdominal_wall
from anamorph.data.phantoms.abdominal_patient import EXTENT_MM, LABEL_NAMES, Patient
from anamorph.data.phantoms.abdominal_tissues import PROTOCOLS, Tissues
from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.deformation import fading, random_affine, random_velocity
from anamorph.data.phantoms.pair import PhantomPair
from anamorph.data.phantoms.shapes import Vector
from anamorph.data.phantoms.texture import correlated_gaussian, rician, smooth_noise
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Chain, Transform, Velocity

CENTRE_MM = np.array([0.0, -5.0, 0.0])
FIELD_OF_VIEW_MM = np.array([344.0, 250.0, 206.0])


def abdomen(
    seed: int = 0,
    *,
    fixed_spacing: tuple[float, float, float] = (2.4, 2.4, 3.0),
    moving_spacing: tuple[float, float, float] = (2.8, 2.8, 4.0),
    mean_mm: float = 6.0,
    protocol: str = "portal-t2",
) -> PhantomPair:
    """A CT (fixed, HU) and an MR (moving) of one made-up patient, the MR in another breath and position.

    The patient's build, the sizes and places of the organs, the tumour's place and the deformation vary with the seed.
    The field of view is the same at any spacing.

    Args:
        seed: the same seed gives the same pair.
        fixed_spacing: voxels of the CT in mm; its axes run to the left, back and head.
        moving_spacing: voxels of the MR in mm; its axes run to the right, front and head, obliquely.
        mean_mm: mean length of the random part of the deformation; breathing and an affine map come on top.
        protocol: one of ``PROTOCOLS``: "portal-t2", or "plain-t1" without contrast agent, whose landmarks include those
            in the fissure of the liver.
    """
    patient_rng, motion_rng, ct_rng, mr_rng = (np.random.default_rng([seed, stream]) for stream in range(4))
    anatomy = abdominal_anatomy(patient_rng)
    fixed_grid = grid_about(CENTRE_MM, FIELD_OF_VIEW_MM, fixed_spacing, np.diag([-1.0, -1.0, 1.0]))
    truth = patient_motion(motion_rng, mean_mm)
    angles = motion_rng.uniform(4, 9, 3) * motion_rng.choice([-1, 1], 3)
    tilt = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    centre = truth(CENTRE_MM[None])[0]
    moving_grid = grid_about(centre, FIELD_OF_VIEW_MM * (1.08, 1.1, 1.1), moving_spacing, tilt)

    scanned = PROTOCOLS[protocol]
    ct, ct_labels = computed_tomography(anatomy, scanned.ct, fixed_grid, ct_rng)
    mr, mr_labels = magnetic_resonance(anatomy, scanned.mr, moving_grid, truth, mr_rng)
    kept = [row for row, name in enumerate(anatomy.landmarks) if name not in scanned.hidden_landmarks]
    points, point_names = anatomy.landmark_points()[kept], tuple(list(anatomy.landmarks)[row] for row in kept)
    return PhantomPair(
        fixed=Image(torch.from_numpy(ct)[None], fixed_grid, modality="ct", name="abdomen_ct"),
        moving=Image(torch.from_numpy(mr)[None], moving_grid, modality=scanned.mr_modality, name="abdomen_mr"),
        fixed_labels=Labelmap(torch.from_numpy(ct_labels), fixed_grid, np.dtype(np.uint8), LABEL_NAMES),
        moving_labels=Labelmap(torch.from_numpy(mr_labels), moving_grid, np.dtype(np.uint8), LABEL_NAMES),
        truth=truth,
        fixed_landmarks=Landmarks(points, point_names),
        moving_landmarks=Landmarks(truth(points), point_names),
        label_names=LABEL_NAMES,
    )


def abdominal_anatomy(rng: np.random.Generator) -> Anatomy:
    """One patient, outermost layers first."""
    patient = Patient(rng)
    coarse, fine = ([patient.noise(correlation) for _ in range(3)] for correlation in (50.0, 14.0))

    def unevenness(p: np.ndarray) -> np.ndarray:
        return np.stack([4.0 * a(p) + 0.7 * b(p) for a, b in zip(coarse, fine, strict=True)])

    anatomy = Anatomy(unevenness)
    for paint in (
        abdominal_wall.paint_couch,
        abdominal_wall.paint_wall,
        abdominal_wall.paint_back,
        abdominal_wall.paint_thorax,
        abdominal_wall.paint_spine,
        abdominal_wall.paint_ribs,
        abdominal_gut.paint_small_bowel,
        abdominal_organs.paint_great_vessels,
        abdominal_organs.paint_kidneys,
        abdominal_gut.paint_duodenum_and_pancreas,
        abdominal_gut.paint_colon,
        abdominal_gut.paint_stomach,
        abdominal_organs.paint_spleen,
        abdominal_organs.paint_liver,
    ):
        paint(anatomy, patient)
    return anatomy


def grid_about(centre: Vector, extent_mm: np.ndarray, spacing: tuple[float, float, float], axes: np.ndarray) -> Grid:
    """A grid of a given width about a world point, whose axes are the columns of ``axes``."""
    shape = np.maximum(np.round(extent_mm / spacing), 1).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(tuple(shape.tolist()), affine)


def patient_motion(rng: np.random.Generator, mean_mm: float) -> Chain:
    """Breathing, random deformation and a new position on the table: fixed world -> moving world."""
    field_of_view = grid_about(CENTRE_MM, FIELD_OF_VIEW_MM, (2.0, 2.0, 2.0), np.eye(3))
    random = random_velocity(field_of_view, rng, mean_mm, smoothness_mm=32.0)
    x, y, z = random.grid.to_world(random.grid.voxels()).T.reshape(3, *random.grid.shape)
    depth = rng.uniform(8, 14) * rng.choice([-1, 1])
    under_domes = np.exp(-((x / 105) ** 4) - ((y - 22) / 72) ** 4 - ((z - 45) / 95) ** 2)
    belly_wall = np.exp(-(((y - 60) / 50) ** 2))
    breathing = depth * under_domes * np.stack([np.zeros_like(x), -0.2 * belly_wall, np.ones_like(x)])
    velocity = random.velocity + torch.from_numpy(breathing * fading(random.grid, 32.0))
    return Chain((Velocity(velocity, random.grid), random_affine(CENTRE_MM, rng, 4.0, 0.03, 10.0)))


def computed_tomography(
    anatomy: Anatomy, tissues: Tissues, grid: Grid, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """HU with texture and correlated Gaussian noise, whole numbers as scanners give them; and the labels."""
    points = grid.to_world(grid.voxels()).T
    (value, texture), labels = anatomy.render(points, tissues, "air", edge_mm=float(grid.spacing.mean()))
    value += texture * grain(rng, points)
    image = gaussian_filter(value.reshape(grid.shape), 0.35)
    image += correlated_gaussian(rng, grid.shape, sd=13.0, width=(0.7, 0.7, 0.4))
    return np.clip(np.rint(image), -1024, 3071), labels.reshape(grid.shape)


def magnetic_resonance(
    anatomy: Anatomy, tissues: Tissues, grid: Grid, truth: Transform, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude with texture, the shading of surface coils and Rician noise; and the labels."""
    world = grid.to_world(grid.voxels())
    points = truth.inverse()(world)
    points -= truth(points) - world  # one Newton step: the flows are interpolated and miss each other by up to 0.1 mm
    (value, texture), labels = anatomy.render(points.T, tissues, "air", edge_mm=float(grid.spacing.mean()))
    value += texture * grain(rng, points.T)
    from_centre = (world - grid.centre).T
    shading = 0.16 * smooth_noise(rng, EXTENT_MM, 110.0)(from_centre)
    shading += 0.35 * (np.hypot(from_centre[0] / 150, from_centre[1] / 105) - 0.5)
    image = gaussian_filter((value * np.exp(shading)).reshape(grid.shape).astype(np.float32), 0.4)
    return rician(rng, image, sd=14.0), labels.reshape(grid.shape)


def grain(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Texture of unit variance on two scales."""
    fine, coarse = smooth_noise(rng, EXTENT_MM, 4.0), smooth_noise(rng, EXTENT_MM, 14.0)
    return ((fine(points) + coarse(points)) / np.sqrt(2)).astype(np.float32)
