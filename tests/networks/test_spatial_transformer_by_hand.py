"""The spatial transformer: its weights counted, its maps against slow literal ones, and which way they go."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, linear, relu

from anamorph.networks.spatial_transformer import (
    AtlasTransformation,
    SpatialTransformer,
    affine_matrix,
)
from anamorph.networks.unet import StridedUNet
from anamorph.spatial.field import warp

# -- a literal reference -----------------------------------------------------------------------------------------------


def read(image: np.ndarray, point: Sequence[float]) -> np.ndarray:
    """The linear value of an image C I J (K) at a point in voxels; beyond the outer voxels their value."""
    clamped = [min(max(p, 0.0), n - 1.0) for p, n in zip(point, image.shape[1:], strict=True)]
    value = np.zeros(len(image))
    for corner in itertools.product((0, 1), repeat=len(clamped)):
        weight, index = 1.0, []
        for c, p, n in zip(corner, clamped, image.shape[1:], strict=True):
            weight *= p - math.floor(p) if c else 1 - (p - math.floor(p))
            index.append(min(math.floor(p) + c, n - 1))
        value += weight * image[(slice(None), *index)]
    return value


def displaced(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """image(x + u(x))."""
    result = np.zeros((len(image), *displacement.shape[1:]))
    for x in np.ndindex(displacement.shape[1:]):
        result[(slice(None), *x)] = read(image, x + displacement[(slice(None), *x)])
    return result


def flow(velocity: np.ndarray, squarings: int) -> np.ndarray:
    u = velocity / 2**squarings
    for _ in range(squarings):
        u = u + displaced(u, u)
    return u


def enlarged(u: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """On the grid of twice the resolution, in its voxels."""
    result = np.zeros((len(u), *shape))
    for x in np.ndindex(shape):
        result[(slice(None), *x)] = 2 * read(u, [(i + 0.5) / 2 - 0.5 for i in x])
    return result


def literal_maps(velocity: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Phi(x) - x = T(phi(x)) - x, and Phi^-1(x) - x = phi^-1(T^-1(x)) - x."""
    phi, phi_inverse = (enlarged(flow(v, 6), shape) for v in (velocity, -velocity))
    linear_part, offset = matrix[:-1, :-1], matrix[:-1, -1]
    forward, inverse = np.zeros_like(phi), np.zeros_like(phi)
    for x in np.ndindex(shape):
        here = (slice(None), *x)
        forward[here] = linear_part @ (x + phi[here]) + offset - x
        back = np.linalg.solve(linear_part, x - offset)
        inverse[here] = back + read(phi_inverse, back) - x
    return forward, inverse


# -- the network -------------------------------------------------------------------------------------------------------


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(pairs: Sequence[tuple[int, int]], ndim: int) -> int:
    return sum(3**ndim * a * b + b for a, b in pairs)


ENCODER = [(16, 16), (16, 16), (16, 16), (16, 32), (32, 32)]
DECODER = [(48, 16), (32, 16), (16, 8)]


@pytest.mark.parametrize(("shape", "inputs"), [((64, 64), 2), ((48, 32, 64), 10)])
def test_it_has_as_many_weights_as_the_release(shape, inputs) -> None:
    """Section 3.2 of the facts: convolutions, and of the affine part two layers and three heads of 32 inputs."""
    ndim = len(shape)
    begin = [(inputs, inputs), (inputs, 16)]
    svf = convolutions([*begin, *ENCODER, *DECODER, (8, ndim)], ndim)
    coarsest = 32 * math.prod(n // 16 for n in shape)
    heads = sum(33 * outputs for outputs in (ndim, 1 if ndim == 2 else 3, ndim))
    affine = coarsest * 32 + 32 + heads
    assert count(SpatialTransformer(shape, inputs, kind="svf")) == svf
    assert count(SpatialTransformer(shape, inputs)) == svf + affine
    assert count(SpatialTransformer(shape, inputs, kind="affine")) == convolutions([*begin, *ENCODER], ndim) + affine
    more = convolutions([(32, 32), (32, 32), (64, 32)], ndim)
    assert count(SpatialTransformer(shape, inputs, (16, 16, 32, 32), "svf")) == svf + more


def test_a_normalised_segmentation_network_has_a_scale_and_a_shift_a_channel() -> None:
    plain, normalised = (StridedUNet(3, 1, 3, (4, 8), batch_norm) for batch_norm in (False, True))
    assert count(normalised) - count(plain) == 2 * (4 + 8 + 4 + 8 + 4)  # first, down, encode twice, decode
    x = torch.rand(2, 1, 6, 5, 7)
    assert normalised(x).shape == plain(x).shape


@pytest.mark.parametrize("shape", [(16, 24), (17, 9), (8, 9, 15), (3, 5)])
@pytest.mark.parametrize("channels", [(4,), (4, 6), (16, 16, 32)])
def test_it_begins_without_an_affine_map_at_any_size(shape, channels, generator) -> None:
    network = SpatialTransformer(shape, 4, channels)
    velocity, parameters = network(torch.rand(2, 4, *shape, generator=generator))
    multiple = 2 ** len(channels)
    assert velocity.shape == (2, len(shape), *[-(-n // multiple) * multiple // 2 for n in shape])
    assert velocity.abs().max() > 0
    assert parameters is not None
    assert not parameters.any()
    matrix = affine_matrix(parameters, shape, [2.0] * len(shape))
    assert torch.equal(matrix, torch.eye(len(shape) + 1).expand_as(matrix))


def test_two_scales_written_out(generator) -> None:
    network = SpatialTransformer((12, 8), 2, (3, 5))
    torch.nn.init.normal_(network.get_parameter("affine.3.weight"), generator=generator)
    w = dict(network.named_parameters())

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=stride, padding=1)

    x = torch.rand(1, 2, 12, 8, generator=generator)
    fine = relu(conv(relu(conv(conv(x, "first", 2), "widen")), "encode.0"))
    coarse = relu(conv(conv(fine, "down.0", 2), "encode.1"))
    up = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    back = relu(conv(torch.cat([up, fine], 1), "decode.0"))
    velocity = conv(relu(conv(back, "flow.0")), "flow.2") / 2
    pooled = torch.cat([avg_pool2d(coarse[:, :, :2], 2), coarse[:, :, 2:].mean(2, keepdim=True)[..., :1] * 0], 2)
    pooled[:, :, 1:] = avg_pool2d(coarse[:, :, 2:], (1, 2))  # the third of three rows stays alone
    hidden = relu(linear(pooled.flatten(1), w["affine.1.weight"], w["affine.1.bias"]))
    expected = linear(hidden, w["affine.3.weight"], w["affine.3.bias"])
    found = network(x)
    torch.testing.assert_close(found[0], velocity)
    torch.testing.assert_close(found[1], expected)


# -- the affine map ----------------------------------------------------------------------------------------------------


def test_the_affine_map_is_bounded_and_ends_with_the_translation() -> None:
    shape, spacing = (20, 10), (1.0, 1.0)
    everything = torch.full((1, 5), 100.0)
    turn, size, middle = math.pi / 4, math.e, np.array([9.5, 4.5])
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    expected = np.eye(3)
    expected[:2, :2] = rotation * size
    expected[:2, 2] = middle + np.array([10.0, 5.0]) - expected[:2, :2] @ middle
    np.testing.assert_allclose(affine_matrix(everything, shape, spacing)[0].numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_it_scales_then_turns_then_shifts(ndim, generator) -> None:
    """M_t R D about the middle, in mm: a rotation stays one on any grid."""
    shape, spacing = (12, 30, 7)[:ndim], (2.0, 0.5, 3.0)[:ndim]
    rotations = ndim * (ndim - 1) // 2
    parameters = torch.randn(1, 2 * ndim + rotations, generator=generator).double()
    t, r, s = (part[0].numpy() for part in parameters.tanh().split([ndim, rotations, ndim], 1))
    generators = np.zeros((ndim, ndim))
    if ndim == 2:
        generators[0, 1], generators[1, 0] = -r[0], r[0]
    else:
        generators[:] = [[0, -r[2], r[1]], [r[2], 0, -r[0]], [-r[1], r[0], 0]]
    rotation = torch.matrix_exp(torch.from_numpy(generators) * math.pi / 4).numpy()
    middle = (np.array(shape) - 1) / 2 * spacing
    point = np.arange(1.0, ndim + 1)
    moved = rotation @ (np.exp(s) * (point * spacing - middle)) + middle + t * np.array(shape) * spacing / 2
    matrix = affine_matrix(parameters, shape, spacing)[0].numpy()
    np.testing.assert_allclose(matrix[:-1, :-1] @ point + matrix[:-1, -1], moved / spacing)


# -- the transformation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "half"), [((7, 10), (4, 6)), ((6, 5, 4), (4, 4, 2))])
def test_the_maps_are_the_literal_ones(shape, half, generator) -> None:
    ndim = len(shape)
    velocity = torch.randn(2, ndim, *half, generator=generator).double()
    parameters = 0.3 * torch.randn(2, 2 * ndim + ndim * (ndim - 1) // 2, generator=generator).double()
    matrix = affine_matrix(parameters, shape, (1.0, 2.0, 1.5)[:ndim])
    found = AtlasTransformation(velocity, matrix, shape)
    for item in range(2):
        forward, inverse = literal_maps(velocity[item].numpy(), matrix[item].numpy(), shape)
        np.testing.assert_allclose(found.forward[item].numpy(), forward, atol=1e-9)
        np.testing.assert_allclose(found.inverse[item].numpy(), inverse, atol=1e-9)
        local = enlarged(flow(velocity[item].numpy(), 6), shape)
        np.testing.assert_allclose(found.local[item].numpy(), local, atol=1e-9)
    alone = AtlasTransformation(velocity, None, shape)
    assert alone.matrix is None
    assert torch.equal(alone.forward, alone.local)
    np.testing.assert_allclose(alone.inverse[0].numpy(), enlarged(flow(-velocity[0].numpy(), 6), shape), atol=1e-9)


def test_a_map_is_computed_once_and_not_before_it_is_asked_for(generator) -> None:
    found = AtlasTransformation(torch.randn(1, 2, 4, 6, generator=generator), torch.eye(3)[None], (8, 12))
    assert found.inverse is found.inverse
    assert not {"local", "forward"} & vars(found).keys()
    assert found.forward is not found.local
    torch.testing.assert_close(found.forward, found.local)


def smooth(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A velocity that goes to 0 at the border, of about half a voxel."""
    ndim = len(shape)
    mode = "bilinear" if ndim == 2 else "trilinear"
    rough = torch.zeros(1, ndim, *[6] * ndim)
    rough[(slice(None), slice(None), *[slice(2, 4)] * ndim)] = 0.3 * torch.randn(
        1, ndim, *[2] * ndim, generator=generator
    )
    return interpolate(rough, size=shape, mode=mode, align_corners=True)


@pytest.mark.parametrize("shape", [(48, 40), (32, 28, 36)])
def test_there_and_back_is_next_to_nothing(shape, generator) -> None:
    ndim = len(shape)
    parameters = 0.1 * torch.randn(1, 2 * ndim + ndim * (ndim - 1) // 2, generator=generator)
    matrix = affine_matrix(parameters, shape, [1.0] * ndim)
    found = AtlasTransformation(smooth(tuple(n // 2 for n in shape), generator), matrix, shape)
    for first, second in ((found.forward, found.inverse), (found.inverse, found.forward)):
        there_and_back = second + warp(first, second, outside="border")
        inside = there_and_back[(slice(None), slice(None), *[slice(n // 3, -n // 3) for n in shape])]
        assert first.abs().max() > 1
        assert inside.norm(dim=1).mean() < 0.05
        assert inside.norm(dim=1).max() < 0.2


@pytest.mark.parametrize("by", ["affine", "velocity"])
def test_a_shift_goes_the_right_way(by) -> None:
    """The case's structure lies 3 voxels beyond the atlas's along the first axis and 2 before it along the second."""
    shape, shift = (24, 20), (3.0, -2.0)
    atlas, case = torch.zeros(1, 1, *shape), torch.zeros(1, 1, *shape)
    atlas[:, :, 9:13, 9:12] = 1
    case[:, :, 12:16, 7:10] = 1
    velocity, matrix = torch.zeros(1, 2, 12, 10), None
    if by == "velocity":
        velocity += torch.tensor(shift).view(1, 2, 1, 1) / 2  # voxels of the half grid
    else:
        share = torch.tensor(shift) / (torch.tensor(shape) / 2)
        matrix = affine_matrix(torch.cat([share.atanh(), torch.zeros(3)])[None], shape, (1.0, 1.0))
    found = AtlasTransformation(velocity, matrix, shape)
    torch.testing.assert_close(warp(case, found.forward), atlas, rtol=0, atol=1e-4)
    torch.testing.assert_close(warp(atlas, found.inverse), case, rtol=0, atol=1e-4)


def test_the_order_of_affine_and_local_is_the_papers() -> None:
    """Phi = T o phi: what phi moves is then stretched by T, not the other way round."""
    shape = (16, 16)
    velocity = torch.zeros(1, 2, 8, 8)
    velocity[:, 0] = 1.0  # two voxels of the image
    matrix = affine_matrix(torch.tensor([[0.0, 0.0, 0.0, 0.5, 0.0]]), shape, (1.0, 1.0))
    stretch = math.exp(math.tanh(0.5))
    found = AtlasTransformation(velocity, matrix, shape)
    middle = found.forward[0, 0, 7:9].mean()  # about 7.5, which T leaves where it is
    assert float(middle) == pytest.approx(2 * stretch, rel=1e-5)
    assert float(found.inverse[0, 0, 7:9].mean()) == pytest.approx(-2, rel=1e-5)
