"""The gut from oesophagus to colon, with the pancreas and the veins about it."""

from __future__ import annotations

import numpy as np

from anamorph.data.phantoms.abdominal_patient import LABEL_OF, Patient
from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.shapes import Solid, half_space, tube


def paint_stomach(anatomy: Anatomy, patient: Patient) -> None:
    """Oesophagus, and a stomach half full: wall with folds, fluid behind, gas in front."""
    anatomy.paint(tube([(-16, -2, 140, 8), (-16, -2, 95, 8), (-34, 2, 76, 9)]), "gut wall", 0)
    course = [(-52, -22, 76, 24), (-62, -4, 72, 30), (-66, 22, 50, 29), (-54, 46, 22, 24), (-28, 56, 4, 19)]
    course += [(0, 52, 4, 15), (22, 46, 12, 9)]
    stomach = tube(patient.course(course)) & patient.abdomen
    lumen = stomach.grown(-4).roughened(patient.noise(9), 0.9)
    patient.paint(anatomy, stomach, "gut wall", LABEL_OF["stomach"])
    anatomy.paint(lumen, "gastric fluid")
    anatomy.paint(lumen & half_space((0, -1, 0), (0, patient.about(40, 0.12), 0)), "gas")
    anatomy.mark("pylorus", (22, 46, 12))


def paint_duodenum_and_pancreas(anatomy: Anatomy, patient: Patient) -> None:
    """The duodenal loop round the head of the pancreas, the lobulated gland, splenic and portal vein behind it."""
    loop = [
        (24, 44, 14, 10),
        (44, 34, 10, 11),
        (50, 14, -16, 11),
        (44, 6, -48, 11),
        (4, 13, -56, 9),
        (-32, 14, -36, 10),
    ]
    duodenum = tube(patient.course(loop, 2.0), folds=(16.0, 0.1))
    patient.paint(anatomy, duodenum, "gut wall", 0, fat_mm=1.5)
    anatomy.paint(duodenum.grown(-3.2), "gut contents")
    gland = [(32, 16, -26, 9), (28, 20, -4, 14), (8, 28, 8, 9), (-18, 20, 18, 10), (-46, 0, 27, 10), (-74, -22, 34, 8)]
    pancreas = tube(patient.course(gland, 2.0)).roughened(patient.noise(6), 1.0)
    patient.paint(anatomy, pancreas, "pancreas", LABEL_OF["pancreas"])
    splenic = tube([(12, 17, 12, 5.5), (-16, 8, 20, 4.6), (-46, -10, 30, 4.2), (-84, -28, 44, 3.6)])
    portal = tube([(11, 20, 2, 6.5), (16, 17, 20, 6.8), (34, 12, 34, 6.5)])
    anatomy.paint(splenic | portal, "vein", 0)
    anatomy.mark("confluence of the portal vein", (11, 19, 8))


def paint_small_bowel(anatomy: Anatomy, patient: Patient) -> None:
    """Loops of small bowel, filled here and collapsed there, and the vessels of their mesentery."""
    rng, filling = patient.rng, patient.noise(26)
    for _ in range(26):
        root = np.array([rng.uniform(-15, 20), rng.uniform(14, 34), rng.uniform(-70, -15)])
        end = np.array([rng.uniform(-78, 78), rng.uniform(20, 62), rng.uniform(-112, -30)])
        middle = (root + end) / 2 + rng.uniform(-10, 10, 3)
        anatomy.paint(tube([(*root, 1.8), (*middle, 1.5), (*end, 1.1)]), "vein", 0)
    for nodes in bowel_courses(rng):
        radius = patient.about(11.5, 0.16)
        loop = tube([(*node, radius * rng.uniform(0.8, 1.12)) for node in nodes], folds=(15.0, 0.1)) & patient.cavity
        collapsed = Solid(lambda p: np.float32(1.2) * (np.float32(0.9) - filling(p)), loop.lower, loop.upper)
        patient.paint(anatomy, loop, "gut wall", 0, fat_mm=1.6)
        anatomy.paint(loop.grown(-2.8) - collapsed, "gut contents")


def bowel_courses(rng: np.random.Generator) -> list[np.ndarray]:
    """Winding courses, M 3 each: tours of a jittered lattice from neighbour to neighbour."""
    axes = np.arange(-78, 79, 26.0), np.arange(-2, 66, 22.0), np.arange(-116, -25, 23.0)
    x, y, z = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    places = np.stack([x, y + 0.12 * x, z + 0.25 * y - 0.2 * np.abs(x)], axis=1)
    left = list(places + rng.uniform(-8, 8, places.shape))
    courses = []
    while left:
        course = [left.pop(rng.integers(len(left)))]
        while left and len(course) < 12:
            away = np.linalg.norm(np.array(left) - course[-1], axis=1)
            choice = rng.choice(np.argsort(away)[:2])
            if away[choice] > 42:
                break
            course.append(left.pop(choice))
        courses.append(np.array(course))
    return [course for course in courses if len(course) > 2]


def paint_colon(anatomy: Anatomy, patient: Patient) -> None:
    """Ascending, transverse and descending colon with haustra, faeces and gas in front."""
    habitus = patient.habitus
    front = habitus.half_depth - habitus.front_fat - habitus.muscle
    course = [(88, -12, -135, 24), (88, -8, -90, 22), (82, 6, -62, 18), (66, 32, -46, 17), (42, front - 24, -50, 17)]
    course += [(0, front - 20, -58, 16), (-48, front - 24, -42, 16), (-84, 34, -6, 16), (-104, 4, 24, 15)]
    course += [(-108, -20, 0, 14), (-104, -22, -60, 12), (-100, -24, -135, 12)]
    colon = tube(patient.course(course, 4.0), folds=(26.0, 0.2)) & patient.cavity
    stool, pockets = patient.noise(9), patient.noise(14)
    lumen = colon.grown(-2.2)
    crumbs = Solid(lambda p: np.float32(2) * (np.float32(1.35) - stool(p)), lumen.lower, lumen.upper)
    gas = Solid(lambda p: np.float32(3) * (np.float32(1.1) - pockets(p)), lumen.lower, lumen.upper)
    patient.paint(anatomy, colon, "colon wall", LABEL_OF["colon"], fat_mm=1.5)
    anatomy.paint(lumen, "faeces")
    anatomy.paint(lumen & crumbs, "gas")
    anatomy.paint(lumen.grown(-1) & gas & half_space((0, -1, 0), (0, 38, 0)), "gas")
