"""Surfaces are closed, face outwards, lie where the value is, and have the shape's own topology."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from anamorph.data.mesh_files import Mesh
from anamorph.spatial.grid import Grid
from anamorph.spatial.isosurface import isosurface

OBLIQUE = np.array([[1.5, 0.3, 0, -4], [-0.3, 1.4, 0.2, 7], [0, 0.1, 2.0, 3], [0, 0, 0, 1]])


def edges_of(triangles: np.ndarray) -> Counter:
    return Counter(tuple(edge) for corner in range(3) for edge in triangles[:, [corner, (corner + 1) % 3]].tolist())


def euler(mesh: Mesh) -> int:
    used = np.unique(mesh.triangles).size
    return used - len(edges_of(mesh.triangles)) // 2 + len(mesh.triangles)


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0]), OBLIQUE], ids=["ras", "las", "oblique"])
def test_a_ball(affine: np.ndarray) -> None:
    grid = Grid((21, 22, 23), affine)
    inverse = np.linalg.inv(affine[:3, :3])
    offset = (grid.voxels() - 10.5) @ affine[:3, :3].T
    ball = (8.0 - np.linalg.norm(offset @ inverse.T, axis=1)).reshape(grid.shape)
    mesh = Mesh(*isosurface(ball, grid, 0.0))
    # Every edge once in either direction: closed, with one side outwards throughout.
    counted = edges_of(mesh.triangles)
    assert set(counted.values()) == {1}
    assert all((b, a) in counted for a, b in counted)
    assert euler(mesh) == 2
    radius = np.linalg.norm(grid.to_voxel(mesh.points) - 10.5, axis=1)
    assert np.abs(radius - 8).max() < 0.05
    assert mesh.volume_mm3 == pytest.approx(4 / 3 * np.pi * 512 * grid.voxel_volume, rel=0.02)


def test_random_masks_are_closed_whatever_touches_whatever() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        mask = (rng.random((6, 7, 8)) < 0.4).astype(float)
        mesh = Mesh(*isosurface(mask, Grid.from_spacing(mask.shape, 1.0)))
        counted = edges_of(mesh.triangles)
        assert set(counted.values()) == {1}
        assert all((b, a) in counted for a, b in counted)
        assert mesh.volume_mm3 > 0


def test_a_torus_and_a_hollow_ball() -> None:
    nodes = np.stack(np.meshgrid(*[np.arange(-10, 11)] * 3, indexing="ij"))
    grid = Grid.from_spacing((21, 21, 21), 1.0)
    torus = 2.4 - np.hypot(np.hypot(nodes[0], nodes[1]) - 6, nodes[2])
    assert euler(Mesh(*isosurface(torus, grid, 0.0))) == 0
    shell = 2.0 - np.abs(np.linalg.norm(nodes, axis=0) - 6)
    assert euler(Mesh(*isosurface(shell, grid, 0.0))) == 4


def test_nothing_above_the_level_has_no_surface() -> None:
    points, triangles = isosurface(np.zeros((3, 3, 3)), Grid.from_spacing((3, 3, 3), 1.0))
    assert (points.shape, triangles.shape) == ((0, 3), (0, 3))


def test_what_the_edge_cuts_is_closed_there() -> None:
    mesh = Mesh(*isosurface(np.ones((3, 4, 5)), Grid.from_spacing((3, 4, 5), 1.0)))
    assert euler(mesh) == 2
    assert np.abs(mesh.points.mean(0) - [1, 1.5, 2]).max() < 0.1
