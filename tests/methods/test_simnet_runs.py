"""BiRegNet is trained, SimNet begins with it, and both come back from their model folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anamorph.data.image import Image
from anamorph.errors import ConfigurationError
from anamorph.inference.model_domain import refuse_task
from anamorph.inference.model_folder import read_model
from anamorph.inference.register_model import register_with
from anamorph.methods.biregnet import BiRegNet
from anamorph.methods.patch_simnet import PatchSimNet
from anamorph.methods.similarity_estimation import SimilarityEstimator
from anamorph.methods.simnet import SimNet
from anamorph.spatial.grid import Grid
from tests.training.tiny import SHAPE, SPACING, prepared_cohort, run

REGISTRATION: dict[str, Any] = {"channels": 2, "scales": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "biregnet": {**REGISTRATION, "sigmas": (0.0, 1.0)},
    "simnet": {"registration": REGISTRATION, "channels": 2, "scales": 2, "shift": 1},
    "patch-simnet": {"registration": REGISTRATION, "channels": (2, 3, 4), "patch_size": 3, "reach": 3, "alike": 0.5},
}
PAIRS = {"rule": "between", "fixed_modality": "mr", "moving_modality": "ct"}
PLAIN = {"translation": 0.0, "rotation": 0.0, "scale": 0.0}
SCHEDULE = {"epochs": 3, "steps_per_epoch": 3, "batch_size": 2, "learning_rate": 1e-2, "augmentation": PLAIN}


def history_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def test_a_similarity_is_learnt_on_top_of_a_registration(tmp_path: Path) -> None:
    """Atlases are ct, targets mr; one atlas has no labels."""
    prepared, reg, sim, patch = (tmp_path / name for name in ("prepared", "reg", "sim", "patch"))
    prepared_cohort(prepared, 5, 2, unlabelled=("c2",))
    values: dict[str, Any] = {"pairs": PAIRS, "schedule": SCHEDULE}
    run(prepared, reg, "biregnet", values | {"settings": SETTINGS["biregnet"]})
    history = history_of(reg)
    assert {"network.overlap", "network.consistency", "validation.registration_dice"} <= history[0].keys()
    assert float(history[-1]["network.overlap"]) < float(history[0]["network.overlap"])

    begun = {"registration": {"model": reg / "model"}}
    for name, out in (("simnet", sim), ("patch-simnet", patch)):
        run(prepared, out, name, values | {"settings": SETTINGS[name], "initial": begun})
        history = history_of(out)
        assert {"network.cross_entropy", "validation.objective"} <= history[0].keys()
        assert "validation.registration_dice" not in history[0]
        best = min(float(row["validation.objective"]) for row in history)
        card = json.loads((out / "model" / "model.json").read_text())
        assert card["scores"]["objective"] == pytest.approx(best, rel=1e-4)
        assert card["trained"]["initial"].keys() == {"registration"}
    assert float(history_of(sim)[-1]["network.cross_entropy"]) < float(history_of(sim)[0]["network.cross_entropy"])

    models = {name: read_model(tmp_path / name / "model", "cpu") for name in ("reg", "sim", "patch")}
    kinds = {"reg": BiRegNet, "sim": SimNet, "patch": PatchSimNet}
    assert {name: type(model.method) for name, model in models.items()} == kinds
    weights = models["reg"].method.state_dict()
    target, labels = torch.rand(1, 1, *SHAPE), torch.randint(0, 2, (1, 1, *SHAPE))
    grid = Grid(SHAPE, torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64)).numpy())
    images = Image(target[0], grid, "mr"), Image(1 - target[0], grid, "ct")
    found = {name: register_with(model, *images).transform for name, model in models.items()}
    points = torch.rand(5, 2).double().numpy() * 10
    for name in ("sim", "patch"):
        method = models[name].method
        assert isinstance(method, SimilarityEstimator)
        assert method.registration is not None
        assert all(torch.equal(tensor, weights[key]) for key, tensor in method.registration.state_dict().items())
        similarity = method.similarity(target, labels, 1 - target)
        assert similarity.shape == (1, 1, *SHAPE)
        assert 0 <= similarity.min() < similarity.max() <= 1
        assert (found[name](points) == found["reg"](points)).all()
        with pytest.raises(ConfigurationError, match=r"^E-MOD-009: .*which can register.*; use anamorph register"):
            refuse_task(models[name], "segment")


def test_without_a_trained_registration(tmp_path: Path) -> None:
    """Refused, but where atlases lie on their targets already."""
    prepared_cohort(tmp_path / "prepared")
    values: dict[str, Any] = {"pairs": PAIRS, "schedule": SCHEDULE | {"epochs": 1}}
    with pytest.raises(ConfigurationError, match=r"^E-MOD-022"):
        run(tmp_path / "prepared", tmp_path / "no", "simnet", values | {"settings": SETTINGS["simnet"]})
    alone = {**SETTINGS["simnet"], "registration": None}
    run(tmp_path / "prepared", tmp_path / "sim", "simnet", values | {"settings": alone})
    model = read_model(tmp_path / "sim" / "model", "cpu")
    for task in ("register", "segment"):
        with pytest.raises(
            ConfigurationError, match=r"^E-MOD-009: .*a model of simnet, which can neither register nor"
        ):
            refuse_task(model, task)
    assert not any(name.startswith("registration") for name in model.method.state_dict())


def test_networks_of_other_settings_do_not_fit(tmp_path: Path) -> None:
    prepared_cohort(tmp_path / "prepared")
    values: dict[str, Any] = {"pairs": PAIRS, "schedule": SCHEDULE | {"epochs": 1}}
    run(tmp_path / "prepared", tmp_path / "reg", "biregnet", values | {"settings": SETTINGS["biregnet"]})
    wider = {**SETTINGS["simnet"], "registration": {**REGISTRATION, "channels": 3}}
    begun = {"settings": wider, "initial": {"registration": {"model": tmp_path / "reg" / "model"}}}
    with pytest.raises(ConfigurationError, match=r"^E-EVA-015: weights that do not fit \(registration from "):
        run(tmp_path / "prepared", tmp_path / "sim", "simnet", values | begun)
