"""The frame of the abdomen: outline, fat, muscle, spine, ribs, the bases of the lungs and the heart."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from anamorph.data.phantoms.abdominal_patient import INFINITE, LABEL_OF, Habitus, Patient
from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.shapes import Solid, half_space, superellipsoid, tube

VERTEBRA_PERIOD_MM = 36.0
FIRST_LUMBAR_MM = 5.0

RIBS = ((50.0, 0.42, 66.0), (84.0, 0.6, 92.0), (118.0, 0.88, 112.0), (152.0, 0.93, 122.0), (186.0, 0.96, 128.0))
"""Ribs 12 to 8: height of the head in mm, how far round the trunk they reach (1 = the midline in front), fall in mm."""


def paint_couch(anatomy: Anatomy, patient: Patient) -> None:
    """The shell of the table under the patient; MR does not show it."""
    top = -patient.habitus.half_depth - 7.0

    def distance(p: np.ndarray) -> np.ndarray:
        return np.abs(p[1] - (top + 0.0009 * p[0] ** 2)) - np.float32(2)

    anatomy.paint(Solid(distance, np.array([-155, top - 5, -np.inf]), np.array([155, top + 30, np.inf])), "couch", 0)


def paint_wall(anatomy: Anatomy, patient: Patient) -> None:
    """Skin, the fat under it with its fascia, the muscles of the wall, the fat of the cavity."""
    habitus = patient.habitus
    body, wall, cavity = habitus.body(), habitus.wall(), habitus.cavity()
    anatomy.paint(body, "skin", 0)
    anatomy.paint(body.grown(-2.2), "fat")
    anatomy.paint(body.grown(-0.55 * habitus.side_fat).shell(0.8) & half_space((0, 1, 0), (0, 20, 0)), "skin")
    anatomy.paint(wall, "muscle")
    anatomy.paint(cavity, "fat")
    flank = half_space((0, 0, 1), (0, 0, 15)) & half_space((0, 1, 0), (0, 45, 0)) & half_space((0, -1, 0), (0, -50, 0))
    for depth in (0.34, 0.66):  # fat between the oblique muscles and the transverse one
        anatomy.paint(wall.grown(-depth * habitus.muscle).shell(1.0) & flank, "fat")
    front = habitus.half_depth - habitus.front_fat - 6
    anatomy.paint((wall - cavity.grown(-3)) & superellipsoid((0, front + 20, 0), (72, 45, INFINITE), 4), "fat")
    for side in (-1, 1):
        rectus = superellipsoid((side * 34, front, 0), (32.5, 30, INFINITE), 2.5)
        anatomy.paint(wall.grown(-1) & rectus - cavity.grown(1), "muscle")
    anatomy.mark("navel", (0, habitus.half_depth - 10, -82))


def paint_back(anatomy: Anatomy, patient: Patient) -> None:
    """Erector spinae, quadratus lumborum, psoas and the crura of the diaphragm on both sides."""
    habitus, bend = patient.habitus, patient.habitus.spine_shift
    for side in (-1, 1):
        erector = superellipsoid((side * 31, -36, 0), (28, 19, INFINITE), 2.4).bent(bend) & habitus.wall().grown(-1)
        quadratus = superellipsoid((side * 58, -14, -85), (17, 9, 112), 2.4).bent(bend)
        psoas = tube(
            [(side * 25, -8, 55, 4), (side * 32, -4, 0, 10), (side * 40, 2, -50, 17), (side * 46, 8, -130, 24)]
        )
        for muscle in (erector, quadratus, psoas.bent(bend)):
            anatomy.paint(muscle.grown(1.2), "fat")
            anatomy.paint(muscle, "muscle")
        anatomy.paint(superellipsoid((side * 14, -31, 0), (2, 16, INFINITE)).bent(bend), "fat")
        nodes = ((15, -3, -25, 3), (16, 3, 20, 5), (20, 14, 70, 4))
        anatomy.paint(tube([habitus.before_spine(side * x, gap, z, r) for x, gap, z, r in nodes]), "muscle", 0)


def paint_spine(anatomy: Anatomy, patient: Patient) -> None:
    """Vertebrae with cortex, marrow and canal, discs, the dural sac and the cord."""
    habitus, bend, label = patient.habitus, patient.habitus.spine_shift, LABEL_OF["vertebrae"]
    slab = half_space((0, 0, 1), (0, 0, 13)) & half_space((0, 0, -1), (0, 0, -13))
    body = superellipsoid((0, 0, 0), (23.5, 17.5, INFINITE), 2.3)
    canal = superellipsoid((0, -25, 0), (11.5, 8.5, INFINITE))
    lamina = canal.grown(5) & half_space((0, 1, 0), (0, -22, 0)) & superellipsoid((0, -25, 1), (40, 40, 11), 6)
    arch = lamina.blended(superellipsoid((0, -47, -4), (3.6, 15, 10), 3), 6)
    for side in (-1, 1):
        arch = arch.blended(tube([(side * 14, -10, 5, 5.5), (side * 15, -25, 4, 5.5)]), 4)
        arch = arch.blended(tube([(side * 15, -26, 3, 5), (side * 44, -30, 5, 3)]), 4)
        arch = arch | superellipsoid((side * 17, -32, -11), (6, 6, 9))
    anatomy.paint(body.grown(-0.5).bent(bend), "disc", 0)
    anatomy.paint(superellipsoid((0, -1, 0), (13, 9, INFINITE)).bent(bend), "nucleus")
    marrow = (body.grown(-1.4) & slab.grown(-1.3)) | arch.grown(-2.2)
    for part, tissue in ((((body & slab) | arch) - canal, "cortical bone"), (marrow, "marrow")):
        anatomy.paint(part.repeated(VERTEBRA_PERIOD_MM, FIRST_LUMBAR_MM).bent(bend), tissue, label)
    anatomy.paint(canal.grown(-0.5).bent(bend), "fat", 0)
    anatomy.paint(superellipsoid((0, -24.5, 0), (9, 6.8, INFINITE)).bent(bend), "spinal fluid")
    cord = tube([(0, -24, 200, 5), (0, -25, 20, 4.8), (0, -26, -20, 2.5), (0, -27, -200, 2.5)])
    anatomy.paint(cord.bent(bend), "cord")
    for name, step in (("T12", 1), ("L1", 0), ("L2", -1), ("L3", -2)):
        anatomy.mark(f"centre of {name}", habitus.spine_at(FIRST_LUMBAR_MM + step * VERTEBRA_PERIOD_MM))


def paint_thorax(anatomy: Anatomy, patient: Patient) -> None:
    """The diaphragm, the lung bases over it with their vessels, and the underside of the heart."""
    habitus = patient.habitus
    cavity, branching = habitus.cavity(), patient.noise(7)
    chest = cavity.grown(1) - habitus.below_diaphragm()
    mediastinum = superellipsoid((-2, 18, 0), (30, 66, INFINITE), 2.5)
    column = superellipsoid((0, -8, 0), (27, 28, INFINITE)).bent(habitus.spine_shift)
    turn = Rotation.from_euler("z", 24, degrees=True).as_matrix()
    heart = superellipsoid((0, 0, 0), (66, 44, 42), 2.2).placed(turn, (-16, 36, 118))
    ventricles = superellipsoid((-30, 0, 2), (27, 26, 28)) | superellipsoid((22, 4, 2), (30, 34, 34))
    anatomy.paint(chest.grown(3) & cavity, "muscle", 0)
    anatomy.paint(chest & cavity, "fat")
    lungs = chest - mediastinum - column - heart.grown(6)
    anatomy.paint(lungs, "lung", LABEL_OF["lungs"])
    vessels = Solid(lambda p: np.float32(3) * (np.float32(2) - branching(p)), lungs.lower, lungs.upper)
    anatomy.paint(lungs.grown(-2) & vessels, "lung vessel")
    anatomy.paint(heart & chest, "heart", 0)
    anatomy.paint(ventricles.placed(turn, (-16, 36, 118)) & heart.grown(-3) & chest, "blood")


def paint_ribs(anatomy: Anatomy, patient: Patient) -> None:
    """Ribs 8 to 12 in the wall, the upper ones continued by cartilage; they fall to the side and rise in front."""
    behind = half_space((0, 1, 0), (0, -30, 0)) & superellipsoid((0, 0, 0), (30, INFINITE, INFINITE))
    for head_z, reach, fall in RIBS:
        whole = rib(patient.habitus, head_z, reach, fall) - behind
        bone = rib(patient.habitus, head_z, min(reach, 0.7), fall) - behind
        anatomy.paint(whole, "cartilage", 0)
        anatomy.paint(bone, "cortical bone", LABEL_OF["ribs"])
        anatomy.paint(bone.grown(-1.8), "marrow")


def rib(habitus: Habitus, head_z: float, reach: float, fall: float) -> Solid:
    """A pair of ribs: a band that follows the wall round the trunk."""
    wall, depth = habitus.wall(), 0.5 * habitus.muscle

    def distance(p: np.ndarray) -> np.ndarray:
        round_trunk = np.arctan2(np.abs(p[0]), 10 - p[1]) / np.float32(np.pi)  # 0 behind, 1 in front
        height = head_z - fall * np.clip(round_trunk / 0.72, 0, 1) + 190 * np.maximum(round_trunk - 0.72, 0)
        across = (wall.distance(p) + depth) / np.float32(0.62)
        band = (np.hypot(across, 0.8 * (p[2] - height)) - np.float32(6.5)) * np.float32(0.8)
        return np.maximum(band, 300 * (round_trunk - np.float32(reach)))

    lowest, highest = head_z - fall - 12, head_z + 62
    return Solid(distance, np.array([*wall.lower[:2], lowest]), np.array([*wall.upper[:2], highest]))
