"""One training of macJNet gives a network that registers and two that segment, as a model folder has them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from anamorph.data.image import Image
from anamorph.errors import InputError
from anamorph.inference.model_folder import read_model
from anamorph.inference.register_model import register_with
from anamorph.inference.segment import segment_with
from anamorph.spatial.grid import Grid
from tests.training.tiny import SHAPE, SPACING, prepared_cohort, run

SETTINGS: dict[str, Any] = {
    "registration": {"kind": "voxelmorph", "encoder": (4, 4), "decoder": (4, 4, 4)},
    "segmentation": {"kind": "unet", "channels": (4, 8)},
    "similarity": "mind",
    "distance": 1,
    "patch_size": 3,
}
SCHEDULE = {"epochs": 6, "learning_rates": {"registration": 1e-3, "segmentation": 1e-2}}
PAIRS = {"rule": "within", "fixed_modality": "mr", "moving_modality": "ct"}


def test_one_training_gives_three_networks(tmp_path: Path) -> None:
    """Of six pairs two have labels; the fixed images are of the modality that comes last in the alphabet."""
    prepared_cohort(tmp_path / "prepared", train=6, unlabelled=("c2", "c3", "c4", "c5"))
    values = {"settings": SETTINGS, "schedule": SCHEDULE, "pairs": PAIRS}
    run(tmp_path / "prepared", tmp_path / "run", "macjnet", values)

    history = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    terms = [f"registration.{name}" for name in ("similarity", "overlap", "smoothness")]
    terms += ["segmentation.supervised", "segmentation.consistency"]
    assert set(terms) <= history[0].keys()
    assert float(history[-1]["segmentation.supervised"]) < float(history[0]["segmentation.supervised"])
    assert {"registration_dice", "segmentation_dice"} <= {key.rpartition(".")[2] for key in history[0]}
    assert float(history[0]["registration.rate"]) == 1e-3

    model = read_model(tmp_path / "run" / "model", "cpu")
    assert list(model.card.plan.modalities) == ["mr", "ct"]
    grid = Grid(SHAPE, torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64)).numpy())
    scan = torch.linspace(0, 1, 80).view(1, *SHAPE)
    answers = [segment_with(model, Image(scan, grid, name), probabilities=True).probabilities for name in ("mr", "ct")]
    assert answers[0] is not None
    assert answers[1] is not None
    assert not torch.equal(answers[0], answers[1])
    with pytest.raises(InputError, match="E-MOD-005"):
        segment_with(model, Image(scan, grid, "pd"))
    found = register_with(model, Image(scan, grid, "mr"), Image(1 - scan, grid, "ct"))
    assert found.transform is not None
    with pytest.raises(InputError, match="E-MOD-005"):
        register_with(model, Image(scan, grid, "ct"), Image(1 - scan, grid, "mr"))
