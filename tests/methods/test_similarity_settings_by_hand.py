"""Options of macMIND in every method that compares images, and how settings that older models lack are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from anamorph.losses import macmind_similarity
from anamorph.methods import METHODS
from anamorph.methods.registration import SimilaritySettings, compare

REGISTERING = ("voxelmorph", "lapirn", "macjnet")


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


@pytest.mark.parametrize("name", REGISTERING)
def test_every_method_has_them(name: str) -> None:
    chosen = METHODS[name].Settings.model_validate(
        {"similarity": "macmind", "alphas": [0.5, 0.5], "concatenated": True}
    )
    told = json.loads(chosen.model_dump_json())
    assert (told["alphas"], told["concatenated"]) == ([0.5, 0.5], True)
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
