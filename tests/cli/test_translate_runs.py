"""``anamorph translate``, from files to folders, with a translator set by hand that gives the negative."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anamorph.data.files import read, write
from anamorph.data.image import Image
from anamorph.data.plan import Intensity, Plan
from anamorph.inference.model_folder import domain_of, write_model
from anamorph.methods import METHODS

Run = Callable[..., Any]


class Negative(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return -image


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a CycleGAN whose translators are set by hand; ct from 0 to 200, mr from 0 to 100."""

    kind: Any = METHODS["cyclegan"]

    class Known(kind):
        def __init__(self, settings: Any, domain: Any) -> None:
            super().__init__(settings, domain)
            self.translators = nn.ModuleDict({side: Negative() for side in self.targets})

    monkeypatch.setitem(METHODS, "known", Known)
    windows = {name: Intensity(kind="window", low=0.0, high=high) for name, high in (("ct", 200.0), ("mr", 100.0))}
    plan = Plan(spacing=(2.0, 2.0, 2.0), shape=(20, 18, 16), modalities=windows)
    small = Known.Settings(features=2, blocks=1, discriminator_features=2, discriminator_layers=1)
    write_model(tmp_path / "trained" / "model", Known(small, domain_of(plan)), "known", plan, facts={})
    return tmp_path / "trained" / "model"


@pytest.fixture
def scan(tmp_path: Path) -> tuple[Path, Path]:
    """A ball on the network's grid in an MR, and the CT that the translator makes of it, 10 brighter in the ball."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    away = np.linalg.norm(np.moveaxis(np.indices((20, 18, 16)), 0, -1) - [10, 9, 8], axis=-1)
    mr = np.where(away < 6, 80.0, 5.0) + np.random.default_rng(0).uniform(-4, 4, away.shape)
    (tmp_path / "inputs").mkdir()
    write(Image.from_array(mr, affine), tmp_path / "inputs" / "mr.nii.gz")
    write(Image.from_array(200 - 2 * mr + 10 * (away < 6), affine), tmp_path / "inputs" / "ct.nii.gz")
    return tmp_path / "inputs" / "mr.nii.gz", tmp_path / "inputs" / "ct.nii.gz"


def test_a_translation_beside_the_true_image(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run
) -> None:
    out = tmp_path / "out"
    ended = anamorph("translate", scan[0], "--model", model, "--modality", "mr", "--truth", scan[1], "--out", out)
    assert ended.code == 0, ended.err
    source, found, error = (read(path) for path in (scan[0], out / "translation.nii.gz", out / "error.nii.gz"))
    assert found.grid.same_as(source.grid)
    torch.testing.assert_close(found.data, 200 - 2 * source.data, atol=0.05, rtol=0)
    inside = source.data > 50
    torch.testing.assert_close(error.data, torch.where(inside, -10.0, 0.0), atol=0.05, rtol=0)
    with (out / "scores.csv").open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["rmse", "psnr_db", "structural_similarity"]
    assert float(rows["rmse"]["value"]) == pytest.approx(10 * float(inside.float().mean()) ** 0.5, rel=0.01)
    assert (rows["rmse"]["method"], rows["rmse"]["label"]) == ("known", "to ct")
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["translation"] == {"from": "mr", "to": "ct", "scale": "file", "limits": [0.0, 200.0]}
    assert record["outputs"] == ["translation.nii.gz", "error.nii.gz", "scores.csv", "report.html"]
    page = (out / "report.html").read_text()
    assert '<section id="translation">' in page
    assert "mr.nii.gz translated by trained" in page
    assert "The error is their distance" in page
    assert 'id="alignment"' not in page
    assert "PSNR" in ended.out


def test_without_a_truth_there_is_nothing_to_score(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run
) -> None:
    out = tmp_path / "out"
    ended = anamorph("translate", scan[1], "--model", model, "--modality", "ct", "--out", out)
    assert ended.code == 0, ended.err
    assert not (out / "scores.csv").exists()
    assert "Metric" not in ended.out
    assert read(out / "translation.nii.gz").data.max() <= 100
    page = (out / "report.html").read_text()
    assert '<section id="translation">' in page
    assert "The error is their distance" not in page


def test_a_refusal_leaves_a_report_that_says_why(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run
) -> None:
    ended = anamorph("translate", scan[0], "--model", model, "--out", tmp_path / "out")
    assert ended.code == 2
    assert "E-MOD-010" in ended.err
    assert "--modality" in ended.err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "E-MOD-010" in page
    assert "Translation report" in page


def test_a_truth_that_cannot_be_one_is_told(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run
) -> None:
    """Darker than anything of the CT's window."""
    dark = read(scan[1])
    write(Image(dark.data - 1000, dark.grid), tmp_path / "inputs" / "dark.nii.gz")
    asked = ("translate", scan[0], "--model", model, "--modality", "mr", "--out", tmp_path / "out")
    ended = anamorph(*asked, "--truth", tmp_path / "inputs" / "dark.nii.gz")
    assert ended.code == 0, ended.err
    assert "W-MOD-013: the true image dark.nii.gz: values of" in ended.err


def test_a_truth_of_another_dimension_is_refused(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run
) -> None:
    flat = tmp_path / "inputs" / "flat.nii.gz"
    write(Image.from_array(np.random.default_rng(0).random((20, 18)), np.diag([2.0, 2.0, 1.0])), flat)
    out = tmp_path / "out"
    ended = anamorph("translate", scan[0], "--model", model, "--modality", "mr", "--truth", flat, "--out", out)
    assert ended.code == 3
    assert "E-GEO-015" in ended.err
