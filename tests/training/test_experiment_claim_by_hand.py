"""What a folder was made by: recipes from before are understood, and what changes makes void no more than it must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anamorph.errors import ConfigurationError
from anamorph.training.experiment import configured
from anamorph.training.experiment_claim import claim
from anamorph.training.experiment_recipe import Experiment

RECIPE: dict[str, Any] = {
    "title": "Tiny",
    "cohort": {"synthesise": {"kind": "letter_b", "cases": 6, "test": 2}},
    "prepare": {"spacing": [2.0, 2.0], "intensities": {"grey": {"kind": "zscore"}}},
    "schedule": {"epochs": 3},
    "train": {"unet": {"method": "unet", "settings": {"channels": [4, 8]}}, "other": {"method": "unet"}},
    "evaluate": {"task": "segment"},
}
BEFORE: dict[str, Any] = {
    "data": {
        "cohort": {
            "gather": None,
            "synthesise": {
                "kind": "letter_b", "cases": 6, "seed": 0, "validation": 0, "test": 2, "options": {}
            },
            "remap": None,
            "more": {},
        },
        "prepare": {
            "spacing": [2.0, 2.0], "shape": None, "orientation": None, "centre": None,
            "intensities": {"grey": {"kind": "zscore", "low": 1.0, "high": 99.0, "clip": True, "content": "all"}},
            "alignment": None, "reference": None, "alignment_folder": None, "max_voxels": None, "workers": None,
        },
        "labels": [],
    },
    "trainings": {
        "unet": {
            "schedule": {"epochs": 3},
            "validation_items": 10,
            "pairs": {"rule": None, "fixed_modality": None, "moving_modality": None},
            "training": {
                "method": "unet", "settings": {"channels": [4, 8]}, "schedule": {}, "pairs": None, "seed": 0
            },
        }
    },
}  # fmt: skip
"""As the folders of before have it, without a word of labels that are hidden or of networks to begin with."""

JOINT: dict[str, Any] = {
    **RECIPE,
    "labelled": {"share": 0.3},
    "train": {
        "reg": {"method": "voxelmorph"},
        "ct": {"method": "unet", "modality": "ct"},
        "ct-100": {"method": "unet", "modality": "ct", "labelled": {"share": 1.0}},
        "joint": {
            "method": "macjnet",
            "settings": {"registration": {"kind": "voxelmorph"}, "segmentation": {"kind": "unet"}},
            "initial": {"registration": "reg", "segmentation.ct": "ct.network"},
        },
    },
    "evaluate": {"task": "register", "pairs": {"rule": "listed"}, "also": [2]},
}


def changed(recipe: dict[str, Any], *path: str, to: Any) -> Experiment:
    """The experiment with another value somewhere."""
    copy = json.loads(json.dumps(recipe))
    inner = copy
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = to
    return Experiment.model_validate(copy)


def of_before(folder: Path, **more: Any) -> Path:
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(BEFORE | more))
    for name in ("unet", "other"):
        (folder / "runs" / name).mkdir(parents=True)
    return folder


def test_a_folder_of_before_is_understood(tmp_path: Path) -> None:
    folder = of_before(tmp_path / "out")
    claim(Experiment.model_validate(RECIPE), folder, False)
    claim(Experiment.model_validate(RECIPE), folder, False)
    found = json.loads((folder / "recipe.json").read_text())
    assert found["trainings"].keys() == {"unet", "other"}
    assert found["trainings"]["unet"]["labelled"] == {"share": 1.0, "seed": 0}
    assert (folder / "runs" / "unet").is_dir()


def test_a_folder_of_before_with_real_images_is_understood(tmp_path: Path) -> None:
    gather = {"layout": "splits", "folder": "letters", "validation": 2}
    whole = {**gather, "modality": None, "test_cases": [], "test": 0}
    data = {**BEFORE["data"], "cohort": {"gather": whole, "synthesise": None, "remap": None, "more": {}}}
    folder = of_before(tmp_path / "out", data=data)
    claim(Experiment.model_validate({**RECIPE, "cohort": {"gather": gather}}), folder, False)
    assert (folder / "runs" / "unet").is_dir()


@pytest.mark.parametrize(
    ("path", "to", "what"),
    [
        (("labelled",), {"share": 0.5}, "unet was made"),
        (("train", "unet", "labelled"), {"share": 0.5}, "unet was made"),
        (("train", "unet", "modality"), "ct", "unet was made"),
        (("train", "unet", "seed"), 1, "unet was made"),
        (("schedule", "epochs"), 4, "unet was made"),
        (("prepare", "learn_as"), {2: 1}, "the cohort was made"),
        (("cohort", "synthesise", "seed"), 1, "the cohort was made"),
    ],
)
def test_what_differs_from_a_folder_of_before(path: tuple[str, ...], to: Any, what: str, tmp_path: Path) -> None:
    folder = of_before(tmp_path / "out")
    experiment = changed(RECIPE, *path, to=to)
    with pytest.raises(ConfigurationError, match=f"^E-EXP-002: out: {what} by another recipe"):
        claim(experiment, folder, False)
    assert json.loads((folder / "recipe.json").read_text()) == BEFORE
    claim(experiment, folder, True)
    assert not (folder / "runs" / "unet").exists()
    assert (folder / "runs" / "other").exists() == what.startswith("unet")
    claim(experiment, folder, False)


def test_what_changes_makes_void_what_the_folds_hold(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim(Experiment.model_validate({**RECIPE, "folds": 2}), folder, False)
    runs = [folder / f"fold-{fold}-of-2" / "runs" / name for fold in (1, 2) for name in ("unet", "other")]
    for place in (*runs, folder / "atlases", folder / "registrations"):
        place.mkdir(parents=True)
    claim(Experiment.model_validate({**RECIPE, "folds": 3}), folder, False)  # other folds are other folders
    assert all(run.is_dir() for run in runs)
    claim(changed(RECIPE, "train", "unet", "seed", to=1), folder, True)
    assert [run.is_dir() for run in runs] == [False, True, False, True]
    claim(changed(RECIPE, "labels", to=[2]), folder, True)
    assert {path.name for path in folder.iterdir()} == {"recipe.json"}


def test_what_nobody_can_read_is_another_recipe(tmp_path: Path) -> None:
    folder = of_before(tmp_path / "out", data={"cohort": 3})
    with pytest.raises(ConfigurationError, match="E-EXP-002: out: the cohort was made"):
        claim(Experiment.model_validate(RECIPE), folder, False)


def test_another_source_makes_void_what_began_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim(Experiment.model_validate(JOINT), folder, False)
    for name in JOINT["train"]:
        (folder / "runs" / name).mkdir(parents=True)
    other = changed(JOINT, "train", "ct", "seed", to=4)
    with pytest.raises(ConfigurationError, match="E-EXP-002: out: ct, joint was made by another recipe"):
        claim(other, folder, False)
    claim(other, folder, True)
    assert {path.name for path in (folder / "runs").iterdir()} == {"reg", "ct-100"}


def test_each_training_gets_what_its_method_learns_from(tmp_path: Path) -> None:
    """Pairs by the method, not by the table's task; labels of the experiment unless the training has its own."""
    found = configured(Experiment.model_validate(JOINT), tmp_path)
    assert found["reg"].pairs.rule == found["joint"].pairs.rule == "listed"
    assert (found["ct"].modality, found["ct"].pairs.rule) == ("ct", None)
    assert [found[name].labelled.share for name in ("reg", "ct", "ct-100", "joint")] == [0.3, 0.3, 1.0, 0.3]
    sources = {name: (source.model, source.network) for name, source in found["joint"].initial.items()}
    assert sources == {
        "registration": (tmp_path / "runs" / "reg" / "model", ""),
        "segmentation.ct": (tmp_path / "runs" / "ct" / "model", "network"),
    }
    segmenting = {**JOINT, "evaluate": {"task": "segment", "pairs": {"rule": "within"}}}
    assert configured(Experiment.model_validate(segmenting))["joint"].pairs.rule == "within"


@pytest.mark.parametrize(
    ("path", "to", "line"),
    [
        (("train", "joint", "initial"), {"registration": "net.network"}, "joint begins with net, which is trained nev"),
        (("train", "ct", "initial"), {"network": "joint.segmentation.ct"}, "ct begins with joint, which is trained la"),
        (("train", "ct", "initial"), {"network": "ct.network"}, "ct begins with ct, which is trained later"),
        (("evaluate", "task"), "segment", "also is about registration"),
        (("evaluate", "grid"), "network", "grid is about segmentation"),
        (("labels",), [2], "labels count as 1, which is not learnt"),
    ],
)
def test_recipes_that_contradict_themselves(path: tuple[str, ...], to: Any, line: str) -> None:
    recipe = {**JOINT, "prepare": {"learn_as": {3: 1}}} if path == ("labels",) else JOINT
    with pytest.raises(ValueError, match=line):
        changed(recipe, *path, to=to)


@pytest.mark.parametrize(
    ("training", "key", "to", "line"),
    [("ct", "pairs", {"rule": "within"}, "learns from cases"), ("reg", "modality", "ct", "learns from pairs")],
)
def test_what_a_method_does_not_learn_from(training: str, key: str, to: Any, line: str) -> None:
    with pytest.raises(ConfigurationError, match=f"E-CFG-010: .*{line}"):
        configured(changed(JOINT, "train", training, key, to=to))
