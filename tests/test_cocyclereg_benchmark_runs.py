"""The benchmark of CoCycleReg's inference runs, tiny, alone in a process and as a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cocyclereg
from benchmarks.cocyclereg import QUICK_SHAPE, Case, in_own_process, method_for, weights_of


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow networks, for time's sake."""
    few: dict[str, Any] = {"features": 2, "blocks": 1, "discriminator_features": 2, "discriminator_layers": 1}
    settings = cocyclereg.CoCycleRegSettings

    def narrow(**given: Any) -> cocyclereg.CoCycleRegSettings:
        return settings(encoder=(2, 2), decoder=(2, 2), **few, **given)

    monkeypatch.setattr(cocyclereg, "CoCycleRegSettings", narrow)


def test_it_measures_the_networks_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"register": 321_718, "register, velocities": 321_718, "translate": 34_106_241}
    monkeypatch.setattr(cocyclereg.CoCycleReg, "__init__", _on_meta(cocyclereg.CoCycleReg.__init__))
    for task, weights in wanted.items():
        case = Case(task, "cpu", 1, (32, 32, 32))
        method = method_for(case)
        assert weights_of(case, method) == weights
        assert method.chosen.diffeomorphic == (task == "register, velocities")


def _on_meta(made: Callable[..., None]) -> Callable[..., None]:
    """Without memory for weights."""

    def make(*given: Any) -> None:
        with torch.device("meta"):
            made(*given)

    return make


def test_it_measures_and_writes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)

    def here(case: Case, time_limit: float) -> dict:
        row = {**vars(case), "commit": "0", "date": "2000-01-01", "versions": {}, "failure": None}
        return row | ({"failure": "out of memory"} if case.task == "register" else cocyclereg.run_case(case))

    monkeypatch.setattr(cocyclereg, "in_own_process", here)
    out = tmp_path / "results" / "cocyclereg.json"
    cocyclereg.main(["--quick", "--devices", "cpu", "--threads", "1", "--out", str(out)])
    bad, velocities, translate = json.loads(out.read_text())["rows"]
    assert bad["failure"] == "out of memory"
    assert (translate["task"], translate["repeats"], translate["shape"]) == ("translate", 2, list(QUICK_SHAPE))
    assert 0 < velocities["seconds"]["least"] <= velocities["seconds"]["median"] <= velocities["seconds"]["most"]
    assert velocities["whole_mib"] > 50
    page = out.with_suffix(".md").read_text()
    assert "| 16x16x16, translate, cpu |" in page
    assert "- 16x16x16, register, cpu: out of memory" in page
    assert "| 64x144x112, register, CPU (paper) | 0.68 (sd 0.07) |" in page


def test_quick_numbers_are_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cocyclereg.main(["--quick"])
    assert "--quick needs --out" in capsys.readouterr().err


def test_a_process_of_its_own_registers() -> None:
    row = in_own_process(Case("register", "cpu", 1, QUICK_SHAPE, quick=True), 100.0)
    assert row["failure"] is None
    assert row["seconds"]["least"] > 0
    assert {"commit", "date", "versions", "threads", "peak_mib", "weights"} <= row.keys()
