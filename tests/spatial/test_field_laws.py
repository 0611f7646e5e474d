"""The algebra of displacements, on random smooth fields that stay within the grid, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anamorph.spatial import interpolation
from anamorph.spatial.affine import affine_displacement
from anamorph.spatial.field import (
    compose,
    exponential,
    identity,
    invert,
    jacobian,
    jacobian_determinant,
    resize,
    resize_displacement,
    sample,
    warp,
)
from anamorph.spatial.grid import Grid

shapes = st.sampled_from([(24, 20), (18, 30), (16, 14, 18), (14, 16, 15)])
small_shapes = st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 7)] * 3))
seeds = st.integers(0, 10_000)
BETWEEN_VOXELS = 0.15
"""What linear interpolation of these fields may miss, in voxels; a swapped order or sign misses by several times it."""
few = settings(max_examples=15)


def interior(values: Tensor, margin: int) -> Tensor:
    """Without the ``margin`` outer voxels of each spatial axis."""
    return values[(..., *[slice(margin, -margin)] * (values.dim() - 2))]


def ramps(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """One channel an axis, linear along it: linear interpolation makes no error on it."""
    return identity(shape, like.dtype, like.device)[None]


@few
@given(shape=shapes, u_seed=seeds, v_seed=seeds)
def test_warping_twice_is_warping_by_the_composition(smooth_field: Callable, shape, u_seed, v_seed) -> None:
    u, v = smooth_field(shape, u_seed, 1.5), smooth_field(shape, v_seed, 1.5)
    image = ramps(shape, u)
    torch.testing.assert_close(warp(warp(image, u), v), warp(image, compose(u, v)), rtol=0, atol=1e-9)
    image = smooth_field(shape, u_seed + v_seed, channels=2)
    torch.testing.assert_close(warp(warp(image, u), v), warp(image, compose(u, v)), rtol=0, atol=BETWEEN_VOXELS)


@few
@given(shape=shapes, seeds_of=st.tuples(seeds, seeds, seeds))
def test_composition_is_associative_and_has_a_neutral_element(smooth_field: Callable, shape, seeds_of) -> None:
    u, v, w = (smooth_field(shape, seed) for seed in seeds_of)
    torch.testing.assert_close(compose(compose(u, v), w), compose(u, compose(v, w)), rtol=0, atol=BETWEEN_VOXELS)
    nothing = torch.zeros_like(u)
    torch.testing.assert_close(compose(u, nothing), u, rtol=0, atol=1e-9)
    torch.testing.assert_close(compose(nothing, u), u, rtol=0, atol=1e-9)


@few
@given(shape=shapes, seed=seeds)
def test_the_flow_of_the_negative_velocity_is_the_inverse(smooth_field: Callable, shape, seed) -> None:
    velocity = smooth_field(shape, seed, 1.5)
    there, back = exponential(velocity), exponential(-velocity)
    assert float(compose(there, back).abs().max()) < BETWEEN_VOXELS
    assert float(compose(back, there).abs().max()) < BETWEEN_VOXELS
    assert float(there.abs().max()) > 1


@few
@given(shape=shapes, seed=seeds)
def test_flowing_twice_is_flowing_with_twice_the_velocity(smooth_field: Callable, shape, seed) -> None:
    velocity = smooth_field(shape, seed)
    once = exponential(velocity)
    torch.testing.assert_close(compose(once, once), exponential(2 * velocity, steps=8), rtol=0, atol=1e-12)
    torch.testing.assert_close(compose(once, once), exponential(2 * velocity), rtol=0, atol=5e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_flow_of_a_linear_velocity_is_the_matrix_exponential(ndim: int, device: torch.device) -> None:
    generator = torch.tensor([[-0.2, -0.4, 0.1], [0.4, -0.1, 0.2], [-0.1, -0.2, -0.3]], dtype=torch.float64)[
        :ndim, :ndim
    ]
    generator = generator.to(device)
    shape = (17, 19, 21)[:ndim]
    from_centre = identity(shape, torch.float64, device)
    from_centre -= torch.tensor([(n - 1) / 2 for n in shape], device=device).view(-1, *[1] * ndim)
    flow = exponential(torch.tensordot(generator, from_centre, dims=1)[None], steps=10)[0]
    expected = torch.tensordot(torch.matrix_exp(generator), from_centre, dims=1) - from_centre
    near = from_centre.norm(dim=0) < 6  # whose path stays inside
    torch.testing.assert_close(flow[:, near], expected[:, near], rtol=0, atol=2e-3)


@few
@given(shape=shapes, seed=seeds)
def test_the_inverse_inverts_and_its_residual_says_how_well(smooth_field: Callable, shape, seed) -> None:
    displacement = smooth_field(shape, seed)
    inverse, residual = invert(displacement)
    assert float(residual.max()) < 1e-3
    torch.testing.assert_close(compose(displacement, inverse).norm(dim=1), residual, rtol=0, atol=1e-12)
    assert float(compose(inverse, displacement).abs().max()) < BETWEEN_VOXELS

    _, early = invert(displacement, iterations=2)
    assert float(early.max()) > float(residual.max())


@few
@given(shape=shapes, seed=seeds)
def test_the_inverse_of_a_flow_is_the_flow_back(smooth_field: Callable, shape, seed) -> None:
    velocity = smooth_field(shape, seed)
    torch.testing.assert_close(
        invert(exponential(velocity)).displacement, exponential(-velocity), rtol=0, atol=BETWEEN_VOXELS
    )


def test_a_fold_shows_in_the_residual_and_in_the_determinant(device: torch.device) -> None:
    displacement = torch.zeros(1, 2, 12, 12, dtype=torch.float64, device=device)
    displacement[0, 0, 4:8] = torch.tensor([4.0, 2.0, -2.0, -4.0]).view(4, 1)
    assert float(invert(displacement).residual.max()) > 0.5
    assert float(jacobian_determinant(displacement).min()) < 0


def random_linear(ndim: int, seed: int, device: torch.device) -> Tensor:
    """A homogeneous matrix near the identity, 1 (d+1) (d+1), float64."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:ndim] += 0.2 * torch.randn(ndim, ndim + 1, generator=generator, dtype=torch.float64)
    return matrix[None].to(device)


@given(shape=st.one_of(st.tuples(*[st.integers(2, 7)] * 2), st.tuples(*[st.integers(2, 6)] * 3)), seed=seeds)
def test_the_jacobian_of_an_affine_map_is_its_matrix(device: torch.device, shape, seed) -> None:
    ndim = len(shape)
    matrix = random_linear(ndim, seed, device)
    displacement = affine_displacement(matrix, shape)
    linear = matrix[:, :ndim, :ndim]
    torch.testing.assert_close(
        jacobian(displacement), linear.view(1, ndim, ndim, *[1] * ndim).expand(1, ndim, ndim, *shape)
    )
    determinant = jacobian_determinant(displacement)
    torch.testing.assert_close(determinant, torch.linalg.det(linear).view(1, *[1] * ndim).expand(1, *shape))


@few
@given(shape=shapes, u_seed=seeds, v_seed=seeds)
def test_the_determinant_of_a_composition_is_the_product(
    smooth_field: Callable, device: torch.device, shape, u_seed, v_seed
) -> None:
    u, v = smooth_field(shape, u_seed), smooth_field(shape, v_seed)
    product = warp(jacobian_determinant(u).unsqueeze(1), v)[:, 0] * jacobian_determinant(v)
    composed = jacobian_determinant(compose(u, v))
    torch.testing.assert_close(interior(composed[None], 1), interior(product[None], 1), rtol=0, atol=BETWEEN_VOXELS)

    first, second = (random_linear(len(shape), seed, device) for seed in (u_seed, v_seed))
    determinant = jacobian_determinant(affine_displacement(first @ second, shape))
    product = torch.linalg.det(first) * torch.linalg.det(second)
    torch.testing.assert_close(determinant, product.view(1, *[1] * len(shape)).expand(1, *shape))


@few
@given(shape=shapes, seed=seeds)
def test_a_flow_does_not_fold(smooth_field: Callable, shape, seed) -> None:
    assert float(jacobian_determinant(exponential(smooth_field(shape, seed, 3.0))).min()) > 0


@given(shape=small_shapes, data=st.data(), seed=seeds)
def test_a_linear_map_of_the_world_stays_the_same_after_resizing(
    oblique_grid: Callable, device: torch.device, shape, data, seed
) -> None:
    ndim = len(shape)
    new = tuple(data.draw(st.integers(1, 2 * n)) for n in shape)
    grid = oblique_grid(shape, seed)
    resized = grid.resized(new)
    world = random_linear(ndim, seed, device)[0].cpu().numpy()
    before, after = (
        affine_displacement(torch.tensor(g.inverse_affine @ world @ g.affine)[None].to(device), g.shape)
        for g in (grid, resized)
    )
    found = resize_displacement(before, new)
    # Within half an old voxel of the edge a field holds its border value, as everywhere; a linear map does not.
    inside = torch.ones(new, dtype=torch.bool, device=device)
    for axis, (n, old) in enumerate(zip(new, shape, strict=True)):
        centre = (torch.arange(n, device=device) + 0.5) * old / n - 0.5
        reach = max(0.0, old / n - 1) / 2 if old % n == 0 else old / n / 2
        along = (centre - reach >= -1e-9) & (centre + reach <= old - 1 + 1e-9)
        inside &= along.view(-1, *[1] * (ndim - axis - 1))
    torch.testing.assert_close(found[..., inside], after[..., inside], rtol=0, atol=1e-9)


@given(shape=small_shapes, data=st.data(), seed=seeds)
def test_growing_reads_the_image_at_the_new_centres(device: torch.device, shape, data, seed) -> None:
    new = tuple(data.draw(st.integers(n, 3 * n)) for n in shape)
    image = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)
    grid = Grid.from_spacing(shape)
    matrix = torch.tensor(grid.resized(new).to_grid(grid))[None].to(device)
    points = (affine_displacement(matrix, new) + identity(new, torch.float64, device)).expand(2, -1, *new)
    torch.testing.assert_close(resize(image, new), sample(image, points, outside="border"), rtol=0, atol=1e-12)


@given(shape=small_shapes, factors=st.lists(st.integers(1, 4), min_size=3, max_size=3), seed=seeds)
def test_shrinking_by_whole_factors_takes_means_of_blocks(device: torch.device, shape, factors, seed) -> None:
    old = tuple(n * factor for n, factor in zip(shape, factors, strict=False))
    image = torch.rand(1, 2, *old, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)
    blocks = image
    for axis in range(len(shape)):
        blocks = blocks.unflatten(2 + axis, (shape[axis], factors[axis])).mean(3 + axis)
    torch.testing.assert_close(resize(image, shape), blocks, rtol=0, atol=1e-12)


@given(shape=small_shapes, data=st.data())
def test_a_constant_stays_constant_when_resized(device: torch.device, shape, data) -> None:
    new = tuple(data.draw(st.integers(1, 3 * n)) for n in shape)
    torch.testing.assert_close(
        resize(torch.full((1, 1, *shape), 7.0, device=device), new), torch.full((1, 1, *new), 7.0, device=device)
    )


def off_the_kinks(shape: tuple[int, ...], seed: int, device: torch.device) -> Tensor:
    """Displacements of up to two voxels whose ends keep away from the kinks of linear interpolation, 1 d *shape."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(-2, 3, (1, len(shape), *shape), generator=generator)
    part = torch.rand(1, len(shape), *shape, generator=generator, dtype=torch.float64) * 0.3 + 0.1
    return (whole + part).to(device)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2), (1, 3, 2)], ids=str)
@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_gradients_of_warp_and_sample(shape: tuple[int, ...], outside, device: torch.device) -> None:
    image = torch.rand(1, 2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    displacement = off_the_kinks(shape, 2, device)
    image.requires_grad_(), displacement.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, u: warp(i, u, outside=outside), (image, displacement))
    points = (displacement + identity(shape, torch.float64, device)).flatten(2)[..., :5].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda i, p: sample(i, p, outside=outside), (image, points))


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 3)], ids=str)
def test_gradients_of_the_flow(shape: tuple[int, ...], device: torch.device) -> None:
    velocity = off_the_kinks(shape, 3, device).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: exponential(v, steps=3), (velocity,))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [(11, 6), (5, 4, 6), (2, 3, 3)], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_parts_and_threads_do_not_show(monkeypatch: pytest.MonkeyPatch, threads: int, shape, batch: int) -> None:
    generator = torch.Generator().manual_seed(4)
    image = torch.rand(batch, 2, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    displacement = torch.randn(batch, len(shape), *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(image.shape, generator=generator, dtype=torch.float64)

    def values_and_gradients() -> tuple[Tensor, ...]:
        values = warp(image, displacement)
        return values, *torch.autograd.grad((values * weights).sum(), (image, displacement))

    whole = values_and_gradients()
    monkeypatch.setattr(interpolation, "POINTS_AT_ONCE", 13)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = values_and_gradients()
    finally:
        torch.set_num_threads(before)
    for part, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


def test_only_the_inputs_are_kept_for_the_gradient(device: torch.device) -> None:
    image = torch.rand(1, 2, 8, 9, 10, device=device, requires_grad=True)
    displacement = torch.rand(1, 3, 8, 9, 10, device=device, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda t: t):
        warp(image, displacement)
    assert set(kept) == {image.data_ptr(), displacement.data_ptr()}
