"""A convolution arranged for the CPU is the convolution: values and gradients, with and without channels of zeros."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anamorph.networks.convolution import LARGEST_OF_LOOP, MOST_CHANNELS, convolve_images

SHAPES = {
    "2d": (1, 5, 12, 10),
    "small": (1, 5, 6, 8, 10),
    "made up with zeros": (1, 2, 64, 64, 3),
    "enough channels": (1, MOST_CHANNELS + 1, 64, 64, 3),
    "batch": (2, 2, 64, 64, 3),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_the_layer(
    shape: tuple[int, ...], stride: int, bias: bool, device: torch.device
) -> None:
    torch.manual_seed(0)
    kind = nn.Conv3d if len(shape) == 5 else nn.Conv2d
    layer = kind(shape[1], 6, 3, padding=1, stride=stride, bias=bias).to(device)
    images = torch.rand(shape, device=device, requires_grad=True)
    inputs = [images, *layer.parameters()]
    expected, found = layer(images), convolve_images(layer, images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    above = torch.rand_like(expected)
    gradients = (torch.autograd.grad(result, inputs, above) for result in (found, expected))
    for of_found, of_expected in zip(*gradients, strict=True):
        torch.testing.assert_close(of_found, of_expected, atol=1e-3, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_torch_still_takes_its_loop_up_to_the_size_that_is_stated_here() -> None:
    """By the operators it runs: if torch changes its mind, the zeros are no longer needed."""
    rows = LARGEST_OF_LOOP // (4 * 64)
    layer = nn.Conv3d(4, 8, 3, padding=1)

    def operators(images: torch.Tensor) -> set[str]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
            layer(images)
        return {event.key for event in profile.key_averages()}

    assert "aten::slow_conv3d_forward" in operators(torch.rand(1, 4, rows, 64, 3))
    assert "aten::mkldnn_convolution" in operators(torch.rand(1, 4, rows + 1, 64, 3))
