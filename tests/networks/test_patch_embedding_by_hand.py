"""Embeddings of all patches at once against those of patches that are cut out, pooled with strides."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv3d, max_pool2d, max_pool3d, relu

from anamorph.networks.patch_embedding import PatchEmbedding, patch_distance

BEFORE, AFTER = 10, 9
"""Voxels that the embedding of a place sees to either side."""


def standardised(image: Tensor) -> Tensor:
    """Of one item and channel: means over cubes, as far as they are inside, then their z-scores."""
    result = torch.zeros_like(image)
    for voxel in product(*map(range, image.shape)):
        result[voxel] = image[tuple(slice(max(i - 1, 0), i + 2) for i in voxel)].mean()
    return (result - result.mean()) / result.std(correction=0)


def cut_out(network: PatchEmbedding, image: Tensor, place: tuple[int, ...]) -> Tensor:
    """The embedding of one place: every convolution and pooling only where it fits."""
    conv, pool = (conv3d, max_pool3d) if image.ndim == 3 else (conv2d, max_pool2d)
    x = image[tuple(slice(i - BEFORE, i + AFTER + 1) for i in place)][None, None]
    for number, layer in enumerate(network.convolutions):
        x = relu(conv(x, layer.get_parameter("weight"), layer.get_parameter("bias")))
        x = x if number == 2 else pool(x, 2)
    return x.flatten()


@pytest.mark.parametrize("shape", [(24, 26), (21, 20, 22)])
def test_of_any_place_that_is_far_enough_inside(shape, generator) -> None:
    torch.manual_seed(0)
    network = PatchEmbedding(len(shape), 1, (3, 4, 5)).double()
    image = torch.rand(shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        found = network(image[None, None])[0]
        smooth = standardised(image)
        for place in product(*(range(BEFORE, n - AFTER) for n in shape)):
            torch.testing.assert_close(found[(slice(None), *place)], cut_out(network, smooth, place))
    assert found.shape == (5, *shape)
    assert found.std() > 1e-3


def test_a_constant_image_has_an_embedding(generator) -> None:
    assert PatchEmbedding(2, 2)(torch.ones(1, 2, 8, 8)).isfinite().all()


@pytest.mark.parametrize(("patch_size", "offsets"), [(3, [0]), (7, [0]), (9, [-2, 2]), (15, [-4, 0, 4])])
@pytest.mark.parametrize("shape", [(12, 7), (5, 9, 6)])
def test_the_distance_of_patches(shape, patch_size: int, offsets: list[int], generator) -> None:
    one, other = torch.rand(2, 2, 3, *shape, generator=generator, dtype=torch.float64).unbind()
    found = patch_distance(one, other, patch_size)
    for item in range(2):
        for voxel in product(*map(range, shape)):
            total = 0.0
            for offset in product(offsets, repeat=len(shape)):
                at = tuple(min(max(i + o, 0), n - 1) for i, o, n in zip(voxel, offset, shape, strict=True))
                total += float((one[(item, slice(None), *at)] - other[(item, slice(None), *at)]).square().mean())
            expected = total / len(offsets) ** len(shape)
            assert float(found[(item, 0, *voxel)]) == pytest.approx(expected)
