"""``anamorph register``, from two files to a folder."""

from __future__ import annotations

import csv
import getpass
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.cli import register
from anamorph.data.files import read, write
from anamorph.data.image import Image
from anamorph.data.transform_files import read_transform

Run = Callable[..., Any]

ALWAYS = {
    "affine.tfm", "displacement.nii.gz", "inverse_displacement.nii.gz", "report.html", "run.json", "scores.csv",
    "transform.h5", "warped.nii.gz",
}  # fmt: skip


def test_everything_that_a_run_writes(pair: Any, fast: tuple[str, ...], tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "result"
    ended = anamorph("register", pair.fixed, pair.moving, "--out", out, *pair.scoring, *fast)
    assert ended.code == 0, ended.err
    assert {path.name for path in out.iterdir()} == ALWAYS | {"warped_labels.nii.gz"}
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "complete"
    assert set(record["outputs"]) == {path.name for path in out.iterdir()} - {"run.json"}
    transform = read_transform(out / "transform.h5")
    centre = np.array([[18.0, 20, 22]])
    assert np.linalg.norm(transform(centre) - centre - pair.shift) < 1.5
    with (out / "scores.csv").open() as file:
        of_the_inner = [row for row in csv.DictReader(file) if (row["metric"], row["label"]) == ("dice", "2")]
    dice = {row["method"]: float(row["value"]) for row in of_the_inner}
    assert dice["pairwise"] > dice["before"]


def test_the_screen_ends_with_verdict_scores_and_report(
    pair: Any, fast: tuple[str, ...], tmp_path: Path, anamorph: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = anamorph("register", pair.fixed, pair.moving, "--out", "result", *pair.scoring, *fast)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[1].startswith("Complete")
    assert re.search(r"Landmark error, mean +\d", ended.out)
    assert re.search(r"Dice +1 +0\.\d+ +0\.\d+", ended.out)
    assert lines[-1] == "report: result/report.html"
    assert max(map(len, lines)) <= 80
    for stage in ("initialise", "rigid", "affine", "deformable", "report"):
        assert len(re.findall(rf"^{stage}: \d+\.\d s$", ended.err, re.MULTILINE)) == 1


def test_s03_no_folder_and_no_user_is_told(pair: Any, fast: tuple[str, ...], tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "result"
    ended = anamorph("register", pair.fixed, pair.moving, "--out", out, "--transform", "rigid", *fast)
    told = ended.out + ended.err
    told += "".join((out / name).read_text() for name in ("run.json", "scores.csv", "affine.tfm"))
    told += re.sub(r'"[A-Za-z0-9+/=]{500,}"', "", (out / "report.html").read_text())
    assert str(tmp_path) not in told
    assert tmp_path.parent.name not in told
    assert not re.search(rf"/(home|root|Users)/|\b{re.escape(getpass.getuser())}\b(?!:)", ended.out + ended.err)


def test_the_resolved_configuration_is_stored(pair: Any, fast: tuple[str, ...], tmp_path: Path, anamorph: Run) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"fixed: {pair.fixed}\nsettings:\n  transform: rigid\n  smoothness: 0.7\n  bins: 16\n")
    out = tmp_path / "result"
    ended = anamorph("register", "--moving", pair.moving)
    assert "--moving: no such flag" in ended.err
    ended = anamorph("register", pair.fixed, pair.moving, "--out", out, "--config", file, "--smoothness", "0.4", *fast)
    assert ended.code == 0, ended.err
    configuration = json.loads((out / "run.json").read_text())["configuration"]
    assert configuration["fixed"] == "fixed.nii.gz"
    assert configuration["settings"]["transform"] == "rigid"
    assert configuration["settings"]["smoothness"] == 0.4
    assert configuration["settings"]["bins"] == 16
    assert configuration["settings"]["iterations"] == [4, 4]


def test_the_record_of_a_run_repeats_it(pair: Any, fast: tuple[str, ...], tmp_path: Path, anamorph: Run) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    flags = ["--transform", "rigid", "--least-gain", "1e-05", "--max-memory", "3G", *fast]
    assert anamorph("register", pair.fixed, pair.moving, "--out", first, *flags).code == 0
    ended = anamorph("register", pair.fixed, pair.moving, "--out", again, "--config", first / "run.json")
    assert ended.code == 0, ended.err
    records = [json.loads((out / "run.json").read_text())["configuration"] for out in (first, again)]
    assert records[0] | {"out": "again"} == records[1]
    assert records[1]["settings"]["least_gain"] == 1e-5
    assert (first / "warped.nii.gz").read_bytes() == (again / "warped.nii.gz").read_bytes()


def test_a_missing_input_leaves_no_folder(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    pair.moving.unlink()
    ended = anamorph("register", pair.fixed, pair.moving, "--out", tmp_path / "result")
    assert (ended.code, ended.err.partition(": ")[0]) == (3, "E-IO-001")
    assert ended.err.startswith("E-IO-001: moving.nii.gz: ")
    assert not (tmp_path / "result").exists()


def test_quiet_prints_nothing(pair: Any, fast: tuple[str, ...], tmp_path: Path, anamorph: Run) -> None:
    flags = ["--transform", "rigid", "--quiet", *fast]
    ended = anamorph("register", pair.fixed, pair.moving, "--out", tmp_path / "r", *flags)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_a_second_run_needs_force(pair: Any, fast: tuple[str, ...], tmp_path: Path, anamorph: Run) -> None:
    command = ["register", pair.fixed, pair.moving, "--out", tmp_path / "result", "--transform", "rigid", *fast]
    assert anamorph(*command).code == 0
    before = (tmp_path / "result" / "run.json").read_bytes()
    ended = anamorph(*command)
    assert (ended.code, ended.err.partition(":")[0]) == (2, "E-OUT-016")
    assert (tmp_path / "result" / "run.json").read_bytes() == before
    assert anamorph(*command, "--force").code == 0


def test_s06_a_refused_input_leaves_a_report_that_says_why(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    pair.moving.write_bytes(pair.moving.read_bytes()[:400])
    out = tmp_path / "result"
    ended = anamorph("register", pair.fixed, pair.moving, "--out", out)
    assert ended.code == 3
    assert ended.err.startswith("E-NII-")
    assert ended.err.count("\n") == 1
    assert {path.name for path in out.iterdir()} == {"report.html", "run.json"}
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["error"]["message"]) == ("failed", ended.err.strip())
    assert "moving.nii.gz: " in (out / "report.html").read_text()


def test_r02_memory_that_runs_out_is_recorded(
    pair: Any, tmp_path: Path, anamorph: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("anamorph.inference.run.run_registration", exhausted)
    out = tmp_path / "result"
    ended = anamorph("register", pair.fixed, pair.moving, "--out", out)
    assert (ended.code, ended.err[:9]) == (4, "E-MEM-002")
    assert json.loads((out / "run.json").read_text())["error"]["code"] == "E-MEM-002"


def test_r06_an_interrupted_run_says_so_in_its_folder(
    pair: Any, tmp_path: Path, anamorph: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anamorph.inference.run.run_registration", interrupted)
    out = tmp_path / "result"
    assert anamorph("register", pair.fixed, pair.moving, "--out", out).code == 130
    assert json.loads((out / "run.json").read_text())["status"] != "complete"


def test_two_dimensions(fast: tuple[str, ...], tmp_path: Path, anamorph: Run) -> None:
    i, j = np.meshgrid(np.arange(48), np.arange(40), indexing="ij")
    noise = np.random.default_rng(0).normal(size=(2, 48, 40)) * 4
    for name, shift, rank in (("a", 0, 0), ("b", 3, 1)):
        values = 60 + 120 * (np.hypot((i - 24 - shift) / 16, (j - 20) / 12) < 1) + noise[rank]
        write(Image.from_array(values, np.eye(3)), tmp_path / f"{name}.nii.gz")
    ended = anamorph("register", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "--out", tmp_path / "r", *fast)
    assert ended.code == 0, ended.err
    assert read(tmp_path / "r" / "warped.nii.gz").grid.same_as(read(tmp_path / "a.nii.gz").grid)


def test_what_the_terminal_shows_is_scored_at_all() -> None:
    assert len(set(register.KEY_SCORES)) == len(register.KEY_SCORES)
