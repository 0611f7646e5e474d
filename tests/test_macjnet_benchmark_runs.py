"""The benchmark of macJNet's inference runs, tiny, alone in a process and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import macjnet
from benchmarks.macjnet import QUICK_SHAPE, Case, in_own_process, method_for, run_case, weights_of


def test_it_measures_the_networks_of_the_paper() -> None:
    method = method_for((32, 32, 32))
    register, segment = (weights_of(Case(task, "cpu", 1, QUICK_SHAPE), method) for task in macjnet.TASKS)
    # LapIRN's 923 748 and a gate of 3557 weights on each of its three levels.
    assert register == 923_748 + 3 * 3557
    assert register + 2 * segment == sum(weight.numel() for weight in method.parameters())


def test_it_measures_and_writes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(case: Case, time_limit: float) -> dict:
        row = {**vars(case), "commit": "0", "date": "2000-01-01", "versions": {}, "failure": None}
        return row | ({"failure": "out of memory"} if case.task == "segment" else run_case(case))

    monkeypatch.setattr(macjnet, "in_own_process", here)
    out = tmp_path / "results" / "macjnet.json"
    macjnet.main(["--quick", "--devices", "cpu", "--threads", "1", "--out", str(out)])
    good, bad = json.loads(out.read_text())["rows"]
    assert bad["failure"] == "out of memory"
    assert (good["task"], good["repeats"], good["shape"]) == ("register", 2, list(QUICK_SHAPE))
    assert 0 < good["seconds"]["least"] <= good["seconds"]["median"] <= good["seconds"]["most"]
    assert good["whole_mib"] > 50
    page = out.with_suffix(".md").read_text()
    assert "| 16x16x16, register, cpu |" in page
    assert "- 16x16x16, segment, cpu: out of memory" in page
    assert "| 0.18 |" in page


def test_quick_numbers_are_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        macjnet.main(["--quick"])
    assert "--quick needs --out" in capsys.readouterr().err


def test_a_process_of_its_own_segments() -> None:
    row = in_own_process(Case("segment", "cpu", 1, QUICK_SHAPE, quick=True), 100.0)
    assert row["failure"] is None
    assert row["seconds"]["least"] > 0
    assert {"commit", "date", "versions", "threads", "peak_mib", "weights"} <= row.keys()
