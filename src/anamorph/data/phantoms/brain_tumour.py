"""A tumour in a labelmap: a lobed mass with oedema along the white matter, and tissue pushed aside."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from anamorph.data.phantoms.label_contrast import labels_at
from anamorph.data.phantoms.texture import smooth_noise
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Transform
from anamorph.types import WorldPoints

PUSH = 0.35
"""By how much a point near the middle of the tumour was nearer to it in the healthy brain."""


@dataclass(frozen=True, eq=False)
class Push(Transform):
    """From a world with a mass to the one without: towards the centre, by a share that falls with the distance.

    Args:
        centre: of the mass.
        width_mm: standard deviation of that fall.
        outwards: the map back.
    """

    centre: np.ndarray
    width_mm: float
    outwards: bool = False

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.centre)

    def __call__(self, points: WorldPoints) -> WorldPoints:
        """Map world points: N d -> N d, mm, float64."""
        away = points - self.centre
        distance = np.linalg.norm(away, axis=1)
        if not self.outwards:
            return self.centre + away * self._kept(distance)[:, None]
        wanted, found = distance, distance.copy()
        for _ in range(40):  # the distance from which the map would come to the wanted one
            found += 0.5 * (wanted - found * self._kept(found))
        return self.centre + away * (found / np.maximum(wanted, 1e-9))[:, None]

    def inverse(self) -> Push:
        """Away from the centre."""
        return Push(self.centre, self.width_mm, not self.outwards)

    def _kept(self, distance: np.ndarray) -> np.ndarray:
        return 1 - PUSH * np.exp(-0.5 * (distance / self.width_mm) ** 2)


def with_tumour(
    labels: np.ndarray,
    grid: Grid,
    white_matter: Collection[int],
    tumour: int,
    oedema: int,
    rng: np.random.Generator,
    radii_mm: tuple[float, float] = (8.0, 15.0),
    oedema_mm: float = 10.0,
) -> tuple[np.ndarray, Push]:
    """A labelmap with a tumour, and the map from it to the healthy one.

    Args:
        labels: integers, I J K.
        grid: where they are.
        white_matter: the labels in which it may grow.
        tumour, oedema: labels to give.
        rng: random numbers.
        radii_mm: of the mass before it is lobed, least and largest.
        oedema_mm: how far the oedema reaches beyond it, about so.

    Returns:
        Labels on the same grid; a map that has no meaning within the tumour, which has no counterpart.
    """
    white = np.isin(labels, list(white_matter))
    depth = np.asarray(distance_transform_edt(white, sampling=grid.spacing))
    deep = np.argwhere(depth > min(4.0, 0.7 * float(depth.max())))
    centre = grid.to_world(deep[rng.integers(len(deep))])
    radius = rng.uniform(*radii_mm)

    points = grid.to_world(grid.voxels())
    distance = np.linalg.norm(points - centre, axis=1)
    push = Push(centre, 1.5 * radius)
    near = np.flatnonzero(distance < 6 * radius)
    points, distance = points[near], distance[near]
    changed = labels_at(labels, grid, push(points))
    extent = [float(width) + 60 for width in np.ptp(grid.corners, axis=0)]
    coarse, fine = (smooth_noise(rng, extent, scale, order=3)((points - grid.centre).T) for scale in (10.0, 5.0))
    lobed = distance + 0.12 * radius * coarse + 0.09 * radius * fine
    swollen = np.isin(changed, list(white_matter)) & (
        lobed + oedema_mm * (0.2 * coarse + 0.3 * fine) < radius + oedema_mm
    )
    changed[swollen] = oedema
    changed[(lobed < radius) & (changed != 0)] = tumour
    result = labels.copy().ravel()
    result[near] = changed
    return result.reshape(grid.shape), push
