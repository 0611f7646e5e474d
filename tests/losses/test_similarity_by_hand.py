"""Tiny cases worked out on paper, and windows written out voxel by voxel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from anamorph.losses import l1, lncc, mse
from anamorph.losses.windows import gaussian_taps, sum_inside, window_sum


def test_mse_and_l1():
    fixed, moving = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[1.0, 1.0, 5.0]]])
    mask = torch.tensor([[[1.0, 1.0, 0.0]]])
    assert mse(fixed, moving).item() == pytest.approx(10 / 3)
    assert l1(fixed, moving).item() == pytest.approx(4 / 3)
    assert mse(fixed, moving, mask).item() == 0.5
    assert l1(fixed, moving, moving_mask=mask).item() == 0.5


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(7, 6), (5, 4, 6)])
def test_lncc_voxel_by_voxel(shape, masked, generator):
    fixed, moving, weight = (torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64) for _ in range(3))
    weight = weight * (weight > 0.3) if masked else torch.ones_like(weight)
    f, m, w = (x[0, 0].numpy() for x in (fixed, moving, weight))
    e = 0.01 * np.array([np.average((x - np.average(x, weights=w)) ** 2, weights=w) for x in (f, m)])
    total = 0.0
    for centre in np.ndindex(*shape):
        box = tuple(slice(max(c - 1, 0), c + 2) for c in centre)
        if w[centre] == 0:
            continue
        moments = np.cov(f[box].ravel(), m[box].ravel(), aweights=w[box].ravel(), ddof=0)
        numerator = (abs(moments[0, 1]) + np.sqrt(e[0] * e[1])) ** 2
        total += w[centre] * (1 - numerator / ((moments[0, 0] + e[0]) * (moments[1, 1] + e[1])))
    value = lncc(fixed, moving, weight if masked else None, window=3, epsilon=0.01)
    assert value.item() == pytest.approx(total / w.sum(), rel=1e-10)


def test_lncc_keeps_its_value_on_large_intensities_in_float32(generator):
    fixed, moving = (torch.rand(1, 1, 12, 12, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = lncc(fixed, moving)
    torch.testing.assert_close(lncc((3000 + fixed).float(), (3000 + moving).float()).double(), exact, atol=2e-3, rtol=0)


def test_an_even_window_is_refused():
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="window is odd"):
        lncc(image, image, window=4)


@pytest.mark.parametrize("taps", [1, 2, 3, 5, 6, 7, 9, (0.25, 0.5, 0.25), gaussian_taps(0.7)])
def test_window_sums(taps, generator):
    weights = [1.0] * taps if isinstance(taps, int) else list(taps)
    x = torch.rand(1, 2, 11, 10, generator=generator, dtype=torch.float64)
    found = sum_inside(x, taps)
    expected = torch.zeros_like(found)
    for (i, a), (j, b) in itertools.product(enumerate(weights), repeat=2):
        expected += a * b * x[:, :, i : i + found.shape[2], j : j + found.shape[3]]
    torch.testing.assert_close(found, expected)


def test_a_window_sum_sees_zeros_outside_and_has_both_derivatives(generator):
    x = torch.rand(1, 1, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert window_sum(torch.ones(1, 1, 3, 3), 3)[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    assert torch.autograd.gradgradcheck(lambda x: window_sum(x, 3).square(), x)
