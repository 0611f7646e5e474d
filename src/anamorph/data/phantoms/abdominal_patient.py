"""One patient of the abdominal phantom: the build of the trunk and how far organs stray from their usual place.

World axes are RAS+ mm about a point in the middle of the body at the level of the first lumbar vertebra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anamorph.data.phantoms.anatomy import Anatomy
from anamorph.data.phantoms.shapes import Distance, Number, Solid, Vector, superellipsoid
from anamorph.data.phantoms.texture import smooth_noise

EXTENT_MM = (440.0, 340.0, 320.0)
"""A box that holds every patient in every scan."""

INFINITE = float("inf")

LABEL_NAMES = {
    1: "liver",
    2: "liver tumour",
    3: "spleen",
    4: "right kidney",
    5: "left kidney",
    6: "gallbladder",
    7: "stomach",
    8: "pancreas",
    9: "aorta",
    10: "inferior vena cava",
    11: "vertebrae",
    12: "colon",
    13: "lungs",
    14: "ribs",
}
LABEL_OF = {name: label for label, name in LABEL_NAMES.items()}


@dataclass(frozen=True)
class Habitus:
    """The build of a trunk, mm.

    Args:
        half_width: of the body, at the skin.
        half_depth: of the body, at the skin.
        side_fat: thickness of the fat under the skin at the flanks.
        front_fat: the same in front.
        back_fat: the same behind.
        muscle: thickness of the abdominal wall.
        spine_y: where the centre of the vertebral bodies is at the upper end.
    """

    half_width: float
    half_depth: float
    side_fat: float
    front_fat: float
    back_fat: float
    muscle: float
    spine_y: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Habitus:
        """A build between slim and stout."""
        size, fat = rng.uniform(0.96, 1.03), rng.uniform(0.65, 1.35)
        return cls(
            half_width=149 * size + 8 * (fat - 1),
            half_depth=103 * size + 8 * (fat - 1),
            side_fat=17 * fat,
            front_fat=14 * fat,
            back_fat=15 * fat,
            muscle=rng.uniform(10.0, 12.5),
            spine_y=-46 * size,
        )

    def body(self) -> Solid:
        """The outer face of the skin, with the furrow over the spine and the navel."""
        outline = oval(self.half_width, self.half_depth, 0.0)
        furrow = superellipsoid((0, -self.half_depth - 6, 0), (16, 12, INFINITE))
        navel = superellipsoid((0, self.half_depth, -82), (4, 11, 5))
        return outline.rounded_cut(furrow, 16) - navel

    def wall(self) -> Solid:
        """The outer face of the muscles."""
        depth = self.half_depth - (self.front_fat + self.back_fat) / 2
        return oval(self.half_width - self.side_fat, depth, (self.back_fat - self.front_fat) / 2)

    def cavity(self) -> Solid:
        """The inner face of the muscles."""
        return self.wall().grown(-self.muscle)

    def below_diaphragm(self) -> Solid:
        """Everything under the domes of the diaphragm, which falls steeply near the wall, deepest behind."""
        cavity = self.cavity()

        def distance(p: np.ndarray) -> np.ndarray:
            domes = 80 + 11 * np.exp(-(((p[0] - 60) / 46) ** 2)) + 5 * np.exp(-(((p[0] + 66) / 40) ** 2))
            recess = 58 - 24 * np.tanh((p[1] + 5) / 40)
            depth = np.maximum(-cavity.distance(p), 0)
            return (p[2] - domes + recess * np.exp(-depth / 24)) / np.float32(1.5)

        return Solid(distance, cavity.lower, cavity.upper)

    def spine_shift(self, p: np.ndarray) -> np.ndarray:
        """The lordosis: from the z axis to the middle of the vertebral column at the height of each point, 3 N."""
        y = self.spine_y + 9 * np.exp(-(((p[2] + 62) / 75) ** 2))
        return np.stack([np.zeros_like(y), y, np.zeros_like(y)])

    def spine_at(self, z: Number) -> np.ndarray:
        """The middle of the vertebral column at height z."""
        return np.array([0.0, 0.0, z]) + self.spine_shift(np.array([[0.0], [0.0], [z]]))[:, 0]

    def before_spine(self, x: Number, gap: Number, z: Number, radius: Number) -> tuple[Number, float, Number, Number]:
        """A node of a vessel ``gap`` mm in front of the vertebral bodies."""
        return (x, float(self.spine_at(z)[1]) + 17 + gap, z, radius)


class Patient:
    """The random choices of one patient."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.habitus = Habitus.drawn(rng)
        self.cavity = self.habitus.cavity().grown(-1.5)
        self.abdomen = self.cavity & self.habitus.below_diaphragm().grown(-2.5)

    def about(self, value: Number, fraction: float = 0.08) -> float:
        """A value within a fraction of the usual one."""
        return value * self.rng.uniform(1 - fraction, 1 + fraction)

    def near(self, point: Vector, mm: Number = 4.0) -> np.ndarray:
        """A point within ``mm`` of the usual one along each axis."""
        return np.asarray(point, float) + self.rng.uniform(-mm, mm, 3)

    def course(self, nodes: Sequence[Vector], mm: Number = 3.0) -> np.ndarray:
        """A tube's nodes (x, y, z, radius), each astray by up to ``mm``, all thicker or thinner by up to 8 %."""
        course = np.array(nodes, float)
        course[:, :3] += self.rng.uniform(-mm, mm, (len(course), 3))
        course[:, 3] *= self.rng.uniform(0.92, 1.08)
        return course

    def noise(self, correlation_mm: Number) -> Distance:
        """A smooth random function over the whole trunk."""
        return smooth_noise(self.rng, EXTENT_MM, correlation_mm)

    def paint(self, anatomy: Anatomy, organ: Solid, tissue: str, label: int, fat_mm: Number = 2.0) -> None:
        """An organ with the layer of fat that parts it from its neighbours."""
        anatomy.paint(organ.grown(fat_mm) & self.abdomen, "fat", 0)
        anatomy.paint(organ, tissue, label)


def oval(half_width: float, half_depth: float, centre_y: float) -> Solid:
    """A trunk: round in front, flat behind, a little narrower at the waist."""

    def distance(p: np.ndarray) -> np.ndarray:
        waist = 1 - 0.045 * np.exp(-(((p[2] + 45) / 60) ** 2))
        a, b = half_width * waist, half_depth * (0.3 + 0.7 * waist)
        y = p[1] - np.float32(centre_y)
        exponent = 2.4 - 0.35 * np.tanh(y / np.float32(40))
        u, v = np.abs(p[0]) / a + np.float32(1e-6), np.abs(y) / b + np.float32(1e-6)
        norm = (u**exponent + v**exponent) ** (1 / exponent)
        slope = ((u / norm) ** (exponent - 1) / a) ** 2 + ((v / norm) ** (exponent - 1) / b) ** 2
        return (norm - 1) / np.sqrt(slope)

    reach, middle = np.array([half_width, half_depth, INFINITE]), np.array([0.0, centre_y, 0.0])
    return Solid(distance, middle - reach, middle + reach)
