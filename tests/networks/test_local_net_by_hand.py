"""LocalNet against its equations, written as loops over voxels; its sizes, and how it begins."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from anamorph.networks.local_net import LocalNet, LocalNetRegistration, deformations_of, regularised
from anamorph.spatial.field import exponential, jacobian_determinant
from tests.networks.test_attention_gate_by_hand import between, gated

VARIANTS = {
    "journal": (True, "batch"),
    "without attention": (False, "batch"),
    "of each item": (True, "instance"),
    "of each item, without attention": (False, "instance"),
}


# -- a literal reference, of one item: channels x grid -----------------------------------------------------------------


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Sum over the taps, 0 outside."""
    shape, reach = x.shape[1:], [k // 2 for k in weight.shape[2:]]
    result = torch.zeros(len(weight), *shape, dtype=x.dtype)
    for voxel in product(*map(range, shape)):
        for tap in product(*map(range, weight.shape[2:])):
            where = tuple(i + t - r for i, t, r in zip(voxel, tap, reach, strict=True))
            if all(0 <= i < n for i, n in zip(where, shape, strict=True)):
                result[(slice(None), *voxel)] += weight[(..., *tap)] @ x[(slice(None), *where)]
    return result if bias is None else result + bias.view(-1, *[1] * len(shape))


def scattered(x: Tensor, weight: Tensor) -> Tensor:
    """Transposed, k3, stride 2: a voxel i adds to 2 i - 1, 2 i and 2 i + 1."""
    shape = [2 * n for n in x.shape[1:]]
    result = torch.zeros(weight.shape[1], *shape, dtype=x.dtype)
    for voxel in product(*map(range, x.shape[1:])):
        for tap in product(*map(range, weight.shape[2:])):
            where = tuple(2 * i + t - 1 for i, t in zip(voxel, tap, strict=True))
            if all(0 <= i < n for i, n in zip(where, shape, strict=True)):
                result[(slice(None), *where)] += x[(slice(None), *voxel)] @ weight[(..., *tap)]
    return result


def resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    result = torch.zeros(len(x), *shape, dtype=x.dtype)
    for voxel in product(*map(range, shape)):
        result[(slice(None), *voxel)] = between(x, shape, voxel)
    return result


def pooled(x: Tensor) -> Tensor:
    shape = tuple(n // 2 for n in x.shape[1:])
    result = torch.zeros(len(x), *shape, dtype=x.dtype)
    for voxel in product(*map(range, shape)):
        block = x[(slice(None), *(slice(2 * i, 2 * i + 2) for i in voxel))]
        result[(slice(None), *voxel)] = block.flatten(1).amax(1)
    return result


class Literal:
    """What the network says of one item, by the names of its weights."""

    def __init__(self, network: LocalNet) -> None:
        self.network, self.weights = network, network.state_dict()

    def layer(self, name: str, x: Tensor, up: bool = False) -> Tensor:
        """norm(convolution), not rectified."""
        w, weight = self.weights, self.weights[f"{name}.conv.weight"]
        x = scattered(x, weight) if up else convolved(x, weight)
        place = (-1, *[1] * (x.ndim - 1))
        if f"{name}.norm.running_mean" in w:
            mean, variance = w[f"{name}.norm.running_mean"], w[f"{name}.norm.running_var"]
        else:
            mean = torch.stack([channel.mean() for channel in x])
            variance = torch.stack([(channel - channel.mean()).square().mean() for channel in x])
        x = (x - mean.view(place)) / (variance.view(place) + 1e-5).sqrt()
        return x * w[f"{name}.norm.weight"].view(place) + w[f"{name}.norm.bias"].view(place)

    def residual(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        return (self.layer(f"{name}.second", self.layer(f"{name}.first", x).clamp_min(0)) + y).clamp_min(0)

    def __call__(self, x: Tensor) -> list[Tensor]:
        scales, shape = len(self.network.encode), tuple(x.shape[1:])
        skips = []
        for scale in range(scales):
            h = self.layer(f"enter.{scale}", x).clamp_min(0)
            skips.append(h)
            x = pooled(self.residual(f"encode.{scale}", h, h))
        d = self.layer("bottom", x).clamp_min(0)
        found = {scales: d}
        for scale in reversed(range(scales)):
            name, h = f"decode.{scale}", skips[scale]
            gate = getattr(self.network.decode[scale], "gate")  # noqa: B009
            if gate is not None:
                t = gated(gate, h, d, 1, True)
                d = self.residual(f"{name}.residual", t, t)
            else:
                coarse = resized(d, tuple(h.shape[1:]))
                half = len(coarse) // 2
                t = self.layer(f"{name}.up", d, up=True).clamp_min(0) + coarse[:half] + coarse[half:]
                d = self.residual(f"{name}.residual", t, t + h)
            found[scale] = d
        results = []
        for number in range(len(self.network.heads)):
            heads = [f"heads.{number}.{scale}" for scale in found]
            parts = [
                resized(convolved(features, self.weights[f"{head}.weight"], self.weights[f"{head}.bias"]), shape)
                for head, features in zip(heads, found.values(), strict=True)
            ]
            results.append(sum(parts[1:], parts[0]))
        return results


def learnt(network: LocalNet, generator: torch.Generator) -> LocalNet:
    """Every weight and statistic as if it had been trained."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            change = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) - 0.4
            tensor.copy_(0.5 + change.abs() if "running_var" in name else tensor + 0.5 * change)
    return network.eval()


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize(("shape", "scales"), [((8, 4), 3), ((2, 4, 2), 2)])
def test_scale_by_scale(shape, scales: int, variant: str, generator) -> None:
    attention, normalisation = VARIANTS[variant]
    torch.manual_seed(0)
    network = LocalNet(
        len(shape), 2, [3, 1], 2, scales, attention=attention, normalisation=normalisation  # pyright: ignore
    ).double()  # fmt: skip
    learnt(network, generator)
    images = torch.randn(2, 2, *shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        found = network(images)
        expected = [Literal(network)(image) for image in images]
    for number, result in enumerate(found):
        torch.testing.assert_close(result, torch.stack([item[number] for item in expected]))
        assert result.std() > 0.1


def test_it_is_as_large_as_the_paper_s() -> None:
    """About a quarter of a million weights in 3-D, of width 4."""
    count = sum(p.numel() for p in LocalNet(3, 2, [3, 3], attention=True).parameters())
    assert 200_000 < count < 300_000


@pytest.mark.parametrize("shape", [(5, 19), (1, 3), (9, 8, 17)])
@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_any_size_comes_back_of_a_single_item(shape, normalisation, generator) -> None:
    """In training, where something has to have a deviation, even of a grid smaller than one voxel of the bottom."""
    network = LocalNet(len(shape), 1, [2], 2, 5, normalisation=normalisation)
    (found,) = network(torch.rand(1, 1, *shape, generator=generator))
    assert found.shape == (1, 2, *shape)
    assert found.isfinite().all()


def test_it_begins_with_nothing_moved(generator) -> None:
    network = LocalNet(2, 2, [2, 2], attention=True)
    assert network.untrained
    assert all(not found.any() for found in network(torch.rand(1, 2, 32, 32, generator=generator)))
    heads = [*network.heads.parameters()]
    assert len(heads) == 2 * 2 * 5
    with torch.no_grad():
        heads[-1][0] = 1e-3
    assert not network.untrained
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(c.weight.any() for c in convolutions if all(c.weight is not head for head in heads))


@pytest.mark.parametrize("ndim", [2, 3])
def test_velocities_do_not_fold(ndim: int, generator) -> None:
    """Where the same heads, taken as displacements, do."""
    torch.manual_seed(1)
    shape = (16,) * ndim
    network = LocalNet(ndim, 2, [ndim, ndim], 4, 3)
    for parameter in network.heads.parameters():
        nn.init.normal_(parameter, std=0.4 if ndim == 2 else 0.15)
    images = torch.randn(2, 1, 1, *shape, generator=generator).unbind()
    with torch.no_grad():
        network.eval()
        displacements = deformations_of(network, None, *images)
        flows = deformations_of(network, 7, *images)
    for displacement, flow in zip(displacements, flows, strict=True):
        assert displacement.velocity is None
        assert jacobian_determinant(displacement.displacement).min() < 0
        assert flow.velocity is not None
        assert flow.displacement.abs().max() > 1
        assert jacobian_determinant(flow.displacement).min() > 0
        torch.testing.assert_close(flow.displacement, exponential(flow.velocity, 7))
        assert regularised(flow) is flow.velocity
        assert regularised(displacement) is displacement.displacement


def test_a_registration_network_asks_for_the_moving_image_first(generator) -> None:
    torch.manual_seed(0)
    network = learnt(LocalNet(2, 2, [2, 2], 2, 2, attention=True), generator)
    fixed, moving = torch.rand(2, 1, 1, 8, 8, generator=generator).unbind()
    found = LocalNetRegistration(network).deformation(fixed, moving)
    assert torch.equal(found.displacement, network(torch.cat([moving, fixed], 1))[0])
    assert not torch.equal(found.displacement, network(torch.cat([fixed, moving], 1))[0])
    assert LocalNetRegistration(network).regularised(found) is found.displacement
