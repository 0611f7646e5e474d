"""Pictures that a training asks for: of the atlas before the first step, and of a case and the atlas as it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anamorph.data.prepared import PreparedCohort
from anamorph.training.configuration import Machine, configure
from anamorph.training.loop import train

ATLAS: dict[str, Any] = {
    "settings": {"channels": (2, 3), "stn_channels": (3, 3), "fade_in_epoch": 1, "update_rate": 0.5},
    "modality": "ct",
    "schedule": {"epochs": 2, "batch_size": 2, "validate_every": 1},
}


def pictures(cohort: PreparedCohort, out: Path, method: str, values: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Name -> what was to be drawn, in order."""
    found: dict[str, Any] = {}

    def draw(sample: Any, path: Path) -> None:
        assert path.parent == out / "samples"
        assert path.name not in found
        found[path.name] = sample

    train(cohort, configure(method, values), out, machine=Machine(device="cpu"), draw=draw, **options)
    return found


def test_the_atlas_is_drawn_before_the_first_step_and_with_every_sample(cohort, tmp_path: Path) -> None:
    found = pictures(cohort, tmp_path / "run", "atlas-istn", ATLAS)
    assert list(found) == [
        "atlas_0000.png", "epoch_0001.png", "atlas_0001.png", "epoch_0002.png", "atlas_0002.png",
    ]  # fmt: skip
    plan = cohort.plan
    for epoch in (0, 1, 2):
        atlas = found[f"atlas_{epoch:04d}.png"]
        assert (atlas["name"], atlas["epoch"], tuple(atlas["spacing"])) == ("atlas", epoch, plan.spacing)
        assert atlas["template"].shape == (1, *plan.shape)
        assert atlas["template_labels"].shape == plan.shape
        assert atlas["template_labels"].max() <= len(plan.labels)
        assert atlas["foreground"].shape == (1, *plan.shape)
        assert 0 <= atlas["foreground"].min() <= atlas["foreground"].max() <= 1 + 1e-6
    assert not np.array_equal(found["atlas_0000.png"]["foreground"], found["atlas_0002.png"]["foreground"])


def test_a_training_that_goes_on_draws_no_beginning(cohort, tmp_path: Path) -> None:
    pictures(cohort, tmp_path / "run", "atlas-istn", ATLAS)
    longer = {**ATLAS, "schedule": {**ATLAS["schedule"], "epochs": 3}}
    assert list(pictures(cohort, tmp_path / "run", "atlas-istn", longer, resume=True)) == [
        "epoch_0003.png", "atlas_0003.png",
    ]  # fmt: skip


def test_methods_without_an_atlas_have_none_drawn(cohort, tmp_path: Path) -> None:
    values = {"modality": "ct", "schedule": {"epochs": 1, "validate_every": 1}}
    assert list(pictures(cohort, tmp_path / "run", "segment", values)) == ["epoch_0001.png"]
