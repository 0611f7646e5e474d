"""Attention gates voxel by voxel, and where they sit in LapIRN."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from anamorph.networks.attention_gate import AttentionGate
from anamorph.networks.lapirn import LaplacianPyramid, PyramidLevel

VARIANTS: dict[str, dict[str, Any]] = {
    "attention u-net": {},
    "many": {"inner": 5, "stride": 2},
    "cmmas": {"inner": 4, "stride": 1, "combination": "mean", "channelwise": True},
}


def between(values: Tensor, shape: tuple[int, ...], voxel: tuple[int, ...]) -> Tensor:
    """Channels x grid at a voxel of another grid of the same field of view, linearly; the border goes on."""
    found = torch.zeros(len(values), dtype=values.dtype)
    corners, shares = [], []
    for n, m, i in zip(values.shape[1:], shape, voxel, strict=True):
        at = min(max((i + 0.5) * n / m - 0.5, 0.0), n - 1.0)
        low = min(math.floor(at), n - 1)
        corners.append((low, min(low + 1, n - 1)))
        shares.append((1 - (at - low), at - low))
    for sides in product((0, 1), repeat=len(shape)):
        where = tuple(corner[side] for corner, side in zip(corners, sides, strict=True))
        found += values[(slice(None), *where)] * math.prod(
            share[side] for share, side in zip(shares, sides, strict=True)
        )
    return found


def gated(gate: AttentionGate, x: Tensor, g: Tensor, stride: int, mean: bool) -> Tensor:
    """Equations (1) to (3) for one item, channels x grid, as loops over voxels."""
    w = dict(gate.named_parameters())
    theta = w["theta.weight"]
    phi, psi = (w[f"{name}.weight"].flatten(1) for name in ("phi", "psi"))
    shape = tuple(x.shape[1:])
    coarse = tuple(n // stride for n in shape)
    maps = torch.zeros(len(psi), *coarse, dtype=x.dtype)
    for voxel in product(*map(range, coarse)):
        block = x[(slice(None), *(slice(stride * i, stride * (i + 1)) for i in voxel))]
        seen = (theta * block).flatten(1).sum(1)
        opened = phi @ between(g, coarse, voxel) + w["phi.bias"]
        q = ((seen + opened) / (2 if mean else 1)).clamp_min(0)
        maps[(slice(None), *voxel)] = 1 / (1 + (-(psi @ q + w["psi.bias"])).exp())
    result = torch.zeros_like(x)
    for voxel in product(*map(range, shape)):
        result[(slice(None), *voxel)] = between(maps, shape, voxel) * x[(slice(None), *voxel)]
    return result


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize(("shape", "coarse"), [((6, 8), (3, 4)), ((7, 5), (2, 3)), ((4, 6, 5), (2, 3, 2))])
def test_voxel_by_voxel(shape, coarse, variant, generator) -> None:
    torch.manual_seed(0)
    options = VARIANTS[variant]
    gate = AttentionGate(len(shape), 4, 3, **options).double()
    x = torch.randn(2, 4, *shape, generator=generator, dtype=torch.float64)
    g = torch.randn(2, 3, *coarse, generator=generator, dtype=torch.float64)
    found = gate(x, g)
    with torch.no_grad():
        expected = [
            gated(gate, *item, options.get("stride", 2), options.get("combination") == "mean")
            for item in zip(x, g, strict=True)
        ]
    torch.testing.assert_close(found, torch.stack(expected))
    maps = gate.attention(x, g)
    assert maps.shape == (2, 4 if options.get("channelwise") else 1, *shape)
    assert maps.min() > 0
    assert maps.max() < 1
    torch.testing.assert_close(found, maps * x)


def test_its_size() -> None:
    gate = AttentionGate(3, 28, 28)
    assert {name: tuple(p.shape) for name, p in gate.named_parameters()} == {
        "theta.weight": (14, 28, 2, 2, 2), "phi.weight": (14, 28, 1, 1, 1), "phi.bias": (14,),
        "psi.weight": (1, 14, 1, 1, 1), "psi.bias": (1,),
    }  # fmt: skip


def test_one_channel_is_enough(generator) -> None:
    x, g = torch.rand(1, 1, 4, 4, generator=generator), torch.rand(1, 1, 2, 2, generator=generator)
    assert AttentionGate(2, 1, 1)(x, g).shape == x.shape


def test_the_gradient_is_right(generator) -> None:
    torch.manual_seed(0)
    gate = AttentionGate(2, 2, 3).double()
    x = torch.randn(1, 2, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    g = torch.randn(1, 3, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate, (x, g))


# -- in LapIRN ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 6)])
@pytest.mark.parametrize("first", [True, False])
def test_a_level_sends_its_skip_through_the_gate_that_its_residual_blocks_open(shape, first: bool, generator) -> None:
    torch.manual_seed(0)
    level = PyramidLevel(len(shape), 2, 6, attention=True).double()
    assert level.gate is not None
    x = torch.randn(2, 2, *shape, generator=generator, dtype=torch.float64)
    below = torch.randn(2, 6, *(n // 2 for n in shape), generator=generator, dtype=torch.float64)
    skip = level.encoder(x)
    g = level.residual(level.down(skip) if first else level.down(skip) + below)
    e = level.up(g)
    with torch.no_grad():
        opened = torch.stack([gated(level.gate, *item, 2, False) for item in zip(skip, g, strict=True)])
    increment, embedding = level(x, None if first else below)
    torch.testing.assert_close(embedding, e)
    torch.testing.assert_close(increment, level.head(torch.cat([e, opened], 1)))


@pytest.mark.parametrize("squarings", [7, None])
def test_gates_that_stand_open_change_nothing(squarings: int | None, generator) -> None:
    torch.manual_seed(0)
    plain = LaplacianPyramid(2, 1, 4, 0.4, squarings)
    gated = LaplacianPyramid(2, 1, 4, 0.4, squarings, attention=True)
    missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".gate.")[0] for name in missing} == {"levels.0", "levels.1", "levels.2"}
    images = torch.rand(2, 1, 1, 16, 24, generator=generator)
    assert not torch.allclose(gated(*images), plain(*images))
    for level in gated.levels:
        level.get_parameter("gate.psi.bias").data.fill_(100.0)
    torch.testing.assert_close(gated(*images), plain(*images))


def test_without_attention_there_is_no_gate() -> None:
    assert not any("gate" in name for name in LaplacianPyramid(2, 1, 4, 0.4, 7).state_dict())
