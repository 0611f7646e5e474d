"""The surface on which a volume has a given value, as triangles: closed, and the same whatever made the volume.

Every cell of eight voxel centres is cut into six tetrahedra along one of its diagonals, in the same way in every cell,
so that neighbours share the diagonals of their faces. A tetrahedron with some corners above the level and some below
holds one or two triangles, whose corners lie where the value along its edges, taken as linear, reaches the level. No
table of cases is ambiguous, so the surface has no holes and no edge with more than two triangles.

Source: A. Doi and A. Koide (1991), An efficient method of triangulating equi-valued surfaces by using tetrahedral
cells, IEICE Transactions E74(1), 214-224.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from jaxtyping import Float, Int

from anamorph.spatial.grid import Grid

NEAREST_CORNER = 1e-3
"""Share of an edge that a corner of a triangle keeps from the edge's ends, so that no triangle shrinks to a line."""


def isosurface(
    volume: Float[np.ndarray, "i j k"], grid: Grid, level: float = 0.5
) -> tuple[Float[np.ndarray, "points 3"], Int[np.ndarray, "triangles 3"]]:
    """World points in RAS mm, and triangles as rows of three of them, seen counter-clockwise from the lower values.

    Beyond its edge the volume goes on with its least value, so that what it cuts is closed there.

    Args:
        volume: values on ``grid``, 3-D.
        grid: where they are.
        level: the value on the surface.
    """
    padded = np.pad(volume.astype(np.float64), 1, constant_values=min(float(volume.min()), level - 1))
    above = padded > level
    edges, flip = [], []
    for tetrahedron in _tetrahedra(above):
        _cut(tetrahedron, above.ravel(), edges, flip)
    ends = np.sort(np.concatenate(edges), axis=-1)  # triangles x 3 corners x 2 ends of an edge
    keys, triangles = np.unique(ends[..., 0] * padded.size + ends[..., 1], return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    first, second = np.divmod(keys, padded.size)
    values = padded.ravel()
    share = (level - values[first]) / (values[second] - values[first])
    share = share.clip(NEAREST_CORNER, 1 - NEAREST_CORNER)[:, None]
    a, b = (np.stack(np.unravel_index(end, padded.shape), -1) - 1.0 for end in (first, second))
    voxels = a + share * (b - a)
    return grid.to_world(voxels), _turned(triangles, voxels, np.concatenate(flip), grid)


def _tetrahedra(above: np.ndarray) -> list[np.ndarray]:
    """Corners, as places in the flat volume, of tetrahedra that the surface may cut: N x 4 for each of six kinds."""
    mixed = np.zeros([n - 1 for n in above.shape], bool)
    lowest = above[:-1, :-1, :-1]
    for corner in np.ndindex(2, 2, 2):
        mixed |= above[tuple(slice(c, n - 1 + c) for c, n in zip(corner, above.shape, strict=True))] != lowest
    base = np.ravel_multi_index(tuple(np.nonzero(mixed)), above.shape)
    strides = np.array([above.shape[1] * above.shape[2], above.shape[2], 1])
    paths = [np.concatenate([[0], np.cumsum(strides[list(order)])]) for order in permutations(range(3))]
    return [base[:, None] + path for path in paths]


def _cut(corners: np.ndarray, above: np.ndarray, edges: list[np.ndarray], directions: list[np.ndarray]) -> None:
    """Triangles of tetrahedra: their corners as edges between two voxels, and a pair of voxels from high to low."""
    inside = above[corners]
    order = np.argsort(~inside, axis=1, kind="stable")  # those above first
    sorted_corners, count = np.take_along_axis(corners, order, axis=1), inside.sum(1)
    for number, single in ((1, 0), (3, 3)):
        found = sorted_corners[count == number]
        others = [corner for corner in range(4) if corner != single]
        edges.append(np.stack([found[:, [single, other]] for other in others], axis=1))
        directions.append(found[:, [0, 3]])
    found = sorted_corners[count == 2]
    around = [found[:, pair] for pair in ([0, 2], [0, 3], [1, 3], [1, 2])]
    for three in ((0, 1, 2), (0, 2, 3)):
        edges.append(np.stack([around[place] for place in three], axis=1))
        directions.append(found[:, [0, 3]])


def _turned(triangles: np.ndarray, voxels: np.ndarray, directions: np.ndarray, grid: Grid) -> np.ndarray:
    """Triangles whose normals, in the world, point to the lower values."""
    shape = tuple(n + 2 for n in grid.shape)
    high, low = (np.stack(np.unravel_index(end, shape), -1) for end in directions.T)
    a, b, c = (voxels[triangles[:, corner]] for corner in range(3))
    inward = np.einsum("td,td->t", np.cross(b - a, c - a), (low - high).astype(np.float64)) < 0
    if np.linalg.det(grid.affine[:3, :3]) < 0:
        inward = ~inward
    return np.where(inward[:, None], triangles[:, ::-1], triangles)
