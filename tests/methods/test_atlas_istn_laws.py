"""Refinement: each case by itself, better by its own measure, and nothing of the model changed by it."""

from __future__ import annotations

import math
from dataclasses import replace

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


def fields(found: AtlasTransformation) -> list[Tensor]:
    matrix = [] if found.matrix is None else [found.matrix]
    return [found.velocity, *matrix, found.forward, found.inverse, found.local]


def same(one: AtlasTransformation, other: AtlasTransformation, items: slice = slice(None)) -> bool:
    return all(torch.equal(a[items], b) for a, b in zip(fields(one), fields(other), strict=True))


def item_of(found: AtlasTransformation, item: int) -> AtlasTransformation:
    own = slice(item, item + 1)
    return replace(found, velocity=found.velocity[own], matrix=None if found.matrix is None else found.matrix[own])


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
            own = item_of(transformation, item)
            objective = refinement_objective(own, found.logits[item : item + 1, 1:], atlas, QUICK)
            assert objective.tolist() == [pytest.approx(expected, rel=1e-5)]


def test_neither_order_nor_number_changes_a_bit(shape) -> None:
    method, several = model(shape).requires_grad_(False), images(3, shape)
    together = method.refine(several, QUICK)
    backwards = method.refine(several.flip(0), QUICK)
    assert backwards.losses == together.losses[::-1]
    for item in range(3):
        alone = method.refine(several[item : item + 1], QUICK)
        assert same(together.transformation, alone.transformation, slice(item, item + 1))
        assert torch.equal(backwards.transformation.inverse[2 - item], alone.transformation.inverse[0])


GENTLE = RefinementSettings(iterations=4, smoothness=1.0, learning_rate=1e-3, tolerance=0.0)
"""Steps so small that Adam, which divides by the size of a gradient, makes little of how that was rounded."""


@pytest.mark.parametrize("stn", ["full", "svf", "affine"])
def test_cases_refined_at_a_time_are_refined_as_one_by_one(shape, stn: str, device) -> None:
    method, several = model(shape, stn=stn).to(device), images(5, shape).to(device)
    alone, together = (method.refine(several, GENTLE.model_copy(update={"batch": batch})) for batch in (1, 3))
    assert together.iterations == alone.iterations == [4] * 5
    for losses, expected in zip(together.losses, alone.losses, strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)
        assert losses[-1] < losses[0]
    assert_near(together.one_pass, alone.one_pass)
    assert_near(together.transformation, alone.transformation)


def assert_near(found: AtlasTransformation, expected: AtlasTransformation) -> None:
    for a, b in zip(fields(found), fields(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


def test_the_order_within_a_batch_is_all_the_same(shape) -> None:
    method, several = model(shape), images(4, shape)
    settings = GENTLE.model_copy(update={"batch": 4})
    found, backwards = (method.refine(cases, settings) for cases in (several, several.flip(0)))
    for losses, expected in zip(backwards.losses[::-1], found.losses, strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)
    for item in range(4):
        assert_near(item_of(backwards.transformation, 3 - item), item_of(found.transformation, item))


def test_each_case_of_a_batch_comes_to_its_own_end() -> None:
    """A constant that no map takes away makes what is gained small, beside what is left."""
    shape, told = SHAPE["2d"], []
    method = model(shape, stn="svf")
    several = elsewhere(shape).repeat(5, 1, 1, 1)
    several[:, 1] += torch.tensor([0.0, 3.0, 0.5, 9.0, 0.5]).view(5, 1, 1)
    method.image_transformer = torch.nn.Identity()
    settings = RefinementSettings(iterations=10, smoothness=1.0, learning_rate=2e-3, tolerance=0.01, patience=2)
    alone = method.refine(several, settings)
    together = method.refine(several, settings.model_copy(update={"batch": 4}), told.append)
    assert alone.iterations == together.iterations == [10, 2, 6, 2, 6]
    assert_near(together.transformation, alone.transformation)
    assert told == sorted(told)
    assert 0.8 in told
    assert told[-1] == 1


def test_a_case_that_is_no_number_harms_no_other() -> None:
    method, several = model(SHAPE["2d"]), images(3, SHAPE["2d"])
    several[1, 0, 3, 4] = math.nan
    found = method.refine(several, GENTLE.model_copy(update={"batch": 3}))
    assert found.iterations == [4, 0, 4]
    alone = method.refine(several[2:], GENTLE)
    assert found.losses[2] == pytest.approx(alone.losses[0], rel=1e-4)
    assert_near(item_of(found.transformation, 2), alone.transformation)


def test_what_nobody_asks_for_is_not_computed() -> None:
    method = model(SHAPE["2d"])
    found = method.refine(images(1, SHAPE["2d"]), QUICK)
    method.atlas_to_case(found.transformation)
    assert not {"forward", "local"} & vars(found.transformation).keys()
    assert not {"forward", "inverse", "local"} & vars(found.one_pass).keys()


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
    assert not any(field.requires_grad for field in fields(found.transformation))


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
    """Equations 17 to 19 of each case, with the units of the training's terms."""
    several = AtlasTransformation(torch.randn(2, 2, 4, 4, generator=generator), None, (6, 5))
    logits, atlas = torch.rand(2, 2, 3, 6, 5, generator=generator)
    settings = RefinementSettings(atlas_to_segmentation=2.0, segmentation_to_atlas=3.0, smoothness=5.0)
    objectives = refinement_objective(several, logits, atlas, settings)
    for item, objective in enumerate(objectives):
        found, own = item_of(several, item), slice(item, item + 1)
        expected = (
            2.0 * (logits[own] - warp(atlas[own], found.inverse, outside="border")).square().mean()
            + 3.0 * (atlas[own] - warp(logits[own], found.forward, outside="border")).square().mean()
            + 5.0 * normalised_smoothness(found.local)
        )
        torch.testing.assert_close(objective, expected)


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


def elsewhere(shape: tuple[int, ...]) -> Tensor:
    """A segmentation whose structure lies at 9:21, 3:13; the atlas has 6:18, 5:15."""
    target = torch.zeros(1, 2, *shape)
    target[:, 1, 9:21, 3:13] = 1
    target[:, 0] = 1 - target[:, 1]
    return target


def test_it_finds_a_structure_that_lies_elsewhere() -> None:
    """The atlas goes to where the segmentation network sees its structure."""
    shape = SHAPE["2d"]
    method = model(shape)
    target = elsewhere(shape)
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
