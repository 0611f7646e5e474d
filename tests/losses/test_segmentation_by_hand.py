"""One-hot labels and cross-entropy in cases worked out on paper."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from anamorph.losses.segmentation import cross_entropy, divergence, one_hot


def test_one_channel_a_class():
    labels = torch.tensor([[[[0, 2], [1, 2]]]])
    assert one_hot(labels, 2).tolist() == [[[[1, 0], [0, 0]], [[0, 0], [1, 0]], [[0, 1], [0, 1]]]]
    assert one_hot(labels[..., None].expand(1, 1, 2, 2, 3), 3).shape == (1, 4, 2, 2, 3)
    assert one_hot(labels, 3)[:, 3].sum() == 0


@pytest.mark.parametrize("shape", [(9, 11), (6, 7, 8)])
@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_blurred_labels_still_sum_to_one(shape, sigma, generator):
    labels = torch.randint(0, 3, (2, 1, *shape), generator=generator)
    soft = one_hot(labels, 2, sigma)
    torch.testing.assert_close(soft.sum(1), torch.ones(2, *shape))
    assert soft.min() >= 0
    assert not torch.equal(soft, one_hot(labels, 2))


def test_a_blurred_edge_is_that_of_a_gaussian():
    labels = (torch.arange(20) >= 10).long().view(1, 1, 20, 1).expand(1, 1, 20, 3)
    soft = one_hot(labels, 1, 0.5)
    expected = gaussian_filter1d((labels[0, 0, :, 0] == 1).double().numpy(), 0.5, truncate=3.5)
    torch.testing.assert_close(soft[0, 1, 4:16, 1].double(), torch.from_numpy(expected)[4:16], atol=1e-6, rtol=0)
    assert soft[0, :, 0].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_cross_entropy_of_two_voxels():
    logits = torch.tensor([[[[math.log(3.0), 0.0]], [[0.0, 0.0]]]])
    labels = torch.tensor([[[[0, 1]]]])
    assert cross_entropy(logits, labels).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    first = torch.tensor([[[[1.0, 0.0]]]])
    assert cross_entropy(logits, labels, first).item() == pytest.approx(math.log(4 / 3))
    assert cross_entropy(logits, labels, 0 * first).item() == 0
    assert cross_entropy(torch.tensor([[[[60.0, -60.0]], [[-60.0, 60.0]]]]), labels).item() == pytest.approx(0)


def test_an_item_counts_the_same_whatever_its_mask(generator):
    logits = torch.rand(2, 3, 4, 5, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 1, 4, 5, 3), generator=generator)
    mask = torch.ones(2, 1, 4, 5, 3, dtype=torch.float64)
    mask[1, :, 1:] = 0
    both = [cross_entropy(logits[i : i + 1], labels[i : i + 1], mask[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(cross_entropy(logits, labels, mask), (both[0] + both[1]) / 2)


def test_the_gradient_is_right(generator):
    logits = torch.rand(2, 3, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 1, 3, 2), generator=generator)
    mask = torch.rand(2, 1, 3, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels, mask), (logits,))


def test_divergence_of_two_voxels():
    logits = torch.tensor([[[[math.log(3.0), 0.0]], [[0.0, 0.0]]]])  # 3/4 1/4, and 1/2 1/2
    certain = torch.tensor([[[[0.5, 1.0]], [[0.5, 0.0]]]])
    first = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert divergence(logits, certain).item() == pytest.approx((first + math.log(2)) / 2)
    assert divergence(logits, certain, torch.tensor([[[[1.0, 0.0]]]])).item() == pytest.approx(first)


def test_divergence_from_crisp_probabilities_is_the_cross_entropy_and_from_its_own_nothing(generator):
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 1, 4, 5), generator=generator)
    mask = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64)
    crisp = one_hot(labels, 2).double()
    torch.testing.assert_close(divergence(logits, crisp, mask), cross_entropy(logits, labels, mask))
    assert divergence(logits, logits.softmax(1)).item() == pytest.approx(0, abs=1e-12)
    other = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).softmax(1)
    assert divergence(logits, other).item() > 0.1


def test_the_gradient_of_divergence_is_right(generator):
    logits = torch.rand(2, 3, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    probabilities = torch.rand(2, 3, 3, 2, generator=generator, dtype=torch.float64).softmax(1)
    mask = torch.rand(2, 1, 3, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: divergence(x, probabilities, mask), (logits,))
