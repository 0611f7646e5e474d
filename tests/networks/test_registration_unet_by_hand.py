"""VoxelMorph's network: its size, and every layer written out once more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anamorph.networks.registration_unet import RegistrationUNet, field_head, scales_below

ENCODER, DECODER = (16, 32, 32, 32), (32, 32, 32, 32, 32, 16, 16)
"""Of VoxelMorph's torch release."""


def convolution(before: int, after: int, ndim: int = 3) -> int:
    """Parameters of a convolution of kernel 3 with bias."""
    return before * after * 3**ndim + after


def size(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_the_network_of_the_release_has_its_parameters() -> None:
    net = RegistrationUNet(3, 2, ENCODER, DECODER)
    down = convolution(2, 16) + convolution(16, 32) + 2 * convolution(32, 32)
    up = convolution(32, 32) + 3 * convolution(32 + 32, 32)
    final = convolution(32 + 16, 32) + convolution(32, 16) + convolution(16, 16)
    assert size(net) == down + up + final
    assert size(net, field_head(3, net.outputs)) == 327_331


def test_the_network_of_cocyclereg_has_its_parameters() -> None:
    net = RegistrationUNet(3, 2, (16, 32, 32, 32, 32), (32, 32, 32, 32, 16, 16), "stride")
    down = convolution(2, 16) + convolution(16, 32) + 3 * convolution(32, 32)
    up = convolution(32, 32) + 3 * convolution(32 + 32, 32)
    assert size(net) == down + up + convolution(32 + 16, 16) + convolution(16, 16)
    assert net.multiples == [16, 16, 16]
    assert net.outputs == 16


def layer(net: RegistrationUNet, name: str, x: Tensor, stride: int = 1) -> Tensor:
    convolve = F.conv3d if x.ndim == 5 else F.conv2d
    y = convolve(x, net.get_parameter(f"{name}.weight"), net.get_parameter(f"{name}.bias"), stride, 1)
    return torch.where(y > 0, y, 0.2 * y)


def doubled(x: Tensor) -> Tensor:
    for axis in range(2, x.ndim):
        x = x.repeat_interleave(2, axis)
    return x


@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 12)])
def test_pooling_layer_by_layer(shape: tuple[int, ...], device: torch.device) -> None:
    net = RegistrationUNet(len(shape), 2, (3, 4), (5, 6, 7)).to(device)
    pool = F.max_pool3d if len(shape) == 3 else F.max_pool2d
    x = torch.randn(2, 2, *shape, device=device)
    fine = layer(net, "encoder.0", x)
    coarse = layer(net, "encoder.1", pool(fine, 2))
    y = torch.cat([doubled(layer(net, "decoder.0", pool(coarse, 2))), coarse], 1)
    y = torch.cat([doubled(layer(net, "decoder.1", y)), fine], 1)
    torch.testing.assert_close(net(x), layer(net, "final.0", y))


@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 12)])
def test_strides_layer_by_layer(shape: tuple[int, ...], device: torch.device) -> None:
    net = RegistrationUNet(len(shape), 2, (3, 4, 5), (6, 7, 8), "stride").to(device)
    x = torch.randn(2, 2, *shape, device=device)
    fine = layer(net, "encoder.0", x)
    middle = layer(net, "encoder.1", fine, 2)
    bottom = layer(net, "encoder.2", middle, 2)
    y = torch.cat([doubled(layer(net, "decoder.0", bottom)), middle], 1)
    y = torch.cat([doubled(layer(net, "decoder.1", y)), fine], 1)
    torch.testing.assert_close(net(x), layer(net, "final.0", y))


@pytest.mark.parametrize("down", ["pool", "stride"])
def test_a_size_that_does_not_divide_is_continued_by_its_border(down) -> None:
    net = RegistrationUNet(2, 1, (3, 4, 4), (4, 4, 4, 4), down)
    image = torch.randn(1, 1, 9, 16)
    multiple = 2 ** scales_below((3, 4, 4), down)
    rows = [min(i, 8) for i in range(-(-9 // multiple) * multiple)]
    torch.testing.assert_close(net(image), net(image[:, :, rows])[:, :, :9])


def test_without_convolutions_at_full_resolution_the_last_concatenation_comes_out() -> None:
    net = RegistrationUNet(2, 2, (3, 4), (5, 6))
    assert net.outputs == 6 + 3
    assert net(torch.randn(1, 2, 4, 8)).shape == (1, 9, 4, 8)


def test_the_head_begins_at_the_identity() -> None:
    torch.manual_seed(0)
    head = field_head(3, 200)
    assert float(head.weight.detach().std()) == pytest.approx(1e-5, rel=0.05)
    assert not head.state_dict()["bias"].any()
