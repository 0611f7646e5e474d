"""An experiment from its file to its tables, resumed without work, and every way to refuse one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from anamorph.cli.main import main
from anamorph.data.layouts import LAYOUTS
from anamorph.data.phantoms.options import options_for
from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.scores import Score, from_csv
from anamorph.inference import contenders
from anamorph.inference.contenders import Registrar, engine
from anamorph.inference.model_folder import Model
from anamorph.methods import METHODS
from anamorph.training.cohort_recipe import Gathering
from anamorph.training.experiment import ExperimentResult, configured, registering, run_experiment
from anamorph.training.experiment_claim import claim
from anamorph.training.experiment_recipe import Experiment, Scale, read_experiment

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").rglob("*.yaml"))
TINY = """
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
SEGMENT = """
title: Tiny
folder: letters
cohort:
  synthesise: {kind: letter_b, cases: 6, validation: 1, test: 2, seed: 1, options: {truth: false}}
  more:
    corrupt: {synthesise: {cases: 2, seed: 2, options: {corrupt: all}}}
    plain: {split: train, synthesise: {cases: 1, seed: 3}}
    weak: {split: extra, synthesise: {cases: 2, seed: 4}}
prepare: {max_voxels: 256, shape: [16, 16]}
train:
  small: {method: unet, settings: {channels: [4, 8]}}
evaluate:
  task: segment
  groups: {clean: "case????_grey", corrupt: "*_corrupt_grey"}
  rows:
    U-Net: {of: small}
    largest: {of: small, settings: {largest_component: true}}
    mixed: {of: small, networks: {network: initial}}
  metrics: [dice]
  labels: [letter]
scales:
  cpu: {schedule: {epochs: 1, batch_size: 2, steps_per_epoch: 2, augmentation: {translation: 1.0}}}
"""


def written(folder: Path, text: str, name: str = "tiny") -> Path:
    file = folder / "paper" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_committed_experiment_can_be_read(path: Path, scale: Scale) -> None:
    """Settings of methods and phantoms included; which rows exist is part of the reading."""
    experiment = read_experiment(path, scale)
    configurations = configured(experiment)
    assert configurations.keys() == experiment.train.keys()
    for source in (experiment.cohort, *experiment.cohort.more.values()):
        if source.synthesise is not None:
            assert options_for(source.synthesise.kind, source.synthesise.options)
    for name, row in experiment.rows.items():
        for training in row.trainings(name).values():
            assert experiment.evaluate.task in METHODS[configurations[training].method].tasks


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_experiments_of_one_folder_have_one_cohort(scale: Scale, tmp_path: Path) -> None:
    """Or else the second to run would refuse what the first has made."""
    shared: dict[str, tuple[str, str, dict]] = {}
    for path in EXPERIMENTS:
        experiment = read_experiment(path, scale)
        if experiment.folder is None:
            continue
        key = f"{path.parent.name}/{experiment.folder}"
        data = experiment.model_dump_json(
            include={"cohort", "folds", "prepare", "labels", "schedule", "validation_items"}
        )
        claim(experiment, tmp_path / key, False)
        name, before, trainings = shared.setdefault(key, (path.stem, data, {}))
        assert data == before, f"{path.stem} and {name}"
        for training, configuration in configured(experiment).items():
            values = configuration.model_dump()
            assert trainings.setdefault(training, values) == values, f"{training} of {path.stem}"
    assert len(shared) == 9


def test_every_layout_can_be_gathered() -> None:
    known, absent = get_args(Gathering.model_fields["layout"].annotation)
    assert set(get_args(known)) == LAYOUTS.keys()
    assert absent is type(None)


def test_from_file_to_table(tmp_path: Path) -> None:
    file = written(tmp_path, TINY)
    command = [
        "experiment",
        str(file),
        "--out",
        str(tmp_path / "out"),
        "--results",
        str(tmp_path / "results"),
        "--quiet",
    ]
    assert main(command) == 0
    page = (tmp_path / "results" / "paper" / "tiny_cpu.md").read_text()
    assert "| vxm |" in page
    assert "commit" in page
    record = json.loads((tmp_path / "results" / "paper" / "tiny_cpu.json").read_text())
    assert list(record["tables"]) == [""]
    assert record["tables"][""]["cases"] == 2
    weights = (tmp_path / "out" / "runs" / "vxm" / "model" / "model.safetensors").stat().st_mtime_ns
    assert main(command) == 0  # nothing is trained again
    assert (tmp_path / "out" / "runs" / "vxm" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    file.write_text(TINY.replace("seed: 1", "seed: 2"))
    assert main(command) == 2  # another recipe


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_rows_of_one_training_in_a_table_for_each_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, SEGMENT)
    assert main(["experiment", str(file), "--results", "results"]) == 0
    told = capsys.readouterr().out
    assert told.index("\nclean") < told.index("\ncorrupt")
    out = tmp_path / "build/experiments/paper/letters_cpu"
    assert {path.name for path in (out / "runs").iterdir()} == {"small"}
    card = json.loads((out / "runs/small/model/model.json").read_text())
    assert (card["trained"]["items"], card["trained"]["extra_items"]) == (4, 2)
    assert (out / "tiny/clean/comparison.html").is_file()
    page = (tmp_path / "results/paper/tiny_cpu.md").read_text()
    assert page.index("## clean") < page.index("## corrupt") < page.index("## Trainings")
    assert page.count("| largest |") == 2
    assert page.count("Dice, letter") == 2
    record = json.loads((tmp_path / "results/paper/tiny_cpu.json").read_text())
    assert {name: table["cases"] for name, table in record["tables"].items()} == {"clean": 2, "corrupt": 2}
    scores = from_csv((out / "tiny/scores.csv").read_text())
    dice = [score for score in scores if score.metric == "dice"]
    assert {score.label for score in dice} == {"letter"}
    assert {name: sum(score.method == name for score in dice) for name in ("U-Net", "largest", "mixed")} == {
        "U-Net": 4, "largest": 4, "mixed": 4,
    }  # fmt: skip

    again = written(tmp_path, SEGMENT.replace("  rows:\n", "  rows:\n    once more: {of: small}\n"), "other")
    weights = (out / "runs/small/model/model.safetensors").stat().st_mtime_ns
    assert main(["experiment", str(again), "--results", "results", "--quiet"]) == 0
    assert (out / "runs/small/model/model.safetensors").stat().st_mtime_ns == weights
    assert (out / "other/clean/comparison.html").is_file()
    capsys.readouterr()

    trained = written(tmp_path, SEGMENT.replace("[4, 8]", "[4, 6]"), "third")
    assert main(["experiment", str(trained), "--results", "results", "--quiet"]) == 2
    assert "E-EXP-002: letters_cpu: small was made by another recipe" in capsys.readouterr().err
    assert main(["experiment", str(trained), "--results", "results", "--quiet", "--force"]) == 0
    assert (out / "runs/small/model/model.safetensors").stat().st_mtime_ns != weights


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_labels_that_are_learnt(tmp_path: Path) -> None:
    """Of shapes with several labels one; the others are background and are not judged."""
    recipe = {
        "title": "Tiny",
        "cohort": {
            "synthesise": {
                "kind": "shapes", "cases": 4, "validation": 1, "test": 1,
                "options": {"shape": [16, 16], "spacing": 4.0, "labels": 3, "truth": False},
            }
        },
        "prepare": {"spacing": [4.0, 4.0], "shape": [16, 16]},
        "labels": [2],
        "schedule": {"epochs": 1, "steps_per_epoch": 1, "augmentation": {"translation": 0.0}},
        "train": {"unet": {"method": "unet", "settings": {"channels": [4]}}},
        "evaluate": {"task": "segment"},
    }  # fmt: skip
    experiment = Experiment.model_validate(recipe)
    result = run_experiment(experiment, tmp_path / "out")
    assert {score.label for score in result.scores if score.metric == "dice"} == {"label 2"}
    card = json.loads((tmp_path / "out/runs/unet/model/model.json").read_text())
    assert card["plan"]["labels"] == {"2": "label 2"}
    with pytest.raises(ConfigurationError, match="E-EXP-004: label 9, expected some of"):
        run_experiment(Experiment.model_validate({**recipe, "labels": [9]}), tmp_path / "other")


def test_further_phantoms_are_like_the_first_where_they_do_not_say_otherwise(tmp_path: Path) -> None:
    more = read_experiment(written(tmp_path, SEGMENT), "cpu").cohort.more
    synthesis = more["corrupt"].synthesise
    assert synthesis is not None
    assert (synthesis.kind, synthesis.cases, synthesis.seed, synthesis.test) == ("letter_b", 2, 2, 0)
    assert synthesis.options == {"truth": False, "corrupt": "all"}
    assert [more[name].split for name in ("corrupt", "plain", "weak")] == ["test", "train", "extra"]
    other = SEGMENT.replace("{cases: 1, seed: 3}", "{kind: shapes, cases: 1}")
    kept = read_experiment(written(tmp_path, other), "cpu").cohort.more["plain"].synthesise
    assert kept is not None
    assert kept.options == {}


def test_a_scale_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="E-EXP-001"):
        read_experiment(written(tmp_path, TINY), "paper")


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("largest: {of: small", "largest: {of: large", "row largest is of 'large', which is not trained"),
        ("mixed: {of: small", "mixed: {of: ''", "row mixed is of 'mixed', which is not trained"),
        ("network: initial", "network: large.network", "row mixed is of 'large', which is not trained"),
        ("task: segment", "task: segment\n  methods: [none]", "methods and peers register"),
        ("task: segment", "task: segment\n  landmarks: {a: [b]}", "landmarks are about tre_mm"),
        ("  small: {", "  ../small: {", "train"),
        ("clean: ", "a/b: ", "evaluate: found a/b"),
    ],
)
def test_files_that_contradict_themselves(before: str, after: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"E-CFG-010: .*{found}"):
        read_experiment(written(tmp_path, SEGMENT.replace(before, after)), "cpu")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"metrics": ["dice"], "landmarks": {"head": ["nose"]}}, "landmarks are about tre_mm"),
        ({"task": "segment", "landmarks": {"head": ["nose"]}}, "landmarks is about registration"),
        ({"peers_from": "affine"}, "peers_from would change nothing without peers"),
        ({"peers_from": "affine", "peers": ["elastix", "ants"]}, "ants cannot begin with an affine alignment"),
        (
            {"pairs": {"fixed_modality": "ct", "moving_modality": "t1"}, "metrics": ["structural_similarity"]},
            "structural_similarity is of images of one modality; pairs are of ct and t1",
        ),
    ],
)
def test_evaluations_that_contradict_themselves(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        Experiment.model_validate({"title": "", "cohort": {"synthesise": {"kind": "letter_b"}}, "evaluate": changes})


def test_settings_at_test_time_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    text = SEGMENT.replace("{largest_component: true}", "{largest: true}")
    with pytest.raises(ConfigurationError, match="E-EVA-014: settings at test time that do not fit"):
        run_experiment(read_experiment(written(tmp_path, text), "cpu"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_images_that_nobody_says_the_place_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANAMORPH_DATA", raising=False)
    gather = "  gather: {layout: splits, folder: letters, validation: 1}\n"
    text = "title: Tiny\ncohort:\n" + gather + "evaluate: {}\nscales: {cpu: {}}\n"
    with pytest.raises(ConfigurationError, match="E-EXP-003: letters is needed"):
        run_experiment(read_experiment(written(tmp_path, text), "cpu"), tmp_path / "out")


def test_all_that_registers_shares_the_alignments_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def model(model: Model, name: str, alignments: Path | None = None) -> Registrar:
        told[name] = alignments
        return engine("none")

    def peer(name: str, threads: int, time_limit: float, **begin: Any) -> Registrar:
        told[name] = begin
        return engine("none")

    monkeypatch.setattr(contenders, "registering_model", model)
    monkeypatch.setattr(contenders, "peer", peer)
    text = TINY.replace("methods: [none]", "peers: [elastix], peers_from: affine")
    experiment = read_experiment(written(tmp_path, text), "cpu")
    models = {"vxm": object.__new__(Model)}
    assert len(registering(experiment, models, "cpu", 1, alignments=tmp_path)) == 2
    assert told == {"vxm": tmp_path, "elastix": {"from_affine": True, "alignments": tmp_path}}


def test_a_group_without_a_case(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, SEGMENT), "cpu")
    scores = [Score("dice", 0.5, case=case, method="m") for case in ("case0001_grey", "case0002_grey")]
    with pytest.raises(InputError, match=r"E-EXP-005: group corrupt \(\*_corrupt_grey\) has no case.*case0001_grey"):
        ExperimentResult(experiment, scores, {}).groups()
    scores.append(Score("dice", 0.4, case="case0001_corrupt_grey", method="m"))
    found = ExperimentResult(experiment, scores, {}).groups()
    assert {name: len(rows) for name, rows in found.items()} == {"clean": 2, "corrupt": 1}
