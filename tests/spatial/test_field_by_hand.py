"""Displacements small enough to work out on paper, images of one voxel and axes of one voxel included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anamorph.spatial.field import (
    compose,
    exponential,
    identity,
    invert,
    jacobian_determinant,
    resize,
    resize_displacement,
    sample,
    warp,
)


def tensor(values: object, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def test_identity_counts_voxels_along_each_axis(device: torch.device) -> None:
    voxels = identity((2, 3), device=device)
    assert voxels[0].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert voxels[1].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_component_d_moves_along_axis_d_and_warp_pulls(device: torch.device) -> None:
    image = tensor([[[[0, 1, 2], [10, 11, 12]]]], device)
    ahead = torch.zeros(1, 2, 2, 3, device=device)
    ahead[:, 1] = 1
    torch.testing.assert_close(warp(image, ahead), tensor([[[[1, 2, 0], [11, 12, 0]]]], device))
    torch.testing.assert_close(warp(image, ahead, outside="border"), tensor([[[[1, 2, 2], [11, 12, 12]]]], device))


def test_linear_values_on_a_square(device: torch.device) -> None:
    image = tensor([[[[0, 1], [10, 11]]]], device)
    points = tensor([[[0.0, 0.5, 1.0, 0.25], [0.0, 0.5, 0.0, 1.0]]], device)
    torch.testing.assert_close(sample(image, points), tensor([[[0, 5.5, 10, 3.5]]], device))


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)], ids=str)
def test_an_image_of_one_voxel_is_one_voxel_wide(shape: tuple[int, ...], mode, device: torch.device) -> None:
    image = torch.full((1, 1, *shape), 7.0, device=device)
    along = tensor([-9.0, -0.51, -0.5, 0.0, 0.3, 0.5, 0.51, 9.0], device)
    points = torch.zeros(1, len(shape), len(along), device=device)
    points[:, -1] = along
    assert sample(image, points, mode)[0, 0].tolist() == [0, 0, 7, 7, 7, 7, 0, 0]
    assert sample(image, points, mode, outside="border")[0, 0].tolist() == [7] * 8


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_the_border_is_half_a_voxel_wide(mode, device: torch.device) -> None:
    image = tensor([[[[1, 2, 3]]]], device)
    along = tensor([-0.51, -0.5, -0.2, 2.2, 2.5, 2.51], device)
    points = torch.stack([torch.zeros_like(along), along])[None]
    torch.testing.assert_close(sample(image, points, mode), tensor([[[0, 1, 1, 3, 3, 0]]], device))


@pytest.mark.parametrize("n", [3, 160, 511, 2048])
def test_rounding_takes_no_edge_away(n: int, device: torch.device) -> None:
    image = torch.ones(1, 1, 1, n, device=device)
    points = torch.zeros(1, 2, 2, device=device)
    points[0, 1] = tensor([-0.5, n - 0.5], device)
    assert sample(image, points)[0, 0].tolist() == [1, 1]
    assert sample(image, points.double() + 1e-9)[0, 0].tolist() == [1, 1]


def test_nearest_of_two_takes_the_higher_index(device: torch.device) -> None:
    image = tensor([[[[10, 11, 12, 13]]]], device)
    points = torch.zeros(1, 2, 5, device=device)
    points[0, 1] = tensor([-0.5, 0.5, 1.5, 2.5, 3.5], device)
    assert sample(image, points, "nearest")[0, 0].tolist() == [10, 11, 12, 13, 13]


def test_nearest_keeps_integers_that_no_float_holds(device: torch.device) -> None:
    labels = torch.tensor([[[[2**53 + 1, 2**24 + 1, -3]]]], device=device)
    moved = warp(labels, torch.zeros(1, 2, 1, 3, device=device), mode="nearest")
    assert moved.dtype == torch.int64
    assert moved[0, 0, 0].tolist() == [2**53 + 1, 2**24 + 1, -3]


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_coordinate_that_is_not_finite_reads_zero(mode, device: torch.device) -> None:
    image = torch.ones(1, 2, 3, 3, 3, device=device)
    points = torch.ones(1, 3, 4, device=device)
    points[0, 1] = tensor([float("nan"), float("inf"), -float("inf"), 1], device)
    assert sample(image, points, mode)[0, 0].tolist() == [0, 0, 0, 1]
    assert bool(torch.isfinite(sample(image, points, mode, outside="border")).all())


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_no_points_give_no_values(mode, device: torch.device) -> None:
    image = torch.ones(1, 2, 3, 3, device=device)
    assert sample(image, torch.zeros(1, 2, 0, device=device), mode).shape == (1, 2, 0)


def test_points_may_stand_alone(device: torch.device) -> None:
    image = tensor([[[[0, 1], [10, 11]]]], device)
    torch.testing.assert_close(sample(image, tensor([[0.5, 0.5]], device)), tensor([[5.5]], device))


def test_half_precision_images_are_read_at_exact_places(device: torch.device) -> None:
    ramp = torch.arange(1024, device=device).view(1, 1, 1, -1)
    displacement = torch.full((1, 2, 1, 1024), 0.25, device=device)
    moved = warp(ramp.to(torch.bfloat16), displacement, outside="border")
    assert moved.dtype == torch.bfloat16
    expected = warp(ramp.to(torch.bfloat16).float(), displacement, outside="border").to(torch.bfloat16)
    assert torch.equal(moved, expected)


def test_composition_of_shifts_adds_and_of_a_step_does_not_commute(device: torch.device) -> None:
    one = torch.zeros(1, 2, 5, 5, device=device)
    one[:, 0] = 1
    torch.testing.assert_close(compose(one, 2 * one), 3 * one)

    step = torch.zeros_like(one)  # moves rows 3 and 4 only
    step[:, 1, 3:] = 1
    assert compose(step, one)[0, 1, :, 0].tolist() == [0, 0, 1, 1, 1]
    assert compose(one, step)[0, 1, :, 0].tolist() == [0, 0, 0, 1, 1]


def test_composing_leaves_its_arguments_alone(device: torch.device) -> None:
    u = torch.rand(1, 2, 4, 4, device=device, requires_grad=True)
    before = u.detach().clone()
    compose(u, u).sum().backward()
    assert torch.equal(u, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 4), (5, 1, 4), (2, 2)], ids=str)
def test_axes_of_one_voxel(shape: tuple[int, ...], device: torch.device) -> None:
    ndim = len(shape)
    shift = torch.full((1, ndim, *shape), 0.3, device=device)
    torch.testing.assert_close(exponential(shift), shift)
    inverse, residual = invert(shift)
    torch.testing.assert_close(inverse, -shift)
    assert float(residual.max()) < 1e-6
    torch.testing.assert_close(jacobian_determinant(shift), torch.ones(1, *shape, device=device))
    double = tuple(2 * n for n in shape)
    torch.testing.assert_close(resize_displacement(shift, double), torch.full((1, ndim, *double), 0.6, device=device))
    assert resize(shift, (1,) * ndim).shape == (1, ndim, *[1] * ndim)


def test_an_axis_of_one_voxel_does_not_stretch(device: torch.device) -> None:
    displacement = torch.zeros(1, 3, 1, 3, 2, device=device)
    displacement[0, 1] = 0.5 * identity((1, 3, 2), device=device)[1]
    torch.testing.assert_close(jacobian_determinant(displacement), torch.full((1, 1, 3, 2), 1.5, device=device))


def test_resizing_two_voxels(device: torch.device) -> None:
    image = tensor([[[[0, 4]]]], device)
    torch.testing.assert_close(resize(image, (1, 4)), tensor([[[[0, 1, 3, 4]]]], device))
    torch.testing.assert_close(resize(image, (1, 1)), tensor([[[[2]]]], device))
    # Two points a voxel: at -1/8 (the border value holds), 5/8, 11/8 and 17/8.
    torch.testing.assert_close(resize(tensor([[[[0, 8, 16]]]], device), (1, 2)), tensor([[[[2.5, 13.5]]]], device))
    assert resize(image, (1, 2)) is image


def test_a_displacement_is_counted_in_voxels_of_its_new_grid(device: torch.device) -> None:
    displacement = torch.ones(1, 2, 4, 6, device=device)
    halved = resize_displacement(displacement, (2, 12))
    torch.testing.assert_close(halved[:, 0], torch.full((1, 2, 12), 0.5, device=device))
    torch.testing.assert_close(halved[:, 1], torch.full((1, 2, 12), 2.0, device=device))


def test_resizing_asks_for_a_size_along_each_axis(device: torch.device) -> None:
    with pytest.raises(ValueError, match="argument"):
        resize(torch.zeros(1, 1, 4, 4, device=device), (2, 2, 2))
