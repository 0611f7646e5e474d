"""Convolutions arranged for the CPU are the convolutions of torch: parameters, values, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anamorph.networks.convolution import LARGEST_OF_LOOP, Conv3d, ConvTranspose3d, arranged, unarranged

SHAPES = {
    "few rows": (1, 5, 6, 8, 10),
    "few channels": (1, 2, 64, 64, 3),
    "an odd number of rows": (1, 2, 17, 20, 5),
    "enough of both": (1, 6, 64, 64, 3),
    "batch": (2, 5, 6, 8, 10),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], transposed: bool, stride: int, bias: bool, device: torch.device
) -> None:
    ours, theirs = (ConvTranspose3d, nn.ConvTranspose3d) if transposed else (Conv3d, nn.Conv3d)
    torch.manual_seed(0)
    layers = [kind(shape[1], 7, 3, stride, 1, bias=bias).to(device) for kind in (ours, theirs)]
    layers[1].load_state_dict(layers[0].state_dict())
    images = torch.rand(shape, device=device, requires_grad=True)
    found, expected = (layer(images) for layer in layers)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    above = torch.rand_like(expected)
    gradients = [
        torch.autograd.grad(result, [images, *layer.parameters()], above)
        for result, layer in zip((found, expected), layers, strict=True)
    ]
    for of_found, of_expected in zip(*gradients, strict=True):
        torch.testing.assert_close(of_found, of_expected, atol=1e-3, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize(("ours", "theirs"), [(Conv3d, nn.Conv3d), (ConvTranspose3d, nn.ConvTranspose3d)])
def test_oneDNN_takes_what_torch_leaves_to_its_loop(ours: type[nn.Module], theirs: type[nn.Module]) -> None:
    rows = LARGEST_OF_LOOP // (4 * 64)

    def by_loop(layer: nn.Module, rows: int) -> bool:
        images = torch.rand(1, 4, rows, 64, 3)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
            layer(images)
        return any("slow_conv" in event.key for event in profile.key_averages())

    assert by_loop(theirs(4, 8, 3), rows)  # where this fails, the empty image is no longer needed
    assert not by_loop(theirs(4, 8, 3), rows + 1)
    assert not by_loop(ours(4, 8, 3), rows)


def test_weights_of_its_own_for_each_item(generator: torch.Generator) -> None:
    layer, images = Conv3d(2, 3, 3, 1, 1), torch.rand(4, 2, 5, 6, 7, generator=generator)
    weights = torch.randn(4, *layer.weight.shape, generator=generator, requires_grad=True)

    def of_one(weight: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (image[None],))[0]

    with unarranged():
        found = torch.vmap(of_one)(weights, images)
    expected = torch.stack([of_one(weight, image) for weight, image in zip(weights, images, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(result.square().sum(), weights)[0] for result in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_only_what_a_cpu_convolves_in_single_precision_is_arranged() -> None:
    images = torch.rand(1, 2, 5, 6, 7)
    once = arranged(images)
    assert torch.equal(once, images)
    assert once.stride(1) == 1
    assert arranged(once).data_ptr() == once.data_ptr()
    with unarranged():
        assert arranged(images) is images
    assert arranged(images).stride(1) == 1
    for other in (images[..., 0], images.double(), images.to("meta")):
        assert arranged(other) is other


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4, 1), (1, 1, 1)])
def test_in_mixed_precision_images_smaller_than_the_kernel_have_a_gradient(shape: tuple[int, ...]) -> None:
    """oneDNN's depends on what the memory held before, on CPUs that compute in bfloat16."""
    for seed in range(6):
        torch.manual_seed(seed)
        layer = Conv3d(8, 8, 3, padding=1)
        images = torch.randn(2, 8, *shape, requires_grad=True)
        wanted = torch.autograd.grad(layer(images).square().mean(), layer.weight)[0]
        junk = [torch.full((1 << 14,), float("nan")) for _ in range(20)]
        del junk
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(images)
        torch.testing.assert_close(torch.autograd.grad(found.square().mean(), layer.weight)[0], wanted)
