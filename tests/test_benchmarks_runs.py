"""The benchmarks run: one tiny case end to end. What a floor counts is worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from anamorph.spatial.field import warp
from benchmarks import training_speed
from benchmarks.operator_shares import PARTS
from benchmarks.roofline import Counter, Operator, Peaks
from benchmarks.training_speed import Case, in_own_process, run_case, work_of

ROOT = Path(__file__).resolve().parents[1]
SHIFT_VOXELS = 2
SPACING = 3.0


def save(values: np.ndarray, path: Path) -> None:
    nib.save(nib.Nifti1Image(values, np.diag([-SPACING, -SPACING, SPACING, 1.0])), path)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """One case of 24^3 voxels, whose moving image is the fixed one in other grey values, two voxels further along i."""
    folder = tmp_path / "cases" / "blobs_s1"
    folder.mkdir(parents=True)
    texture = gaussian_filter(np.random.default_rng(0).standard_normal((24, 24, 24)), 2.0)
    radius = np.linalg.norm(np.indices(texture.shape) - 11.5, axis=0)
    fixed = np.where(radius < 8, 2 + texture / texture.std() / 4, 0).astype(np.float32)
    labels = ((radius < 8) + (radius < 4)).astype(np.uint8)
    moved = {name: np.roll(values, SHIFT_VOXELS, 0) for name, values in {"moving": fixed, "labels": labels}.items()}
    save(fixed, folder / "fixed.nii.gz")
    save(np.where(moved["moving"] > 0, 4 - moved["moving"], 0).astype(np.float32), folder / "moving.nii.gz")
    save((radius < 8).astype(np.uint8), folder / "mask.nii.gz")
    save(labels, folder / "fixed_labels.nii.gz")
    save(moved["labels"], folder / "moving_labels.nii.gz")
    truth = np.zeros((3, *fixed.shape), np.float32)
    truth[0] = SHIFT_VOXELS * SPACING  # along +i, which is +L
    np.savez(folder / "truth.npz", disp=truth, spacing=[SPACING] * 3)
    return folder.parent


def known_maps(cases: Path, out: Path, *options: str) -> list[dict]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.known_maps",
        "--cases",
        str(cases),
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    no_peers = os.environ | {"ANAMORPH_PEERS": str(cases)}
    done = subprocess.run([*command, *options], cwd=ROOT, env=no_peers, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())["rows"]


def test_known_maps_scores_a_case_and_keeps_it(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "known_maps.json"
    headers, ours = known_maps(cases, out, "--methods", "anamorph")
    assert headers["method"] == "none"
    assert headers["error_mean_mm"] == pytest.approx(SHIFT_VOXELS * SPACING)
    assert ours["failure"] is None
    assert ours["error_mean_mm"] < SPACING < headers["error_mean_mm"]
    assert ours["dice_mean"] > headers["dice_mean"]
    assert ours["folded_voxels"] == 0
    assert ours["seconds_registration"] < ours["seconds_process"]
    assert {"commit", "date", "threads", "settings", "versions", "peak_mib"} <= ours.keys()
    # A peer that cannot run becomes a row, and what was measured stays as it is.
    rows = known_maps(cases, out, "--methods", "anamorph,elastix", "--resume")
    assert rows[:2] == [headers, ours]
    assert "elastix_default has no environment" in rows[2]["failure"]
    page = out.with_suffix(".md").read_text()
    assert "no environment" in page
    assert "no folded voxel: **yes**" in page


def counted(kind: str, counter: Counter) -> list[tuple[int, int]]:
    return [(one.flops, one.bytes) for one in counter.operators if one.kind == kind]


def test_a_floor_counts_the_multiplications_of_convolutions_and_moves_each_tensor_once() -> None:
    image = torch.rand(1, 2, 8, 6, 4, requires_grad=True)
    weight = torch.rand(3, 2, 3, 3, 3, requires_grad=True)
    with Counter() as counter:
        F.conv3d(image, weight, stride=2, padding=1).sum().backward()
    voxels, weights = 4 * 3 * 2, 3 * 2 * 27
    tensors = 4 * (2 * 8 * 6 * 4 + weights + 3 * voxels)
    assert counted("convolutions", counter) == [(2 * voxels * weights, tensors)]
    gradients = tensors + 4 * (2 * 8 * 6 * 4 + weights)
    assert counted("gradients of convolutions", counter) == [(2 * 2 * voxels * weights, gradients)]


def test_a_floor_counts_transposed_convolutions_by_what_goes_in() -> None:
    coarse, weight = torch.rand(1, 2, 4, 3, 2), torch.rand(2, 3, 2, 2, 2, requires_grad=True)
    with Counter() as counter:
        F.conv_transpose3d(coarse, weight, stride=2).sum().backward()
    once = 2 * (4 * 3 * 2) * (2 * 3 * 8)
    assert [one.flops for one in counter.operators] == [once, once]  # no gradient in the image is asked for


def test_a_floor_counts_what_sampling_reads_and_writes() -> None:
    image, displacement = (torch.empty(1, channels, 8, 6, 4, device="meta") for channels in (2, 3))
    with Counter() as counter:
        warp(image, displacement)
    assert counted("sampling", counter) == [(0, 4 * 8 * 6 * 4 * (2 + 3 + 2))]


def test_a_floor_is_what_limits_each_operator() -> None:
    peaks = Peaks(10.0, 40.0, 20.0, 8.0).best(Peaks(30.0, 20.0, 50.0, 4.0))
    assert (peaks.gflops, peaks.copy_gbytes) == (50.0, 8.0)
    work = [Operator("convolutions", 10**11, 10**9), Operator("convolutions", 10**9, 16 * 10**9)]
    floor = peaks.floor([*work, Operator("sampling", 0, 8 * 10**9)])
    assert floor == {
        "convolutions": pytest.approx(4.0),
        "gradients of convolutions": 0.0,
        "sampling": pytest.approx(1.0),
    }


def test_the_work_of_lapirn_is_that_of_its_layers() -> None:
    inference, step = (work_of(Case(kind, "cpu", 1, True, "lapirn", (16, 24, 16))) for kind in ("inference", "step"))
    width, convolutions = 28, 0
    for inputs, voxels in ((2, 4 * 6 * 4), (5, 8 * 12 * 8), (5, 16 * 24 * 16)):
        full = inputs * width + width**2 + 2 * width**2 + 3 * width
        halved = (1 + 10) * width**2
        convolutions += 2 * voxels * (27 * (full + halved / 8) + width**2)
    assert sum(one.flops for one in inference) == pytest.approx(convolutions)
    # Each level pulls the moving image once, and integrates seven squarings; nothing needs the gradient in the images.
    assert [one.kind for one in inference].count("sampling") == 2 * (7 + 1) + 7
    assert 2.9 * convolutions < sum(one.flops for one in step) < 3 * convolutions


def test_training_speed_measures_steps_inferences_and_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(case: Case, time_limit: float) -> dict:
        folder = tmp_path / f"{case.kind}{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        row = {**vars(case), "commit": "0", "date": "2000-01-01", "versions": {}, "failure": None}
        if case.method == "lapirn" and case.kind == "inference":
            return row | {"failure": "out of memory"}
        return row | run_case(case, folder)

    monkeypatch.setattr(training_speed, "in_own_process", here)
    out = tmp_path / "results" / "speed.json"
    training_speed.main(["--quick", "--devices", "cpu", "--threads", "1", "--out", str(out)])
    results = json.loads(out.read_text())
    steps = [row for row in results["rows"] if row["kind"] == "step"]
    assert [row["method"] for row in steps] == ["lapirn", "voxelmorph"]
    for row in steps:
        assert 0 < row["share_of_floor"] < 1
        assert row["peak_mib"] >= 0  # 0 where the memory that earlier tests freed is enough
        seconds = row["seconds"]
        assert seconds["least"] <= seconds["lower_quartile"] <= seconds["median"] <= seconds["most"]
        parts = row["time"]["parts"]
        assert sum(parts.values()) == pytest.approx(1, abs=1e-3)
        assert set(parts) == set(PARTS)
        assert all(share > 0 for share in parts.values())
        assert len(row["time"]["largest"]) == 5
    (waiting,) = results["waiting"]
    assert len(waiting["epochs"]) == 4
    assert 0 <= waiting["waiting"] < 1
    page = out.with_suffix(".md").read_text()
    assert "lapirn, 16x16x16, cpu inference: out of memory" in page
    assert page.count("GFLOP/s") == 3


def test_a_measurement_in_a_process_of_its_own_says_where_it_comes_from_and_why_it_failed() -> None:
    good = in_own_process(Case("peaks", "cpu", 1, True), 100.0)
    assert good["failure"] is None
    assert good["peaks"]["matmul_gflops"] > 0
    assert {"commit", "date", "versions", "threads"} <= good.keys()
    bad = in_own_process(Case("step", "cpu", 1, True, "lapirn", (16, 16, 16)), 0.01)
    assert bad["failure"] == "stopped after 0.01 s"
