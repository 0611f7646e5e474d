"""Instance normalisation has the gradient of its formula, however that gradient's input lies in memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from anamorph.networks.convolution import Conv3d, ConvTranspose3d, take_over
from anamorph.networks.normalisation import InstanceNorm3d, instance_norm


class Residual(nn.Module):
    """Convolutions around a normalisation without an activation between them."""

    def __init__(self, last: nn.Module, residual: bool) -> None:
        super().__init__()
        self.first, self.norm, self.last, self.residual = Conv3d(4, 4, 3, padding=1), InstanceNorm3d(4), last, residual

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images)
        return self.last(x + self.norm(x) if self.residual else self.norm(x))


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("last", [Conv3d(4, 3, 3), ConvTranspose3d(4, 3, 3, stride=2)], ids=["conv", "transposed"])
def test_gradients_are_those_of_double_precision(last, residual, items, generator):
    single = Residual(copy.deepcopy(last), residual)
    double = copy.deepcopy(single).double()
    images = torch.randn(items, 4, 6, 7, 8, generator=generator)
    gradients = []
    for network, x in ((single, images), (double, images.double())):
        x = x.requires_grad_()
        gradients.append(torch.autograd.grad(network(x).square().mean(), [x, *network.first.parameters()]))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 3, 6, 7, 8)])
def test_values_are_those_of_torch(shape, generator):
    images = torch.randn(shape, generator=generator)
    torch.testing.assert_close(instance_norm(images), nn.functional.instance_norm(images), rtol=0, atol=0)


def test_layers_of_other_libraries_are_taken_over():
    network = nn.Sequential(nn.Conv3d(2, 2, 3), nn.InstanceNorm3d(2, affine=True), nn.ConvTranspose3d(2, 2, 3))
    names = list(network.state_dict())
    take_over(network)
    assert [type(layer) for layer in network] == [Conv3d, InstanceNorm3d, ConvTranspose3d]
    assert list(network.state_dict()) == names
