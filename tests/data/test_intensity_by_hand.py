"""Intensities on a common scale: the formula, and what must not upset it."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from anamorph.data.intensity import normalise, rescaling
from anamorph.data.plan import Intensity

RAMP = torch.arange(101.0).view(1, 101, 1)
"""0, 1, ... 100: percentile p is p."""


def scaled(values: Tensor, **choice) -> list[float]:
    return normalise(values, Intensity(**choice)).flatten().tolist()


def test_window_takes_the_files_own_values() -> None:
    values = torch.tensor([[[-2000.0, -450, 0, 450, 30000]]])
    assert scaled(values, kind="window", low=-450, high=450) == [0, 0, 0.5, 1, 1]
    unclipped = scaled(values, kind="window", low=-450, high=450, clip=False)
    assert unclipped == pytest.approx([-1550 / 900, 0, 0.5, 1, 30450 / 900])


def test_percentiles_map_to_zero_and_one() -> None:
    found = scaled(RAMP, low=10, high=60)
    assert found[:11] == [0] * 11
    assert found[35] == pytest.approx(0.5)
    assert found[60:] == [1] * 41
    assert scaled(RAMP, low=10, high=60, clip=False)[100] == pytest.approx(1.8)


def test_zscore_of_all_and_between_its_percentiles() -> None:
    plain = normalise(RAMP, Intensity(kind="zscore", clip=False))
    assert float(plain.mean()) == pytest.approx(0, abs=1e-6)
    assert float(plain.std(correction=0)) == pytest.approx(1)
    limited = normalise(RAMP, Intensity(kind="zscore", low=10, high=90))
    assert float(limited.mean()) == pytest.approx(0, abs=1e-6)
    assert float(limited.std(correction=0)) == pytest.approx(1)
    assert limited.flatten()[0] == limited.flatten()[10] < limited.flatten()[11]


def test_none_leaves_values_and_knows_the_background() -> None:
    rule = rescaling(RAMP[0] - 50, Intensity(kind="none"))
    torch.testing.assert_close(rule(RAMP[0] - 50), RAMP[0] - 50)
    assert rule.ground == pytest.approx(-49.5)  # the half percent percentile


def test_content_decides_what_counts() -> None:
    values = torch.tensor([[[-10.0, -10, -10, 2, 4, 6, 100]]])
    mask = torch.tensor([[False, False, False, True, True, True, False]])
    ends = {"low": 0, "high": 100}
    assert rescaling(values[0], Intensity(**ends)).low == -10
    positive = rescaling(values[0], Intensity(**ends, content="positive"))
    assert (positive.low, positive.high) == (2, 100)
    inside = Intensity(**ends, content="mask")
    assert (rescaling(values[0], inside, mask).low, rescaling(values[0], inside, mask).high) == (2, 6)
    assert rescaling(values[0], inside).low == -10  # no mask, so all of it
    assert rescaling(-values[0].abs(), Intensity(**ends, content="positive")).low == -100  # nothing is positive


def test_channels_have_scales_of_their_own() -> None:
    found = normalise(torch.cat([RAMP, 1000 * RAMP]), Intensity(low=0, high=100))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("kind", ["percentiles", "zscore"])
@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_a_constant_image_becomes_zero(kind, value) -> None:
    found = normalise(torch.full((1, 3, 4), value), Intensity(kind=kind))
    assert found.abs().max() == 0


@pytest.mark.parametrize("kind", ["percentiles", "zscore"])
@pytest.mark.parametrize("content", ["all", "positive"])
def test_v11_a_hot_voxel_neither_sets_the_scale_nor_leaves_it(kind, content) -> None:
    clean = torch.linspace(0, 100, 20_000).view(1, 200, 100)
    hot = clean.clone()
    hot[0, 70, 3] = 1e6
    intensity = Intensity(kind=kind, content=content)
    before, after = normalise(clean, intensity), normalise(hot, intensity)
    others = hot == clean
    assert float((before - after)[others].abs().max()) < 0.01
    assert float(after.max()) < float(before.max()) + 0.01


@pytest.mark.parametrize("kind", ["percentiles", "zscore"])
def test_v13_an_object_in_a_hundredth_of_the_image_keeps_its_contrast(kind) -> None:
    values = torch.zeros(1, 100, 100)
    values[0, :5, :10] = torch.linspace(100, 200, 10)
    found = normalise(values, Intensity(kind=kind))[0]
    assert torch.isfinite(found).all()
    spread = found[0, :10].diff()
    assert bool((spread[:-1] > 0).all())
    assert float(found[0, 0] - found[50, 50]) > 0.2


@pytest.mark.parametrize("content", ["all", "positive", "mask"])
def test_a_binary_image_keeps_its_two_values(content) -> None:
    values = torch.zeros(1, 8, 8)
    values[0, 2:4, 3:5] = 255
    found = normalise(values, Intensity(content=content), values[0] > 0)
    torch.testing.assert_close(found, values / 255)
    scored = normalise(values, Intensity(kind="zscore", content=content), values[0] > 0)
    assert float(scored.std(correction=0)) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38 / 100])
@pytest.mark.parametrize("kind", ["percentiles", "zscore"])
def test_v10_any_unit_gives_the_same(scale, kind) -> None:
    torch.testing.assert_close(
        normalise(RAMP * scale, Intensity(kind=kind)), normalise(RAMP, Intensity(kind=kind)), rtol=0, atol=1e-5
    )


def test_v01_voxels_that_are_not_valid_do_not_count() -> None:
    values = torch.cat([RAMP, torch.full((1, 400, 1), -1e6)], 1)
    valid = values[0] > -1
    rule = rescaling(values[0], Intensity(low=10, high=60), valid=valid)
    assert (rule.low, rule.high) == (10, 60)
    assert rescaling(values[0], Intensity(), valid=torch.zeros_like(valid)).low == -1e6  # nothing valid: all of it


def test_many_voxels_are_thinned_evenly() -> None:
    ramp = torch.arange(9_000_000.0).view(3000, 3000)
    rule = rescaling(ramp, Intensity(low=10, high=60))
    assert rule.low == pytest.approx(0.1 * 9e6, rel=1e-4)
    assert rule.high == pytest.approx(0.6 * 9e6, rel=1e-4)


@pytest.mark.parametrize("wrong", [{"low": 5, "high": 5}, {"high": 101}, {"kind": "zscore", "low": -1}])
def test_impossible_ends_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        Intensity(**wrong)
