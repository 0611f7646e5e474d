"""An experiment from its file to its table, resumed without work, and every way to refuse one."""

from __future__ import annotations

from pathlib import Path

import pytest

from anamorph.cli.main import main
from anamorph.errors import ConfigurationError
from anamorph.training.experiment import read_experiment

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


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_committed_experiment_can_be_read(path: Path, scale: str) -> None:
    assert read_experiment(path, scale).title  # pyright: ignore[reportArgumentType]


def test_from_file_to_table(tmp_path: Path) -> None:
    file = tmp_path / "paper" / "tiny.yaml"
    file.parent.mkdir()
    file.write_text(TINY)
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
    weights = (tmp_path / "out" / "runs" / "vxm" / "model" / "model.safetensors").stat().st_mtime_ns
    assert main(command) == 0  # nothing is trained again
    assert (tmp_path / "out" / "runs" / "vxm" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    file.write_text(TINY.replace("seed: 1", "seed: 2"))
    assert main(command) == 2  # another recipe


def test_a_scale_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    with pytest.raises(ConfigurationError, match="E-EXP-001"):
        read_experiment(file, "paper")
