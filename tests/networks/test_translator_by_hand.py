"""The translator: its size, and every layer written out once more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anamorph.networks.translator import Translator, Upsampling


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def normalised(x: Tensor) -> Tensor:
    """Each channel of each item to mean 0 and variance 1."""
    axes = tuple(range(2, x.ndim))
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()


def bordered(x: Tensor, by: int) -> Tensor:
    """The border value carried on, by indexing."""
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        x = x.index_select(axis, torch.tensor([min(max(i, 0), n - 1) for i in range(-by, n + by)], device=x.device))
    return x


def literal(net: Translator, x: Tensor, outer: int = 3) -> Tensor:
    convolve, back = (F.conv3d, F.conv_transpose3d) if x.ndim == 5 else (F.conv2d, F.conv_transpose2d)
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    x = normalised(convolve(bordered(x, outer), weights["first.weight"])).clamp_min(0)
    for i in range(2):
        x = normalised(convolve(x, weights[f"down.{i}.weight"], stride=2, padding=1)).clamp_min(0)
    for i in range(len(net.blocks)):
        y = normalised(convolve(bordered(x, 1), weights[f"blocks.{i}.first.weight"])).clamp_min(0)
        x = x + normalised(convolve(bordered(y, 1), weights[f"blocks.{i}.second.weight"]))
    for i in range(2):
        if f"up.{i}.weight" in weights:
            x = back(x, weights[f"up.{i}.weight"], stride=2, padding=1, output_padding=1)
        else:
            for axis in range(2, x.ndim):
                x = x.repeat_interleave(2, axis)
            x = convolve(bordered(x, 1), weights[f"up.{i}.convolution.weight"])
        x = normalised(x).clamp_min(0)
    return convolve(bordered(x, outer), weights["last.weight"], weights["last.bias"]).tanh()


def test_the_paper_s_generator_has_its_parameters() -> None:
    """The release's 34 111 489 without the 5248 biases that instance normalisation takes away again."""
    with torch.device("meta"):
        net = Translator(3, 1)
    first, down = 7**3 * 64, 27 * (64 * 128 + 128 * 256)
    blocks = 9 * 2 * 27 * 256 * 256
    last = 7**3 * 64 + 1
    assert size(net) == first + down + blocks + down + last == 34_106_241
    assert len(net.blocks) == 9
    assert sum(isinstance(layer, torch.nn.Conv3d) for layer in net.modules()) == 1 + 2 + 18 + 1


def test_in_two_dimensions_it_is_that_of_cyclegan() -> None:
    with torch.device("meta"):
        net = Translator(2, 3)
    assert size(net) == 2 * (49 * 3 * 64) + 3 + 2 * 9 * (64 * 128 + 128 * 256) + 18 * 9 * 256 * 256


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 12)])
def test_layer_by_layer(shape: tuple[int, ...], upsampling: Upsampling, device: torch.device) -> None:
    torch.manual_seed(0)
    net = Translator(len(shape), 2, features=3, blocks=2, upsampling=upsampling).to(device).eval()
    image = torch.rand(2, 2, *shape, device=device) * 2 - 1
    torch.testing.assert_close(net(image), literal(net, image), rtol=1e-4, atol=1e-5)


def test_what_comes_out_lies_between_minus_one_and_one_and_is_as_large_as_what_goes_in() -> None:
    torch.manual_seed(0)
    net = Translator(3, 1, features=2, blocks=1)
    for shape in ((9, 11, 13), (5, 8, 6)):
        found = net(torch.randn(2, 1, *shape))
        assert found.shape == (2, 1, *shape)
        assert found.abs().max() <= 1


def test_a_size_that_does_not_divide_is_continued_by_its_border() -> None:
    torch.manual_seed(0)
    net = Translator(2, 1, features=2, blocks=1, dropout=0.0)
    image = torch.randn(1, 1, 9, 8)
    rows = [min(i, 8) for i in range(12)]
    torch.testing.assert_close(net(image), net(image[:, :, rows])[:, :, :9])


def test_dropout_belongs_to_training() -> None:
    torch.manual_seed(0)
    net, image = Translator(2, 1, features=4, blocks=1, dropout=0.5), torch.randn(1, 1, 8, 8)
    assert not torch.equal(net(image), net(image))
    net.eval()
    assert torch.equal(net(image), net(image))


def test_one_item_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    net, images = Translator(2, 1, features=4, blocks=1, dropout=0.0), torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(net(images)[1:2], net(images[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 12), (16, 8, 16)])
def test_gradients_of_single_images_are_those_of_a_batch(shape: tuple[int, ...], device: torch.device) -> None:
    torch.manual_seed(0)
    net = Translator(len(shape), 1, features=2, blocks=2, dropout=0.0).to(device)
    images = torch.randn(2, 1, *shape, device=device)
    weight = torch.linspace(-1, 1, images[0].numel(), device=device).view(1, *shape)

    def gradients(of: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((net(of) * weight).mean(), list(net.parameters())))

    together, *apart = (gradients(of) for of in (images, images[:1], images[1:]))
    largest = max(gradient.abs().max().item() for gradient in together)
    for found, *items in zip(together, *apart, strict=True):
        torch.testing.assert_close(found, torch.stack(items).mean(0), rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize("kernel", [3, 5])
def test_smaller_kernels_at_both_ends(kernel: int) -> None:
    torch.manual_seed(0)
    net = Translator(2, 1, features=3, blocks=1, dropout=0.0, kernel=kernel).eval()
    assert net.first.weight.shape == (3, 1, kernel, kernel)
    assert net.last.weight.shape == (1, 3, kernel, kernel)
    image = torch.rand(2, 1, 12, 8) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(net(image), literal(net, image, kernel // 2), atol=1e-4, rtol=0)


def test_only_transposed_convolutions_make_a_chequered_pattern_of_a_uniform_image() -> None:
    """Weights as drawn: what comes out in the middle of an even image is even, or alternates."""
    spread = {}
    for upsampling in ("transposed", "resize"):
        torch.manual_seed(0)
        net = Translator(2, 1, features=4, blocks=1, dropout=0.0, upsampling=upsampling).eval()
        coarse = torch.rand(1, 16, 1, 1).expand(1, 16, 8, 8)
        with torch.no_grad():
            spread[upsampling] = float(net.up[0](coarse)[..., 4:12, 4:12].std((2, 3)).mean())
    assert spread["resize"] < 1e-6
    assert spread["transposed"] > 1e-2
