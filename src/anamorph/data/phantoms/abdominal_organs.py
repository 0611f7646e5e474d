"""The solid organs of the abdomen and the great vessels."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from anamorph.data.phantoms.abdominal_patient import LABEL_OF, Patient
from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.shapes import Solid, superellipsoid, tube, union

TUMOUR_PLACES = ((92, 8, 40), (72, -32, 50), (62, 42, 46), (96, 0, 12), (18, 46, 60))
"""Segments of the liver, as points well inside it."""
FISSURE_LANDMARKS = ("bottom of the hepatic fissure", "upper end of the hepatic fissure")


def paint_great_vessels(anatomy: Anatomy, patient: Patient) -> None:
    """Aorta with its branches, calcified here and there, and the inferior vena cava."""
    before_spine = patient.habitus.before_spine
    split = before_spine(-4, 11, -86, 8.5)
    aorta = [before_spine(-14, 10, 140, 11.5), before_spine(-9, 14, 60, 11), before_spine(-8, 13, 0, 9.5), split]
    arteries = tube(patient.course(aorta, 1.5))
    for side in (-1, 1):
        arteries = arteries | tube([split, before_spine(side * 22 - 4, 8, -135, 6)])
    cava = [before_spine(17, 8, -130, 10), before_spine(19, 10, -70, 11), before_spine(21, 12, 0, 11.5)]
    cava += [before_spine(25, 22, 45, 12), (26, 2, 78, 13), (18, 12, 120, 13)]
    veins = tube(patient.course(cava, 1.5))
    anatomy.paint(arteries.grown(1.5) | veins.grown(1.5), "fat", 0)
    anatomy.paint(arteries, "artery", LABEL_OF["aorta"])
    anatomy.paint(veins, "vein", LABEL_OF["inferior vena cava"])
    for z, turn in ((-30, 0.5), (-62, 2.2)):
        plaque = np.array(before_spine(-8, 13, z, 0)[:3]) + 9 * np.array([np.cos(turn), np.sin(turn), 0])
        anatomy.paint(superellipsoid(plaque, (3, 2.2, 4)), "calcification")
    anatomy.mark("aortic bifurcation", split[:3])
    paint_visceral_vessels(anatomy, patient)


def paint_visceral_vessels(anatomy: Anatomy, patient: Patient) -> None:
    """Coeliac trunk with the hepatic and splenic artery; superior mesenteric artery and vein."""
    coeliac = np.array(patient.habitus.before_spine(-8, 22, 22, 4))
    mesenteric = np.array(patient.habitus.before_spine(-8, 22, 4, 4.2))
    fork = np.add(coeliac, (2, 15, 3, -1))
    arteries = [
        tube([coeliac, fork]),
        tube([fork, (14, 18, 30, 2.6), (28, 22, 32, 2.4)]),
        tube([fork, (-34, -4, 32, 2.8), (-72, -22, 40, 2.4)]),
        tube([mesenteric, np.add(mesenteric, (3, 14, -12, -0.4)), (-4, 24, -45, 3), (6, 30, -105, 2.2)]),
    ]
    anatomy.paint(union(arteries).grown(2), "fat", 0)
    anatomy.paint(union(arteries), "artery")
    anatomy.paint(tube([(10, 22, 6, 6), (9, 22, -20, 5.4), (10, 26, -50, 4.5), (16, 32, -105, 3)]), "vein")
    anatomy.mark("origin of the coeliac trunk", coeliac[:3])
    anatomy.mark("origin of the superior mesenteric artery", mesenteric[:3])


def paint_kidneys(anatomy: Anatomy, patient: Patient) -> None:
    """Cortex, pyramids, sinus fat and pelvis of both kidneys, their vessels, the adrenals."""
    for side, name, height in ((1, "right kidney", -14.0), (-1, "left kidney", 6.0)):
        size = patient.about(1.0)
        centre = patient.near((side * 59, patient.habitus.spine_at(0)[1] + 5, height))
        turn = Rotation.from_euler("zyx", [side * 28, side * 11, -9], degrees=True).as_matrix()
        body = superellipsoid((0, 0, 0), (25 * size, 22 * size, 53 * size), 2.1)
        sinus = superellipsoid((-side * 15 * size, 2, 0), (15 * size, 9 * size, 22 * size))
        notch = superellipsoid((-side * 30 * size, 3, 0), (14 * size, 8 * size, 15 * size))
        pyramids = [
            superellipsoid((side * 11.5 * size * np.cos(a), y, 34 * size * np.sin(a)), (7 * size, 6 * size, 7.5 * size))
            for a in np.radians((-82, -50, -18, 18, 50, 82))
            for y in (-8.5 * size, 8.5 * size)
        ]
        pelvis = tube([(side * 2, 1, 14, 3), (-side * 8, 2, 2, 5), (-side * 24, 2, -8, 4), (-side * 30, 4, -26, 2.4)])
        kidney = body.rounded_cut(notch, 8)
        patient.paint(anatomy, kidney.placed(turn, centre), "kidney cortex", LABEL_OF[name], fat_mm=3.0)
        anatomy.paint((union(pyramids) & kidney.grown(-4.5)).placed(turn, centre), "kidney medulla")
        anatomy.paint((sinus & body.grown(1)).placed(turn, centre), "fat")
        anatomy.paint(pelvis.placed(turn, centre), "urine")
        paint_renal_vessels(anatomy, patient, side, centre + turn @ np.array([-side * 20 * size, 3, 2]))
        paint_adrenal(anatomy, side, centre + turn @ np.array([-side * 4, 3, 56 * size]))
        for end, pole in ((1, "upper"), (-1, "lower")):
            anatomy.mark(f"{pole} pole of the {name}", centre + turn @ np.array([0, 0, end * 53 * size]))


def paint_renal_vessels(anatomy: Anatomy, patient: Patient, side: int, hilum: np.ndarray) -> None:
    """Renal vein to the vena cava, renal artery from the aorta; the left vein crosses in front of the aorta."""
    front = patient.habitus.spine_at(0)[1] + 17
    start = (*np.add(hilum, (0, -4, 4)), 2.6)
    if side > 0:
        vein = [(*hilum, 4.2), (34, front + 12, hilum[2] + 6, 4.6), (22, front + 12, hilum[2] + 9, 5)]
        artery = [start, (30, front + 1, 0, 2.8), (-4, front + 8, -2, 3)]
    else:
        vein = [(*hilum, 4.2), (-30, front + 18, 0, 4.6), (-6, front + 26, -4, 4.4), (18, front + 14, -6, 5)]
        artery = [start, (-30, front + 7, 2, 2.8), (-10, front + 10, 0, 3)]
    anatomy.paint(tube(artery), "artery")
    anatomy.paint(tube(vein), "vein")


def paint_adrenal(anatomy: Anatomy, side: int, top: np.ndarray) -> None:
    """A gland in the shape of an inverted Y on top of a kidney."""
    limbs = [
        [(-side * 2, 12, 4, 2.6), (-side * 7, 0, 4, 2.4), (-side * 12, -12, 2, 1.8)],
        [(-side * 5, 4, 4, 2.4), (side * 4, -12, 2, 1.8)],
    ]
    gland = union([tube(np.array(limb) + np.array([*top, 0])) for limb in limbs])
    anatomy.paint(gland, "adrenal", 0)


def paint_spleen(anatomy: Anatomy, patient: Patient) -> None:
    """A spleen hollowed by stomach and kidney."""
    size, centre = patient.about(1.0, 0.1), patient.near((-100, -32, 50))
    turn = Rotation.from_euler("zx", [24, -14], degrees=True).as_matrix()
    bulk = superellipsoid((0, 0, 0), (26 * size, 46 * size, 50 * size), 2.2).placed(turn, centre)
    hollow = superellipsoid(np.add(centre, (36, 12, -4)), (30, 40, 70))
    patient.paint(anatomy, bulk.rounded_cut(hollow, 10) & patient.abdomen, "spleen", LABEL_OF["spleen"])
    anatomy.mark("lower tip of the spleen", centre + turn @ np.array([0, 0, -48 * size]))


def paint_liver(anatomy: Anatomy, patient: Patient) -> None:
    """Both lobes with the fissure between them, vessels, a tumour, a cyst and the gallbladder."""
    size = patient.about(1.0, 0.06)
    right = superellipsoid(patient.near((66, -2, 36), 3), np.array([66, 76, 66]) * size, 2.3)
    left = superellipsoid(patient.near((4, 40, 58), 4), np.array([68, 34, 27]) * size)
    tip = superellipsoid(patient.near((92, 0, 0), 4), np.array([31, 50, 52]) * size, 2.2)
    underside = superellipsoid((6, -14, -26), (66, 62, 60)).blended(superellipsoid((52, 40, -44), (50, 50, 42)), 20)
    kidney = superellipsoid((56, patient.habitus.spine_y - 10, -14), (32, 42, 60))
    fissure = superellipsoid((4, 62, 32), (4.5, 13, 20))
    liver = right.blended(left, 30).blended(tip, 24).rounded_cut(underside, 20).rounded_cut(kidney, 14) - fissure
    liver = liver.roughened(patient.noise(45), 1.6) & patient.abdomen
    patient.paint(anatomy, liver, "liver", LABEL_OF["liver"], fat_mm=1.5)
    for name, point in zip(FISSURE_LANDMARKS, ((4, 49, 34), (4, 60, 52)), strict=True):
        anatomy.mark(name, point)
    paint_liver_vessels(anatomy, patient, liver)
    paint_lesions(anatomy, patient, liver)
    paint_gallbladder(anatomy, patient)


def paint_liver_vessels(anatomy: Anatomy, patient: Patient, liver: Solid) -> None:
    """Hepatic veins meeting at the vena cava, the portal vein with its branches and the fat round the hilum."""
    meeting, hilum = (26, 6, 84), (36, 12, 35)
    branches = [
        [(*meeting, 6), (56, 0, 68, 4.8), (82, 2, 44, 3.4), (98, 4, 14, 2)],
        [(*meeting, 6), (42, 26, 66, 4.8), (52, 46, 42, 3.2), (56, 56, 24, 1.8)],
        [(*meeting, 6), (8, 28, 70, 4.4), (-14, 44, 60, 3), (-34, 48, 54, 1.6)],
        [(*hilum, 6.5), (62, 4, 34, 5), (84, -14, 28, 3.6), (100, -28, 20, 2)],
        [(*hilum, 6.5), (62, 18, 38, 4.4), (82, 32, 44, 3), (92, 36, 56, 1.8)],
        [(*hilum, 6), (18, 36, 46, 5), (2, 48, 52, 3.6), (-22, 52, 56, 2.2)],
        [(62, 6, 34, 4), (78, -24, 52, 3), (84, -36, 66, 1.8)],
    ]
    trunk = tube([(16, 17, 20, 6.8), (*hilum, 7)])
    anatomy.paint(trunk.grown(4) | superellipsoid(hilum, (12, 7, 6)), "fat", 0)
    anatomy.paint(trunk, "vein", 0)
    for branch in branches:
        course = patient.course(branch, 2.0)
        course[0] = branch[0]
        vessels = [tube(course), *(twig(patient.rng, node) for node in course[1:] for _ in range(3))]
        anatomy.paint(union(vessels) & liver.grown(-2), "liver vessel")
    anatomy.paint(tube([(26, 2, 60, 12), (26, 2, 78, 13), (20, 10, 112, 13)]), "vein", LABEL_OF["inferior vena cava"])
    anatomy.mark("confluence of the hepatic veins", meeting)
    anatomy.mark("bifurcation of the portal vein", hilum)


def twig(rng: np.random.Generator, node: np.ndarray) -> Solid:
    """A small vessel that leaves a node (x, y, z, radius) in any direction."""
    away = rng.normal(size=3)
    away *= rng.uniform(16, 30) / np.linalg.norm(away)
    bend = node[:3] + 0.5 * away + rng.uniform(-4, 4, 3)
    return tube([(*node[:3], 0.6 * node[3]), (*bend, 0.45 * node[3]), (*(node[:3] + away), 0.25 * node[3])])


def paint_lesions(anatomy: Anatomy, patient: Patient, liver: Solid) -> None:
    """One tumour with a rim and a necrotic core somewhere in the liver, one small cyst elsewhere."""
    for_tumour, for_cyst = patient.rng.permutation(TUMOUR_PLACES)[:2]
    centre = patient.near(for_tumour, 6)
    radii = patient.rng.uniform(15, 23) * patient.rng.uniform(0.85, 1.15, 3)
    tumour = superellipsoid(centre, radii).roughened(patient.noise(13), 1.6) & liver.grown(-1.5)
    core = superellipsoid(centre, 0.55 * radii).roughened(patient.noise(9), 2.0)
    anatomy.paint(tumour, "tumour rim", LABEL_OF["liver tumour"])
    anatomy.paint(tumour.grown(-2.5), "tumour")
    anatomy.paint(core & tumour.grown(-3), "necrosis")
    cyst = superellipsoid(patient.near(for_cyst, 6), [patient.rng.uniform(5, 8)] * 3)
    anatomy.paint(cyst & liver.grown(-1), "cyst")
    anatomy.mark("centre of the tumour", centre)


def paint_gallbladder(anatomy: Anatomy, patient: Patient) -> None:
    """A pear under the liver."""
    course = patient.course([(42, 26, 26, 4), (50, 38, 14, 9), (57, 54, -2, 13), (60, 62, -12, 12)], 2.0)
    pear = tube(course, step_mm=3.0)
    patient.paint(anatomy, pear.grown(1.5), "gut wall", LABEL_OF["gallbladder"], fat_mm=1.0)
    anatomy.paint(pear, "bile")
    anatomy.mark("fundus of the gallbladder", course[-1, :3])
