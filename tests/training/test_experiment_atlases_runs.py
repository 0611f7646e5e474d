"""Experiments whose rows segment by atlases, and cross-validation: from the file to the scores of all folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.cli.main import main
from anamorph.data.cohort import Cohort, Scan
from anamorph.data.files import read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.scores import Score, from_csv
from anamorph.fusion.settings import FusionSettings
from anamorph.inference import contenders
from anamorph.inference.contenders import segmenting_atlases
from anamorph.inference.evaluate import evaluate_segmentation
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.training.cohort_recipe import Gathering
from anamorph.training.configuration import Machine
from anamorph.training.experiment import configured, run_experiment
from anamorph.training.experiment_cohort import Part, parts_of
from anamorph.training.experiment_recipe import Experiment, read_experiment
from anamorph.training.experiment_rows import segmenters

ENGINE = PairwiseSettings(transform="rigid", search="header", linear_similarity="mse")
CROSS = """
title: Tiny
cohort:
  synthesise:
    kind: shapes
    cases: 6
    validation: 2
    options: {shape: [20, 20], spacing: 4.0, labels: 3, size_mm: 48.0, truth: false}
folds: 2
prepare: {spacing: [6.0, 6.0], shape: [16, 16], learn_as: {3: 1}}
labels: [1]
train:
  reg: {method: biregnet, settings: {channels: 2, scales: 2}}
  sim:
    method: simnet
    initial: {registration: reg}
    settings: {channels: 2, scales: 2, registration: {channels: 2, scales: 2}}
evaluate:
  task: segment
  pairs: {rule: between, fixed_modality: b, moving_modality: a}
  groups: {cross: "*_b"}
  most_items: 2
  rows:
    learnt: {atlases: {modality: a, registration: reg, fusion: sim, region: none}}
    engine:
      atlases:
        modality: a
        count: 2
        select: 1
        registration: {transform: rigid, search: header, linear_similarity: mse, least_overlap: 0.01}
        fusion: {fusion: majority}
  metrics: [dice, seconds_cpu]
scales:
  cpu: {schedule: {epochs: 1, batch_size: 2, steps_per_epoch: 1, augmentation: {scale: 0.0}}}
"""


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_every_case_is_a_target_once_and_its_atlases_are_of_other_folds(tmp_path: Path) -> None:
    file = tmp_path / "paper" / "tiny.yaml"
    file.parent.mkdir()
    file.write_text(CROSS)
    out, results = tmp_path / "out", tmp_path / "results"
    command = ["experiment", str(file), "--out", str(out), "--results", str(results), "--device", "cpu", "--quiet"]
    assert main(command) == 0
    scores = from_csv((out / "scores.csv").read_text())
    found = {method: sorted(s.case for s in scores if (s.method, s.metric) == (method, "dice"))
             for method in ("learnt", "engine")}  # fmt: skip
    targets = [f"case000{n}_b" for n in range(1, 5)]
    assert found == {"learnt": targets, "engine": targets}
    assert {s.label for s in scores if s.metric == "dice"} == {"label 1"}
    runs = [f"fold-{fold}-of-2/runs/{name}" for fold in (1, 2) for name in ("reg", "sim")]
    assert sorted(path.parents[1].relative_to(out).as_posix() for path in out.rglob("model.json")
                  if "registrations" not in path.parts) == runs  # fmt: skip
    record = json.loads((results / "paper/tiny_cpu.json").read_text())
    assert list(record["trained"]) == ["reg, fold 1", "sim, fold 1", "reg, fold 2", "sim, fold 2"]
    assert record["experiment"]["evaluate"]["rows"]["learnt"]["atlases"]["fusion"] == "sim"
    page = (out / "report.html").read_text()
    assert f'href="{runs[2]}/report.html"' in page
    assert (results / "paper/tiny_cpu_cases_cross.svg").is_file()

    for path in (out / "atlases").iterdir():  # label 3 counts as 1, and 2 is not learnt
        scan = out / "cohort/labels" / path.name
        np.testing.assert_array_equal(read_labels(path).data, np.isin(read_labels(scan).data, (1, 3)))
    assert sorted(path.name for path in (out / "atlases").iterdir()) == [f"case000{n}_a.nii.gz" for n in range(1, 5)]
    weights = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    kept = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    again = run_experiment(read_experiment(file, "cpu"), out, machine=Machine(device="cpu"))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == weights
    assert {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()} == kept
    assert {path.relative_to(out).as_posix() for path in again.runs.values()} == set(runs)
    assert again.runs_of("sim") == [out / runs[1], out / runs[3]]


def square(folder: Path, case: str, first: int, modality: str = "t1") -> Scan:
    """A square that begins at a voxel, in noise."""
    labels = np.zeros((20, 20), np.uint8)
    labels[first : first + 8, 6:14] = 1
    values = labels * 50.0 + np.random.default_rng(first).normal(size=labels.shape)
    affine = np.diag([2.0, 2.0, 1.0])
    image, truth = folder / f"{case}_{modality}.nii.gz", folder / f"{case}_{modality}_labels.nii.gz"
    write(Image.from_array(values, affine), image)
    write(Labelmap.from_array(labels, affine), truth)
    return Scan(case, modality, image, truth)


def dice(rows: list[Score]) -> dict[tuple[str, str], float]:
    assert [row.reason for row in rows if row.metric == "failed"] == []
    return {(row.case, row.method): row.value for row in rows if row.metric == "dice"}


def test_atlases_leave_their_own_subject_out_and_cost_what_they_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One atlas lies three voxels off: left where it is, it says how far; another session is not of another subject."""
    scans = [square(tmp_path, "s1_ses-a", 4), square(tmp_path, "s1_ses-b", 4), square(tmp_path, "s2", 7)]
    asked: list[list[str]] = []
    found = contenders.segment_by_atlases

    def noted(target: Image, atlases: list[Scan], **more: Any) -> Any:
        asked.append([atlas.case for atlas in atlases])
        return found(target, atlases, **more)

    monkeypatch.setattr(contenders, "segment_by_atlases", noted)
    one = segmenting_atlases(
        scans, "atlas", registration=ENGINE, fusion=FusionSettings(fusion="majority"), region="gold",
        cache=tmp_path / "cache", device="cpu",
    )  # fmt: skip
    rows = evaluate_segmentation(scans[:1], [one], tmp_path / "rows", topology=False)
    assert asked == [["s2"]]
    assert dice(rows)["s1_ses-a_t1", "atlas"] > 0.9
    seconds = next(row.value for row in rows if row.metric == "seconds_cpu")
    known = evaluate_segmentation(scans[:1], [one], tmp_path / "other rows", topology=False)
    kept = next(row.value for row in known if row.metric == "seconds_cpu")
    assert kept > 0.5 * min(seconds, entry_seconds(tmp_path / "cache"))
    assert not any(row.metric.startswith("peak") for row in known)


def test_the_true_box_is_that_of_the_labels_that_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label 2 of the target fills a corner, 9 counts as 1; atlases that fail are missing in the score."""
    scans = [square(tmp_path, case, first) for case, first in (("a", 4), ("b", 5), ("c", 6))]
    assert scans[0].labels is not None
    labels = read_labels(scans[0].labels)
    labels.data[16:, 16:] = 2
    labels.data[11, 6:14] = 9
    write(labels, scans[0].labels)
    scans[2].image.write_bytes(b"no image")
    found, boxes = contenders.segment_by_atlases, []

    def noted(*arguments: Any, **more: Any) -> Any:
        result = found(*arguments, margin_mm=0.0, **more)
        boxes.append(result.region.contains(result.image.grid.to_world(np.array([[19, 19], [11, 6]]))).tolist())
        return result

    monkeypatch.setattr(contenders, "segment_by_atlases", noted)
    usual: dict[str, Any] = {
        "registration": ENGINE, "fusion": FusionSettings(fusion="majority"), "region": "gold", "device": "cpu",
        "cache": tmp_path / "cache",
    }  # fmt: skip
    some = [
        segmenting_atlases(scans, "judged", **usual, labels=(1,), count_as={9: 1}),
        segmenting_atlases(scans, "every", **usual),
    ]
    rows = evaluate_segmentation(scans[:1], some, tmp_path / "rows", learn_as={9: 1}, topology=False)
    assert boxes == [[False, True], [True, True]]
    assert [row.value for row in rows if row.metric == "atlases_used"] == [1.0, 1.0]
    assert len({one.stamp for one in some}) == 2


def entry_seconds(cache: Path) -> float:
    """What all jobs of a cache took."""
    return sum(json.loads(path.read_text())["facts"].get("seconds", 0.0) for path in cache.rglob("entry.json"))


def test_other_atlases_are_another_row(tmp_path: Path) -> None:
    scans = [square(tmp_path, case, first) for case, first in (("a", 4), ("b", 5))]
    majority = FusionSettings(fusion="majority")
    usual: dict[str, Any] = {"registration": ENGINE, "fusion": majority, "cache": tmp_path, "device": "cpu"}
    changes = [
        {}, {"registration": PairwiseSettings()}, {"fusion": FusionSettings(fusion="staple")}, {"select": 1},
        {"region": "gold"},
    ]  # fmt: skip
    stamps = [segmenting_atlases(scans, "one", **(usual | change)).stamp for change in changes]
    stamps.append(segmenting_atlases(scans[:1], "one", **usual).stamp)
    assert len(set(stamps)) == 6
    usual["cache"] = tmp_path / "b"
    assert segmenting_atlases(scans, "other", **usual).stamp == stamps[0]


RECIPE: dict[str, Any] = {
    "title": "Tiny",
    "cohort": {"gather": {"files": [{"modality": "t1", "image": "*_SS.nii.gz", "labels": "*_glm.nii.gz"}],
                          "folder": "brains"}},
    "evaluate": {
        "task": "segment", "split": "train",
        "rows": {"one": {"atlases": {"count": 1, "registration": {"transform": "rigid", "search": "header"},
                                     "fusion": {"fusion": "majority"}}}},
    },
}  # fmt: skip


def brains(folder: Path) -> Path:
    place = folder / "data" / "brains"
    place.mkdir(parents=True)
    for number in (1000, 1001, 1002):
        scan = square(folder, str(number), 4 + number % 3)
        scan.image.rename(place / f"{number}_SS.nii.gz")
        assert scan.labels is not None
        scan.labels.rename(place / f"{number}_glm.nii.gz")
    return place


def test_scans_by_the_names_of_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = brains(tmp_path)
    monkeypatch.setenv("ANAMORPH_DATA", str(place.parent))

    def cohort(**more: Any) -> Cohort:
        recipe = {**RECIPE, "cohort": {"gather": {**RECIPE["cohort"]["gather"], **more}}}
        return parts_of(Experiment.model_validate(recipe), tmp_path / f"out {len(list(tmp_path.iterdir()))}")[0].cohort

    scans = cohort().scans
    assert [(s.case, s.modality, s.image.name, s.labels and s.labels.name) for s in scans] == [
        (str(n), "t1", f"{n}_SS.nii.gz", f"{n}_glm.nii.gz") for n in (1000, 1001, 1002)
    ]
    single = {"modality": "ct", "image": "1000_SS.nii.gz", "labels": "1000_glm.nii.gz", "case": "someone"}
    part = {"modality": "t1", "image": "10*1_SS.nii.gz", "case": "brain-*"}
    assert [(s.name, s.labels is None) for s in cohort(files=[single, part]).scans] == [
        ("brain-0_t1", True), ("someone_ct", False),
    ]  # fmt: skip
    assert [s.split for s in cohort(test=1, validation=1).scans] == ["train", "validation", "test"]
    for files, found in (
        ([{"modality": "t1", "image": "*.mha"}], r"nothing that fits \*\.mha"),
        ([{"modality": "t1", "image": "*_SS.nii.gz", "labels": "*_x.nii"}], r"no labels 1000_x\.nii of 1000_SS"),
    ):
        with pytest.raises(InputError, match=f"E-EXP-006: brains: {found}"):
            cohort(files=files)
    for given in ({"layout": "folders", "folder": "x", "files": [part]}, {"folder": "x"}):
        with pytest.raises(ValueError, match="either by a layout or by their files"):
            Gathering.model_validate(given)


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_without_any_training_one_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that are asked for are told from others; the atlas of the first brain is the second one."""
    monkeypatch.setenv("ANAMORPH_DATA", str(brains(tmp_path).parent))
    recipe = Experiment.model_validate({**RECIPE, "labels": [1]})
    assert configured(recipe) == {}
    result = run_experiment(recipe, tmp_path / "out")
    assert {(s.case, s.label) for s in result.scores if s.metric == "dice"} == {
        (f"{number}_t1", "label 1") for number in (1001, 1002)
    }
    (failed,) = (s for s in result.scores if s.metric == "failed")
    assert failed.case == "1000_t1"  # whose only atlas is itself
    assert "E-ATL-012" in failed.reason
    assert (result.trained, result.runs) == ({}, {})


def test_no_atlases(tmp_path: Path) -> None:
    recipe = {**RECIPE, "evaluate": {"task": "segment", "rows": {"one": {"atlases": {"modality": "ct"}}}}}
    part = Part("", tmp_path, Cohort(tmp_path, (square(tmp_path, "a", 4),)))
    with pytest.raises(InputError, match="E-EXP-007: no labelled ct scans of split train"):
        segmenters(Experiment.model_validate(recipe), tmp_path, part, {}, "cpu")


@pytest.mark.parametrize(
    ("row", "task", "line"),
    [
        ({"atlases": {"registration": "reg"}}, "segment", "row one is of 'reg', which is not trained"),
        ({"atlases": {"fusion": "sim"}}, "segment", "row one is of 'sim', which is not trained"),
        ({"atlases": {"fusion": {"fusion": "weighted"}}}, "segment", "weighted takes weights from outside"),
        ({"atlases": {}}, "register", "row one segments by atlases; the task is register"),
        ({"atlases": {}, "of": "net"}, "segment", "a trained method, or atlases"),
    ],
)
def test_rows_that_cannot_be(row: dict[str, Any], task: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Experiment.model_validate({**RECIPE, "evaluate": {"task": task, "rows": {"one": row}}})


@pytest.mark.parametrize(
    ("atlases", "line"),
    [
        ({"registration": "net"}, "row one: net does not register, expected one that does"),
        ({"registration": "vxm", "fusion": "vxm"}, "row one: vxm does not weigh atlases, expected one such as simnet"),
    ],
)
def test_trainings_that_cannot_do_what_a_row_asks(atlases: dict[str, Any], line: str) -> None:
    """Said before hours are spent."""
    recipe = {
        **RECIPE,
        "train": {"net": {"method": "unet"}, "vxm": {"method": "voxelmorph"}},
        "evaluate": {"task": "segment", "rows": {"one": {"atlases": atlases}}},
    }
    with pytest.raises(ConfigurationError, match=f"E-EXP-008: {line}"):
        configured(Experiment.model_validate(recipe))


def in_folds(count: int) -> Experiment:
    judged = {**RECIPE["evaluate"], "split": "test"}
    return Experiment.model_validate({**RECIPE, "folds": count, "evaluate": judged})


def test_folds_judge_their_test() -> None:
    with pytest.raises(ValueError, match="of folds the test is judged, not train"):
        Experiment.model_validate({**RECIPE, "folds": 2})


def test_folds_that_there_are_no_subjects_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANAMORPH_DATA", str(brains(tmp_path).parent))
    with pytest.raises(InputError, match=r"E-COH-039: .*3 subjects in train and test for 4 folds"):
        parts_of(in_folds(4), tmp_path / "out")
    names = [part.name for part in parts_of(in_folds(3), tmp_path / "other")]
    assert names == ["fold 1", "fold 2", "fold 3"]
    monkeypatch.delenv("ANAMORPH_DATA")
    with pytest.raises(ConfigurationError, match="E-EXP-003"):
        parts_of(Experiment.model_validate(RECIPE), tmp_path / "third")
