"""Experiments whose table is of translations, from the file to tables and pictures, and rows of two directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anamorph.cli.main import main
from anamorph.errors import ConfigurationError
from anamorph.evaluation.scores import Score, from_csv
from anamorph.training.experiment import ExperimentResult, configured
from anamorph.training.experiment_recipe import Experiment, RowRecipe

TINY = """
title: Tiny
folder: shapes
cohort:
  synthesise:
    kind: shapes
    cases: 4
    validation: 1
    test: 1
    options: {shape: [24, 24], spacing: 4.0, labels: 3, size_mm: 48.0, mean_mm: 4.0, degrees: 0.0, shift_mm: 0.0}
prepare: {spacing: [6.0, 6.0], shape: [16, 16]}
train:
  co: {method: cocyclereg, pairs: {rule: within, fixed_modality: a, moving_modality: b}}
  nemar-a: {method: nemar, pairs: {rule: within, fixed_modality: a, moving_modality: b}}
  nemar-b: {method: nemar, pairs: {rule: within, fixed_modality: b, moving_modality: a}}
evaluate:
  task: TASK
GRID  pairs: {rule: within}
  groups: {b-to-a: "*_a-*_b", a-to-b: "*_b-*_a"}
  rows:
    NeMAR: {by_fixed: {a: nemar-a, b: nemar-b}}
    CoCycleReg: {of: co}
METRICS
scales:
  cpu:
    schedule: {epochs: 1, steps_per_epoch: 1}
    train:
"""
NETWORKS = (
    "{encoder: [2, 2], decoder: [2, 2], features: 2, blocks: 1, kernel: 3, discriminator_features: 2,"
    " discriminator_layers: 1}"
)


def written(folder: Path, task: str, metrics: str) -> Path:
    grid = "  grid: network\n" if task == "translate" else ""
    head = TINY.replace("TASK", task).replace("METRICS", metrics).replace("GRID", grid)
    trainings = "".join(f"      {name}: {{settings: {NETWORKS}}}\n" for name in ("co", "nemar-a", "nemar-b"))
    file = folder / "paper" / f"{task}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(head + trainings)
    return file


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_translations_and_registrations_of_the_same_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, "translate", "  metrics: [rmse, psnr_db, structural_similarity]")
    assert main(["experiment", str(file), "--results", "results", "--device", "cpu", "--quiet"]) == 0
    out = tmp_path / "build/experiments/paper/shapes_cpu"
    scores = from_csv((out / "translate/scores.csv").read_text())
    judged = {(row.method, row.case) for row in scores if row.metric == "rmse" and not row.label}
    case = "case0004"
    cases = {f"{case}_a-{case}_b", f"{case}_b-{case}_a"}
    assert judged == {(method, name) for method in ("NeMAR", "CoCycleReg") for name in cases}
    assert not any(row.metric in ("failed", "folded_voxels") for row in scores)
    names = {path.name.removeprefix("translate_cpu") for path in (tmp_path / "results/paper").iterdir()}
    assert {".md", ".json", ".csv", "_cases_a-to-b.svg", "_cases_b-to-a.svg"} <= names
    page = (out / "translate/report.html").read_text()
    assert "distance from the true image" in page
    assert "linearGradient" in page
    record = json.loads((tmp_path / "results/paper/translate_cpu.json").read_text())
    assert {name: table["cases"] for name, table in record["tables"].items()} == {"b-to-a": 1, "a-to-b": 1}

    weights = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    metrics = "[dice, folded_voxels, inverse_consistency_mean_mm, seconds_cpu, seconds_gpu]"
    both = written(tmp_path, "register", f"  methods: [none]\n  metrics: {metrics}")
    command = ["experiment", str(both), "--results", "results", "--device", "cpu"]
    assert main([*command]) == 0
    assert "Time, GPU was not measured here, and is left out of the tables" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == weights
    scores = from_csv((out / "register/scores.csv").read_text())
    found = {(row.method, row.case) for row in scores if row.metric == "folded_voxels"}
    assert found == {(method, name) for method in ("none", "NeMAR", "CoCycleReg") for name in cases}
    assert not any(row.metric == "failed" for row in scores)
    two_ways = {row.method for row in scores if row.metric == "inverse_consistency_mean_mm"}
    assert two_ways == {"CoCycleReg"}
    names = {path.name.removeprefix("register_cpu") for path in (tmp_path / "results/paper").glob("register_cpu*")}
    assert {"_cases_a-to-b.svg", "_cases_b-to-a.svg"} <= names
    page = (out / "register/report.html").read_text()
    assert page.count(">grid of the moving image, as it comes to lie<") == 2
    maps = {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
    assert len(maps) == 4  # two pairs by two trained methods
    assert main([*command, "--quiet"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()} == maps


RECIPE: dict[str, Any] = {
    "title": "Tiny",
    "cohort": {"synthesise": {"kind": "shapes"}},
    "train": {"co": {"method": "cocyclereg"}, "vm": {"method": "vmind"}, "seg": {"method": "unet"}},
    "evaluate": {"task": "translate"},
}  # fmt: skip


def with_evaluation(**judged: Any) -> Experiment:
    return Experiment.model_validate({**RECIPE, "evaluate": judged})


@pytest.mark.parametrize(
    ("judged", "line"),
    [
        ({"task": "register", "grid": "network"}, "grid is about segmentation and translation; the task is register"),
        ({"task": "translate", "methods": ["none"]}, "methods and peers register; the task is translate"),
        ({"task": "translate", "also": [2]}, "also is about registration; translations by true images"),
        ({"task": "segment", "count_as": {2: 1}}, "count_as is about registration; segmentations by what is learnt"),
        ({"rows": {"a": {"by_fixed": {"t1": "co", "t2": "none"}}}}, "row a is of 'none', which is not trained"),
        ({"task": "segment", "rows": {"a": {"by_fixed": {"t1": "seg"}}}}, "row a tells fixed modalities apart"),
        ({"rows": {"a": {"by_fixed": {"t1": "co"}, "of": "co"}}}, "of one training, or of one for each"),
        ({"rows": {"a": {"by_fixed": {"t1": "co"}, "networks": {"registration": "zero"}}}}, "of one training, or of"),
        ({"rows": {"a": {"by_fixed": {"t1": "co"}, "atlases": {}}}}, "a trained method, or atlases"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be(judged: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        with_evaluation(**judged)


def test_a_training_that_does_not_translate_is_refused_before_hours_are_spent() -> None:
    with pytest.raises(ConfigurationError, match=r"E-EXP-009: row vm: vm does not translate, expected one that does"):
        configured(with_evaluation(task="translate", rows={"co": {}, "vm": {}}))
    rows = {"both": {"by_fixed": {"t1": "co", "t2": "vm"}}}
    with pytest.raises(ConfigurationError, match="E-EXP-009: row both: vm does not translate"):
        configured(with_evaluation(task="translate", rows=rows))
    assert set(configured(with_evaluation(task="register", rows=rows))) == {"co", "vm", "seg"}


def test_costs_that_nobody_has_are_left_out_of_the_tables() -> None:
    """Anything else that is missing stays, and the comparison refuses it."""
    asked = ("rmse", "seconds_cpu", "seconds_gpu", "dice")
    experiment = with_evaluation(task="translate", rows={"co": {}}, metrics=asked)
    scores = [Score("rmse", 1.0, case="a", method="co"), Score("seconds_gpu", 1.0, "s", case="a", method="co")]
    result = ExperimentResult(experiment, scores, {})
    assert result.unmeasured == ("seconds_cpu",)
    assert result.metrics == ("rmse", "seconds_gpu", "dice")


def test_the_trainings_of_a_row() -> None:
    assert RowRecipe().trainings("x") == {"": "x"}
    assert RowRecipe(of="y").trainings("x") == {"": "y"}
    assert RowRecipe(by_fixed={"t1": "p", "t2": "q"}).trainings("x") == {"t1": "p", "t2": "q"}
