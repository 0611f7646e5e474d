"""Labels that count as others where it is learnt, and judge by themselves where it is registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Integer

from anamorph.data.cohort import Scan
from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap
from anamorph.evaluation.scores import Score
from anamorph.inference.contenders import Segmented, Segmenter
from anamorph.inference.evaluate import evaluate_segmentation
from anamorph.training.experiment import run_experiment
from anamorph.training.experiment_cases import show_cases
from anamorph.training.experiment_recipe import Experiment

AFFINE = np.diag([2.0, 2.0, 1.0])
RECIPE: dict[str, Any] = {
    "title": "Tiny",
    "cohort": {
        "synthesise": {
            "kind": "shapes", "cases": 4, "validation": 1, "test": 2,
            "options": {"shape": [16, 16], "spacing": 4.0, "labels": 3, "truth": False},
        }
    },
    "prepare": {"spacing": [4.0, 4.0], "shape": [16, 16], "learn_as": {2: 1}},
    "labels": [1],
    "schedule": {"epochs": 1, "steps_per_epoch": 1},
    "train": {"vxm": {"method": "voxelmorph", "settings": {"similarity": "mse", "encoder": [4], "decoder": [4]}}},
    "evaluate": {"pairs": {"rule": "within"}, "methods": ["none"], "also": [2]},
}  # fmt: skip


def shapes() -> tuple[Integer[np.ndarray, "..."], Integer[np.ndarray, "..."]]:
    """A square, and the same with a hole of another label."""
    whole = np.zeros((12, 12), np.uint8)
    whole[2:10, 2:10] = 1
    hole = whole.copy()
    hole[4:7, 4:7] = 2
    return whole, hole


def dice(rows: list[Score]) -> dict[str, float]:
    return {row.label: row.value for row in rows if row.metric == "dice"}


def test_a_segmentation_is_judged_by_what_was_to_be_learnt(tmp_path: Path) -> None:
    """One that fills the hole is right; rows that were judged otherwise are not taken for these."""
    whole, hole = shapes()
    write(Image.from_array(hole.astype(float), AFFINE, "ct"), tmp_path / "a_ct.nii.gz")
    write(Labelmap.from_array(hole, AFFINE), tmp_path / "a_labels.nii.gz")
    scan = Scan("a", "ct", tmp_path / "a_ct.nii.gz", labels=tmp_path / "a_labels.nii.gz", split="test")
    filled = Segmenter("filled", lambda scan, image: Segmented(Labelmap.from_array(whole, AFFINE)))

    def judged(**more: Any) -> dict[str, float]:
        return dice(evaluate_segmentation([scan], [filled], tmp_path / "rows", names={1: "liver"}, **more))

    hollow = pytest.approx(2 * 55 / (55 + 64))
    assert judged() == {"liver": hollow}
    assert judged(learn_as={2: 1}) == {"liver": 1.0}
    assert judged() == {"liver": hollow}


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_registrations_are_judged_by_further_labels(tmp_path: Path) -> None:
    """Each label as the files have it; rows without the further one do not do, though all else is the same."""
    result = run_experiment(Experiment.model_validate(RECIPE), tmp_path / "out")
    card = json.loads((tmp_path / "out/runs/vxm/model/model.json").read_text())
    assert (card["plan"]["labels"], card["plan"]["learn_as"]) == ({"1": "label 1"}, {"2": 1})
    assert {row.label for row in result.scores if row.metric == "dice"} == {"label 1", "label 2"}
    assert {row.method for row in result.scores} == {"none", "vxm"}
    fewer = {**RECIPE, "evaluate": {**RECIPE["evaluate"], "also": []}}
    result = run_experiment(Experiment.model_validate(fewer), tmp_path / "out")
    assert {row.label for row in result.scores if row.metric == "dice"} == {"label 1"}
    result = run_experiment(Experiment.model_validate(RECIPE), tmp_path / "out")
    assert {row.label for row in result.scores if row.metric == "dice"} == {"label 1", "label 2"}

    shown = show_cases(Experiment.model_validate(RECIPE), tmp_path / "out", ["case0003_a"], (), "cpu")
    truth = shown["case0003_a"].truth
    assert truth is not None
    assert set(np.unique(truth)) == {0, 1}
