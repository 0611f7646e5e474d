"""``anamorph train`` as a user calls it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from anamorph.cli import train as verb
from anamorph.cli.arguments import parse
from anamorph.cli.main import VERBS, main
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import ConfigurationError
from anamorph.methods import METHODS
from anamorph.training.configuration import TrainingConfiguration
from anamorph.training.interruption import Interrupted
from anamorph.training.loop import Loop
from tests.training.tiny import TINY


@pytest.fixture
def anamorph(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in process: exit code, output, errors."""
    monkeypatch.setitem(VERBS, "train", "Train.")

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def configuration(*words: object) -> TrainingConfiguration:
    request, _ = parse(verb.FORM, [str(word) for word in words], "anamorph train", "")
    return verb.configuration_of(request)


def test_from_a_cohort_to_a_model(cohort: PreparedCohort, tmp_path: Path, anamorph) -> None:
    out = tmp_path / "run"
    code, told, errors = anamorph("train", "align", cohort.folder, "--out", out, "--epochs", 2, "--device", "cpu")
    assert code == 0, errors
    assert "method: align, 158 parameters" in told
    assert "epoch 2 of 2" in told
    assert "model: run/model" in told
    assert told.rstrip().endswith("report: run/report.html")
    assert "<svg" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "model" / "model.safetensors").exists()
    assert (out / "samples" / "epoch_0002.png").exists()
    assert "training: " in errors
    code, _, errors = anamorph("train", "align", cohort.folder, "--out", out, "--device", "cpu")
    assert (code, errors[:11]) == (2, "E-OUT-016: ")


def test_a_run_that_is_stopped_before_its_first_epoch_has_a_page(
    cohort: PreparedCohort, tmp_path: Path, anamorph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Loop) -> None:
        signal.raise_signal(signal.SIGINT)
        raise Interrupted  # as the loop does where a signal is pending

    monkeypatch.setattr(Loop, "_step", stopped)
    out = tmp_path / "run"
    code, _, _ = anamorph("train", "align", cohort.folder, "--out", out, "--quiet", "--device", "cpu")
    assert code == 130
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Interrupted; it can be resumed" in page
    assert "No epoch is finished yet" in page


def test_quiet_says_nothing(cohort: PreparedCohort, tmp_path: Path, anamorph) -> None:
    words = ("train", "segment", cohort.folder, "--out", tmp_path / "run", "--epochs", 1, "--quiet", "--device", "cpu")
    assert anamorph(*words) == (0, "", "")


def test_flags_over_file_over_method(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    content = {"schedule": {"epochs": 7, "batch_size": 3}, "settings": {"width": 6, "weights": {"similarity": 2.0}}}
    file.write_text(yaml.safe_dump(content))
    found = configuration(
        "align", "data", "--out", "run", "--config", file, "--epochs", 9, "--set", "weights.smoothness=1e-3",
        "dropout=0", "--rule", "between", "--fixed-modality", "ct", "--seed", 4,
    )  # fmt: skip
    assert (found.schedule.epochs, found.schedule.batch_size, found.schedule.learning_rate) == (9, 3, 1e-2)
    assert found.settings.model_dump() == {
        "width": 6, "dropout": 0.0, "weights": {"similarity": 2.0, "smoothness": 1e-3}
    }  # fmt: skip
    assert (found.pairs.rule, found.pairs.fixed_modality, found.seed) == ("between", "ct", 4)


def test_labels_and_networks_to_begin_with() -> None:
    words = ("macjnet", "data", "--out", "run", "--share", 0.3, "--initial")
    found = configuration(*words, "registration=runs/reg/model,segmentation.ct=runs/ct/model:network")
    assert (found.labelled.share, found.labelled.seed) == (0.3, 0)
    assert {name: (source.model.as_posix(), source.network) for name, source in found.initial.items()} == {
        "registration": ("runs/reg/model", ""), "segmentation.ct": ("runs/ct/model", "network")
    }  # fmt: skip
    assert configuration("align", "data", "--out", "run").labelled.share == 1.0


def test_the_configuration_of_a_run_is_a_file_to_begin_from(cohort: PreparedCohort, tmp_path: Path, anamorph) -> None:
    out = tmp_path / "run"
    words = ("train", "segment", cohort.folder, "--device", "cpu", "--quiet")
    assert anamorph(*words, "--out", out, "--epochs", 1, "--modality", "ct")[0] == 0
    assert anamorph(*words, "--out", tmp_path / "again", "--config", out / "config.yaml")[0] == 0
    records = [json.loads((folder / "run.json").read_text()) for folder in (out, tmp_path / "again")]
    assert records[0]["configuration"] == records[1]["configuration"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["algin", "data"], "method: found 'algin', expected"),
        (["align", "data", "--set", "widht=3"], "settings.widht: unknown key; did you mean settings.width?"),
        (["align", "data", "--set", "width"], "--set: found 'width', expected NAME=VALUE"),
        (["align", "data", "--set", "width=wide"], "settings.width: found wide"),
        (["align", "data", "--set", "width=[1"], "settings.width: found [1"),
        (["align", "data", "--set", "width.deep=3", "width.deep.er=1"], "--set width.deep.er: deep holds 3"),
        (["align", "data", "--epochs", "0"], "--epochs: found 0"),
        (["align", "data", "--modality", "ct"], "align learns from pairs"),
        (["align", "data", "--share", "2"], "--share: found 2, expected less than or equal to 1"),
        (["align", "data", "--initial", "network"], "--initial: found network, expected NETWORK=MODEL:NETWORK"),
        (["align", "data", "--initial", "network=a:b,network=c"], "--initial: found network=a:b,network=c, expected"),
        (["segment", "data", "--rule", "within"], "segment learns from cases"),
    ],
)
def test_m10_what_does_not_fit_is_refused_in_one_line(words: list[str], line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration(*words, "--out", "run")
    assert caught.value.code == "E-CFG-010"
    assert line in str(caught.value)


def test_a_folder_that_is_no_prepared_cohort(tmp_path: Path, anamorph) -> None:
    code, _, errors = anamorph("train", "align", tmp_path, "--out", tmp_path / "run")
    assert code in (2, 3)
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_help_names_every_method() -> None:
    described = verb.TrainRequest.model_fields["method"].description or ""
    assert set(" ".join(described.split()).rstrip(".").split(", ")) == METHODS.keys() - TINY.keys()
