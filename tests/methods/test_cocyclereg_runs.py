"""One training of CoCycleReg gives a model that registers either way and translates either way."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.data.image import Image
from anamorph.errors import ConfigurationError, InputError
from anamorph.inference.model_folder import read_model
from anamorph.inference.register_model import register_with
from anamorph.inference.translate import translate_with
from anamorph.report.training import render_training
from anamorph.spatial.grid import Grid
from tests.training.tiny import SHAPE, SPACING, prepared_cohort, run

SETTINGS: dict[str, Any] = {
    **{"features": 2, "blocks": 1, "dropout": 0.0, "discriminator_features": 2, "discriminator_layers": 1},
    **{"encoder": (4, 4), "decoder": (4, 4)},
}
SCHEDULE = {"epochs": 2, "learning_rate": 1e-3}
PAIRS = {"rule": "within", "fixed_modality": "mr", "moving_modality": "ct"}


def test_one_training_gives_both_directions(tmp_path: Path) -> None:
    prepared_cohort(tmp_path / "prepared", train=4)
    values = {"settings": SETTINGS, "schedule": SCHEDULE, "pairs": PAIRS}
    run(tmp_path / "prepared", tmp_path / "run", "cocyclereg", values)

    history = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    measures = {"registration_dice", "backward_registration_dice", "translation_rmse"}
    assert {name.partition(".")[2] for name in history[0] if name.startswith("validation.")} == measures
    health = {name.partition(".")[2] for name in history[0] if name.startswith("health.")}
    assert len(health) == 12
    assert {"fixed_contrast", "moving_answer_fake"} <= health
    page = render_training(tmp_path / "run")
    assert page.index("Terms of the discriminator") < page.index("answers, ct")
    assert "RMSE of the translation" in page

    model = read_model(tmp_path / "run" / "model", "cpu")
    assert list(model.card.plan.modalities) == ["mr", "ct"]
    assert model.card.pairs is not None
    assert (model.card.pairs.fixed_modality, model.card.pairs.moving_modality) == ("mr", "ct")
    grid = Grid(SHAPE, torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64)).numpy())
    scan = torch.linspace(0, 1, 80).view(1, *SHAPE)
    mr, ct = Image(scan, grid, "mr"), Image((1 - scan).contiguous(), grid, "ct")
    there, back = register_with(model, mr, ct), register_with(model, ct, mr)
    assert (there.fixed.modality, back.fixed.modality) == ("mr", "ct")
    points = grid.to_world(np.array([[4.0, 3.0], [5.0, 6.0]]))
    assert abs(there.transform(points) - back.transform(points)).max() > 1e-9
    assert [translate_with(model, image).image.modality for image in (mr, ct)] == ["ct", "mr"]
    with pytest.raises(InputError, match="E-MOD-005"):
        register_with(model, mr, mr)


def test_pairs_of_two_modalities_a_side_are_refused(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "prepared", train=4)
    values = {"settings": SETTINGS, "schedule": SCHEDULE}
    with pytest.raises(InputError, match="E-TRN-017"):
        run(cohort.folder, tmp_path / "run", "cyclegan", {**values, "settings": _without_registration()})
    alike = {"rule": "between", "fixed_modality": "mr", "moving_modality": "mr"}
    with pytest.raises(ConfigurationError, match="E-MOD-026"):
        run(cohort.folder, tmp_path / "alike", "cocyclereg", {**values, "pairs": alike})


def _without_registration() -> dict[str, Any]:
    return {name: value for name, value in SETTINGS.items() if name not in ("encoder", "decoder")}
