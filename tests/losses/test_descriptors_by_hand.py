"""Each descriptor against its equations written out voxel by voxel, patch by patch and bin by bin."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anamorph.losses import (
    LogPolarBins,
    macmind,
    macmind_similarity,
    mind,
    mind_similarity,
    mind_ssc,
    mind_ssc_similarity,
    self_similarity_context,
)
from anamorph.losses.macmind import BINS

SHAPES = {"2d": (12, 11), "3d": (9, 8, 7)}
FAR = 12
"""Voxels of replicate padding; more than any descriptor reaches."""


def patches(ndim: int, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Edges between the centre and its face neighbours, in the order of the channels."""
    centre = np.zeros(ndim, int)
    neighbours = [sign * np.eye(ndim, dtype=int)[axis] for axis in range(ndim) for sign in (-1, 1)]
    spokes = [(centre, n) for n in neighbours]
    rim = [(a, b) for a, b in itertools.combinations(neighbours, 2) if ((a - b) ** 2).sum() == 2]
    return {"mind": spokes, "mind_ssc": rim, "context": spokes + rim}[kind]


def by_hand(image: np.ndarray, kind: str, distance: int, patch_size: int, beyond: int = 0) -> np.ndarray:
    """Channels first; with ``beyond`` voxels more at each end."""
    edges, radius = patches(image.ndim, kind), patch_size // 2
    far = np.pad(image, FAR, mode="edge")
    shape = tuple(n + 2 * beyond for n in image.shape)
    d = np.empty((len(edges), *shape))
    for voxel in np.ndindex(*shape):
        place = np.array(voxel) + FAR - beyond

        def patch(offset: np.ndarray, place: np.ndarray = place) -> np.ndarray:
            corner = place + distance * offset - radius
            return far[tuple(slice(c, c + patch_size) for c in corner)]

        for c, (i, j) in enumerate(edges):
            d[c][voxel] = ((patch(i) - patch(j)) ** 2).mean()
    if kind == "mind_ssc":
        d -= d.min(0)
    v = d.mean(0)
    middle = v[tuple(slice(beyond, n + beyond) for n in image.shape)]
    return np.exp(-d / np.maximum(v, 1e-3 * middle.mean()))


def macmind_by_hand(
    image: np.ndarray, alphas: tuple[float, ...], distance: int, patch_size: int, bins: LogPolarBins, side_by_side: bool
) -> np.ndarray:
    r = bins.radius
    scales = [a * by_hand(image, "context", (k + 1) * distance, patch_size, r) for k, a in enumerate(alphas)]
    context = np.concatenate(scales) if side_by_side else np.sum(scales, 0)
    count = bins.angles * bins.radii * (bins.heights if image.ndim == 3 else 1)
    total = np.zeros((count, *context.shape[:1], *image.shape))
    weight = np.zeros(count)
    corner = math.hypot(r, r)
    for offset in itertools.product(range(-r, r + 1), repeat=image.ndim):
        part = context[:, *(slice(r + o, r + o + n) for o, n in zip(offset, image.shape, strict=True))]
        height = 0
        if image.ndim == 3:
            height = int((offset[2] + r) * bins.heights / bins.window)  # the cases below cut no voxel in two
        rho, phi = math.hypot(*offset[:2]), math.degrees(math.atan2(offset[1], offset[0])) % 360
        if rho == 0:
            members = [((a * bins.radii) * bins.heights + height, 1 / bins.angles) for a in range(bins.angles)]
        else:
            ring = next(k for k in range(bins.radii) if rho <= corner ** ((k + 1) / bins.radii) + 1e-6)
            turn = phi / (360 / bins.angles)
            away = [min(abs(turn - a), bins.angles - abs(turn - a)) for a in range(bins.angles)]
            nearest = [a for a in range(bins.angles) if away[a] < min(away) + 1e-6]
            members = [((a * bins.radii + ring) * bins.heights + height, 1 / len(nearest)) for a in nearest]
        for n, share in members:
            total[n] += share * part
            weight[n] += share
    return (total / weight.reshape(-1, *[1] * (total.ndim - 1))).reshape(-1, *image.shape)


@pytest.fixture(params=list(SHAPES))
def image(request: pytest.FixtureRequest, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(1, 1, *SHAPES[request.param], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("distance", "patch_size"), [(2, 5), (1, 3), (3, 1)])
@pytest.mark.parametrize(
    ("describe", "kind", "channels"),
    [(mind, "mind", (4, 6)), (mind_ssc, "mind_ssc", (4, 12)), (self_similarity_context, "context", (8, 18))],
)
def test_self_similarity(describe, kind, channels, image, distance, patch_size):
    found = describe(image, distance=distance, patch_size=patch_size)
    assert found.shape == (1, channels[image.ndim - 4], *image.shape[2:])
    expected = by_hand(image[0, 0].numpy(), kind, distance, patch_size)
    torch.testing.assert_close(found[0], torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("alphas", "distance", "patch_size", "bins", "side_by_side"),
    [
        ((0.7, 0.3), 2, 5, BINS, False),
        ((0.7, 0.3), 1, 3, BINS, True),
        ((1.0,), 2, 3, LogPolarBins(window=3, angles=4, radii=1), False),
        ((0.5, 0.3, 0.2), 1, 3, LogPolarBins(window=5, angles=4, radii=1), False),
    ],
)
def test_macmind(image, alphas, distance, patch_size, bins, side_by_side):
    options = {"alphas": alphas, "distance": distance, "patch_size": patch_size, "bins": bins}
    found = macmind(image, **options, concatenated=side_by_side)
    expected = macmind_by_hand(image[0, 0].numpy(), alphas, distance, patch_size, bins, side_by_side)
    torch.testing.assert_close(found[0], torch.from_numpy(expected))


def test_macmind_has_the_papers_number_of_channels(image):
    edges = {4: 8, 5: 18}[image.ndim]
    assert macmind(image).shape[1] == 16 * edges
    assert macmind(image, concatenated=True).shape[1] == 2 * 16 * edges


def test_heights_cut_the_window_along_the_third_axis(generator):
    image = torch.rand(1, 1, 5, 6, 7, generator=generator, dtype=torch.float64)
    bins = LogPolarBins(window=3, angles=4, radii=1, heights=3)
    found = macmind(image, distance=1, patch_size=3, bins=bins)
    expected = macmind_by_hand(image[0, 0].numpy(), (0.7, 0.3), 1, 3, bins, False)
    torch.testing.assert_close(found[0], torch.from_numpy(expected))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("describe", "similarity", "options"),
    [
        (mind, mind_similarity, {}),
        (mind_ssc, mind_ssc_similarity, {}),
        (macmind, macmind_similarity, {}),
        (macmind, macmind_similarity, {"concatenated": True, "patch_size": 3}),
        (macmind, macmind_similarity, {"alphas": (1.0,), "bins": LogPolarBins(3, 4, 1)}),
    ],
)
def test_a_similarity_is_the_mean_squared_difference_of_its_descriptors(
    describe, similarity, options, channels, image, generator
):
    fixed = image.expand(2, channels, *image.shape[2:])
    moving = torch.rand(fixed.shape, generator=generator, dtype=torch.float64).requires_grad_()
    # Half the weight of every voxel, so that V is averaged over the same voxels with and without a mask.
    mask = torch.full_like(moving[:, :1].detach(), 0.5)
    value = similarity(fixed, moving, mask, **options)
    expected = (describe(fixed, **options) - describe(moving, **options)).square().mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, moving)[0] for x in (value, expected)))


def test_macmind_similarity_weighs_voxels_by_the_mask(image, generator):
    moving = torch.rand(image.shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(image.shape, generator=generator, dtype=torch.float64)
    squares = (macmind(image) - macmind(moving)).square().mean(1, keepdim=True)
    torch.testing.assert_close(macmind_similarity(image, moving, mask), (squares * mask).sum() / mask.sum())


def test_macmind_similarity_never_holds_the_descriptor(generator):
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.elements = max(self.elements, out.numel())
            return out

    fixed, moving = (torch.rand(1, 1, 12, 11, 10, generator=generator) for _ in range(2))
    with Largest() as largest:
        macmind_similarity(fixed, moving.requires_grad_()).backward()
    assert largest.elements == 18 * 16 * 15 * 14  # M channels on the grid, two voxels of R2 beyond: not 18 * 16


def test_each_voxel_of_the_window_is_in_the_bins_once():
    for bins in (BINS, LogPolarBins(5, 4, 1, 2), LogPolarBins(7, 6, 2, 3), LogPolarBins(3, 8, 1, 1)):
        kernels = bins.kernels(torch.zeros(1, 1, 1, 1, 1, dtype=torch.float64))[:, 0]
        assert kernels.shape == (bins.angles * bins.radii * bins.heights, *[bins.window] * 3)
        torch.testing.assert_close(kernels.sum((1, 2, 3)), torch.ones(len(kernels), dtype=torch.float64))
        assert (kernels.sum(0) > 0).all()


def test_the_papers_sixteen_bins():
    kernels = BINS.kernels(torch.zeros(1, 1, 1, 1))[:, 0]
    right, right_far, diagonal_far = kernels[0], kernels[1], kernels[3]
    assert right[3, 2].item() == pytest.approx(8 / 9)  # the neighbour, and an eighth of the centre
    assert right[2, 2].item() == pytest.approx(1 / 9)
    assert right_far[4, 2].item() == 1
    assert diagonal_far.nonzero().tolist() == [[3, 4], [4, 3], [4, 4]]
    turned = kernels.rot90(1, (1, 2))
    assert {tuple(k.flatten().tolist()) for k in turned} == {tuple(k.flatten().tolist()) for k in kernels}


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ((4, 8, 2, 1), "odd"),
        ((3, 16, 1, 1), "empty"),
        ((5, 8, 3, 1), "empty"),
        ((3, 4, 1, 4), "empty"),
        ((5, 0, 1, 1), "at least one"),
    ],
)
def test_bins_without_voxels_are_refused(numbers, why):
    with pytest.raises(ValueError, match=why):
        LogPolarBins(*numbers)


def test_a_2d_window_has_one_height(generator):
    image = torch.rand(1, 1, 6, 6, generator=generator)
    with pytest.raises(ValueError, match="one height"):
        macmind_similarity(image, image, bins=LogPolarBins(5, 8, 2, 2))


def test_a_constant_image_gives_ones(image):
    for describe in (mind, mind_ssc, self_similarity_context):
        assert (describe(torch.full_like(image, 3.7)) == 1).all()
    torch.testing.assert_close(macmind(torch.zeros_like(image)), torch.ones_like(macmind(image)))
