"""What every similarity promises, in 2-D and 3-D."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from anamorph.losses import SIMILARITIES, LogPolarBins, mind, mind_ssc

SHAPES = {"2d": (14, 11), "3d": (10, 9, 8)}
REACH = 8
"""The farthest that any similarity looks: macMIND with its defaults."""

# Small windows where gradients are checked by differences; fixed limits, because extremes are held constant.
SMALL = {
    "lncc": {"window": 3, "epsilon": 1e-9},
    "mi": {"bins": 6, "fixed_limits": (-0.2, 1.2), "moving_limits": (-0.2, 1.2)},
    "local_mi": {"bins": 6, "patch_size": 4, "fixed_limits": (-0.2, 1.2), "moving_limits": (-0.2, 1.2)},
    "nmi": {"bins": 6, "fixed_limits": (-0.2, 1.2), "moving_limits": (-0.2, 1.2)},
    "ssim": {"data_range": 1.0},
    "mind": {"distance": 1, "patch_size": 3},
    "mind_ssc": {"distance": 1, "patch_size": 3},
    "macmind": {"distance": 1, "patch_size": 3, "bins": LogPolarBins(3, 4, 1, 1)},
}


@pytest.fixture(params=list(SIMILARITIES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return SHAPES[request.param]


def blobs(shape: tuple[int, ...], generator: torch.Generator, channels: int = 1, batch: int = 2) -> Tensor:
    """Noise with structure, float64 in [0, 1]."""
    image = torch.rand(batch, channels, *shape, generator=generator, dtype=torch.float64)
    axes = torch.meshgrid(*(torch.linspace(0, 6, n, dtype=torch.float64) for n in shape), indexing="ij")
    waves = torch.stack(axes).sin().prod(0) / 2 + 0.5
    return 0.5 * image + 0.5 * waves


def test_it_is_zero_for_equal_images_and_more_for_shifted_ones(name, shape, generator, device):
    fixed = blobs(shape, generator).to(device, torch.float32)
    best = SIMILARITIES[name](fixed, fixed.clone())
    shifted = SIMILARITIES[name](fixed, fixed.roll(2, dims=-1))
    assert best.ndim == 0
    assert best.dtype == fixed.dtype
    assert abs(best.item()) < (5e-3 if "mi" in name.split("_") or name == "nmi" else 1e-6)
    assert shifted > best + 1e-3


def test_it_is_not_negative_and_the_same_both_ways(name, shape, generator):
    fixed, moving = blobs(shape, generator), blobs(shape, generator).square()
    value = SIMILARITIES[name](fixed, moving)
    assert value > 0
    torch.testing.assert_close(value, SIMILARITIES[name](moving, fixed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("left", "right"), [(0.3, 0.3), (0.3, 0.7), (0.0, 0.0), (0.3, None), (None, 0.3), (None, None)]
)
def test_constant_images_give_finite_values_and_gradients(name, shape, left, right, dtype, generator, device):
    def image(level: float | None) -> Tensor:
        x = blobs(shape, generator) if level is None else torch.full((2, 1, *shape), level)
        return x.to(device, dtype).requires_grad_()

    fixed, moving = image(left), image(right)
    value = SIMILARITIES[name](fixed, moving)
    value.backward()
    assert value.isfinite()
    assert fixed.grad is not None
    assert moving.grad is not None
    assert fixed.grad.isfinite().all()
    assert moving.grad.isfinite().all()
    if left is not None and left == right:
        assert abs(value.item()) < 1e-6


def test_where_nothing_counts_the_loss_and_its_gradient_are_zero(name, shape, generator):
    fixed, moving = (blobs(shape, generator).requires_grad_() for _ in range(2))
    ones, zeros = torch.ones(2, 1, *shape, dtype=torch.float64), torch.zeros(2, 1, *shape, dtype=torch.float64)
    for masks in [(zeros, None), (None, zeros), (ones, zeros), (zeros, ones)]:
        value = SIMILARITIES[name](fixed, moving, *masks)
        gradients = torch.autograd.grad(value, [fixed, moving])
        assert value == 0
        assert not any(gradient.any() for gradient in gradients)


def test_masks_multiply_and_their_scale_does_not_matter(name, shape, generator):
    fixed, moving = blobs(shape, generator), blobs(shape, generator).square()
    a, b = (torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    loss = SIMILARITIES[name]
    torch.testing.assert_close(loss(fixed, moving, a, b), loss(fixed, moving, a * b))
    torch.testing.assert_close(loss(fixed, moving, a, b), loss(fixed, moving, None, b * a))
    torch.testing.assert_close(loss(fixed, moving, torch.full_like(a, 0.5)), loss(fixed, moving))
    assert (loss(fixed, moving, a) - loss(fixed, moving)).abs() > 1e-6


@pytest.mark.parametrize("changed", ["fixed", "moving"])
def test_what_a_mask_hides_changes_nothing(name, changed, generator):
    fixed, moving = (blobs((10 + REACH + 6, 9), generator, batch=1) for _ in range(2))
    mask = torch.zeros_like(fixed)
    mask[:, :, :10] = 1
    before = SIMILARITIES[name](fixed, moving, fixed_mask=mask)
    hidden = {"fixed": fixed, "moving": moving}[changed]
    hidden[:, :, 10 + REACH :] = 7 * torch.rand(1, 1, 6, 9, generator=generator, dtype=torch.float64) - 3
    torch.testing.assert_close(SIMILARITIES[name](fixed, moving, fixed_mask=mask), before)
    if name not in (
        "mind",
        "mind_ssc",
        "macmind",
    ):  # descriptors look beyond the mask as far as they reach, by their page
        hidden[:, :, 10:] = 7 * torch.rand(1, 1, REACH + 6, 9, generator=generator, dtype=torch.float64) - 3
        torch.testing.assert_close(SIMILARITIES[name](fixed, moving, fixed_mask=mask), before)


def test_masks_are_constants(name, generator):
    shape = SHAPES["2d"]
    mask = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64).requires_grad_()
    moving = blobs(shape, generator).requires_grad_()
    SIMILARITIES[name](blobs(shape, generator), moving, mask, mask).backward()
    assert mask.grad is None
    assert moving.grad is not None


def test_a_batch_is_the_mean_of_its_items_and_channels(name, shape, generator):
    fixed, moving = (blobs(shape, generator, channels=2) for _ in range(2))
    fixed[1] = 100 * fixed[1] - 7
    moving[1] = 100 * moving[1]
    mask = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64)
    loss = SIMILARITIES[name]
    if name == "ssim":  # its constants belong to the range of all channels together
        loss = partial(loss, data_range=100.0)
    items = [loss(fixed[[i]][:, [c]], moving[[i]][:, [c]], mask[[i]]) for i in range(2) for c in range(2)]
    torch.testing.assert_close(loss(fixed, moving, mask), torch.stack(items).mean())


def test_its_gradient_is_right(name, shape, generator):
    shape = tuple(min(n, 6) for n in shape)
    fixed, moving = (blobs(shape, generator, batch=1).requires_grad_() for _ in range(2))
    mask = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    mask[:, :, 2] = 0
    loss = partial(SIMILARITIES[name], **SMALL.get(name, {}))
    check = partial(torch.autograd.gradcheck, inputs=(fixed, moving), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert check(loss)
    assert check(lambda f, m: loss(f, m, mask))


@pytest.mark.parametrize("name", ["lncc", "mi", "local_mi", "nmi"])
def test_statistical_similarities_do_not_see_an_affine_change_of_intensities(name, shape, generator):
    fixed, moving = (blobs(shape, generator).float() for _ in range(2))
    value = SIMILARITIES[name](fixed, moving)
    torch.testing.assert_close(SIMILARITIES[name](fixed, 1000 + 50 * moving), value, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(SIMILARITIES[name](-fixed, moving), value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["mind", "mind_ssc", "macmind"])
def test_descriptors_do_not_see_inverted_contrast(name, shape, generator):
    fixed = blobs(shape, generator)
    assert SIMILARITIES[name](fixed, 3 - 2 * fixed) < 1e-20


@pytest.mark.parametrize("describe", [mind, mind_ssc])
def test_descriptors_have_a_right_gradient(describe, shape, generator):
    image = blobs(tuple(min(n, 6) for n in shape), generator, batch=1).requires_grad_()
    small = partial(describe, distance=1, patch_size=3)
    assert torch.autograd.gradcheck(small, image, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
