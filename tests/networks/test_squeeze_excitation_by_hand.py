"""scSE number by number, and where it sits in the U-Net of nnU-Net."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from anamorph.networks.dynunet import DynamicUNet, plan_stages
from anamorph.networks.squeeze_excitation import Combination, ConcurrentSqueezeExcitation


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def weighed(block: ConcurrentSqueezeExcitation, x: Tensor, combination: Combination) -> Tensor:
    """Equations (1) to (3) for one item, channels x grid, as loops over voxels and channels."""
    w = dict(block.named_parameters())
    voxels = list(product(*(range(n) for n in x.shape[1:])))
    means = torch.stack([sum((x[(c, *v)] for v in voxels), torch.tensor(0.0)) / len(voxels) for c in range(len(x))])
    hidden = (w["squeeze.weight"] @ means + w["squeeze.bias"]).clamp_min(0)
    channel = sigmoid(w["excite.weight"] @ hidden + w["excite.bias"])
    result = torch.zeros_like(x)
    for voxel in voxels:
        here = x[(slice(None), *voxel)]
        place = sigmoid(w["place.weight"].flatten() @ here + w["place.bias"][0])
        for c, value in enumerate(here):
            both = (channel[c] * value, place * value)
            result[(c, *voxel)] = max(both) if combination == "max" else sum(both)
    return result


@pytest.mark.parametrize("combination", ["max", "add"])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
@pytest.mark.parametrize(("channels", "reduction"), [(4, 2), (5, 2), (1, 2), (6, 3)])
def test_number_by_number(shape, channels, reduction, combination: Combination, generator) -> None:
    torch.manual_seed(0)
    block = ConcurrentSqueezeExcitation(len(shape), channels, reduction, combination).double()
    assert block.squeeze.weight.shape == (max(1, channels // reduction), channels)
    x = torch.randn(2, channels, *shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([weighed(block, item, combination) for item in x])
    torch.testing.assert_close(block(x), expected)


def test_the_gradient_is_right(generator) -> None:
    torch.manual_seed(0)
    for combination in ("max", "add"):
        block = ConcurrentSqueezeExcitation(2, 3, combination=combination).double()
        x = torch.randn(2, 3, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(block, (x,))


# -- in the U-Net ------------------------------------------------------------------------------------------------------

SHAPES = {"2d": ((48, 32), (1.0, 1.0)), "3d": ((16, 32, 32), (3.0, 1.0, 1.0))}


@pytest.mark.parametrize("combination", ["max", "add"])
@pytest.mark.parametrize("case", list(SHAPES))
def test_every_decoding_stage_ends_with_it(case: str, combination: Combination, generator) -> None:
    shape, spacing = SHAPES[case]
    torch.manual_seed(0)
    network = DynamicUNet(1, 3, plan_stages(shape, spacing), 4, 6, True, combination)
    x = torch.rand(2, 1, *shape, generator=generator)
    found = network(x)
    skips = []
    for encode in network.encode:
        x = encode(x)
        skips.append(x)
    skips.pop()
    decoded: list[Tensor] = []
    for decode, excite in zip(network.decode, network.excite, strict=True):
        assert isinstance(excite, ConcurrentSqueezeExcitation)
        y = decode(x, skips.pop())
        channel = torch.sigmoid(excite.excite(excite.squeeze(y.mean(tuple(range(2, y.ndim)))).relu()))
        both = torch.einsum("bc,bc...->bc...", channel, y), torch.sigmoid(excite.place(y)) * y
        x = torch.maximum(*both) if combination == "max" else both[0] + both[1]
        decoded.append(x)
    results = [head(y) for head, y in zip(network.heads, reversed(decoded), strict=False)]
    torch.testing.assert_close(found[0], results[0])
    for coarse, result in zip(found[1:], results[1:], strict=True):
        shrunk = torch.nn.functional.interpolate(coarse, result.shape[2:])  # nearest, to one voxel of each block
        torch.testing.assert_close(shrunk, result)


@pytest.mark.parametrize("combination", ["max", "add"])
def test_where_nothing_is_excited_the_network_is_the_plain_one(combination: Combination, generator) -> None:
    """Sums of two halves, or the greater of two wholes."""
    torch.manual_seed(0)
    stages = plan_stages((32, 32), (1.0, 1.0))
    plain, excited = DynamicUNet(1, 2, stages, 4, 8, True), DynamicUNet(1, 2, stages, 4, 8, True, combination)
    missing, unexpected = excited.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"excite"}
    image = torch.rand(1, 1, 32, 32, generator=generator)
    assert not torch.allclose(excited(image)[0], plain(image)[0])
    for name, parameter in excited.excite.named_parameters():
        parameter.data.fill_(100.0 if combination == "max" and name.endswith(("excite.bias", "place.bias")) else 0.0)
    for found, expected in zip(excited(image), plain(image), strict=True):
        torch.testing.assert_close(found, expected)
