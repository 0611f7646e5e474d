"""Mutual information against dense Parzen sums, plain histograms and cases whose value is known."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from anamorph.losses import information as module
from anamorph.losses import local_mutual_information, mutual_information, normalized_mutual_information


def cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0))


def information(p: np.ndarray) -> float:
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    return float((p[p > 0] * np.log(p[p > 0] / independent[p > 0])).sum())


def dense_windows(image: np.ndarray, bins: int, tabulated: bool) -> np.ndarray:
    """Voxels x bins, what the module never builds: cubic splines, or their linear interpolation between the nodes."""
    low, high = image.min(), image.max()
    position = 1 + (image.ravel() - low) / (high - low) * (bins - 3)
    if not tabulated:
        return cubic(position[:, None] - np.arange(bins))
    nodes = 1 + np.arange((bins - 3) * module.SUBDIVISIONS + 1) / module.SUBDIVISIONS
    table = cubic(nodes[:, None] - np.arange(bins))
    return np.stack([np.interp(position, nodes, table[:, b]) for b in range(bins)], 1)


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    fixed = torch.rand(1, 1, 20, 15, generator=generator, dtype=torch.float64)
    noise = torch.rand(fixed.shape, generator=generator, dtype=torch.float64)
    return fixed, (fixed - 0.4).square() + 0.1 * noise


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bins", [8, 32])
def test_dense_parzen_sums(pair, bins, weighted, generator):
    f, m = (x[0, 0].numpy() for x in pair)
    w = (
        torch.rand(pair[0].shape, generator=generator, dtype=torch.float64) + 0.1
        if weighted
        else torch.ones_like(pair[0])
    )
    share = (w / w.sum()).flatten().numpy()
    for tabulated, nats in ((True, 1e-9), (False, 5e-3)):
        a, b = (dense_windows(x, bins, tabulated) for x in (f, m))
        rows, limits = [module._rows(x) for x in pair], [module._limits(x, None, None) for x in pair]
        found = module._informations(rows[0], rows[1], w.flatten(1), limits[0], limits[1], bins)
        assert found.shared.item() == pytest.approx(information((a * share[:, None]).T @ b), abs=nats)


def test_self_information_is_that_of_an_image_with_itself(pair):
    rows, limits = module._rows(pair[0]), module._limits(pair[0], None, None)
    found = module._informations(rows, rows, None, limits, limits, 32)
    a = dense_windows(pair[0][0, 0].numpy(), 32, tabulated=False)
    exact = information(a.T @ a / len(a))
    assert found.fixed.item() == pytest.approx(exact, rel=5e-3)
    assert found.moving.item() == found.fixed.item()
    assert found.shared.item() <= found.fixed.item()


def test_both_losses_follow_from_the_informations(pair):
    rows, limits = [module._rows(x) for x in pair], [module._limits(x, None, None) for x in pair]
    i, f, m = (x.item() for x in module._informations(rows[0], rows[1], None, limits[0], limits[1], 32))
    assert mutual_information(*pair).item() == pytest.approx(1 - i / max(f, m))
    assert normalized_mutual_information(*pair).item() == pytest.approx(2 - (f + m) / (f + m - i))


def test_intensities_far_apart_give_shannons_values(generator):
    """Four grey values that no window joins: the joint histogram of the values themselves decides."""
    values = torch.randint(0, 4, (1, 1, 40, 40), generator=generator)
    partner = torch.where(torch.rand(values.shape, generator=generator) < 0.7, values, 3 - values)
    counts = np.zeros((4, 4))
    np.add.at(counts, (values.numpy().ravel(), partner.numpy().ravel()), 1)
    p = counts / counts.sum()
    entropies = [-(q * np.log(q)).sum() for q in (p.sum(0), p.sum(1))]
    expected = 1 - information(p) / max(entropies)
    assert mutual_information(values.double(), partner.double(), bins=18).item() == pytest.approx(expected, abs=1e-6)
    joint = sum(entropies) - information(p)
    expected = 2 - sum(entropies) / joint
    found = normalized_mutual_information(values.double(), partner.double(), bins=18)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert mutual_information(values.double(), 7 - 3 * values.double(), bins=18).item() == pytest.approx(0, abs=1e-6)
    assert math.isclose(mutual_information(values.double(), (values % 2).double(), bins=18).item(), 0.5, abs_tol=0.01)


def test_independent_images_share_nothing(generator):
    fixed, moving = (torch.rand(1, 1, 200, 200, generator=generator) for _ in range(2))
    assert mutual_information(fixed, moving).item() == pytest.approx(1, abs=0.02)
    assert normalized_mutual_information(fixed, moving).item() == pytest.approx(1, abs=0.02)


def test_intensities_beyond_the_limits_are_alike_and_have_no_gradient():
    fixed = torch.tensor([[[0.0, 0.2, 0.8, 1.0]]])
    moving = torch.tensor([[[-5.0, 0.2, 0.8, 9.0]]]).requires_grad_()
    loss = partial(mutual_information, fixed_limits=(0.0, 1.0), moving_limits=(0.0, 1.0))
    value = loss(fixed, moving)
    value.backward()
    torch.testing.assert_close(value, loss(fixed, moving.detach().clamp(0, 1)))
    assert moving.grad is not None
    assert (moving.grad != 0).tolist() == [[[False, True, True, False]]]


def test_chunks_change_nothing(pair, monkeypatch):
    moving = pair[1].requires_grad_()
    losses = (mutual_information, local_mutual_information)
    whole = [(loss(pair[0], moving), torch.autograd.grad(loss(pair[0], moving), moving)[0]) for loss in losses]
    monkeypatch.setattr(module, "CHUNK", 37)
    parts = [(loss(pair[0], moving), torch.autograd.grad(loss(pair[0], moving), moving)[0]) for loss in losses]
    torch.testing.assert_close(parts, whole)


def test_a_subset_of_voxels_is_enough(generator):
    fixed = torch.rand(1, 1, 100, 100, generator=generator)
    moving = (fixed - 0.4).square() + 0.1 * torch.rand(fixed.shape, generator=generator)
    chosen = torch.randperm(10000, generator=generator)[:3000]
    samples = [x.flatten(2)[:, :, chosen] for x in (fixed, moving)]
    assert mutual_information(*samples).item() == pytest.approx(mutual_information(fixed, moving).item(), abs=0.03)


@pytest.mark.parametrize("shape", [(13, 9), (7, 6, 5)])
def test_local_mutual_information_patch_by_patch(shape, generator):
    fixed, moving = (torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    shared, largest, counted = 0.0, 0.0, 0
    limits = [(x.min().item(), x.max().item()) for x in (fixed, moving)]
    corners = np.array(np.meshgrid(*(range(0, n, 4) for n in shape), indexing="ij")).reshape(len(shape), -1).T
    for corner in corners:
        box = (..., *(slice(c, c + 4) for c in corner))
        rows = [module._rows(x[box]) for x in (fixed, moving)]
        bounds = [module._limits(x[box], None, limit) for x, limit in zip((fixed, moving), limits, strict=True)]
        found = module._informations(rows[0], rows[1], None, bounds[0], bounds[1], 16)
        shared += found.shared.item() * rows[0].shape[1]
        largest += found.largest.item() * rows[0].shape[1]
        counted += rows[0].shape[1]
    assert counted == fixed.numel()
    value = local_mutual_information(fixed, moving, patch_size=4).item()
    assert value == pytest.approx(1 - shared / largest, rel=1e-9)


def test_local_mutual_information_sees_through_a_drift_of_contrast(generator):
    fixed = torch.rand(1, 1, 64, 64, generator=generator)
    moving = torch.cat([fixed[..., :32], 1 - fixed[..., 32:]], -1)  # contrast inverts half way
    assert local_mutual_information(fixed, moving) < 0.3 * mutual_information(fixed, moving, bins=16)


def test_fewer_bins_than_a_window_are_refused():
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="four bins"):
        mutual_information(image, image, bins=3)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (1.0, 0.0), (math.nan, 1.0)])
def test_limits_out_of_order_are_refused(limits):
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="limits are"):
        mutual_information(image, image, moving_limits=limits)
