"""What is written is what is read, and a card says all that a user needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.data.plan import Intensity, Plan
from anamorph.inference.model_card import ModelCard, read_card
from anamorph.inference.model_folder import Model, domain_of, read_model, write_model
from anamorph.methods import METHODS
from anamorph.methods.base import Domain

Trained = Callable[..., Model]
MakePlan = Callable[..., Plan]

SMALL: dict[str, dict[str, Any]] = {
    name: {"features": 4, "blocks": 1, "discriminator_features": 4}
    for name in ("cocyclereg", "sepcyclereg", "nemar", "cyclegan")
}
"""Settings of methods whose networks take long to draw."""


def test_weights_settings_and_plan_come_back(known: None, plan: MakePlan, tmp_path: Path) -> None:
    kind = METHODS["shift"]
    wanted = plan(labels={7: "spleen", 2: "liver"}, modalities={"ct": Intensity(kind="window", low=-100.0, high=200.0)})
    method = kind(kind.Settings(voxels=(0.5, 0.0, 1.0)), domain_of(wanted))  # type: ignore[call-arg]
    torch.nn.init.normal_(method.get_parameter("gain"))
    method.get_buffer("trained_on").fill_(41)
    write_model(tmp_path / "run" / "model", method, "shift", wanted, facts={})
    found = read_model(tmp_path / "run" / "model", "cpu")
    assert found.card.plan == wanted
    assert list(found.card.plan.labels) == [7, 2], "the order of the labels is that of the classes"
    assert found.method.settings == method.settings
    assert not found.method.training
    assert not any(parameter.requires_grad for parameter in found.method.parameters())
    for name, tensor in method.state_dict().items():
        assert torch.equal(found.method.state_dict()[name], tensor)
    assert repr(found) == "Model(run, shift, ct)"


def test_a_domain_follows_from_a_plan(plan: MakePlan) -> None:
    two = {"t2": Intensity(), "ct": Intensity()}
    assert domain_of(plan(labels={3: "a", 1: "b"}, modalities=two, channels=2)) == Domain(
        (16, 14, 12), (3.0, 3.0, 4.0), 2, 2, ("t2", "ct")
    )


def test_the_card_is_plain_json_that_names_no_folder(trained: Trained, plan: MakePlan, tmp_path: Path) -> None:
    facts = {
        "pairs": {"rule": "within", "fixed_modality": "t1", "moving_modality": None},
        "spacings": {"mr": ((1.0, 1.0, 5.0), (1.5, 1.5, 6.0))},
        "trained": {"epochs": 3, "rates": (1e-3, 1e-4), "cohort": tmp_path / "cohort.csv", "loss": np.float32(0.5)},
        "scores": {"dice": float("nan"), "tre_mean_mm": 1.5},
        "licence": "CC BY 4.0",
    }
    model = trained("shift", plan(), facts)
    text = (tmp_path / "shift_model" / "model.json").read_text()
    assert str(tmp_path) not in text
    card = json.loads(text, parse_constant=pytest.fail)
    assert set(card) == set(ModelCard.model_fields)
    assert card["trained"] == {"epochs": 3, "rates": [1e-3, 1e-4], "cohort": "cohort.csv", "loss": 0.5}
    assert card["scores"] == {"dice": None, "tre_mean_mm": 1.5}
    assert "Research only" in card["intended_use"]
    assert {"anamorph", "torch", "python"} <= set(card["environment"])
    assert model.card.pairs is not None
    assert model.card.pairs.fixed_modality == "t1"
    assert model.card.spacings["mr"] == ((1.0, 1.0, 5.0), (1.5, 1.5, 6.0))


def test_a_later_model_takes_the_place_of_an_earlier_one(trained: Trained, plan: MakePlan, tmp_path: Path) -> None:
    first = trained("shift", plan(), voxels=(1.0, 0.0, 0.0))
    second = trained("shift", plan(), voxels=(2.0, 0.0, 0.0))
    assert first.card.weights_sha256 == second.card.weights_sha256
    assert read_card(tmp_path / "shift_model").settings["voxels"] == [2.0, 0.0, 0.0]
    assert sorted(path.name for path in (tmp_path / "shift_model").iterdir()) == ["model.json", "model.safetensors"]


def test_weights_that_share_memory_are_written(known: None, plan: MakePlan, tmp_path: Path) -> None:
    method = METHODS["shift"](METHODS["shift"].Settings(), domain_of(plan()))
    method.register_parameter("tied", method.get_parameter("gain"))
    write_model(tmp_path, method, "shift", plan(), facts={})
    assert read_card(tmp_path).method == "shift"


def test_reading_draws_no_random_number(trained: Trained, plan: MakePlan, tmp_path: Path) -> None:
    trained("shift", plan())
    torch.manual_seed(5)
    read_model(tmp_path / "shift_model", "cpu")
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_comes_back_from_its_folder(name: str, ndim: int, plan: MakePlan, tmp_path: Path) -> None:
    small = plan(orientation="RAS"[:ndim], spacing=(2.0,) * ndim, shape=(16,) * ndim, labels={5: "a", 2: "b"})
    kind = METHODS[name]
    method = kind(kind.Settings.model_validate(SMALL.get(name, {})), domain_of(small))
    write_model(tmp_path / "model", method, name, small, facts={})
    found = read_model(tmp_path / "model", "cpu")
    assert type(found.method) is kind
    assert found.method.settings == method.settings
    for key, tensor in method.state_dict().items():
        assert torch.equal(found.method.state_dict()[key], tensor)
