"""The mean heart: four chambers, the wall of the left ventricle, the great vessels.

World axes are RAS+ mm about a point in the middle of the heart. The ventricles are built in a frame of their own: first
axis from the left to the right ventricle, second towards the diaphragm, third from the base to the apex.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.shapes import Distance, Solid, Vector, half_space, superellipsoid, tube, union

LABEL_NAMES = {
    1: "left ventricular myocardium",
    2: "left ventricle",
    3: "right ventricle",
    4: "right atrium",
    5: "left atrium",
}
MYOCARDIUM, LEFT_VENTRICLE, RIGHT_VENTRICLE, RIGHT_ATRIUM, LEFT_ATRIUM = LABEL_NAMES

BASE = np.array([-12.0, -16.0, 2.0])
"""Middle of the base of the left ventricle."""


def heart_frame() -> np.ndarray:
    """Its axes as columns, a rotation."""
    to_apex = np.array([-0.62, 0.62, -0.48]) / np.linalg.norm([-0.62, 0.62, -0.48])
    to_right = np.array([0.72, 0.68, -0.05])
    to_right -= (to_right @ to_apex) * to_apex
    to_right /= np.linalg.norm(to_right)
    return np.stack([to_right, np.cross(to_apex, to_right), to_apex], axis=1)


FRAME = heart_frame()


def world(points: Sequence[Vector] | np.ndarray) -> np.ndarray:
    """Points of the heart's frame in the world; further columns (radii) are kept."""
    given = np.atleast_2d(np.array(points, float))
    return np.concatenate([given[:, :3] @ FRAME.T + BASE, given[:, 3:]], axis=1)


def placed(solid: Solid) -> Solid:
    """A solid of the heart's frame in the world."""
    return solid.placed(FRAME, BASE)


CHAMBER_CENTRES = {
    "left ventricle": world([(0, 0, 26)])[0],
    "right ventricle": world([(36, 2, 20)])[0],
    "right atrium": world([(46, 12, -26)])[0],
    "left atrium": world([(-8, 2, -28)])[0],
}


class HeartSolids:
    """The surfaces that several tissues share."""

    def __init__(self, trabeculae: Distance) -> None:
        to_apex, to_base = half_space((0, 0, -1), (0, 0, -4)), half_space((0, 0, 1), (0, 0, -6))
        self.left_epicardium = placed(superellipsoid((0, 0, 11), (34.5, 34.5, 71)) & to_apex).remembered()
        cavity = placed(superellipsoid((0, 0, 8), (24.5, 24.5, 65)) & to_apex)
        self.left_cavity = cavity.roughened(trabeculae, 0.7)
        aorta = [*world([(9, -8, 2, 11), (13, -14, -9, 15)]), (4, -6, 36, 14), (8, -4, 58, 14.5), (4, -12, 90, 14)]
        self.aorta = tube(aorta).remembered()

        right_ventricle = placed(superellipsoid((30, 3, 21), (33, 42, 59)) & to_apex).remembered()
        outflow = tube(world([(34, -16, 16, 17), (31, -30, 4, 15), (26, -38, -6, 13)]))
        self.right_epicardium = right_ventricle.blended(outflow, 10).remembered()
        cavity = self.right_epicardium.grown(-3.2) - self.left_epicardium - self.aorta.grown(2.4)
        self.right_cavity = cavity.roughened(trabeculae, 0.9)

        left_atrium = placed(superellipsoid((-8, 3, -26), (29, 26, 22), 2.3) & to_base).remembered()
        appendage = tube(world([(-28, -8, -22, 10), (-38, -15, -12, 8), (-37, -22, 0, 5)]))
        self.left_atrium = (left_atrium.blended(appendage, 8) - self.aorta.grown(2.2)).remembered()
        right_atrium = placed(superellipsoid((47, 12, -28), (26, 31, 26), 2.2) & to_base).remembered()
        appendage = tube(world([(44, -10, -22, 13), (40, -22, -10, 9), (34, -28, -4, 5)]))
        cavity = right_atrium.blended(appendage, 8) - self.left_atrium.grown(2.6) - self.aorta.grown(2.0)
        self.right_atrium = cavity.remembered()

        bodies = (right_ventricle, left_atrium.grown(2), right_atrium.grown(2))
        self.heart = reduce(lambda one, other: one.blended(other, 14), bodies, self.left_epicardium).remembered()
        self.cavae = tube([(40, -8, 22, 10), (34, -12, 48, 10), (30, -14, 95, 9.5)]) | tube(
            [(40, -14, -14, 13), (34, -24, -42, 13.5), (30, -30, -95, 13)]
        )
        self.pulmonary_arteries = union(
            [
                tube([*world([(26, -36, -6, 12.5)]), (-12, 18, 40, 12.5), (-18, 0, 54, 12), (-18, -14, 58, 11)]),
                tube([(-16, -12, 57, 9.5), (10, -24, 55, 9), (38, -28, 50, 8), (66, -34, 40, 6)]),
                tube([(-18, -12, 58, 10), (-36, -32, 60, 9), (-62, -44, 50, 7)]),
            ]
        )
        self.pulmonary_veins = union(
            [
                tube([(-18, -42, 26, 8), (-38, -48, 32, 6.5), (-64, -52, 44, 5)]),
                tube([(-18, -48, 8, 8), (-40, -58, 4, 6.5), (-66, -66, -8, 5)]),
                tube([(14, -42, 22, 8), (36, -40, 28, 6.5), (66, -40, 38, 5)]),
                tube([(14, -50, 8, 8), (36, -58, 2, 6.5), (64, -66, -12, 5)]),
            ]
        )


def paint_heart(anatomy: Anatomy, solids: HeartSolids) -> None:
    """Pericardium and its fat, vessels, walls, then the blood of each chamber under its label."""
    sac = solids.heart.blended(solids.aorta & half_space((0, 0, 1), (0, 0, 40)), 10).grown(4.5)
    anatomy.paint(sac.grown(1.2), "muscle", 0)
    anatomy.paint(sac, "fat")
    for vessels, tissue in (
        (solids.pulmonary_veins, "left blood"),
        (solids.pulmonary_arteries, "right blood"),
        (solids.cavae, "right blood"),
        (solids.aorta, "left blood"),
    ):
        anatomy.paint(vessels.grown(1.6), "muscle", 0)
        anatomy.paint(vessels, tissue)
    for chamber in (solids.right_atrium, solids.left_atrium):
        anatomy.paint(chamber.grown(2.0) - solids.aorta, "myocardium", 0)
    anatomy.paint(solids.right_epicardium - solids.aorta, "myocardium", 0)
    anatomy.paint(solids.left_epicardium, "myocardium", MYOCARDIUM)
    anatomy.paint(solids.cavae & solids.right_atrium.grown(6), "right blood", 0)
    anatomy.paint(solids.pulmonary_veins & solids.left_atrium.grown(6), "left blood", 0)
    anatomy.paint(solids.right_atrium, "right atrial blood", RIGHT_ATRIUM)
    anatomy.paint(solids.left_atrium, "left blood", LEFT_ATRIUM)
    anatomy.paint(solids.right_cavity, "right blood", RIGHT_VENTRICLE)
    anatomy.paint(solids.left_cavity, "left blood", LEFT_VENTRICLE)
    paint_valves_and_muscles(anatomy, solids)
    paint_coronaries(anatomy)


def paint_valves_and_muscles(anatomy: Anatomy, solids: HeartSolids) -> None:
    """The openings of mitral and tricuspid valve with their leaflets; papillary muscles; the moderator band."""
    mitral = superellipsoid((-5, 4, -5), (15, 15, 4))
    tricuspid = superellipsoid((42, 6, -6), (15, 17, 4))
    anatomy.paint(placed(mitral) - solids.aorta.grown(2), "left blood", LEFT_ATRIUM)
    anatomy.paint(placed(tricuspid) - solids.left_epicardium, "right blood", RIGHT_ATRIUM)
    leaflets = [
        [(-19, 4, -4, 0.9), (-12, 4, 4, 0.9), (-7, 4, 10, 0.8)],
        [(8, 0, -3, 0.9), (2, 2, 5, 0.9), (-2, 3, 12, 0.8)],
        [(27, 6, -5, 0.9), (33, 6, 3, 0.8), (37, 6, 8, 0.7)],
        [(56, 8, -5, 0.9), (50, 8, 3, 0.8), (46, 8, 8, 0.7)],
    ]
    anatomy.paint(union([tube(world(nodes)) for nodes in leaflets]), "valve")
    papillary = [
        [(-13, -15, 40, 5), (-10, -12, 30, 4.5), (-7, -9, 20, 3)],
        [(-4, 19, 42, 5), (-3, 15, 31, 4.5), (-3, 11, 21, 3)],
        [(31, 10, 40, 3), (40, 12, 34, 3), (48, 12, 30, 3)],
    ]
    anatomy.paint(union([tube(world(nodes)) for nodes in papillary]), "myocardium")


def paint_coronaries(anatomy: Anatomy) -> None:
    """The right coronary artery and both branches of the left one in the fat of their grooves."""
    courses = [
        [(24, -20, -6, 2), (40, -28, -3, 2), (62, -14, 0, 2), (69, 10, 0, 1.8), (52, 38, 2, 1.7), (24, 36, 6, 1.5)],
        [(4, -26, -8, 2.2), (10, -33, 4, 2), (15, -33, 26, 1.8), (16, -28, 48, 1.6), (10, -16, 72, 1.3)],
        [(4, -26, -8, 2.2), (-20, -28, -6, 2), (-35, -8, -4, 1.8), (-33, 16, -3, 1.6)],
    ]
    anatomy.paint(union([tube(world(nodes)) for nodes in courses]), "left blood")


def mark_landmarks(anatomy: Anatomy) -> None:
    """Points that an expert could set in both modalities."""
    for name, point in {
        "apex of the left ventricle": (0, 0, 71),
        "centre of the mitral valve": (-5, 4, -5),
        "centre of the tricuspid valve": (42, 6, -6),
        "centre of the aortic valve": (12, -12, -4),
        "pulmonary valve": (26, -36, -6),
        "upper insertion of the right ventricle": (14, -29, 20),
        "lower insertion of the right ventricle": (14, 29, 20),
        "tip of the left atrial appendage": (-36, -22, 0),
    }.items():
        anatomy.mark(name, world([point])[0])
    anatomy.mark("superior vena cava at the right atrium", (40, -8, 22))
    anatomy.mark("inferior vena cava at the right atrium", (38, -18, -26))
