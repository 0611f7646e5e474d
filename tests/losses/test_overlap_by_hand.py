"""Soft Dice in cases worked out on paper."""

from __future__ import annotations

import pytest
import torch

from anamorph.losses import soft_dice


def squares(*corners: int) -> torch.Tensor:
    """One channel a label: 4 x 4 squares along the diagonal of a 24 x 24 image."""
    labels = torch.zeros(1, len(corners), 24, 24, dtype=torch.float64)
    for channel, c in enumerate(corners):
        labels[0, channel, c : c + 4, c : c + 4] = 1
    return labels


@pytest.mark.parametrize("squared", [True, False])
def test_crisp_labels(squared):
    assert soft_dice(squares(2, 9), squares(2, 9), squared=squared).item() == pytest.approx(0)
    assert soft_dice(squares(2), squares(4), squared=squared).item() == pytest.approx(1 - 4 / 16)
    assert soft_dice(squares(2, 9), squares(4, 9), squared=squared).item() == pytest.approx((1 - 4 / 16) / 2)
    assert soft_dice(squares(2), squares(16), squared=squared).item() == pytest.approx(1, abs=1e-6)


def test_equal_soft_labels_are_perfect_with_squares_only():
    half = 0.5 * squares(2)
    assert soft_dice(half, half).item() == pytest.approx(0)
    assert soft_dice(half, half, squared=False).item() == pytest.approx(0.5, abs=1e-5)


def test_empty_labels():
    empty = torch.zeros_like(squares(2)).requires_grad_()
    assert soft_dice(empty, empty).item() == 0
    value = soft_dice(squares(2), empty)
    value.backward()
    assert value.item() == pytest.approx(1, abs=1e-6)
    assert empty.grad is not None
    assert empty.grad.isfinite().all()


def test_a_blurred_scale_feels_labels_that_do_not_touch():
    far, near, moved = squares(2), squares(7), squares(7).requires_grad_()
    crisp, blurred = soft_dice(far, near), soft_dice(far, near, sigmas=(3.0,))
    assert crisp.item() == pytest.approx(1, abs=1e-6)
    assert blurred < 0.75
    assert soft_dice(far, near, sigmas=(0.0, 3.0)).item() == pytest.approx((crisp + blurred).item() / 2)
    assert soft_dice(far, far, sigmas=(0.0, 1.0, 2.0, 4.0)).item() == pytest.approx(0)
    soft_dice(far, moved, sigmas=(3.0,)).backward()
    assert moved.grad is not None
    assert moved.grad[0, 0, 6, 6] < 0


def test_masks():
    mask = torch.ones(1, 1, 24, 24, dtype=torch.float64)
    mask[:, :, 12:] = 0
    fixed, moving = squares(2), squares(2) + squares(16)
    for sigmas in ((0.0,), (0.0, 2.0)):
        assert soft_dice(fixed, moving, mask, sigmas=sigmas).item() == pytest.approx(0)
    assert soft_dice(fixed, moving).item() == pytest.approx(1 - 2 * 16 / 48)
    assert soft_dice(fixed, moving, 0 * mask).item() == 0


def test_the_gradient_is_right(generator):
    a, b, mask = (torch.rand(1, 2, 6, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    a.requires_grad_()
    b.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: soft_dice(a, b, mask[:, :1], sigmas=(0.0, 1.0)), (a, b))
