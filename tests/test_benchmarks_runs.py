"""The benchmarks run: one tiny case end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

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
