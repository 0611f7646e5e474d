"""The benchmark of the refinement runs, tiny, and its floor counts what the networks compute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import refinement
from benchmarks.refinement import Case, in_own_process, method_for, run_case, work_of


def test_its_work_is_that_of_the_layers_and_of_the_maps() -> None:
    """Per iteration, of the layers that the module of the spatial transformer lists."""
    shape, labels = (32, 16, 16), 5
    work = work_of(Case("refinement", "cpu", 1, True, shape, labels, iterations=3))
    half, quarter, eighth = (32 * 16 * 16 // 8**scale for scale in (1, 2, 3))
    first = half * 10 * 10
    layers = half * (10 * 16 + 16 * 16 + 32 * 16 + 16 * 8 + 8 * 3)
    layers += quarter * (16 * 16 + 16 * 16 + 48 * 16) + eighth * (16 * 32 + 32 * 32)
    # Forward, and gradients in weights and inputs; nobody asks for that in the input of the first.
    assert sum(one.flops for one in work) == 3 * 2 * 27 * (3 * layers + 2 * first)
    # Six squarings of both directions together, T^-1 after them, and the atlas; forward and backward.
    assert [one.kind for one in work].count("sampling") == 3 * 2 * (6 + 1 + 1)


def test_an_atlas_of_nested_balls_has_every_label() -> None:
    method = method_for((24, 24, 24), 5)
    volumes = method.atlas_labels.sum((0, 2, 3, 4))
    assert (volumes > 1).all()
    assert bool((volumes[1:-1] > volumes[2:]).all())


def test_it_measures_and_writes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(case: Case, time_limit: float) -> dict:
        row = {**vars(case), "commit": "0", "date": "2000-01-01", "versions": {}, "failure": None}
        return row | ({"failure": "out of memory"} if len(case.shape) == 3 else run_case(case))

    monkeypatch.setattr(refinement, "in_own_process", here)
    out = tmp_path / "results" / "refinement.json"
    refinement.main(["--quick", "--devices", "cpu", "--threads", "1", "--iterations", "2", "--out", str(out)])
    results = json.loads(out.read_text())
    good, bad = results["rows"]
    assert bad["failure"] == "out of memory"
    assert (good["iterations"], good["batch"], good["repeats"]) == (2, 2, 2)
    assert good["seconds_a_case"] == pytest.approx(good["seconds"]["median"] / 2)
    assert 0 < good["share_of_floor"] < 1
    assert good["whole_mib"] > 50
    page = out.with_suffix(".md").read_text()
    assert "16x16x16, 5 labels, cpu refinement: out of memory" in page
    assert "| 16x16, 1 label, cpu, 2 cases at a time |" in page
    assert "about 20" in page


def test_a_process_of_its_own_says_where_it_comes_from_or_why_it_failed() -> None:
    good = in_own_process(Case("refinement", "cpu", 1, True, (16, 16), iterations=1), 100.0)
    assert good["failure"] is None
    assert good["seconds"]["least"] > 0
    assert {"commit", "date", "versions", "threads"} <= good.keys()
    bad = in_own_process(Case("refinement", "cpu", 1, True, (16, 16)), 0.01)
    assert bad["failure"] == "stopped after 0.01 s"
