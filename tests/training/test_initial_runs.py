"""Trainings that begin with networks of other models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anamorph.data.prepared import PreparedCohort
from anamorph.errors import ConfigurationError, InputError
from anamorph.inference.model_folder import read_model
from anamorph.training.configuration import InitialNetwork, configure, read_training
from anamorph.training.initial import begin_with
from anamorph.training.task import Task
from tests.training.test_sides_by_hand import SMALL
from tests.training.tiny import run

ONE: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1}
PAIRS = {"rule": "within", "fixed_modality": "ct", "moving_modality": "mr"}
STILL = {**ONE, "learning_rates": {"registration": 1e-12, "segmentation": 1e-12}}


@pytest.fixture
def sources(cohort: PreparedCohort, tmp_path: Path) -> Path:
    """A registration network, and one that segments each modality, trained by themselves."""
    vxm = {key: SMALL["registration"][key] for key in ("encoder", "decoder")}
    run(cohort.folder, tmp_path / "vm", "voxelmorph", {"settings": vxm, "pairs": PAIRS, "schedule": ONE, "seed": 5})
    for seed, name in enumerate(("ct", "mr"), 6):
        values = {"settings": {"channels": (4, 8)}, "modality": name, "seed": seed}
        plain = {**ONE, "augmentation": {"translation": 0.0, "rotation": 0.0, "scale": 0.0}}
        run(cohort.folder, tmp_path / name, "unet", {**values, "schedule": plain})
    return tmp_path


def joint(sources: Path, **more: Any) -> dict[str, Any]:
    initial = {
        "registration": {"model": sources / "vm" / "model"},
        "segmentation.ct": {"model": sources / "ct" / "model", "network": "network"},
        "segmentation.mr": {"model": sources / "mr" / "model", "network": "network"},
    }
    settings = {**SMALL, "similarity": "mse"}
    return {"settings": settings, "pairs": PAIRS, "schedule": STILL, "initial": initial, **more}


def parts(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    state = read_model(folder / "model", "cpu").method.state_dict()
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def test_each_network_begins_where_it_is_told(sources: Path, cohort: PreparedCohort, tmp_path: Path) -> None:
    """With a rate of next to nothing the weights at the end are those at the beginning."""
    values = joint(sources)
    run(cohort.folder, tmp_path / "joint", "macjnet", values)
    told = {"registration.": ("vm", ""), "segmentation.ct.": ("ct", "network."), "segmentation.mr.": ("mr", "network.")}
    for prefix, (source, inner) in told.items():
        found, expected = parts(tmp_path / "joint", prefix), parts(sources / source, inner)
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-9)
    ct, mr = (parts(sources / name, "network.") for name in ("ct", "mr"))
    assert any(not torch.equal(ct[name], mr[name]) for name in ct), "or nothing could tell the two apart"
    card = json.loads((tmp_path / "joint" / "model" / "model.json").read_text())
    digest = read_model(sources / "ct" / "model", "cpu").card.weights_sha256
    assert card["trained"]["initial"]["segmentation.ct"] == f"{digest[:16]} network"
    assert card["trained"]["initial"].keys() == values["initial"].keys()


def test_it_goes_on_without_what_it_began_with(sources: Path, cohort: PreparedCohort, tmp_path: Path) -> None:
    """A resume reads no source, and tells the card what it began with; all of it is in the configuration."""
    kept = joint(sources)
    run(cohort.folder, tmp_path / "joint", "macjnet", kept)
    before = json.loads((tmp_path / "joint" / "model" / "model.json").read_text())["trained"]["initial"]
    assert read_training(tmp_path / "joint" / "config.yaml").initial == configure("macjnet", kept).initial
    for name in ("vm", "ct", "mr"):
        shutil.rmtree(sources / name)
    longer = {**kept, "schedule": {**STILL, "epochs": 2}}
    run(cohort.folder, tmp_path / "joint", "macjnet", longer, resume=True)
    card = json.loads((tmp_path / "joint" / "model" / "model.json").read_text())
    assert (card["trained"]["epochs"], card["trained"]["initial"]) == (2, before)
    with pytest.raises(InputError, match="E-IO-001"):
        run(cohort.folder, tmp_path / "anew", "macjnet", kept)


def test_the_seed_decides_the_rest_as_without(sources: Path, cohort: PreparedCohort) -> None:
    """Networks that begin elsewhere, and random numbers, are those of a training without."""
    task = Task.of(cohort, configure("macjnet", joint(sources)))
    torch.manual_seed(3)
    plain = task.method().state_dict()
    expected = torch.rand(4)
    torch.manual_seed(3)
    method = task.method()
    only = {"segmentation.ct": InitialNetwork(model=sources / "ct" / "model", network="network")}
    begin_with(method, only)
    assert torch.equal(torch.rand(4), expected)
    changed = {name for name, tensor in method.state_dict().items() if not torch.equal(tensor, plain[name])}
    assert changed
    assert all(name.startswith("segmentation.ct.") for name in changed)


@pytest.mark.parametrize(
    ("network", "source", "line"),
    [
        ("segmentation.us", ("ct", "network"), "no network 'segmentation.us' in MacJNet, expected ct, mr"),
        ("segmentation", ("ct", "network"), "weights that do not fit \\(segmentation from "),
        ("registration", ("ct", "network"), "weights that do not fit"),
        ("segmentation.ct", ("ct", "net"), "no network 'net' in UNet, expected network"),
    ],
)
def test_networks_that_do_not_fit(sources: Path, cohort: PreparedCohort, network: str, source, line: str) -> None:
    method = Task.of(cohort, configure("macjnet", joint(sources))).method()
    with pytest.raises(ConfigurationError, match=f"^E-EVA-015: {line}"):
        begin_with(method, {network: InitialNetwork(model=sources / source[0] / "model", network=source[1])})
