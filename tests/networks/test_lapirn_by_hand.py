"""LapIRN's levels: their size, and the whole forward pass written out in the release's own normalised units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anamorph.networks.lapirn import LaplacianPyramid

SHAPES = {"2d": (16, 24), "3d": (16, 8, 24)}


def test_the_levels_have_the_parameters_of_the_release() -> None:
    net = LaplacianPyramid(3, 1, 4 * 7, 0.4, 7)
    assert [sum(p.numel() for p in level.parameters()) for level in net.levels] == [306_404, 308_672, 308_672]


# -- the release's forward pass, in units where the image spans -1 ... 1 and components run from the last axis to the
# first. Two of its operations are replaced, as docs/methods/lapirn.md says: images are halved by means of two, and a
# field that is brought to the finer grid keeps its length in the world.


def grid_of(shape: tuple[int, ...]) -> Tensor:
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape), indexing="ij")
    return torch.stack(axes[::-1], -1)[None]


def pulled(image: Tensor, field: Tensor) -> Tensor:
    where = grid_of(tuple(field.shape[2:])) + field.movedim(1, -1)
    return F.grid_sample(image, where, padding_mode="border", align_corners=True)


def flow_of(velocity: Tensor) -> Tensor:
    field = velocity / 2**7
    for _ in range(7):
        field = field + pulled(field, field)
    return field


def enlarged(field: Tensor) -> Tensor:
    old = torch.tensor(field.shape[2:]).flip(0).double()
    same_length = 2 * (old - 1) / (2 * old - 1)
    mode = "trilinear" if field.ndim == 5 else "bilinear"
    return F.interpolate(field, scale_factor=2, mode=mode) * same_length.view(1, -1, *[1] * (field.ndim - 2))


def level_of(net: LaplacianPyramid, number: int, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
    convolve, transposed = (F.conv3d, F.conv_transpose3d) if x.ndim == 5 else (F.conv2d, F.conv_transpose2d)

    def conv(name: str, y: Tensor, stride: int = 1) -> Tensor:
        return convolve(y, net.get_parameter(f"levels.{number}.{name}.weight"), None, stride, 1)

    def leaky(y: Tensor) -> Tensor:
        return torch.where(y > 0, y, 0.2 * y)

    skip = conv("encoder.2", leaky(conv("encoder.0", x)))
    e = conv("down", skip, 2)
    if coarser is not None:
        e = e + coarser
    for block in range(5):
        out = conv(f"residual.{block}.first", leaky(e))
        e = leaky(conv(f"residual.{block}.second", leaky(out)) + e)
    e = transposed(e, net.get_parameter(f"levels.{number}.up.weight"), None, 2)
    h = conv("head.2", leaky(conv("head.0", torch.cat([e, skip], 1))))
    return h / (1 + h.abs()), e


def released(net: LaplacianPyramid, fixed: Tensor, moving: Tensor, levels: int, velocities: bool) -> Tensor:
    pool = F.avg_pool3d if fixed.ndim == 5 else F.avg_pool2d
    field = embedding = None
    for number in range(levels):
        x, y = moving, fixed
        for _ in range(2 - number):
            x, y = pool(x, 2), pool(y, 2)
        if field is None:
            inputs, above = torch.cat([x, y], 1), 0
        else:
            above = enlarged(field)
            displacement = enlarged(flow_of(field)) if velocities else above
            inputs = torch.cat([pulled(x, displacement), y, above.flip(1)], 1)
        h, embedding = level_of(net, number, inputs, embedding)
        field = 0.4 * h.flip(1) + above
    assert field is not None
    return field


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("squarings", [7, None], ids=["velocity", "displacement"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_field_in_voxels_is_the_released_field_in_normalised_units(
    shape: tuple[int, ...], squarings: int | None, level: int
) -> None:
    torch.manual_seed(1)
    net = LaplacianPyramid(len(shape), 1, 4, 0.4, squarings).double()
    for one in net.levels:
        one.get_parameter("head.2.weight").data *= 30  # displacements of voxels, not of hundredths
    fixed, moving = torch.rand(2, 2, 1, *shape, dtype=torch.float64)
    field = net(fixed, moving, level)
    coarse = torch.tensor([n // 2 ** (3 - level) for n in shape])
    unit = (coarse - 1).double() / 2
    expected = released(net, fixed, moving, level, squarings is not None).flip(1)
    torch.testing.assert_close(field, expected * unit.view(1, -1, *[1] * len(shape)))
    assert field.shape[2:] == tuple(coarse.tolist())
    assert field.abs().amax() > 0.1


def test_a_size_that_does_not_divide_is_continued_by_its_border() -> None:
    net = LaplacianPyramid(2, 1, 4, 0.4, 7)
    fixed, moving = torch.rand(2, 1, 1, 11, 16)
    rows = [min(i, 10) for i in range(16)]
    torch.testing.assert_close(net(fixed, moving), net(fixed[:, :, rows], moving[:, :, rows]))


def test_images_of_several_channels() -> None:
    net = LaplacianPyramid(2, 3, 4, 0.4, None)
    fixed, moving = torch.rand(2, 1, 3, 8, 16)
    assert net(fixed, moving).shape == (1, 2, 8, 16)
