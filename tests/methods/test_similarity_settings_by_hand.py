"""Options of macMIND in every method that compares images, and how settings that older models lack are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from anamorph.errors import ConfigurationError
from anamorph.losses import macmind_similarity
from anamorph.losses.log_polar import LogPolarBins
from anamorph.losses.macmind import BINS
from anamorph.methods import METHODS
from anamorph.methods.base import Domain
from anamorph.methods.registration import SimilaritySettings, compare

REGISTERING = ("voxelmorph", "lapirn", "macjnet", "vmind")


@pytest.mark.parametrize("options", [{}, {"alphas": (0.2, 0.5, 0.3)}, {"alphas": (1.0,)}, {"concatenated": True}])
def test_macmind_is_compared_as_chosen(options: dict[str, Any], generator: torch.Generator) -> None:
    fixed, warped = (torch.rand(2, 1, 12, 11, generator=generator) for _ in range(2))
    mask = (torch.rand(2, 1, 12, 11, generator=generator) > 0.3).float()
    settings = SimilaritySettings(similarity="macmind", distance=1, patch_size=3, **options)
    found = compare(settings, fixed, warped, mask, None, warped)
    expected = macmind_similarity(fixed, warped, mask, None, distance=1, patch_size=3, **options)
    torch.testing.assert_close(found, expected)
    if options:
        plain = SimilaritySettings(similarity="macmind", distance=1, patch_size=3)
        assert not torch.isclose(found, compare(plain, fixed, warped, mask, None, warped))


def test_bins_are_those_that_were_chosen(generator: torch.Generator) -> None:
    fixed, warped = (torch.rand(1, 1, 12, 11, generator=generator) for _ in range(2))
    small = {"similarity": "macmind", "distance": 1, "patch_size": 3}
    found = compare(
        SimilaritySettings.model_validate({**small, "log_polar": {"window": 3, "radii": 1}}), fixed, warped, None, None,
        warped,
    )  # fmt: skip
    expected = macmind_similarity(fixed, warped, distance=1, patch_size=3, bins=LogPolarBins(3, 8, 1))
    torch.testing.assert_close(found, expected)
    assert SimilaritySettings().macmind_bins == BINS == LogPolarBins(5, 8, 2, 1)


@pytest.mark.parametrize(
    ("bins", "line"),
    [
        ({"window": 3}, "8 angles x 2 radii x 1 heights leave bins of a window of 3 voxels empty"),
        ({"radii": 4}, "leave bins of a window of 5 voxels empty"),
        ({"heights": 6}, "leave bins of a window of 5 voxels empty"),
        ({"window": 4}, "an odd number"),
    ],
)
def test_bins_that_hold_nothing_are_refused(bins: dict[str, int], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        SimilaritySettings.model_validate({"log_polar": bins})


@pytest.mark.parametrize("name", REGISTERING)
def test_slices_of_a_window_are_for_3d(name: str) -> None:
    method = METHODS[name]
    settings = method.Settings.model_validate({"similarity": "macmind", "log_polar": {"heights": 2}})
    flat = Domain((16, 16), (1.0, 1.0), classes=1, modalities=("ct", "t1"))
    with pytest.raises(ConfigurationError, match="E-MOD-027: 2 heights of macMIND's bins in 2-D"):
        method(settings, flat)


@pytest.mark.parametrize("name", REGISTERING)
def test_every_method_has_them(name: str) -> None:
    chosen = METHODS[name].Settings.model_validate(
        {"similarity": "macmind", "alphas": [0.5, 0.5], "concatenated": True, "log_polar": {"heights": 2}}
    )
    told = json.loads(chosen.model_dump_json())
    assert (told["alphas"], told["concatenated"]) == ([0.5, 0.5], True)
    assert told["log_polar"] == {"window": 5, "angles": 8, "radii": 2, "heights": 2}
    assert type(chosen).model_validate(told) == chosen
    with pytest.raises(ValueError, match="at least one of alphas is above 0"):
        type(chosen).model_validate({"alphas": [0.0]})


def test_settings_of_before_are_told_in_the_same_words() -> None:
    """The rows that an evaluation keeps are found by these words, to the letter."""
    assert METHODS["voxelmorph"].Settings().model_dump_json() == (
        '{"similarity":"lncc","window":9,"epsilon":0.0001,"patch_size":5,"distance":2,"bins":32,"neighbourhood":16,'
        '"sigma":1.5,"encoder":[16,32,32,32],"decoder":[32,32,32,32,32,16,16],"down":"pool","diffeomorphic":true,'
        '"squarings":7,"weights":{"similarity":1.0,"smoothness":1.0,"overlap":0.0}}'
    )
