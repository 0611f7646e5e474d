"""Penalties on displacements whose derivatives are known."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses.deform import BendingEnergyLoss

from anamorph.losses import bending_energy, diffusion, folding, volume_change


def coordinates(*shape: int) -> torch.Tensor:
    """Voxel coordinates, 1 d *shape, float64."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"))[None]


def linear(matrix: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.einsum("cd,bd...->bc...", matrix, coordinates(*shape))


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 5)])
def test_a_linear_displacement(shape, generator):
    d = len(shape)
    matrix = torch.rand(d, d, generator=generator, dtype=torch.float64) - 0.5
    u = linear(matrix, *shape)
    assert diffusion(u).item() == pytest.approx(matrix.square().mean().item())
    assert bending_energy(u).item() == pytest.approx(0, abs=1e-20)
    determinant = torch.linalg.det(torch.eye(d, dtype=torch.float64) + matrix).item()
    assert volume_change(u).item() == pytest.approx(math.log(determinant) ** 2)
    assert folding(u).item() == 0


def test_spacing_turns_voxels_into_millimetres():
    """u = 0.2 y e_x on voxels of 2 x 3 x 4 mm shears by 0.4 mm a voxel of 3 mm."""
    matrix = torch.zeros(3, 3, dtype=torch.float64)
    matrix[0, 1] = 0.2
    u = linear(matrix, 6, 6, 6)
    assert diffusion(u, (2.0, 3.0, 4.0)).item() == pytest.approx((0.4 / 3) ** 2 / 9)
    x = coordinates(6, 6, 6)
    bent = torch.zeros_like(x)
    bent[:, 2] = 0.1 * x[:, 0] * x[:, 1] + 0.05 * x[:, 1] ** 2  # mixed 0.1, second 0.1 along axis 1, in voxels
    expected = (2 * (0.1 * 4 / (2 * 3)) ** 2 + (0.1 * 4 / 9) ** 2) / 3
    assert bending_energy(bent, (2.0, 3.0, 4.0)).item() == pytest.approx(expected)


@pytest.mark.parametrize("penalty", [diffusion, bending_energy])
def test_the_same_deformation_costs_the_same_in_voxels_of_any_shape(penalty):
    """A wave in mm, sampled at 1 x 1 mm and at 1 x 2 mm."""

    def wave(step: float) -> torch.Tensor:
        x = coordinates(128, int(128 / step)) * torch.tensor([1.0, step], dtype=torch.float64).view(1, 2, 1, 1)
        mm = torch.stack([3 * torch.sin(x[:, 0] / 9 + x[:, 1] / 11), 2 * torch.cos(x[:, 1] / 10)], 1)
        return mm / torch.tensor([1.0, step], dtype=torch.float64).view(1, 2, 1, 1)

    fine, coarse = penalty(wave(1.0), (1.0, 1.0)), penalty(wave(2.0), (1.0, 2.0))
    assert coarse.item() == pytest.approx(fine.item(), rel=0.03)
    assert penalty(wave(2.0)).item() != pytest.approx(fine.item(), rel=0.2)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # inside the referee
@pytest.mark.parametrize("shape", [(8, 7), (8, 7, 6)])
def test_bending_energy_of_quadratics_is_monais(shape, generator):
    d = len(shape)
    x = coordinates(*shape)
    form = torch.rand(d, d, d, generator=generator, dtype=torch.float64)
    u = torch.einsum("cij,bi...,bj...->bc...", form, x, x)
    torch.testing.assert_close(bending_energy(u), BendingEnergyLoss()(u))


def test_folding_counts_how_far_below_zero():
    u = linear(torch.diag(torch.tensor([-3.0, 0.5], dtype=torch.float64)), 6, 6)  # determinant -2 * 1.5
    assert folding(u).item() == pytest.approx(3)
    assert volume_change(u).item() == pytest.approx((math.log(0.1) + (-3 - 0.1) / 0.1) ** 2)
    u = u.requires_grad_()
    (folding(u) + volume_change(u)).backward()
    assert u.grad is not None
    assert u.grad.isfinite().all()
    assert u.grad.any()


def test_halving_and_doubling_cost_the_same():
    costs = [volume_change(linear(torch.eye(2, dtype=torch.float64) * (s - 1), 6, 6)).item() for s in (0.5, 2)]
    assert costs[0] == pytest.approx(costs[1])


@pytest.mark.parametrize("penalty", [diffusion, bending_energy, folding, volume_change])
def test_no_displacement_costs_nothing_and_gradients_are_right(penalty, generator):
    still = torch.zeros(2, 3, 5, 4, 6, requires_grad=True)
    penalty(still).backward()
    assert penalty(still).item() == 0
    assert still.grad is not None
    assert not still.grad.any()
    u = torch.rand(1, 2, 5, 4, generator=generator, dtype=torch.float64).mul(2).requires_grad_()
    assert torch.autograd.gradcheck(penalty, u)


def test_axes_too_short_for_a_difference_cost_nothing():
    u = torch.rand(1, 3, 5, 1, 2, dtype=torch.float64)
    assert diffusion(u).isfinite()
    assert bending_energy(u).isfinite()


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, -1.0, 1.0)])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(ValueError, match="one positive number an axis"):
        diffusion(torch.zeros(1, 3, 4, 4, 4), spacing)
