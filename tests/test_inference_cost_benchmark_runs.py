"""The benchmark of inference runs, tiny, alone in a process and as a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import inference_cost
from benchmarks.inference_cost import QUICK_SHAPE, Case, in_own_process, run_case

GATED_LAPIRN = 923_748 + 3 * 3557
"""LapIRN's weights and a gate on each of its three levels."""


def _weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_it_measures_the_networks_of_macjnet() -> None:
    networks = {task: inference_cost.macjnet(_case("macjnet", task))[1] for task in ("register", "segment")}
    assert _weights(networks["register"]) == GATED_LAPIRN
    assert _weights(networks["segment"]) > GATED_LAPIRN


def test_it_measures_the_networks_of_cocyclereg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_cost.CoCycleReg, "__init__", _on_meta(inference_cost.CoCycleReg.__init__))
    monkeypatch.setattr(inference_cost.CoCycleReg, "to", lambda method, device: method)
    wanted = {"register": 321_718, "register, velocities": 321_718, "translate": 34_106_241}
    for task, weights in wanted.items():
        assert _weights(inference_cost.cocyclereg(_case("cocyclereg", task))[1]) == weights


def _case(method: str, task: str) -> Case:
    return Case(method, task, "cpu", 1, (32, 32, 32))


def _on_meta(made: Callable[..., None]) -> Callable[..., None]:
    """Without memory for weights."""

    def make(*given: Any) -> None:
        with torch.device("meta"):
            made(*given)

    return make


def test_it_measures_and_writes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, Any] = {"features": 2, "blocks": 1, "discriminator_features": 2, "discriminator_layers": 1}
    settings = inference_cost.CoCycleRegSettings

    def narrow(**given: Any) -> inference_cost.CoCycleRegSettings:
        return settings(encoder=(2, 2), decoder=(2, 2), **few, **given)

    def here(case: Case, time_limit: float) -> dict:
        row = {**vars(case), "commit": "0", "date": "2000-01-01", "versions": {}, "failure": None}
        return row | ({"failure": "out of memory"} if case.task == "segment" else run_case(case))

    monkeypatch.setattr(inference_cost, "CoCycleRegSettings", narrow)
    monkeypatch.setattr(inference_cost, "in_own_process", here)
    out = tmp_path / "results" / "inference_cost.json"
    inference_cost.main(["--quick", "--devices", "cpu", "--threads", "1", "--out", str(out)])
    joint, bad, both, velocities, translate = json.loads(out.read_text())["rows"]
    assert bad["failure"] == "out of memory"
    assert (joint["method"], joint["task"], joint["repeats"]) == ("macjnet", "register", 2)
    assert joint["weights"] == GATED_LAPIRN
    assert both["weights"] == velocities["weights"]
    assert (translate["task"], translate["shape"]) == ("translate", list(QUICK_SHAPE))
    assert 0 < velocities["seconds"]["least"] <= velocities["seconds"]["median"] <= velocities["seconds"]["most"]
    assert velocities["whole_mib"] > 50
    page = out.with_suffix(".md").read_text()
    assert page.index("## macJNet") < page.index("| 16x16x16, register, cpu |") < page.index("## CoCycleReg")
    assert "- macJNet, 16x16x16, segment, cpu: out of memory" in page
    assert "| 0.18 |" in page
    assert "| 64x144x112, register, CPU (paper) | 0.68 (sd 0.07) |" in page


def test_quick_numbers_are_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        inference_cost.main(["--quick"])
    assert "--quick needs --out" in capsys.readouterr().err


def test_a_process_of_its_own_segments() -> None:
    row = in_own_process(Case("macjnet", "segment", "cpu", 1, QUICK_SHAPE, quick=True), 100.0)
    assert row["failure"] is None
    assert row["seconds"]["least"] > 0
    assert {"commit", "date", "versions", "threads", "peak_mib", "weights"} <= row.keys()
