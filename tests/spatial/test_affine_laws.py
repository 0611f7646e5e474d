"""Affine parameters and matrices, in both directions, in 2-D and 3-D."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from anamorph.spatial.affine import (
    affine_displacement,
    affine_points,
    matrix_from_parameters,
    number_of_parameters,
    parameters_from_matrix,
    rotation_matrix,
)
from anamorph.spatial.field import identity

kinds = st.sampled_from(["translation", "rigid", "similarity", "affine"])
dimensions = st.sampled_from([2, 3])
seeds = st.integers(0, 10_000)


def random_parameters(kind, ndim: int, seed: int) -> np.ndarray:
    """Translations of some cm, rotations up to nearly half a turn, scales and shears of a factor of up to two."""
    random = np.random.default_rng(seed)
    angle = random.normal(size=ndim * (ndim - 1) // 2)
    angle *= random.uniform(0, 3.1) / np.linalg.norm(angle)
    parameters = np.concatenate([random.normal(size=ndim) * 30, angle, random.uniform(-0.7, 0.7, 6)])
    return parameters[: number_of_parameters(kind, ndim)]


@given(kind=kinds, ndim=dimensions, seed=seeds)
def test_parameters_to_matrix_and_back(kind, ndim: int, seed: int) -> None:
    parameters = random_parameters(kind, ndim, seed)
    centre = np.random.default_rng(seed + 1).normal(size=ndim) * 100
    matrix = matrix_from_parameters(torch.tensor(parameters)[None], kind, ndim, centre)[0]
    back = parameters_from_matrix(matrix.numpy(), kind, centre)
    np.testing.assert_allclose(back, parameters, atol=1e-9)


@given(kind=kinds, ndim=dimensions, seed=seeds)
def test_the_matrix_does_what_the_parameters_say(kind, ndim: int, seed: int) -> None:
    parameters = random_parameters(kind, ndim, seed)
    centre = np.random.default_rng(seed + 1).normal(size=ndim) * 100
    matrix = matrix_from_parameters(torch.tensor(parameters)[None], kind, ndim, centre)[0].numpy()
    linear, offset = matrix[:ndim, :ndim], matrix[:ndim, ndim]
    np.testing.assert_allclose(linear @ centre + offset, centre + parameters[:ndim], atol=1e-9)
    np.testing.assert_array_equal(matrix[-1], np.eye(ndim + 1)[-1])
    pairs = ndim * (ndim - 1) // 2
    volume = {"similarity": np.exp(ndim * parameters[-1]), "affine": np.exp(parameters[ndim + pairs :][:ndim].sum())}
    np.testing.assert_allclose(np.linalg.det(linear), volume.get(kind, 1.0))
    if kind in ("rigid", "similarity"):
        scale = np.exp(parameters[-1]) if kind == "similarity" else 1.0
        np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(ndim), atol=1e-9)


@given(seed=seeds)
def test_rotations_are_those_of_scipy(seed: int) -> None:
    vector = random_parameters("rigid", 3, seed)[3:]
    np.testing.assert_allclose(
        rotation_matrix(torch.tensor(vector)[None])[0], Rotation.from_rotvec(vector).as_matrix(), atol=1e-12
    )


def test_a_positive_angle_turns_the_first_axis_towards_the_second() -> None:
    quarter = torch.tensor([[torch.pi / 2]])
    torch.testing.assert_close(rotation_matrix(quarter)[0] @ torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    about_last = torch.tensor([[0.0, 0.0, torch.pi / 2]])
    torch.testing.assert_close(
        rotation_matrix(about_last)[0] @ torch.tensor([1.0, 0.0, 5.0]), torch.tensor([0.0, 1.0, 5.0])
    )


@given(kind=st.sampled_from(["rigid", "similarity"]), ndim=dimensions, seed=seeds)
def test_no_map_of_the_kind_is_nearer(kind, ndim: int, seed: int) -> None:
    matrix = matrix_from_parameters(torch.tensor(random_parameters("affine", ndim, seed))[None], "affine", ndim)[0]
    nearest = parameters_from_matrix(matrix.numpy(), kind)

    def distance(parameters: torch.Tensor) -> float:
        return float((matrix_from_parameters(parameters[None], kind, ndim)[0] - matrix).norm())

    random = torch.Generator().manual_seed(seed)
    for size in (1.0, 0.1, 0.01):
        other = nearest + size * torch.randn(nearest.shape, generator=random, dtype=torch.float64)
        assert distance(nearest) <= distance(other)


@given(kind=kinds, ndim=dimensions)
def test_zero_parameters_move_nothing_and_have_a_gradient(kind, ndim: int) -> None:
    parameters = torch.zeros(2, number_of_parameters(kind, ndim), dtype=torch.float64, requires_grad=True)
    matrix = matrix_from_parameters(parameters, kind, ndim, [3.0] * ndim)
    torch.testing.assert_close(matrix, torch.eye(ndim + 1, dtype=torch.float64).expand_as(matrix))
    assert torch.autograd.gradcheck(lambda p: matrix_from_parameters(p, kind, ndim, [3.0] * ndim), (parameters,))


@given(ndim=dimensions, seed=seeds)
def test_displacements_of_matrices(ndim: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 6, ndim).tolist())
    matrices = torch.eye(ndim + 1, dtype=torch.float64) + torch.tensor(random.normal(size=(2, ndim + 1, ndim + 1)))
    voxels = identity(shape, torch.float64)
    expected = torch.einsum("bij,j...->bi...", matrices[:, :ndim, :ndim], voxels)
    expected += matrices[:, :ndim, ndim].view(2, ndim, *[1] * ndim)
    torch.testing.assert_close(affine_points(matrices, shape), expected)
    torch.testing.assert_close(affine_displacement(matrices, shape), expected - voxels)


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
@pytest.mark.parametrize("matrix", [np.diag([-1.0, 1, 1, 1]), np.diag([1.0, 0, 1, 1])])
def test_reflections_and_singular_maps_are_refused(kind, matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no rotation is near"):
        parameters_from_matrix(matrix, kind)


def test_a_wrong_number_of_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="rigid in 3-D has 6 parameters, found 7"):
        matrix_from_parameters(torch.zeros(1, 7), "rigid", 3)
