"""Transforms worked out on paper, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from anamorph.errors import AnamorphWarning, InputError, NumericalError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Velocity, resample

SHIFT = Affine(np.array([[1.0, 0, 3], [0, 1, 0], [0, 0, 1]]))
DOUBLE = Affine(np.diag([2.0, 2.0, 1.0]))


def constant_field(vector: tuple[float, ...], grid: Grid) -> torch.Tensor:
    return torch.tensor(vector, dtype=torch.float64).view(-1, *[1] * grid.ndim).expand(-1, *grid.shape).clone()


def test_shift_and_double() -> None:
    point = np.array([[1.0, 1.0]])
    assert (SHIFT @ DOUBLE)(point).tolist() == [[5, 2]]
    assert (DOUBLE @ SHIFT)(point).tolist() == [[8, 2]]
    assert Chain((SHIFT, DOUBLE))(point).tolist() == [[8, 2]]
    assert (DOUBLE @ SHIFT).inverse()(np.array([[8.0, 2.0]])).tolist() == [[1, 1]]


def test_a_field_ends_half_a_voxel_beyond_its_outer_centres() -> None:
    grid = Grid(shape=(3, 2), affine=np.array([[2.0, 0, 10], [0, 1, 0], [0, 0, 1]]))
    field = Field(constant_field((5, -1), grid), grid)
    x = np.array([8.9, 9.1, 12.0, 14.9, 15.1])
    moved = field(np.stack([x, np.zeros(5)], 1))
    np.testing.assert_allclose(moved - np.stack([x, np.zeros(5)], 1), [[0, 0], *[[5, -1]] * 3, [0, 0]])


@pytest.mark.parametrize("ndim", [2, 3])
def test_one_voxel(ndim: int) -> None:
    grid = Grid.from_spacing((1,) * ndim, 4.0)
    for transform in (
        Field(constant_field((1.0,) * ndim, grid), grid),
        Velocity(constant_field((1.0,) * ndim, grid), grid),
    ):
        points = np.array([[0.0] * ndim, [1.9] * ndim, [2.1] * ndim])
        np.testing.assert_allclose(transform(points) - points, [[1] * ndim, [1] * ndim, [0] * ndim])
        np.testing.assert_allclose(transform.inverse()(points) - points, [[-1] * ndim, [-1] * ndim, [0] * ndim])
        assert transform.displacement_on(grid).shape == (ndim, *grid.shape)
    image = torch.full((1, *grid.shape), 3.0)
    around = grid.resized((4,) * ndim).cropped((-1,) * ndim, (6,) * ndim)
    assert float(resample(image, grid, around).sum()) == 3 * 4**ndim


def test_no_points() -> None:
    grid = Grid.from_spacing((2, 2))
    nothing = np.zeros((0, 2))
    for transform in (SHIFT, Field(constant_field((1, 1), grid), grid), SHIFT @ DOUBLE):
        assert transform(nothing).shape == (0, 2)


def test_origins_ten_metres_away_cost_no_precision() -> None:
    grid = Grid(shape=(8, 8, 8), affine=np.array([[0.7, 0, 0, 1e4], [0, 0.7, 0, -1e4], [0, 0, 0.7, 1e4], [0, 0, 0, 1]]))
    displacement = constant_field((0.123456, -0.2, 0.3), grid)
    for transform in (Field(displacement.float(), grid), Velocity(displacement.float(), grid)):
        chain = Chain((Affine.identity(4 - 1), transform))
        np.testing.assert_allclose(chain.displacement_on(grid), displacement, atol=1e-6)
        points = grid.to_world(grid.voxels())
        np.testing.assert_allclose((chain(points) - points).T, displacement.flatten(1), atol=1e-6)


def test_labels_keep_their_type_and_halves_go_up() -> None:
    labels = torch.tensor([[[2**40, 7, 5, 3]]])
    fine = Grid.from_spacing((1, 4))
    halved = resample(labels, fine, fine.resized((1, 2)), mode="nearest")
    assert halved.dtype == torch.int64
    assert halved.tolist() == [[[7, 3]]]


@pytest.mark.parametrize("seed", range(8))
def test_halves_go_up_wherever_the_grid_is(oblique_grid: Callable, seed: int) -> None:
    fine = oblique_grid((64, 2), seed)
    moved = resample(torch.arange(128).view(1, 64, 2), fine, fine.resized((32, 1)), mode="nearest")
    assert moved.flatten().tolist() == list(range(3, 128, 4))


def test_vectors_are_kept_in_a_precision_that_suffices() -> None:
    grid = Grid.from_spacing((2, 3))
    values = torch.arange(12.0, dtype=torch.float64, requires_grad=True).view(2, 2, 3)
    for dtype, kept in ((torch.float64, torch.float64), (torch.float32, torch.float32), (torch.float16, torch.float64)):
        vectors = Velocity(values.to(dtype), grid).velocity
        assert vectors.dtype == kept
        assert not vectors.requires_grad
        np.testing.assert_array_equal(vectors, values.detach())


def test_changing_the_matrix_afterwards_changes_no_transform() -> None:
    matrix = np.eye(3)
    affine = Affine(matrix)
    matrix[:] = 1
    assert float(affine.matrix.sum()) == 3


@pytest.mark.parametrize("kind", [Field, Velocity])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_vectors_that_are_not_finite_are_refused(kind: type, value: float) -> None:
    grid = Grid.from_spacing((3, 3))
    vectors = constant_field((0, 0), grid)
    vectors[1, 2, 0] = value
    assert issubclass(InputError, ValueError)
    with pytest.raises(InputError, match="E-TRF-004: 1 of 18 components"):
        kind(vectors, grid)


def test_huge_vectors_are_finite() -> None:
    grid = Grid.from_spacing((3, 3))
    Field(torch.full((2, 3, 3), 3e38), grid)


@pytest.mark.parametrize("kind", [Field, Velocity])
def test_vectors_of_another_shape_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match=r"vectors of shape \(3, 4, 4\), their grid asks for \(2, 4, 4\)"):
        kind(torch.zeros(3, 4, 4), Grid.from_spacing((4, 4)))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(5), "shape"),
        (np.ones((3, 4)), "shape"),
        (np.diag([1, np.nan, 1]), "NaN or Inf"),
        (np.diag([1, np.inf, 1, 1]), "NaN or Inf"),
        (np.diag([1.0, 0, 1]), "singular"),
        (np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 1]]), "last row"),
    ],
)
def test_what_is_no_affine_map_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Affine(matrix)


def test_what_does_not_fit_together_is_refused() -> None:
    flat, solid = Grid.from_spacing((3, 3)), Grid.from_spacing((3, 3, 3))
    with pytest.raises(ValueError, match="same dimension"):
        Chain((SHIFT, Affine.identity(3)))
    with pytest.raises(ValueError, match="at least one"):
        Chain(())
    with pytest.raises(ValueError, match="its grid asks for"):
        resample(torch.zeros(1, 3, 4), flat, flat)
    with pytest.raises(ValueError, match="3-D transform between 2-D"):
        resample(torch.zeros(1, 3, 3), flat, flat, Affine.identity(3))
    with pytest.raises(ValueError, match="between 3-D and 2-D grids"):
        resample(torch.zeros(1, 3, 3), flat, solid)
    with pytest.raises(ValueError, match="2-D transform"):
        SHIFT.displacement_on(solid)


def test_the_inverse_of_a_folded_field_warns_or_is_refused() -> None:
    grid = Grid.from_spacing((24, 24))
    folded = constant_field((0, 0), grid)
    folded[0, 10:14] = torch.tensor([4.0, 2.0, -2.0, -4.0]).view(4, 1)
    small = torch.zeros_like(folded)
    small[:, :, 4] = folded[:, :, 4]
    with pytest.warns(AnamorphWarning, match="W-TRF-010: the inverse of the displacement misses by"):
        Field(small, grid).inverse()
    with pytest.raises(NumericalError, match="E-TRF-010"):
        Field(folded, grid).inverse()


def test_a_fold_is_not_hidden_by_what_lies_beyond_the_field() -> None:
    grid = Grid.from_spacing((24, 24))
    mostly_out = constant_field((0, 18), grid)  # only columns 18 to 23 are reached
    mostly_out[0, 11:13, 1:6] = torch.tensor([6.0, -6.0]).view(2, 1)
    with pytest.raises(NumericalError, match="E-TRF-010"):
        Field(mostly_out, grid).inverse()


def test_the_inverse_of_a_velocity_takes_as_many_steps() -> None:
    grid = Grid.from_spacing((3, 3))
    assert Velocity(constant_field((1, 0), grid), grid, steps=3).inverse().steps == 3


@pytest.mark.parametrize("ndim", [2, 3])
def test_transforms_say_in_one_line_what_they_are(ndim: int) -> None:
    grid = Grid.from_spacing((30,) * ndim, 2.0)
    zero = torch.zeros(ndim, *grid.shape)
    texts = [repr(t) for t in (Affine.identity(ndim), Field(zero, grid), Velocity(zero, grid, 5))]
    assert texts[0] == ("Affine([1 0 0; 0 1 0])" if ndim == 2 else "Affine([1 0 0 0; 0 1 0 0; 0 0 1 0])")
    assert texts[1] == f"Field({grid})"
    assert texts[2] == f"Velocity({grid}, 5 steps)"
    assert repr(Field(zero, grid) @ Affine.identity(ndim)) == f"Chain({texts[0]} then {texts[1]})"
