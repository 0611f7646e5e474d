"""A built-in brain as a labelmap: folded cortex, white matter, ventricles, deep nuclei, brain stem and cerebellum.

Sulci are the sheets on which a smooth random function of the nearest place of the brain's surface is zero, so they run
inwards from it; the cortex lines the surface and both banks of every sulcus.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from anamorph.data.image import Labelmap
from anamorph.data.phantoms.anatomy import bricks
from anamorph.data.phantoms.shapes import Number, Solid, superellipsoid, tube, union
from anamorph.data.phantoms.texture import smooth_noise
from anamorph.spatial.grid import Grid

LABEL_NAMES = {
    1: "cerebrospinal fluid",
    2: "cortex",
    3: "white matter",
    4: "ventricles",
    5: "thalamus",
    6: "caudate",
    7: "putamen",
    8: "pallidum",
    9: "hippocampus",
    10: "brain stem",
    11: "cerebellar cortex",
    12: "cerebellar white matter",
}
LABEL_OF = {name: label for label, name in LABEL_NAMES.items()}
SUBCORTICAL = tuple(range(5, 11))
"""Of those, what FSL FIRST labels."""
SKULL, SCALP, MUSCLE = 201, 202, 203
TISSUE_OF = {
    1: "csf",
    2: "gm",
    3: "wm",
    4: "csf",
    5: "thalamus",
    6: "deep",
    7: "deep",
    8: "pallidum",
    9: "gm",
    10: "stem",
    11: "gm",
    12: "wm",
    SKULL: "skull",
    SCALP: "scalp",
    MUSCLE: "muscle",
}
SPACING_MM = 1.5
LOWEST_MM, HIGHEST_MM = np.array([-75.0, -99.0, -84.0]), np.array([75.0, 87.0, 81.0])
HEAD_MM = np.array([18.0, 15.0, 18.0])
"""A box that holds the brain, and how far the head reaches beyond it."""
EXTENT_MM = (186.0, 216.0, 204.0)
BRAIN_SEED = 0
"""Of the folding: the built-in brain is the same for every seed of a cohort."""
CORTEX_MM, SULCUS_MM, FOLDING_MM = 2.8, 0.6, 3.5
"""Thickness of the cortex, half the width of a sulcus, standard deviation of the Gaussian that smooths the folding."""

LANDMARKS = {
    "genu of the corpus callosum": (0, 38, 6),
    "splenium of the corpus callosum": (0, -48, 12),
    "left frontal horn": (-11, 30, 8),
    "right frontal horn": (11, 30, 8),
    "left thalamus": (-13, -16, 6),
    "right thalamus": (13, -16, 6),
    "left putamen": (-27, 6, 1),
    "right putamen": (27, 6, 1),
    "fourth ventricle": (0, -42, -34),
    "middle of the pons": (0, -26, -34),
}


@lru_cache(maxsize=2)
def built_in_brain(*, skull: bool) -> Labelmap:
    """The labelmap, 1.5 mm, in RAS mm about the middle of the brain; with skull and scalp on request."""
    margin = HEAD_MM if skull else 0 * HEAD_MM
    shape = tuple(int(n) for n in np.rint((HIGHEST_MM - LOWEST_MM + 2 * margin) / SPACING_MM))
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = LOWEST_MM - margin + SPACING_MM / 2
    grid = Grid(shape, affine)
    points = grid.to_world(grid.voxels()).T.astype(np.float32)
    rng = np.random.default_rng(BRAIN_SEED)
    labels = np.zeros(points.shape[1], np.int32)

    hull, hemispheres = cerebrum()
    cerebellum, stem = hindbrain()
    solids = (hull.blended(cerebellum, 10).blended(stem, 12), hemispheres, cerebellum, stem)
    distances = np.empty((4, points.shape[1]), np.float32)
    for where in bricks(points, 30.0):
        near = points[:, where]
        distances[:, where] = [solid.distance(near) for solid in solids]
    head, *parts = distances
    if skull:
        vault = superellipsoid((0, -4, 6), (81, 98, 92), 2.2).distance(points)
        labels[vault < 0] = SCALP
        labels[vault < -5] = MUSCLE
        labels[(vault < -5) & (head < 7)] = SKULL
    labels[head < 2.5] = LABEL_OF["cerebrospinal fluid"]
    paint_cerebrum(labels, points, shape, parts[0], rng)
    paint_hindbrain(labels, points, parts[1], parts[2], rng)
    paint_deep(labels, points)
    return Labelmap(torch.from_numpy(labels.reshape(shape)), grid, np.dtype(np.uint8), LABEL_NAMES)


def cerebrum() -> tuple[Solid, Solid]:
    """The outline of the cerebrum; the same parted by the fissure between the hemispheres."""
    vault = superellipsoid((0, -6, 16), (67, 86, 58), 2.25)
    below = superellipsoid((0, -36, -62), (58, 62, 46), 2.2).blended(
        superellipsoid((0, 50, -46), (60, 50, 32), 2.4), 16
    )
    hull = vault.rounded_cut(below, 16)
    for side in (-1, 1):
        lobe = tube(
            [(side * 34, 26, -20, 13), (side * 44, 14, -22, 19), (side * 47, -16, -16, 20), (side * 42, -44, -6, 18)]
        )
        hull = hull.blended(lobe, 10)
    hull = hull.remembered()
    fissure = Solid(lambda p: np.abs(p[0]) - np.float32(1.0), np.full(3, -np.inf), np.full(3, np.inf))
    hemispheres = hull - fissure
    for side in (-1, 1):  # the lateral fissure, which parts the temporal lobe from those above
        cleft = superellipsoid((0, 0, 0), (30, 36, 1.3), 2.4)
        angle = np.radians(-16)
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        hemispheres = hemispheres - cleft.placed(turn, (side * 62, 0, -3))
    return hull, hemispheres


def hindbrain() -> tuple[Solid, Solid]:
    """Cerebellum and brain stem."""
    halves = [superellipsoid((side * 24, -54, -40), (29, 27, 21)) for side in (-1, 1)]
    cerebellum = halves[0].blended(halves[1], 14)
    stem = tube([(0, -16, -6, 11), (0, -20, -18, 13), (0, -24, -34, 15), (0, -30, -52, 10), (0, -36, -86, 7)])
    return cerebellum.remembered(), stem.remembered()


def paint_cerebrum(
    labels: np.ndarray, points: np.ndarray, shape: tuple[int, ...], distance: np.ndarray, rng: np.random.Generator
) -> None:
    """White matter under a folded cortex."""
    outward = np.array(np.gradient(gaussian_filter(distance.reshape(shape), 1.0), SPACING_MM)).reshape(3, -1)
    outward /= np.maximum(np.linalg.norm(outward, axis=0), 0.3)
    surface = points - np.clip(distance, -24, 0) * outward
    winding = np.stack([smooth_noise(rng, EXTENT_MM, 11.0)(points) for _ in range(3)])
    surface += np.float32(2.2) * winding
    at_surface = (surface - points[:, :1]) / np.float32(SPACING_MM)
    folding = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), FOLDING_MM / SPACING_MM)
    slope = np.linalg.norm(np.gradient(folding, SPACING_MM), axis=0)
    height, steepness = (map_coordinates(field, at_surface, order=1, mode="nearest") for field in (folding, slope))
    from_sheet = np.abs(height) / np.maximum(steepness, 0.3 * slope.mean())
    deepest = 14 + 5 * smooth_noise(rng, EXTENT_MM, 24.0)(surface)
    sulci = np.maximum(from_sheet - SULCUS_MM, -distance - deepest)
    inside = distance < 0
    cortex = np.minimum(sulci, -distance) < CORTEX_MM
    labels[inside] = LABEL_OF["white matter"]
    labels[inside & cortex] = LABEL_OF["cortex"]
    labels[inside & (sulci < 0)] = LABEL_OF["cerebrospinal fluid"]


def paint_hindbrain(
    labels: np.ndarray, points: np.ndarray, distance: np.ndarray, from_stem: np.ndarray, rng: np.random.Generator
) -> None:
    """Folia: thin leaves of cortex about the branches of a white core."""
    waves = smooth_noise(rng, EXTENT_MM, 20.0)(points)
    leaves = np.cos(2 * np.pi * (points[2] - 0.45 * points[1] + 5 * waves) / 9.0)
    core = superellipsoid((0, -48, -38), (30, 13, 9)).distance(points)
    inside = distance < 0
    labels[inside] = LABEL_OF["cerebellar cortex"]
    labels[inside & ((core < 0) | ((leaves > 0.55) & (distance < -4.5)))] = LABEL_OF["cerebellar white matter"]
    labels[inside & (leaves < -0.93) & (distance > -9)] = LABEL_OF["cerebrospinal fluid"]
    labels[from_stem < 0] = LABEL_OF["brain stem"]


def paint_deep(labels: np.ndarray, points: np.ndarray) -> None:
    """Corpus callosum, nuclei, hippocampi and the ventricles."""

    def fill(solid: Solid, name: str) -> None:
        near = np.flatnonzero(((points > solid.lower[:, None]) & (points < solid.upper[:, None])).all(axis=0))
        labels[near[solid.distance(points[:, near]) < 0]] = LABEL_OF[name]

    callosum = tube(
        [(0, 30, -2, 4), (0, 40, 8, 5), (0, 30, 22, 4.5), (0, 0, 28, 4), (0, -30, 24, 4.5), (0, -48, 14, 6)]
    )
    fill(superellipsoid((0, -6, 8), (40, 40, 24)), "white matter")
    fill(union([_widened(callosum, 14)]), "white matter")
    for side in (-1, 1):
        fill(superellipsoid((side * 13, -16, 6), (10.5, 16, 10)), "thalamus")
        fill(
            tube(
                [(side * 13, 24, 4, 6.5), (side * 15, 10, 14, 5.5), (side * 19, -14, 21, 3.5), (side * 26, -30, 14, 2)]
            ),
            "caudate",
        )
        fill(superellipsoid((side * 28, 5, 1), (6.5, 17, 11)), "putamen")
        fill(superellipsoid((side * 20, 0, -1), (4.5, 10, 6.5)), "pallidum")
        fill(tube([(side * 23, -4, -20, 7), (side * 28, -18, -18, 6), (side * 27, -34, -8, 4.5)]), "hippocampus")
    ventricles = [
        tube([(0, 6, 0, 1.6), (0, -10, -2, 2.0), (0, -24, 0, 1.6)]),
        tube([(0, -26, -8, 1.3), (0, -42, -32, 4), (0, -40, -48, 1.5)]),
    ]
    for side in (-1, 1):
        ventricles += [
            tube(
                [
                    (side * 9, 34, 2, 3.5),
                    (side * 9, 20, 14, 5.5),
                    (side * 11, -8, 20, 5),
                    (side * 20, -34, 16, 6.5),
                    (side * 24, -54, 8, 4),
                    (side * 20, -70, 6, 1.5),
                ]
            ),
            tube(
                [
                    (side * 24, -38, 12, 5),
                    (side * 34, -36, -4, 3.2),
                    (side * 33, -16, -14, 2.2),
                    (side * 30, -2, -16, 1.6),
                ]
            ),
        ]
    fill(union(ventricles), "ventricles")


def _widened(solid: Solid, mm: Number) -> Solid:
    """A solid drawn out to both sides."""

    def distance(p: np.ndarray) -> np.ndarray:
        x = np.sign(p[0]) * np.maximum(np.abs(p[0]) - np.float32(mm), 0)
        return solid.distance(np.stack([x, p[1], p[2]]))

    reach = np.array([mm, 0, 0])
    return Solid(distance, solid.lower - reach, solid.upper + reach)
