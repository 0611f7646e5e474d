"""The discriminator: its size, its answers, and every layer written out once more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anamorph.networks.discriminator import PatchDiscriminator
from tests.networks.test_translator_by_hand import normalised, size


def literal(net: PatchDiscriminator, x: Tensor, strides: list[int]) -> Tensor:
    convolve = F.conv3d if x.ndim == 5 else F.conv2d
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    x = convolve(x, weights["first.weight"], weights["first.bias"], stride=2, padding=1)
    x = torch.where(x > 0, x, 0.2 * x)
    for i, stride in enumerate(strides):
        x = normalised(convolve(x, weights[f"middle.{i}.weight"], stride=stride, padding=1))
        x = torch.where(x > 0, x, 0.2 * x)
    return convolve(x, weights["last.weight"], weights["last.bias"], padding=1)


def test_the_paper_s_discriminator_has_its_parameters() -> None:
    with torch.device("meta"):
        net = PatchDiscriminator(3, 1)
    widths = (64 * 128 + 128 * 256 + 256 * 512) * 64
    assert size(net) == 64 * 64 + 64 + widths + 512 * 64 + 1 == 11_046_977
    assert [layer.stride[0] for layer in net.modules() if isinstance(layer, torch.nn.Conv3d)] == [2, 2, 2, 1, 1]


def test_an_answer_sees_seventy_voxels() -> None:
    """From one answer back to the image: n <- stride (n - 1) + 4."""
    with torch.device("meta"):
        net = PatchDiscriminator(2, 1)
    seen = 1
    for layer in reversed([layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]):
        seen = layer.stride[0] * (seen - 1) + 4
    assert seen == 70


def test_widths_stop_at_eight_times_the_first() -> None:
    with torch.device("meta"):
        net = PatchDiscriminator(2, 1, features=2, layers=5)
    assert [layer.out_channels for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)] == [
        2, 4, 8, 16, 16, 16, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(("shape", "layers", "strides"), [((26, 24), 3, [2, 2, 1]), ((9, 8, 12), 1, [1])])
def test_layer_by_layer(shape: tuple[int, ...], layers: int, strides: list[int], device: torch.device) -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(len(shape), 2, features=3, layers=layers).to(device)
    image = torch.randn(2, 2, *shape, device=device)
    torch.testing.assert_close(net(image), literal(net, image, strides), rtol=1e-4, atol=1e-5)


def test_the_number_of_answers() -> None:
    """80 x 144 x 112 of the paper: halved three times, less two."""
    with torch.device("meta"):
        net = PatchDiscriminator(3, 1)
        assert net(torch.empty(1, 1, 80, 144, 112)).shape == (1, 1, 8, 16, 12)


def test_an_image_too_small_for_one_answer_is_continued_by_its_border() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(2, 1, features=2)
    image = torch.randn(1, 1, 24, 9)
    columns = [min(i, 8) for i in range(24)]
    assert torch.equal(net(image), net(image[:, :, :, columns]))
    assert net(image).shape == (1, 1, 1, 1)
