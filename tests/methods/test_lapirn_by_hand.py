"""LapIRN's equations against literal loops, and the order in which its levels are trained."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from anamorph.errors import ConfigurationError
from anamorph.methods.base import Domain
from anamorph.methods.lapirn import LapIRN, LapIRNSettings, averaged, multi_resolution_lncc, sampled
from anamorph.spatial.field import warp


def method_of(shape: tuple[int, ...], classes: int = 0, **settings: Any) -> LapIRN:
    domain = Domain(shape, (1.0,) * len(shape), classes=classes)
    return LapIRN(LapIRNSettings.model_validate({"channels": 1} | settings), domain)


class Always(nn.Module):
    """A network whose level k finds the k-th field, whatever it sees."""

    def __init__(self, *fields: Tensor) -> None:
        super().__init__()
        self.fields = nn.ParameterList(fields)

    def forward(self, fixed: Tensor, moving: Tensor, level: int) -> Tensor:
        return self.fields[level - 1].expand(len(fixed), *self.fields[level - 1].shape[1:])


def pair(*shape: int, generator: torch.Generator) -> dict[str, Tensor]:
    fixed, moving = torch.rand(2, 1, 1, *shape, generator=generator)
    return {"fixed": fixed, "moving": moving}


def at_level(method: LapIRN, level: int, *fields: Tensor) -> LapIRN:
    method.add_module("network", Always(*fields))
    method.level.fill_(level)
    return method


# -- (3), (4): where the voxels of a level are -------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("shape", [(16, 8), (11, 13), (8, 9, 10)])
def test_the_fixed_and_the_moving_image_of_a_level_lie_on_each_other(shape: tuple[int, ...], factor: int) -> None:
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    ramp = torch.stack([(axis + 1) * (number + 1) for number, axis in enumerate(axes)]).sum(0)[None, None]
    fixed = averaged(ramp, factor)
    warped = sampled(ramp, torch.zeros(1, len(shape), *fixed.shape[2:]), factor, "border")
    whole = tuple(slice(None, n // factor) for n in shape)  # a last voxel that stands out averages the border
    torch.testing.assert_close(warped[(0, 0, *whole)], fixed[(0, 0, *whole)])


def test_a_displacement_of_a_level_counts_its_voxels() -> None:
    ramp = torch.arange(16.0).view(1, 1, 16, 1).expand(1, 1, 16, 16)
    one = torch.zeros(1, 2, 4, 4)
    one[:, 0] = 1
    still, moved = (sampled(ramp, u, 4, "border")[0, 0, :, 0] for u in (0 * one, one))
    assert still.tolist() == [1.5, 5.5, 9.5, 13.5]
    assert moved.tolist() == [5.5, 9.5, 13.5, 15.0]  # the border goes on


# -- (6) ---------------------------------------------------------------------------------------------------------------


def local_correlation(fixed: Tensor, moving: Tensor, window: int, epsilon: float) -> float:
    """One minus its mean square, voxel by voxel; the box ends at the border."""
    a, b = ((x - x.mean()) / (x - x.mean()).square().mean().sqrt() for x in (fixed, moving))
    values = []
    for voxel in product(*(range(n) for n in a.shape)):
        box = tuple(slice(max(0, i - window // 2), i + window // 2 + 1) for i in voxel)
        f, m = a[box], b[box]
        covariance = (f * m).mean() - f.mean() * m.mean()
        variances = [(x * x).mean() - x.mean() ** 2 + epsilon for x in (f, m)]
        values.append(float((covariance.abs() + epsilon) ** 2 / (variances[0] * variances[1])))
    return 1 - sum(values) / len(values)


def halved(image: Tensor) -> Tensor:
    """Mean of the three voxels around every second one along each axis, of those that there are."""
    shape = [-(-n // 2) for n in image.shape]
    boxes = [tuple(slice(max(0, 2 * i - 1), 2 * i + 2) for i in voxel) for voxel in product(*map(range, shape))]
    return torch.stack([image[box].mean() for box in boxes]).view(shape)


@pytest.mark.parametrize("shape", [(9, 8), (6, 5, 7)])
@pytest.mark.parametrize("windows", [[3], [5, 3], [7, 5, 3]])
def test_similarity_over_scales_as_a_loop(shape: tuple[int, ...], windows: list[int]) -> None:
    torch.manual_seed(0)
    fixed, moving = torch.rand(2, *shape, dtype=torch.float64)
    images, expected = (fixed, moving), 0.0
    for scale, window in enumerate(windows):
        expected += local_correlation(*images, window, 1e-4) / 2**scale
        images = (halved(images[0]), halved(images[1]))
    found = multi_resolution_lncc(fixed[None, None], moving[None, None], None, None, windows=windows, epsilon=1e-4)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_each_level_has_the_windows_of_the_release(level: int, generator) -> None:
    batch = pair(32, 32, generator=generator)
    fields = [torch.zeros(1, 2, n, n) for n in (8, 16, 32)]
    terms = at_level(method_of((32, 32)), level, *fields).terms(batch, "network")
    factor = 2 ** (3 - level)
    fixed, warped = averaged(batch["fixed"], factor), sampled(batch["moving"], fields[level - 1], factor, "border")
    windows = {1: [3], 2: [5, 3], 3: [7, 5, 3]}[level]
    expected = multi_resolution_lncc(fixed, warped, None, None, windows=windows, epsilon=1e-4)
    torch.testing.assert_close(terms["similarity"], expected)


def test_masks_are_brought_to_the_level(generator) -> None:
    batch = pair(16, 16, generator=generator)
    mask = torch.ones(1, 1, 16, 16)
    mask[:, :, :8] = 0
    one = torch.zeros(1, 2, 8, 8)
    one[:, 0] = 1  # two voxels of the image
    method = at_level(method_of((16, 16), similarity="mse"), 2, one, one)
    fixed, warped = averaged(batch["fixed"], 2), sampled(batch["moving"], one, 2, "border")
    squares = (fixed - warped).square()[0, 0]
    found = method.terms(batch | {"fixed_mask": mask}, "network")["similarity"]
    torch.testing.assert_close(found, squares[4:].mean())
    # Row i of the level reads rows 2 i + 2, 2 i + 3 of the moving image: within its mask from i = 3 to i = 6.
    found = method.terms(batch | {"moving_mask": mask}, "network")["similarity"]
    torch.testing.assert_close(found, squares[3:7].mean())


# -- (7), (8), (9) -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("diffeomorphic", [True, False])
def test_smoothness_is_that_of_the_released_field_times_voxels(shape, diffeomorphic: bool, generator) -> None:
    ndim = len(shape)
    field = torch.rand(1, ndim, *shape, generator=generator, dtype=torch.float64) - 0.5
    method = at_level(method_of(shape, diffeomorphic=diffeomorphic), 3, field[:0], field[:0], field)
    found = method.terms(pair(*shape, generator=generator), "network")["smoothness"]
    # As released: normalised units, components from the last axis to the first, each times its N - 1.
    count = torch.tensor(shape).view(1, -1, *[1] * ndim) - 1
    normalised = (field / (count / 2)).flip(1)
    scaled = normalised * count.flip(1)
    expected = sum(scaled.diff(dim=axis + 2).square().mean() for axis in range(ndim)) / ndim
    torch.testing.assert_close(found.double(), expected)


def test_folding_counts_how_far_determinants_are_below_zero(generator) -> None:
    # x + u runs backwards along the first axis at twice the speed: the determinant is -1 everywhere.
    field = torch.zeros(1, 2, 8, 8)
    field[:, 0] = -2 * torch.arange(8.0)[:, None]
    settings = {"diffeomorphic": False, "weights": {"folding": 1.0}}
    method = at_level(method_of((8, 8), **settings), 3, field[:0], field[:0], field)
    assert method.terms(pair(8, 8, generator=generator), "network")["folding"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(("level", "rows"), [(3, 1.0), (2, 0.5), (1, 0.25)])
def test_overlap_at_every_level(level: int, rows: float, generator) -> None:
    labels = torch.zeros(2, 1, 32, 32, dtype=torch.int64)
    labels[:, :, 8:16, 8:16] = 1
    moving = labels.roll(1, 2)
    fields = [torch.zeros(1, 2, n, n) for n in (8, 16, 32)]
    fields[level - 1][:, 0] = rows
    settings = {"diffeomorphic": False, "weights": {"overlap": 1.0}}
    method = at_level(method_of((32, 32), 1, **settings), level, *fields)
    image = torch.rand(2, 1, 32, 32, generator=generator)
    batch = {"fixed": image, "moving": image, "fixed_labels": labels, "moving_labels": moving}
    for labelled, share in [((1, 1), 1.0), ((1, 0), 0.5), ((0, 0), 0.0)]:
        known = torch.tensor(labelled).bool()
        terms = method.terms(batch | {"fixed_labelled": known, "moving_labelled": known}, "network")
        assert terms["overlap"].item() < 0.01
        assert terms["overlap"].requires_grad
        off = method.terms(
            batch | {"moving_labels": labels.roll(9, 2), "fixed_labelled": known, "moving_labelled": known}, "network"
        )
        assert off["overlap"].item() == pytest.approx(share, abs=0.01)  # the labels touch nowhere


# -- training from coarse to fine --------------------------------------------------------------------------------------


def trainable(method: LapIRN) -> list[bool]:
    return [all(p.requires_grad for p in level.parameters()) for level in method.network.levels]


def test_levels_take_turns_as_released() -> None:
    method = method_of((16, 16))
    steps = 120_000
    expected = {
        0: (1, [True, False, False]),
        29_999: (1, [True, False, False]),
        30_000: (2, [False, True, False]),
        31_999: (2, [False, True, False]),
        32_000: (2, [True, True, False]),
        59_999: (2, [True, True, False]),
        60_000: (3, [False, False, True]),
        61_999: (3, [False, False, True]),
        62_000: (3, [True, True, True]),
        119_999: (3, [True, True, True]),
    }
    for step, (level, free) in expected.items():
        method.begin_step(step, steps)
        assert (int(method.level), trainable(method)) == (level, free), step
    method.begin_step(31_000, steps)  # as after a resumed run
    assert (int(method.level), trainable(method)) == (2, [False, True, False])


def test_end_to_end_training_leaves_all_levels_free() -> None:
    method = method_of((16, 16), progressive=False)
    for step in (0, 50, 99):
        method.begin_step(step, 100)
        assert (int(method.level), trainable(method)) == (3, [True, True, True])


@pytest.mark.parametrize(("step", "reached"), [(10, [1]), (25, [2]), (30, [1, 2]), (50, [3]), (60, [1, 2, 3])])
def test_gradients_reach_the_levels_of_the_turn(step: int, reached: list[int], generator) -> None:
    method = method_of((16, 24))
    method.begin_step(step, 100)
    sum(method.terms(pair(16, 24, generator=generator), "network").values(), torch.zeros(())).backward()
    found = [
        n for n, level in enumerate(method.network.levels, 1) if any(p.grad is not None for p in level.parameters())
    ]
    assert found == reached


@pytest.mark.parametrize("diffeomorphic", [True, False])
def test_every_level_learns_in_its_turn(diffeomorphic: bool) -> None:
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(16.0), indexing="ij")
    fixed, moving = (torch.exp(-((rows - 12 - at) ** 2 + (columns - 8) ** 2) / 20)[None, None] for at in (-1, 1))
    settings = {"channels": 2, "similarity": "mse", "diffeomorphic": diffeomorphic, "weights": {"smoothness": 0.01}}
    method = method_of((24, 16), **settings)
    optimiser, errors = torch.optim.Adam(method.parameters(), lr=1e-2), []
    for step in range(40):
        method.begin_step(step, 40)
        loss = sum(method.terms({"fixed": fixed, "moving": moving}, "network").values(), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in (9, 19, 39):
            warped = warp(moving, method.register(fixed, moving).displacement)
            errors.append((warped - fixed).square().mean().item())
    before = (moving - fixed).square().mean().item()
    assert max(errors) < 0.7 * before
    assert errors[2] < 0.2 * before


@pytest.mark.parametrize("diffeomorphic", [True, False])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_what_is_registered_comes_from_the_level_being_trained(level: int, diffeomorphic: bool) -> None:
    factor, size = 2 ** (3 - level), (11, 14)
    fields = [torch.zeros(1, 2, 16 // f, 16 // f) for f in (4, 2, 1)]
    fields[level - 1][:, 0], fields[level - 1][:, 1] = 1.5, -0.5
    method = at_level(method_of(size, diffeomorphic=diffeomorphic), level, *fields)
    found = method.register(*torch.rand(2, 1, 1, *size))
    expected = torch.tensor([1.5, -0.5]).view(1, 2, 1, 1).expand(1, 2, *size) * factor
    torch.testing.assert_close(found.displacement, expected.contiguous())
    assert (found.velocity is not None) == diffeomorphic


def test_a_checkpoint_knows_its_level() -> None:
    method, other = method_of((16, 16)), method_of((16, 16))
    method.begin_step(0, 100)
    other.load_state_dict(method.state_dict())
    images = torch.rand(2, 1, 1, 16, 16)
    assert int(other.level) == 1
    assert torch.equal(other.register(*images).displacement, method.register(*images).displacement)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("diffeomorphic", "released"), [(True, 3.5), (False, 1.0)])
def test_the_smoothness_is_the_released_one_unless_it_is_given(diffeomorphic: bool, released: float) -> None:
    settings = LapIRNSettings(diffeomorphic=diffeomorphic)
    assert settings.weights.smoothness == released
    assert LapIRNSettings.model_validate(settings.model_dump(mode="json")) == settings
    given = LapIRNSettings.model_validate({"diffeomorphic": diffeomorphic, "weights": {"smoothness": 0.2}})
    assert given.weights.smoothness == 0.2


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValidationError, match="shares sum to 1"):
        LapIRNSettings(shares=(0.3, 0.3, 0.3))
    with pytest.raises(ValidationError, match="greater than or equal to 7"):
        LapIRNSettings(window=5)
    with pytest.raises(ConfigurationError, match="E-MOD-020"):
        method_of((16, 16), weights={"overlap": 1.0})
