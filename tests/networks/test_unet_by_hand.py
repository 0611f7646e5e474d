"""U-Net and the stages of nnU-Net: sizes, numbers of weights, and what they compute written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from anamorph.networks.dynunet import DynamicUNet, Stages, plan_stages, supervision_weights
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.networks.unet import StridedUNet


def test_it_has_as_many_weights_as_the_release():
    assert sum(p.numel() for p in StridedUNet(2, 1, 2).parameters()) == 109_826


def test_weights_in_three_dimensions():
    pairs = [(1, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (96, 32), (48, 16), (24, 8)]
    expected = sum(27 * a * b + b for a, b in pairs) + 8 * 6 + 6
    assert sum(p.numel() for p in StridedUNet(3, 1, 6).parameters()) == expected


@pytest.mark.parametrize("ndim", [2, 3])
def test_he_weights_keep_the_size_of_features_and_say_little_at_first(ndim):
    torch.manual_seed(0)
    network = StridedUNet(ndim, 1, 4, (16, 32, 64), initialisation="he")
    for layer in (*network.encode, *network.decode):
        inputs = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.1)
        assert not layer.bias.any()
    assert network.head.weight.std().item() == pytest.approx(0.01, rel=0.4)
    assert network(torch.randn(2, 1, *[16] * ndim)).abs().max() < 0.5


@pytest.mark.parametrize("shape", [(16, 24), (17, 9), (1, 5), (8, 9, 15)])
@pytest.mark.parametrize("channels", [(8, 16, 32, 64), (4, 6), (3,)])
def test_any_size_comes_back(shape, channels, generator):
    network = StridedUNet(len(shape), 2, 3, channels)
    assert network(torch.rand(2, 2, *shape, generator=generator)).shape == (2, 3, *shape)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_two_scales_written_out(slope, generator):
    network = StridedUNet(2, 1, 2, (2, 3), negative_slope=slope)
    w = dict(network.named_parameters())
    image = torch.rand(1, 1, 6, 4, generator=generator)

    def conv(x, name, **options):
        return conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def rectified(x):
        return torch.where(x > 0, x, slope * x)

    fine = rectified(conv(rectified(conv(image, "first", padding=1)), "encode.0", padding=1))
    coarse = rectified(conv(conv(fine, "down.0", stride=2, padding=1), "encode.1", padding=1))
    assert coarse.shape == (1, 3, 3, 2)
    up = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    expected = conv(rectified(conv(torch.cat([up, fine], 1), "decode.0", padding=1)), "head")
    torch.testing.assert_close(network(image), expected)


def test_the_border_goes_on_and_is_cut_off_again():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(x, (1, 4))
    assert padded.tolist() == [[[[0, 1, 2, 2], [3, 4, 5, 5]]]]
    assert torch.equal(crop_to(padded, (2, 3)), x)
    assert pad_to_multiple(x, (2, 3)) is x
    volume = torch.rand(1, 2, 3, 5, 7)
    padded = pad_to_multiple(volume, (2, 4, 8))
    assert padded.shape == (1, 2, 4, 8, 8)
    assert torch.equal(padded[:, :, 3, :5, :7], volume[:, :, 2])


def test_cubes_are_halved_alike():
    kernels, strides = plan_stages((128, 128, 128), (1.0, 1.0, 1.0))
    assert strides == [[1, 1, 1]] + [[2, 2, 2]] * 5
    assert kernels == [[3, 3, 3]] * 6


def test_thick_slices_wait_as_in_nnunets_plan_of_the_prostate():
    kernels, strides = plan_stages((20, 320, 256), (3.6, 0.62, 0.62))
    assert strides == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    assert kernels == [[1, 3, 3], [1, 3, 3]] + [[3, 3, 3]] * 5


@pytest.mark.parametrize(
    ("shape", "spacing", "strides"),
    [
        ((7, 7), (1.0, 1.0), [[1, 1]] * 3),
        ((8, 7), (1.0, 1.0), [[1, 1]] * 3),
        ((12, 7), (1.0, 1.0), [[1, 1], [2, 1], [1, 1]]),
        ((9, 8), (1.0, 1.0), [[1, 1], [2, 2], [1, 1]]),
        ((16, 16), (1.0, 2.0), [[1, 1], [2, 1], [2, 2]]),  # one axis alone is not halved below 12 voxels
    ],
)
def test_small_images(shape, spacing, strides):
    found = plan_stages(shape, spacing)
    assert len(found.kernels) == len(found.strides)
    assert found.strides == strides


def test_supervision_weights():
    assert supervision_weights(1) == [1]
    assert supervision_weights(3) == [4 / 7, 2 / 7, 1 / 7]


def test_results_of_all_but_the_two_coarsest_stages(generator):
    network = DynamicUNet(1, 2, plan_stages((32, 32), (1.0, 1.0)), 4, 6, True)
    image = torch.rand(2, 1, 29, 32, generator=generator)
    results = network(image)
    assert [tuple(result.shape) for result in results] == [(2, 2, 29, 32)] * 2
    assert torch.equal(results[1][:, :, 0, 0], results[1][:, :, 1, 1])
    assert not torch.equal(results[1][:, :, 1, 1], results[1][:, :, 2, 2])
    assert len(network.eval()(image)) == 1


def test_a_network_without_halving(generator):
    network = DynamicUNet(1, 2, Stages([[3, 3]] * 3, [[1, 1]] * 3), 2, 4, True)
    assert network(torch.rand(1, 1, 5, 3, generator=generator))[0].shape == (1, 2, 5, 3)
