"""Models that ask for an alignment share one a pair, and its time counts as each model's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Pair, Scan
from anamorph.data.files import read, write
from anamorph.data.image import Image
from anamorph.errors import ConfigurationError
from anamorph.inference import contenders, pair_alignment
from anamorph.inference.cost import Cost
from anamorph.inference.model_folder import Model
from anamorph.inference.peers.adapter import PeerResult
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.transform import Affine, Field

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

    monkeypatch.setattr(pair_alignment, "aligned", aligned)
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


def test_an_alignment_is_kept_until_something_changes(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def aligned(fixed: Image, moving: Image, device: torch.device | None = None) -> tuple[Affine, dict[str, float]]:
        calls.append(str(device))
        return ALIGNMENT, {}

    monkeypatch.setattr(pair_alignment, "aligned", aligned)
    folder = tmp_path / "out" / "alignments"

    def find(pair: Pair = pair) -> tuple[Affine, Any]:
        pair_alignment._found.cache_clear()  # as another process
        return pair_alignment.pair_alignment(pair, "cpu", folder)

    first, again = find(), find()
    assert calls == ["cpu"]
    np.testing.assert_array_equal(again[0].matrix, ALIGNMENT.matrix)
    assert again[1] == first[1]
    (kept,) = folder.iterdir()
    kept.write_text("{}")  # torn
    find()
    assert len(calls) == 2
    monkeypatch.setattr(pair_alignment, "ALIGNMENT", PairwiseSettings(transform="rigid"))
    find()
    assert len(calls) == 3
    find(replace(pair, moving=replace(pair.moving, modality="ct")))
    assert len(calls) == 4
    write(Image.from_array(np.random.default_rng(5).uniform(0, 1, (9, 9, 9)), AFFINE), pair.moving.image)
    find()
    assert len(calls) == 5
    find()
    assert len(calls) == 5


def test_another_tool_may_begin_with_the_alignment(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[Affine | None] = []

    def found_by(name: str, fixed: Image, moving: Image, *, initial: Affine | None, **options: Any) -> PeerResult:
        began.append(initial)
        whole = Field(torch.zeros(3, *fixed.grid.shape), fixed.grid)
        return PeerResult(whole, 10.0, 7, {}, {})

    known = ALIGNMENT, Cost(5.0, 9.0)
    monkeypatch.setattr(contenders, "pair_alignment", lambda pair, device, folder: known)
    monkeypatch.setattr(contenders, "register_with_peer", found_by)
    monkeypatch.setattr(contenders, "python_of", lambda name: Path(name))
    images = [read(scan.image, modality="mr") for scan in (pair.fixed, pair.moving)]
    alone = contenders.peer("elastix", 1, 60.0)
    after = contenders.peer("elastix", 1, 60.0, from_affine=True, alignments=tmp_path)
    results = [one.run(pair, *images) for one in (alone, after)]
    assert began == [None, ALIGNMENT]
    assert [(one.seconds, one.peak_mib) for one in results] == [(10.0, 7.0), (15.0, 9.0)]
    assert alone.stamp != after.stamp
    with pytest.raises(ConfigurationError, match="E-PEE-004"):
        contenders.peer("ants", 1, 60.0, from_affine=True)
