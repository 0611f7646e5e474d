"""Refinement: each case by itself, better by its own measure, and nothing of the model changed by it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anamorph.methods.atlas_istn import AtlasISTN, AtlasISTNSettings, AtlasTransformation, RefinementSettings
from anamorph.methods.atlas_refinement import converged, normalised_smoothness, refinement_objective
from anamorph.methods.base import Domain
from anamorph.spatial.field import warp

SHAPE = {"2d": (24, 20), "3d": (12, 8, 16)}
QUICK = RefinementSettings(iterations=5, smoothness=1.0, learning_rate=0.01, tolerance=0.0)


@pytest.fixture(params=list(SHAPE))
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return SHAPE[request.param]


def model(shape: tuple[int, ...], **values: object) -> AtlasISTN:
    """Weights as first drawn; an atlas whose structure lies in the middle."""
    torch.manual_seed(0)
    settings = {
        "channels": (4, 6),
        "stn_channels": (4, 6),
        "affine_from_epoch": 0,
        "refinement": {"iterations": 2},
        **values,
    }
    method = AtlasISTN(AtlasISTNSettings.model_validate(settings), Domain(shape, (1.0,) * len(shape), classes=1)).eval()
    labels = torch.zeros(1, 1, *shape).long()
    labels[(slice(None), slice(None), *[slice(n // 4, -(n // 4)) for n in shape])] = 1
    method.before_training([{"image": labels.float(), "labels": labels, "labelled": torch.ones(1).bool()}])
    return method


def images(number: int, shape: tuple[int, ...]) -> Tensor:
    return torch.rand(number, 1, *shape, generator=torch.Generator().manual_seed(2))


def same(one: AtlasTransformation, other: AtlasTransformation, items: slice = slice(None)) -> bool:
    return all(
        b is None if a is None else b is not None and torch.equal(a[items], b) for a, b in zip(one, other, strict=True)
    )


def test_the_objective_falls_and_the_best_is_kept(shape, device) -> None:
    method = model(shape).to(device)
    found = method.refine(images(2, shape).to(device), QUICK)
    assert found.iterations == [5, 5]
    torch.testing.assert_close(found.one_pass.inverse, method.transformation(found.logits).inverse)
    atlas = method.atlas_labels[:, 1:]
    for item, losses in enumerate(found.losses):
        assert len(losses) == 6
        assert min(losses) < 0.99 * losses[0]
        for transformation, expected in ((found.one_pass, losses[0]), (found.transformation, min(losses))):
            own = AtlasTransformation(*(None if field is None else field[item : item + 1] for field in transformation))
            objective = refinement_objective(own, found.logits[item : item + 1, 1:], atlas, QUICK)
            assert float(objective) == pytest.approx(expected, rel=1e-5)


def test_neither_order_nor_number_changes_a_bit(shape) -> None:
    method, several = model(shape).requires_grad_(False), images(3, shape)
    together = method.refine(several, QUICK)
    backwards = method.refine(several.flip(0), QUICK)
    assert backwards.losses == together.losses[::-1]
    for item in range(3):
        alone = method.refine(several[item : item + 1], QUICK)
        assert same(together.transformation, alone.transformation, slice(item, item + 1))
        assert torch.equal(backwards.transformation.inverse[2 - item], alone.transformation.inverse[0])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_model_stays_as_it_is_in_any_mode_of_the_caller(mode) -> None:
    shape = SHAPE["2d"]
    method, expected = model(shape), model(shape).refine(images(1, shape), QUICK)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with mode():
        found = method.refine(images(1, shape).clone(), QUICK)
        segmented = method.segment(images(1, shape).clone())
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert same(found.transformation, expected.transformation)
    assert found.losses == expected.losses
    assert segmented.shape == (1, 2, *shape)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in method.parameters())
    assert not any(field.requires_grad for field in found.transformation if field is not None)


@pytest.mark.parametrize(
    ("stn", "names"),
    [("full", {"affine", "velocity"}), ("svf", {"velocity"}), ("affine", {"affine"})],
)
def test_it_moves_what_the_variant_can_move(stn: str, names: set[str]) -> None:
    shape = SHAPE["2d"]
    found = model(shape, stn=stn).refine(images(1, shape), QUICK)
    moved = set()
    if found.transformation.matrix is not None:
        assert found.one_pass.matrix is not None
        if not torch.equal(found.transformation.matrix, found.one_pass.matrix):
            moved.add("affine")
    if not torch.equal(found.transformation.velocity, found.one_pass.velocity):
        moved.add("velocity")
    assert moved == names


def test_the_weights_of_the_objective(generator: torch.Generator) -> None:
    """Equations 17 to 19, with the units of the training's terms."""
    local = torch.randn(1, 2, 6, 5, generator=generator)
    found = AtlasTransformation(local, -local, None, local, local / 2)
    logits, atlas = torch.rand(2, 1, 3, 6, 5, generator=generator)
    expected = (
        2.0 * (logits - warp(atlas, found.inverse, outside="border")).square().mean()
        + 3.0 * (atlas - warp(logits, found.forward, outside="border")).square().mean()
        + 5.0 * normalised_smoothness(found.local)
    )
    settings = RefinementSettings(atlas_to_segmentation=2.0, segmentation_to_atlas=3.0, smoothness=5.0)
    torch.testing.assert_close(refinement_objective(found, logits, atlas, settings), expected)


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([1.0] * 5, False),  # not enough steps to tell
        ([1.0] * 6, True),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], False),
        ([1.0, 0.5, 0.9, 0.9, 0.9, 0.9, 0.4999], True),  # next to nothing better than before
        ([1.0, 0.5, 0.9, 0.9, 0.9, 0.9, 0.48], False),
        ([1.0, math.nan], True),
        ([math.inf], True),
    ],
)
def test_convergence(losses: list[float], stops: bool) -> None:
    assert converged(losses, RefinementSettings(tolerance=0.01, patience=5)) == stops
    if all(map(math.isfinite, losses)):
        assert not converged(losses, RefinementSettings(tolerance=0.0, patience=5))


def test_it_stops_early_and_tells_how_far_it_is() -> None:
    shape, told = SHAPE["2d"], []
    stiff = RefinementSettings(iterations=30, learning_rate=1e-9, tolerance=1e-3, patience=4)
    found = model(shape).refine(images(2, shape), stiff, told.append)
    assert found.iterations == [4, 4]
    assert told == sorted(told)
    assert told[-1] == 1
    assert 0.5 in told
    none = model(shape).refine(images(1, shape), RefinementSettings(iterations=0))
    assert none.iterations == [0]
    assert same(none.transformation, none.one_pass)


def test_it_finds_a_structure_that_lies_elsewhere() -> None:
    """The atlas goes to where the segmentation network sees its structure."""
    shape = SHAPE["2d"]
    method = model(shape)
    target = torch.zeros(1, 2, *shape)
    target[:, 1, 9:21, 3:13] = 1  # the atlas has 6:18, 5:15
    target[:, 0] = 1 - target[:, 1]
    method.image_transformer = torch.nn.Identity()  # images are segmentations here
    settings = RefinementSettings(iterations=60, smoothness=0.1, learning_rate=5e-3)
    found = method.refine(target, settings)
    before, after = (method.atlas_to_case(maps).argmax(1) for maps in (found.one_pass, found.transformation))
    truth = target.argmax(1)
    assert overlap(before, truth) < 0.75
    assert overlap(after, truth) > 0.93
    middle = found.transformation.inverse[0, :, 15, 8]
    assert middle[0] < -1.5
    assert middle[1] > 0.8


def overlap(one: Tensor, other: Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
