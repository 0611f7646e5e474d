"""``anamorph evaluate`` over a few letters: what is scored, kept, refused, and told where nothing came of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest

from anamorph.cli.main import main
from anamorph.data.transform_files import write_transform
from anamorph.spatial.transform import Affine

SIZE = ("letter_b", "--cases", 4, "--test", 3)
PAIR = "case0002_grey-case0003_grey"


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four letters, three of them for the test."""
    folder = tmp_path_factory.mktemp("cohorts") / "letters"
    assert main([str(word) for word in ("synthesise", *SIZE, "--out", folder, "--no-truth", "--quiet")]) == 0
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def dice(folder: Path) -> dict[tuple[str, str], float]:
    """Method and case -> mean Dice."""
    return {(row["method"], row["case"]): float(row["value"]) for row in rows(folder) if row["metric"] == "dice_mean"}


def test_scores_comparison_and_record(anamorph: Callable[..., Any], letters: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    command = ("evaluate", letters, "--methods", "none", "rigid", "--rule", "between", "--most-items", 2, "--out", out)
    ended = anamorph(*command)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "scores: scores/scores.csv; page: scores/comparison.html"
    assert {case for _, case in dice(out)} == {PAIR, "case0004_grey-case0003_grey"}  # the first and the last of six
    assert {method for method, _ in dice(out)} == {"none", "rigid"}
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["command"]) == ("complete", "evaluate")
    assert {"scores.csv", "comparison.html", "comparison.md"} <= set(record["outputs"])
    assert "Evaluation on letters" in (out / "comparison.html").read_text(encoding="utf-8")
    assert anamorph(*command).code == 2
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    assert anamorph(*command, "--force").code == 0
    assert {path.name: path.stat().st_mtime_ns for path in (out / "rows").iterdir()} == kept


def test_maps_from_elsewhere(anamorph: Callable[..., Any], letters: Path, tmp_path: Path) -> None:
    maps = tmp_path / "theirs"
    maps.mkdir()
    write_transform(Affine(np.eye(3)), maps / f"{PAIR}.tfm")
    out = tmp_path / "scores"
    flags = ("--methods", "none", "--transforms", maps, "--rule", "between", "--most-items", 1, "--out", out)
    assert anamorph("evaluate", letters, *flags).code == 0
    found = dice(out)
    assert found["theirs", PAIR] == found["none", PAIR]


def test_a_case_without_a_result_is_told_and_the_others_are_scored(
    anamorph: Callable[..., Any], letters: Path, tmp_path: Path
) -> None:
    theirs, out = tmp_path / "theirs", tmp_path / "scores"
    theirs.mkdir()
    for case in ("case0002", "case0003"):
        copy(letters / "labels" / f"{case}_grey.nii.gz", theirs / f"{case}.nii.gz")
    ended = anamorph("evaluate", letters, "--segmentations", theirs, "--out", out)
    assert ended.code == 5
    assert "theirs gave nothing for case0004_grey: E-EVA-011" in ended.err
    assert dice(out) == {("theirs", "case0002_grey"): 1.0, ("theirs", "case0003_grey"): 1.0}
    assert (out / "comparison.html").exists()


def test_where_every_case_fails_the_reasons_are_told(
    anamorph: Callable[..., Any], letters: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    ended = anamorph("evaluate", letters, "--segmentations", tmp_path / "empty", "--out", tmp_path / "scores")
    assert ended.code == 5
    assert ended.err.count("empty gave nothing for case000") == 3
    assert not (tmp_path / "scores" / "comparison.html").exists()
    assert {row["metric"] for row in rows(tmp_path / "scores")} == {"failed"}


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "E-CFG-010: nothing to evaluate; give --model, --methods"),
        (("--methods", "nonee"), 2, "did you mean none?"),
        (("--methods", "none"), 3, "E-EVA-013: no pair by the rule 'within'"),
        (("--methods", "none", "--segmentations", "x"), 2, "two evaluations"),
        (("--methods", "none", "--rule", "between", "--split", "validation"), 3, "E-EVA-013"),
        (("--model", "nowhere"), 3, "E-IO-001"),
    ],
)
def test_refusals(
    anamorph: Callable[..., Any], letters: Path, tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    ended = anamorph("evaluate", letters, *flags, "--out", tmp_path / "scores", "--quiet")
    assert ended.code == code
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "scores" / "scores.csv").exists()
