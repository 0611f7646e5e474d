"""Areas and volumes of surfaces as scikit-image's marching cubes have them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes, mesh_surface_area

from anamorph.data.mesh_files import Mesh
from anamorph.spatial.grid import Grid
from anamorph.spatial.isosurface import isosurface


def test_a_random_smooth_volume() -> None:
    volume = gaussian_filter(np.random.default_rng(0).standard_normal((24, 22, 20)), 2.5)
    volume[[0, -1]] = volume[:, [0, -1]] = volume[..., [0, -1]] = volume.min()
    level = float(np.quantile(volume, 0.7))
    spacing = (1.0, 1.5, 2.0)
    mesh = Mesh(*isosurface(volume, Grid.from_spacing(volume.shape, spacing), level))
    points, triangles, _, _ = marching_cubes(volume, level, spacing=spacing)
    theirs = Mesh(points.astype(np.float64), triangles.astype(np.int64))
    assert mesh.volume_mm3 == pytest.approx(abs(theirs.volume_mm3), rel=0.02)
    area = mesh_surface_area(mesh.points, mesh.triangles)
    assert area == pytest.approx(mesh_surface_area(points, triangles), rel=0.05)
