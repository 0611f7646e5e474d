"""The mean map of cases against a literal one, and an atlas that comes to lie in their middle by taking it out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.linalg import expm, logm
from torch import Tensor

from anamorph.losses.segmentation import one_hot
from anamorph.methods.atlas_istn import AtlasISTN, AtlasISTNSettings
from anamorph.methods.atlas_mean import map_parts, mean_map, means_of, sums_of
from anamorph.methods.base import Domain
from anamorph.networks.spatial_transformer import AtlasTransformation, SpatialTransformer, affine_matrix
from anamorph.spatial.field import warp
from tests.methods.test_atlas_istn_by_hand import cases, maps, part, small
from tests.networks.test_spatial_transformer_by_hand import displaced

SHAPE = (10, 8)


def together(*found: AtlasTransformation) -> AtlasTransformation:
    """The mean map of cases in as many batches."""
    parts = (sums_of(*map_parts(each)) for each in found)
    return mean_map(means_of(parts), found[0].shape, found[0].squarings)


@pytest.mark.parametrize("shape", [(10, 8), (6, 8, 5)])
def test_opposite_maps_have_the_identity_for_their_mean(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Of velocities v and -v, and of T and its inverse, however large."""
    ndim = len(shape)
    velocity = torch.randn(1, ndim, *[-(-n // 2) for n in shape], generator=generator)
    numbers = torch.randn(1, ndim * (ndim - 1) // 2 + 2 * ndim, generator=generator)
    matrix = affine_matrix(numbers, shape, [2.0] * ndim)
    one = AtlasTransformation(velocity, matrix, shape)
    other = AtlasTransformation(-velocity, torch.linalg.inv(matrix), shape)
    assert one.forward.abs().max() > 1
    assert together(one, other).inverse.abs().max() < 1e-3
    assert together(one, one, other).inverse.abs().max() > 0.3


def test_the_mean_of_one_map_is_that_map(generator: torch.Generator) -> None:
    matrix = affine_matrix(torch.randn(1, 5, generator=generator), SHAPE, [1.0, 2.0])
    for linear in (matrix, None):
        own = AtlasTransformation(torch.randn(1, 2, 6, 4, generator=generator), linear, SHAPE)
        torch.testing.assert_close(together(own, own).inverse, own.inverse, rtol=0, atol=1e-4)


def test_the_half_grid_is_that_of_the_velocities() -> None:
    for shape, channels in (((10, 8), (2, 2)), ((9, 16), (2, 2, 2)), ((5, 6, 7), (2, 2))):
        network = SpatialTransformer(shape, 2, channels)
        assert network(torch.rand(1, 2, *shape))[0].shape[2:] == network.velocity_shape


def test_the_update_is_moved_by_the_inverse_of_the_mean_map() -> None:
    """In batches, one of which has no labelled case."""
    batch = cases(unlabelled=(1,))
    dealt = [part(batch, slice(n, n + 1)) for n in range(4)]
    method = small(update_rate=0.3, unbiased=True).eval()
    method.before_training(dealt)
    before = {name: method.get_buffer(f"atlas_{name}")[0].double().numpy() for name in ("labels", "image")}
    found, chosen = method.one_pass(batch["image"]), [0, 2, 3]
    assert found.matrix is not None
    logarithm = np.mean([np.real(logm(found.matrix[item].double().numpy())) for item in chosen], axis=0)
    matrix = torch.from_numpy(expm(logarithm)).float()[None]
    mean = AtlasTransformation(found.velocity[chosen].mean(0, keepdim=True), matrix, SHAPE)
    assert mean.inverse.abs().mean() > 0.1
    method.after_epoch(0, dealt)
    z = {"labels": one_hot(batch["labels"], 2, 0.5).double().numpy(), "image": batch["image"].double().numpy()}
    for name, values in z.items():
        update = np.mean([displaced(values[item], maps(found, item)[0]) for item in chosen], axis=0)
        expected = 0.7 * before[name] + 0.3 * displaced(update, mean.inverse[0].double().numpy())
        np.testing.assert_allclose(method.get_buffer(f"atlas_{name}")[0].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(method.atlas_labels.sum(1), torch.ones(1, *SHAPE))


def test_without_it_the_update_is_the_plain_mean_to_the_bit() -> None:
    batch = cases()
    method = small(update_rate=0.3).eval()
    method.before_training([batch])
    forward = method.one_pass(batch["image"]).forward
    labels = one_hot(batch["labels"], 2, 0.5)
    for atlas, values in ((method.atlas_labels, labels), (method.atlas_image, batch["image"])):
        update = (warp(values, forward, outside="border").double().sum(0, keepdim=True) / 4).float()
        expected = atlas.lerp(update, 0.3)
        method.after_epoch(0, [batch])
        assert torch.equal(atlas, expected)
        method.before_training([batch])


@pytest.mark.parametrize("stn", ["full", "svf", "affine"])
def test_every_variant_takes_its_own_mean_out(stn: str) -> None:
    batch = cases()
    plain, unbiased = (small(stn=stn, update_rate=1.0, unbiased=chosen).eval() for chosen in (False, True))
    for method in (plain, unbiased):
        method.before_training([batch])
    mean = together(plain.one_pass(batch["image"]))
    for method in (plain, unbiased):
        method.after_epoch(0, [batch])
    moved = displaced(plain.atlas_image[0].double().numpy(), mean.inverse[0].double().numpy())
    np.testing.assert_allclose(unbiased.atlas_image[0].numpy(), moved, atol=1e-4)
    assert not torch.equal(unbiased.atlas_image, plain.atlas_image)


# -- learning ----------------------------------------------------------------------------------------------------------


def ellipses(number: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    places = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 2, indexing="ij"))
    labels = []
    for _ in range(number):
        centre = 7.0 + torch.rand(2, generator=generator)
        radii = torch.tensor([4.5, 3.0]) + 0.6 * (torch.rand(2, generator=generator) - 0.5)
        labels.append((((places - centre.view(2, 1, 1)) / radii.view(2, 1, 1)).square().sum(0) < 1).long())
    stacked = torch.stack(labels)[:, None]
    return {"image": stacked - 0.3, "labels": stacked, "labelled": torch.ones(number).bool()}


def bias_after_learning(epochs: int = 10, **values: Any) -> float:
    """Length of the mean deformation in the atlas, voxels, of one that began 2 voxels beside all of its cases."""
    torch.manual_seed(0)
    batch = ellipses()
    chosen = {
        "channels": (4, 6), "stn_channels": (4, 6), "stn": "svf", "update_rate": 0.2, "weights": {"smoothness": 1.0},
        **values,
    }  # fmt: skip
    method = AtlasISTN(AtlasISTNSettings.model_validate(chosen), Domain((16, 16), (1.0, 1.0), classes=1))
    method.before_training([batch])
    for atlas in (method.atlas_labels, method.atlas_image):
        atlas.copy_(atlas.roll(2, 2))
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-2)
    for epoch in range(epochs):
        for _ in range(2):
            weights = method.weights_of("network")
            optimiser.zero_grad()
            torch.stack(
                [weights[name] * term for name, term in method.terms(batch, "network").items()]
            ).sum().backward()
            optimiser.step()
        method.after_epoch(epoch, [batch])
    with torch.no_grad():
        mean = method.one_pass(batch["image"]).local.mean(0)
    return float(mean.norm(dim=0)[method.atlas_labels[0, 1] > 0.5].mean())


def test_an_atlas_that_began_beside_its_cases_comes_to_lie_among_them() -> None:
    biased, unbiased = bias_after_learning(), bias_after_learning(unbiased=True)
    assert biased > 1.2
    assert unbiased < 0.35 * biased


@pytest.mark.parametrize("values", [{"atlas": "fixed"}, {"update_rate": 0.0}])
def test_it_is_about_an_atlas_that_is_learnt(values: dict[str, Any]) -> None:
    assert not AtlasISTNSettings().unbiased
    with pytest.raises(ValidationError, match="unbiased is about an atlas that is learnt"):
        AtlasISTNSettings.model_validate({"unbiased": True, **values})
