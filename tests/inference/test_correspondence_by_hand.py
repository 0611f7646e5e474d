"""Points, labels and meshes through an atlas whose maps to its subjects are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.errors import AnamorphWarning, ConfigurationError
from anamorph.evaluation.topology import topology
from anamorph.inference.correspondence import (
    carry,
    consistency_scores,
    image_in,
    labels_in,
    meshes_of,
    through_atlas,
)
from anamorph.inference.warp import warp
from anamorph.spatial.affine import matrix_from_parameters
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Velocity

GRID = Grid.from_spacing((20, 22, 24), 2.0)


def affine(seed: int, ndim: int = 3) -> Affine:
    rng = np.random.default_rng(seed)
    parameters = torch.from_numpy(0.1 * rng.standard_normal((1, ndim * (ndim + 1))))
    return Affine(matrix_from_parameters(parameters, "affine", ndim, np.full(ndim, 20.0))[0].numpy())


def shift(*mm: float) -> Affine:
    matrix = np.eye(len(mm) + 1)
    matrix[:-1, -1] = mm
    return Affine(matrix)


def swirl(scale: float) -> Velocity:
    nodes = GRID.voxels().T.reshape(3, *GRID.shape)
    bump = np.prod([np.sin(np.pi * (n + 1) / (c + 1)) for n, c in zip(nodes, GRID.shape, strict=True)], axis=0)
    field = np.stack([scale * bump, -scale * bump, 0.5 * scale * bump]).astype(np.float32)
    return Velocity(torch.from_numpy(field), GRID)


def test_through_the_atlas_is_there_and_back_again() -> None:
    a, b, c = Chain((swirl(3.0), affine(1))), Chain((swirl(-2.0), affine(2))), affine(3)
    atlas = GRID.to_world(np.random.default_rng(0).uniform(5, 15, (50, 3)))
    points = a(atlas)
    assert np.abs(through_atlas(a, b)(points) - b(atlas)).max() < 0.05
    assert np.abs(through_atlas(b, a)(through_atlas(a, b)(points)) - points).max() < 0.05
    # By a third subject it is the same way.
    by_c = through_atlas(c, b)(through_atlas(a, c)(points))
    assert np.abs(by_c - through_atlas(a, b)(points)).max() < 1e-6
    assert np.allclose(through_atlas(affine(1), affine(2))(points), affine(2)(affine(1).inverse()(points)))


def test_labels_of_one_subject_come_to_the_other_as_equation_22_has_it() -> None:
    labels = np.zeros(GRID.shape, np.int32)
    labels[6:12, 7:13, 8:15] = 2
    to_a, to_b = shift(2.0, 0, -4), shift(-2.0, 2.0, 0)
    of_b = Labelmap(torch.from_numpy(labels), GRID)
    on_atlas = warp(of_b, to_b, GRID)  # y_b o Phi_b
    composed = labels_in(on_atlas, to_a, GRID)  # ... o Phi_a^-1
    direct = warp(of_b, through_atlas(to_a, to_b), GRID)
    assert torch.equal(composed.data, direct.data)
    moved = np.argwhere(direct.data.numpy() == 2).min(0) - np.argwhere(labels == 2).min(0)
    assert moved.tolist() == [2, -1, -2]


def test_points_and_meshes_go_with_the_map() -> None:
    names = ("apex", "base")
    points = Landmarks(np.array([[10.0, 10, 10], [20, 12, 14]]), names)
    moved = carry(points, shift(1.0, 2, 3))
    assert moved.names == names
    assert np.allclose(moved.points - points.points, [1, 2, 3])
    box = np.zeros(GRID.shape, np.int32)
    box[5:12, 6:14, 7:15] = 3
    ((value, mesh),) = meshes_of(Labelmap(torch.from_numpy(box), GRID))
    assert value == 3
    assert mesh.volume_mm3 == pytest.approx(box.astype(bool).sum() * 8, rel=0.1)  # its edges and corners are rounded
    found = carry(mesh, affine(4))
    assert found.volume_mm3 == pytest.approx(mesh.volume_mm3 * np.linalg.det(affine(4).matrix), rel=1e-6)
    assert np.array_equal(found.triangles, mesh.triangles)


def test_a_thin_label_keeps_its_surface_and_a_flat_atlas_has_none() -> None:
    thin = np.zeros(GRID.shape, np.int32)
    thin[5, 5, 5] = 1
    thin[10:14, 10:14, 10] = 4
    values = {value: mesh.volume_mm3 for value, mesh in meshes_of(Labelmap(torch.from_numpy(thin), GRID))}
    assert set(values) == {1, 4}
    assert min(values.values()) > 0
    flat = Labelmap(torch.ones(8, 8, dtype=torch.int32), Grid.from_spacing((8, 8), 1.0))
    with pytest.raises(ConfigurationError, match="E-ATL-008"):
        list(meshes_of(flat))


def test_a_diffeomorphism_keeps_the_topology_and_comes_back() -> None:
    nodes = GRID.voxels().T.reshape(3, *GRID.shape) - np.array([9.5, 10.5, 11.5])[:, None, None, None]
    torus = (np.hypot(np.hypot(nodes[0], nodes[1]) - 5, nodes[2]) < 2).astype(np.int32)
    labels = Labelmap(torch.from_numpy(torus), GRID)
    to_case = Chain((swirl(4.0), affine(5)))
    with pytest.warns(AnamorphWarning, match="W-TRF-006"):  # the subject is turned out of the atlas's view
        own = labels_in(labels, to_case, GRID)
    assert topology(own.data.numpy() == 1).tunnels == topology(torus == 1).tunnels == 1
    rows = {row.metric: row.value for row in consistency_scores(labels, to_case, GRID, GRID, {1: "ring"})}
    assert rows["mice_mm"] < 0.1
    assert rows["ic_dice_mean"] > 0.97
    still = {row.metric: row.value for row in consistency_scores(labels, Affine.identity(3), GRID, GRID, {1: "ring"})}
    assert still["mice_voxels"] == 0
    assert still["ic_dice_mean"] == 1


def test_the_image_comes_with_its_own_ground() -> None:
    values = torch.full((1, *GRID.shape), -3.0)
    values[0, 5, 6, 7] = 4.0
    found = image_in(Image(values, GRID, "mr"), shift(4.0, 0, 0), GRID)
    assert float(found.data[0, 7, 6, 7]) == pytest.approx(4)
    assert float(found.data.min()) == pytest.approx(-3)
    assert found.modality == "mr"
