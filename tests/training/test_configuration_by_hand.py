"""A configuration is the method's own with what the user changes, checked in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from anamorph.data.configuration import save
from anamorph.errors import ConfigurationError
from anamorph.methods.schedule import Schedule
from anamorph.training.configuration import configure, read_training
from tests.training.tiny import Align, AlignSettings


def test_what_is_left_out_is_the_methods_own() -> None:
    found = configure("align")
    assert found.schedule == Align.schedule
    assert found.settings == AlignSettings()


def test_nested_values_change_alone() -> None:
    values = {"schedule": {"epochs": 9, "augmentation": {"noise": 0.1}}, "settings": {"weights": {"smoothness": 0.5}}}
    found = configure("align", values)
    augmentation = Align.schedule.augmentation.model_copy(update={"noise": 0.1})
    assert found.schedule == Align.schedule.model_copy(update={"epochs": 9, "augmentation": augmentation})
    assert found.settings == AlignSettings.model_validate({"weights": {"smoothness": 0.5}})


def test_rates_of_players_are_replaced_as_a_whole() -> None:
    assert configure("duel", {"schedule": {"learning_rates": {"network": 0.1}}}).schedule.learning_rates == {
        "network": 0.1
    }


def test_a_file_holds_everything(tmp_path: Path) -> None:
    configuration = configure("align", {"settings": {"width": 3}, "pairs": {"rule": "within"}, "seed": 5})
    save(configuration, tmp_path / "config.yaml")
    assert read_training(tmp_path / "config.yaml").model_dump() == configuration.model_dump()
    assert "width: 3" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("method", "values", "line"),
    [
        ("algin", {}, "method: found 'algin', expected "),
        ("algin", {}, "did you mean align?"),
        ("align", {"settings": {"widht": 3}}, "settings.widht: unknown key; did you mean settings.width?"),
        ("align", {"settings": {"weights": {"smoothnes": 1}}}, "did you mean settings.weights.smoothness?"),
        ("align", {"settings": {"weights": {"smoothness": "much"}}}, "settings.weights.smoothness: found much"),
        ("align", {"schedule": {"epoch": 3}}, "schedule.epoch: unknown key; did you mean schedule.epochs?"),
        ("align", {"schedule": {"epochs": 0}}, "schedule.epochs: found 0, expected greater than"),
        ("align", {"schedule": 3}, "schedule: found 3"),
        ("align", {"pairs": {"rule": "all"}}, "pairs.rule: found all, expected listed, within"),
        ("align", {"seed": -1}, "seed: found -1"),
        ("align", {"method": "duel"}, "method: found 'duel', expected align"),
        ("align", {"modality": "ct"}, "align learns from pairs"),
        ("segment", {"pairs": {"rule": "within"}}, "segment learns from cases"),
    ],
)
def test_m10_what_does_not_fit_is_refused_in_one_line(method: str, values: dict, line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(method, values)
    assert caught.value.code == "E-CFG-010"
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"registration": {"chanels": 4}}, "registration.chanels: unknown key; did you mean settings.registration.ch"),
        ({"registration": {"kind": "voxelmorph", "encodr": [4]}}, "did you mean settings.registration.encoder?"),
        ({"registration": {"kind": "voxelmorph", "channels": 4}}, "registration.channels: unknown key"),
        ({"registration": {"kind": "vit"}}, "registration: found {'kind': 'vit'}, expected a network of kind lapirn"),
        ({"registration": {"kind": "voxelmorph", "decoder": [4]}}, "registration: values that do not fit each other"),
        ({"registration": 3}, "registration: found 3"),
        ({"segmentation": {"features": 0}}, "segmentation.features: found 0, expected greater"),
        ({"segmentation": {"kind": "unet", "channels": "many"}}, "segmentation.channels: found many"),
    ],
)
def test_m10_what_does_not_fit_one_of_several_models(settings: dict, line: str) -> None:
    """Named by its field, not by the kind of network that pydantic puts in between."""
    with pytest.raises(ConfigurationError) as caught:
        configure("macjnet", {"settings": settings})
    assert str(caught.value).startswith("E-CFG-010: settings.")
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            {"model": "x", "netwrk": "y"},
            "initial.registration.netwrk: unknown key; did you mean initial.registration.n",
        ),
        ({"network": "y"}, "no initial.registration.model"),
    ],
)
def test_m10_networks_to_begin_with(source: dict, line: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^E-CFG-010: {line}"):
        configure("macjnet", {"initial": {"registration": source}})


def test_a_value_from_a_file_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"study.yaml: seed: found -1"):
        configure("align", {"seed": -1}, file=Path("study.yaml"))


def test_every_kind_of_optimiser_and_decay_is_accepted() -> None:
    for name in ("constant", "half_life", "polynomial", "cosine", "linear"):
        assert configure("align", {"schedule": {"decay": name}}).schedule.decay == name
    assert isinstance(configure("align").schedule, Schedule)
