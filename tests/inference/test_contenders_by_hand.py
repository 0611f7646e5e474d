"""Models that ask for an alignment share one a pair, and its time counts as each model's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Pair, Scan
from anamorph.data.files import read, write
from anamorph.data.image import Image
from anamorph.inference import contenders
from anamorph.inference.model_folder import Model
from anamorph.spatial.transform import Affine

Trained = Callable[..., Model]
MakePlan = Callable[..., Any]
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SLEPT = 0.2
ALIGNMENT = Affine(np.array([[1, 0, 0, 4.0], [0, 1, 0, -2.0], [0, 0, 1, 1.0], [0, 0, 0, 1.0]]))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    scans = []
    for seed, case in enumerate("ab"):
        values = np.random.default_rng(seed).uniform(0, 100, (16, 14, 12))
        write(Image.from_array(values, AFFINE), tmp_path / f"{case}.nii.gz")
        scans.append(Scan(case, "mr", tmp_path / f"{case}.nii.gz"))
    return Pair(*scans)


@pytest.mark.parametrize(("alignment", "asked"), [("reference", 1), ("none", 0)])
@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_one_alignment_for_all_models(
    alignment: str, asked: int, pair: Pair, trained: Trained, plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[torch.device | None] = []

    def aligned(fixed: Image, moving: Image, device: torch.device | None = None) -> tuple[Affine, dict[str, float]]:
        calls.append(device)
        time.sleep(SLEPT)
        return ALIGNMENT, {}

    monkeypatch.setattr(contenders, "aligned", aligned)
    settings = {"reference": "a_mr", "middle": (0.0, 0.0, 0.0)} if asked else {}
    images = [read(scan.image, modality="mr") for scan in (pair.fixed, pair.moving)]
    middle = images[0].grid.centre[None]
    expected = ALIGNMENT(middle) if asked else middle
    for voxels in ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)):
        model = trained("shift", plan(alignment=alignment, **settings), voxels=voxels)
        found = contenders.registering_model(model, "shift").run(pair, *images)
        moved = np.array(voxels) * 3.0
        np.testing.assert_allclose(found.transform(middle), expected + moved, atol=1e-3)
        assert found.seconds is not None
        assert found.seconds >= (SLEPT if asked else 0.0)
    assert len(calls) == asked
