"""The benchmark of segmentation by atlases runs, tiny, and its page tells what one more atlas costs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import multi_atlas
from benchmarks.multi_atlas import Measurement, measure, page, patient, slope


@pytest.mark.parametrize("labels", [5, 138])
def test_made_up_patients_have_all_labels_and_differ(labels: int) -> None:
    (_, one), (_, other) = patient(1, labels, 32), patient(2, labels, 32)
    assert len(np.unique(one)) > 0.9 * labels
    assert 0.02 < (one != other).mean() < 0.6


def test_it_measures_and_writes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(case: Measurement, time_limit: float) -> dict:
        row = {**vars(case), "commit": "0", "date": "2000-01-01", "versions": {}, "failure": None}
        return row | ({"failure": "out of memory"} if case.kind == "segmentation" else measure(case))

    monkeypatch.setattr(multi_atlas, "in_own_process", here)
    out = tmp_path / "multi_atlas.json"
    multi_atlas.main(["--quick", "--threads", "1", "--out", str(out)])
    bad, good = json.loads(out.read_text())["rows"]
    assert bad["failure"] == "out of memory"
    assert (good["atlases"], good["labels"]) == (2, 5)
    assert 0 < good["contested"] < 1
    assert good["whole_mib"] > 50
    text = out.with_suffix(".md").read_text()
    assert "- segmentation, 2 atlases: out of memory" in text
    assert "| majority, 16^3 voxels | 2 | 5 |" in text


def test_whole_segmentations_and_fusions_have_few_labels_and_many() -> None:
    rows = multi_atlas.measurements(1, quick=False)
    assert len(set(rows)) == len(rows)
    for kind in ("segmentation", "fusion"):
        counts = {
            labels: {row.atlases for row in rows if (row.kind, row.labels) == (kind, labels)} for labels in (5, 138)
        }
        assert len(counts[138]) >= 3
        assert counts[138] <= counts[5]


def test_what_one_more_atlas_costs_is_the_slope() -> None:
    rows = [{"atlases": n, "seconds": 3.0 + 2.0 * n, "peak_mib": 100, "failure": None} for n in (1, 2, 4)]
    assert slope(rows, "seconds") == pytest.approx(2)
    assert slope(rows, "peak_mib") == pytest.approx(0, abs=1e-9)
    assert slope(rows[:1], "seconds") is None
    shared = {
        "kind": "fusion",
        "fusion": "joint",
        "labels": 5,
        "edge": 16,
        "threads": 1,
        "whole_mib": 1,
    }
    results = {
        "hardware": {"cpu": "x", "cores": 1, "memory_mib": 1},
        "rows": [row | shared | {"contested": 0} for row in rows],
    }
    assert "One more atlas, joint, 5 labels: 2.00 s and 0.0 MiB." in page(results)
