"""What lies round the heart: chest wall, lungs, spine, descending aorta, oesophagus, liver and stomach."""

from __future__ import annotations

import numpy as np

from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.heart_anatomy import HeartSolids
from anamorph.data.phantoms.shapes import Distance, Solid, half_space, superellipsoid, tube, union

INFINITE = float("inf")


def paint_thorax(anatomy: Anatomy, solids: HeartSolids, branching: tuple[Distance, Distance]) -> None:
    """Everything but the heart, outermost first; vessels of the lungs run where both functions are near zero."""
    body = superellipsoid((0, -22, 0), (168, 122, INFINITE))
    wall = superellipsoid((0, -24, 0), (150, 106, INFINITE)).remembered()
    cavity = superellipsoid((0, -24, 0), (132, 93, INFINITE)).remembered()
    anatomy.paint(body, "fat", 0)
    anatomy.paint(wall, "muscle")
    anatomy.paint(superellipsoid((0, 82, 0), (40, 13, INFINITE), 3), "fat")
    paint_bones(anatomy, wall)
    anatomy.paint(cavity, "fat")
    upper = superellipsoid((2, -16, 74), (34, 56, 64))
    front, back = superellipsoid((-4, 62, 0), (13, 24, INFINITE)), superellipsoid((-4, -80, 0), (28, 34, INFINITE))
    mediastinum = solids.heart.grown(6.5).blended(upper, 20).blended(front, 12).blended(back, 12)
    lungs = (cavity.grown(-2) - mediastinum).remembered()
    anatomy.paint(lungs, "lung")

    def distance(p: np.ndarray) -> np.ndarray:
        one, other = branching
        return np.float32(10) * np.hypot(one(p), other(p)) - np.float32(1.5)

    anatomy.paint(lungs.grown(-1) & Solid(distance, lungs.lower, lungs.upper), "lung vessel")
    paint_below_diaphragm(anatomy, cavity)
    paint_behind_heart(anatomy)


def paint_bones(anatomy: Anatomy, wall: Solid) -> None:
    """Sternum, ribs with cartilage in front, a vertebral column with its canal."""
    sternum = superellipsoid((0, 79, 0), (18, 6.5, INFINITE), 3)
    ribs = []
    for height in np.arange(-112.0, 120.0, 27.0):
        ribs.append(_rib(wall, float(height)))
    bone = union(ribs) | sternum
    anatomy.paint(bone, "cortical bone")
    anatomy.paint(bone.grown(-1.8), "marrow")


def _rib(wall: Solid, height: float) -> Solid:
    """A hoop in the chest wall that falls towards the front."""

    def distance(p: np.ndarray) -> np.ndarray:
        level = np.float32(height) - np.float32(0.35) * p[1]
        across = (wall.distance(p) + np.float32(9)) / np.float32(0.6)
        return (np.hypot(across, 0.75 * (p[2] - level)) - np.float32(6.5)) * np.float32(0.8)

    lower, upper = wall.lower.copy(), wall.upper.copy()
    lower[2], upper[2] = height - 60, height + 70
    return Solid(distance, lower, upper)


def paint_below_diaphragm(anatomy: Anatomy, cavity: Solid) -> None:
    """The diaphragm's domes; liver under the right one, stomach with gas under the left one."""

    def distance(p: np.ndarray) -> np.ndarray:
        domes = 16 * np.exp(-(((p[0] - 62) / 44) ** 2)) + 9 * np.exp(-(((p[0] + 62) / 38) ** 2))
        fall = 0.0035 * (p[1] - 8) ** 2
        return (p[2] + np.float32(58) - domes + fall) / np.float32(1.25)

    below = (Solid(distance, cavity.lower, cavity.upper) & cavity).remembered()
    anatomy.paint(below, "muscle")
    anatomy.paint(below.grown(-2.5), "fat")
    liver = below.grown(-3.5) & half_space((-1, 0.25, -0.15), (-34, 20, -70))
    anatomy.paint(liver, "liver")
    stomach = below.grown(-4) & superellipsoid((-66, 0, -80), (30, 46, 34))
    anatomy.paint(stomach, "muscle")
    anatomy.paint(stomach.grown(-3) & half_space((0, -1, 0), (0, 18, 0)), "gas")


def paint_behind_heart(anatomy: Anatomy) -> None:
    """Vertebral bodies with discs, descending aorta, oesophagus, trachea and main bronchi."""
    column = superellipsoid((0, -96, 0), (19, 17, INFINITE), 2.4)
    slab = half_space((0, 0, 1), (0, 0, 10.5)) & half_space((0, 0, -1), (0, 0, -10.5))
    vertebra = superellipsoid((0, -96, 0), (18, 16, INFINITE), 2.4) & slab
    anatomy.paint(column, "disc")
    anatomy.paint(vertebra.repeated(26.0, 6.0), "cortical bone")
    anatomy.paint(vertebra.grown(-1.5).repeated(26.0, 6.0), "marrow")
    aorta = tube([(-20, -60, 95, 12), (-23, -66, 40, 12), (-23, -68, -20, 11.5), (-16, -68, -95, 11)])
    anatomy.paint(aorta.grown(1.6), "muscle")
    anatomy.paint(aorta, "left blood")
    gullet = tube([(-2, -62, 95, 7), (-2, -66, 30, 7), (-6, -68, -10, 7), (-24, -48, -70, 7)])
    anatomy.paint(gullet, "muscle")
    anatomy.paint(gullet.grown(-4.8), "gas")
    airways = tube([(2, -40, 110, 9), (2, -42, 78, 9), (22, -44, 62, 7.5), (48, -46, 50, 6)]) | tube(
        [(2, -42, 78, 9), (-24, -46, 60, 7), (-46, -50, 48, 5.5)]
    )
    anatomy.paint(airways.grown(1.4), "cartilage")
    anatomy.paint(airways, "gas")
