"""``anamorph experiment``: the page and the figures that it leaves, from a tiny atlas to real images kept private."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from anamorph.cli.experiment_figures import write_figures
from anamorph.cli.main import main
from anamorph.data.files import read_labels
from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.report.charts import bars
from anamorph.report.experiment_html import ExperimentFigures
from anamorph.report.experiment_sheets import Case, sheet_of_examples
from anamorph.training.experiment import ExperimentResult
from anamorph.training.experiment_recipe import Experiment, read_experiment

ATLAS = """
title: Tiny
folder: letters
cohort:
  synthesise: {kind: letter_b, cases: 6, validation: 1, test: 2, seed: 1, options: {truth: false}}
  more:
    corrupt: {synthesise: {cases: 2, seed: 2, options: {corrupt: all}}}
prepare: {spacing: [8.0, 8.0], shape: [16, 16]}
train:
  atlas:
    method: atlas-istn
    settings:
      channels: [2, 3]
      stn_channels: [3, 3]
      affine_from_epoch: 0
      fade_in_epoch: 1.0
      refinement: {iterations: 2}
evaluate:
  task: segment
  groups: {clean: "case????_grey", corrupt: "*_corrupt_grey"}
  rows:
    ITN: {of: atlas, settings: {test: itn}}
    1-pass: {of: atlas, settings: {test: one_pass}}
    refine, lambda 1: {of: atlas, settings: {refinement: {smoothness: 1.0}}}
    refine, lambda 10: {of: atlas, settings: {refinement: {smoothness: 10.0}}}
    refine, lambda 100: {of: atlas, settings: {refinement: {smoothness: 100.0}}}
  metrics: [dice, hd_mm]
scales:
  cpu:
    schedule: {epochs: 2, batch_size: 3, validate_every: 1, augmentation: {translation: 0.0, rotation: 0.0, scale: 0.0}}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "paper" / "tiny.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_page_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, results, out = written(tmp_path, ATLAS), tmp_path / "results", tmp_path / "out"
    command = ["experiment", str(file), "--out", str(out), "--results", str(results)]
    main([*command, "--device", "cpu"])
    assert "page: tiny/report.html" in capsys.readouterr().out
    names = {path.name.removeprefix("tiny_cpu") for path in (results / "paper").iterdir()}
    assert names == {
        ".md", ".json", ".csv", "_means.svg", "_series.svg", "_examples.svg", "_cases_clean.svg", "_cases_corrupt.svg",
        "_atlas.png",
    }  # fmt: skip
    scores = pd.read_csv(results / "paper" / "tiny_cpu.csv")
    assert set(scores["metric"]) == {"dice", "hd_mm"}
    assert set(scores["metric"]) < set(pd.read_csv(out / "tiny" / "scores.csv")["metric"])
    table = (results / "paper" / "tiny_cpu.md").read_text()
    shown = re.findall(r"!\[.*?\]\((.*?)\)", table)
    assert {f"tiny_cpu{name}" for name in names if name.endswith(("svg", "png"))} == set(shown)

    page = (out / "tiny" / "report.html").read_text()
    for link in re.findall(r'href="([^#"]+?\.html)"', page):
        assert (out / "tiny" / link).is_file(), link
    assert len(re.findall(r'href="([^#"]+?\.html)"', page)) == 3
    assert 'id="atlas"' in (out / "runs/atlas/report.html").read_text()
    assert page.count("<figcaption>epoch") == 3  # before the first step, and after each of two epochs
    assert {read_labels(path).grid.shape for path in (out / "pictures").iterdir()} == {(128, 128)}

    image = next((out / "more/corrupt/cohort/images").iterdir())
    model, found = out / "runs/atlas/model", tmp_path / "found"
    assert main(["segment", str(image), "--model", str(model), "--refine", "2", "--out", str(found), "--quiet"]) == 0
    fitted = (found / "report.html").read_text()
    assert fitted.index(">network<") < fitted.index(">atlas, one pass<") < fitted.index(">atlas, refined<")
    assert ">grid of the atlas<" in fitted
    assert 'aria-label="objective by step"' in fitted

    kept = {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
    figures = {path: path.read_bytes() for path in (results / "paper").glob("*.[sp][vn]g")}
    written(tmp_path, ATLAS.replace("    ITN: {of: atlas, settings: {test: itn}}\n", ""))
    stale = results / "paper" / "tiny_cpu_cases_other.svg"
    stale.write_text("of an earlier form")
    main([*command, "--device", "cpu", "--quiet"])
    assert {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()} == kept  # nothing is done again
    assert not stale.exists()
    same = {path.name for path, content in figures.items() if path.read_bytes() == content}
    assert {"tiny_cpu_examples.svg", "tiny_cpu_atlas.png"} <= same
    assert "tiny_cpu_means.svg" not in same


REAL = {
    "title": "Real",
    "cohort": {"gather": {"layout": "splits", "folder": "letters"}},
    "train": {"net": {"method": "unet"}},
    "evaluate": {"task": "segment"},
}


@pytest.mark.parametrize("real", [True, False])
def test_pictures_of_real_cases_are_not_published(tmp_path: Path, real: bool) -> None:
    values = REAL if real else {**REAL, "cohort": {"synthesise": {"kind": "letter_b"}}}
    scores = [Score("dice", 0.5, case="c", method="net")]
    image = compare(scores)
    numbers = read_case()
    sheet = sheet_of_examples({"some": [numbers]}, {1: "letter"})
    figures = ExperimentFigures(bars({"": image}), None, sheet, {"": sheet})
    result = ExperimentResult(Experiment.model_validate(values), scores, {})
    found = write_figures(figures, tmp_path / "a_cpu", result)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == set(found)
    assert names == ({"a_cpu_means.svg"} if real else {"a_cpu_means.svg", "a_cpu_examples.svg", "a_cpu_cases.svg"})


def read_case() -> Case:
    import numpy as np

    image = np.arange(64, dtype=np.float32).reshape(8, 8)
    return Case(image, np.eye(3), None, (image > 40).astype(np.int32))


def test_an_experiment_that_registers_has_means_and_pairs(tmp_path: Path) -> None:
    text = """
title: Tiny
cohort:
  synthesise: {kind: letter_b, cases: 6, validation: 1, test: 2, seed: 1, options: {truth: false}}
prepare: {spacing: [8.0, 8.0], shape: [16, 16]}
train:
  vxm: {method: voxelmorph, settings: {similarity: mse, encoder: [4, 4], decoder: [4, 4]}}
evaluate: {pairs: {rule: between}, methods: [none], metrics: [dice]}
scales:
  cpu: {schedule: {epochs: 1, steps_per_epoch: 2}}
"""
    file = written(tmp_path, text)
    assert read_experiment(file, "cpu").evaluate.task == "register"
    command = ["experiment", str(file), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    assert main([*command, "--quiet"]) == 0
    names = {path.name.removeprefix("tiny_cpu") for path in (tmp_path / "results/paper").iterdir()}
    assert names == {".md", ".json", ".csv", "_means.svg", "_cases.svg"}
    page = (tmp_path / "out/report.html").read_text()
    assert ">grid of the moving image<" in page
    assert 'href="comparison.html"' in page
    assert 'href="runs/vxm/report.html"' in page
