"""``anamorph segment`` and ``anamorph register --model``, from files to folders, with small networks set by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from anamorph.cli import main as program
from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.plan import Intensity, Plan
from anamorph.data.transform_files import read_transform
from anamorph.inference.model_folder import domain_of, write_model
from anamorph.methods import METHODS

Run = Callable[..., Any]
NAMES = {2: "outer ball", 9: "inner ball"}


@pytest.fixture(autouse=True)
def verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(program.VERBS, "segment", "Label the structures in an image by a trained model.")


def small_plan(**changes: Any) -> Plan:
    everything: dict[str, Any] = {
        "spacing": (2.5, 2.5, 2.5),
        "shape": (16, 16, 20),
        "modalities": {"mr": Intensity(kind="window", low=0, high=200)},
        "labels": NAMES,
    }
    return Plan(**(everything | changes))


class Thresholds(nn.Module):
    """Grey g -> minus the squared distance of g from 0, 1/2 and 1: three straight lines, up to what all have."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.layer = (nn.Conv3d if ndim == 3 else nn.Conv2d)(1, 3, 1)
        centres = torch.tensor([0.0, 0.5, 1.0])
        with torch.no_grad():
            self.layer.weight.copy_((200 * centres).view(self.layer.weight.shape))
            self.layer.bias.copy_(-100 * centres**2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a U-Net whose network is set by hand, in a folder called model."""

    class Thresholding(METHODS["unet"]):  # type: ignore[misc]
        def __init__(self, settings: Any, domain: Any) -> None:
            super().__init__(settings, domain)
            self.network = Thresholds(domain.ndim)

    monkeypatch.setitem(METHODS, "thresholds", Thresholding)
    plan = small_plan()
    method = Thresholding(Thresholding.Settings(channels=(4,), loss="dice"), domain_of(plan))
    write_model(tmp_path / "trained" / "model", method, "thresholds", plan, facts={})
    return tmp_path / "trained" / "model"


def balls(points: np.ndarray) -> np.ndarray:
    outer = np.linalg.norm(points - [16, 20, 24], axis=-1) < 13
    inner = np.linalg.norm(points - [20, 17, 27], axis=-1) < 6
    return np.where(inner, 9, np.where(outer, 2, 0))


@pytest.fixture
def scan(tmp_path: Path) -> tuple[Path, Path]:
    """An image on an oblique LPS grid of 1.6 x 1.9 x 2.4 mm voxels, and its true labels, int16."""
    c, s = np.cos(0.25), np.sin(0.25)
    axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1.6, -1.9, 2.4])
    shape = np.array([26, 24, 20])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, [16, 20, 24] - axes @ ((shape - 1) / 2)
    nodes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ axes.T + affine[:3, 3]
    truth = balls(nodes).astype(np.int16)
    grey = np.select([truth == 9, truth == 2], [200.0, 100.0], 0.0) + np.random.default_rng(0).normal(0, 4, shape)
    folder = tmp_path / "inputs"
    folder.mkdir()
    write(Image.from_array(grey, affine), folder / "scan.nii.gz")
    write(Labelmap.from_array(truth, affine), folder / "truth.nii.gz")
    return folder / "scan.nii.gz", folder / "truth.nii.gz"


def rows_of(out: Path) -> dict[tuple[str, str], float]:
    with (out / "scores.csv").open() as file:
        return {(row["metric"], row["label"]): float(row["value"]) for row in csv.DictReader(file) if row["value"]}


def test_labels_come_back_on_the_images_own_grid(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run
) -> None:
    out = tmp_path / "out"
    ended = anamorph("segment", scan[0], "--model", model, "--out", out, "--labels", scan[1], "--probabilities")
    assert ended.code == 0, ended.err
    found, truth = read_labels(out / "segmentation.nii.gz"), read_labels(scan[1])
    assert found.grid.same_as(truth.grid)
    assert found.values() == [0, 2, 9]
    assert nib.load(out / "segmentation.nii.gz").get_data_dtype() == np.uint8
    rows = rows_of(out)
    assert rows["dice", "outer ball"] > 0.85
    assert rows["dice", "inner ball"] > 0.8
    assert rows["hd95_mm", "inner ball"] < 3
    volume = int((found.data == 9).sum()) * 1.6 * 1.9 * 2.4
    assert rows["volume_mm3", "inner ball"] == pytest.approx(volume, rel=1e-4)
    layers = [read(out / f"probability_{label}.nii.gz").data[0].numpy() for label in (0, 2, 9)]
    np.testing.assert_allclose(np.sum(layers, axis=0), 1, atol=1e-4)
    assert {path.name for path in out.iterdir()} == {
        "segmentation.nii.gz", "scores.csv", "report.html", "run.json",
        "probability_0.nii.gz", "probability_2.nii.gz", "probability_9.nii.gz",
    }  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["model"]["method"] == "thresholds"
    assert record["labels"] == {"2": "outer ball", "9": "inner ball"}
    assert set(record["outputs"]) == {path.name for path in out.iterdir()} - {"run.json"}
    assert str(tmp_path) not in (out / "run.json").read_text()


def test_the_screen_and_the_report_tell_how_it_went(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = anamorph("segment", scan[0], "--model", model, "--out", "out", "--labels", scan[1])
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[1] == "Complete"
    assert lines[-3:] == ["model: trained (thresholds)", "taken for: image mr", "report: out/report.html"]
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("Segmentation report", "scan.nii.gz by trained", "Labels found", "HD95", "Outlines", "inner ball",
                 "dashed ones the true labels", "Research only"):  # fmt: skip
        assert text in page
    for text in ("Registration report", "Checkerboard", "Before and after", "Deformation"):
        assert text not in page


def test_an_empty_label_is_told(model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run) -> None:
    image = read(scan[0])
    write(Image(image.data.clamp(max=110), image.grid), scan[0])
    ended = anamorph("segment", scan[0], "--model", model, "--out", tmp_path / "out")
    assert ended.code == 0
    assert "W-MOD-015: no voxel of inner ball (9)" in ended.err
    assert ended.out.splitlines()[1] == "Complete, but look at: labels found"
    assert "1 of 2" in (tmp_path / "out" / "report.html").read_text()


def test_labels_that_the_model_does_not_know_are_not_scored(
    model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run
) -> None:
    truth = read_labels(scan[1])
    truth.data[:2] = 70
    truth.data[-2:] = 255
    write(truth, scan[1])
    out = tmp_path / "out"
    ended = anamorph("segment", scan[0], "--model", model, "--out", out, "--labels", scan[1], "--ignore-labels", "255")
    assert ended.code == 0, ended.err
    assert "W-LAB-010: truth.nii.gz: labels that the model does not know are not scored: 70" in ended.err
    assert {label for metric, label in rows_of(out) if metric == "dice"} == set(NAMES.values())


def test_a_model_that_registers_does_not_segment(scan: tuple[Path, Path], tmp_path: Path, anamorph: Run) -> None:
    folder = write_voxelmorph(tmp_path / "vm", small_plan())
    ended = anamorph("segment", scan[0], "--model", folder, "--out", tmp_path / "out")
    assert (ended.code, ended.err[:9]) == (2, "E-MOD-009")
    assert "anamorph register" in ended.err
    assert "E-MOD-009" in (tmp_path / "out" / "report.html").read_text()


def test_a_missing_file_leaves_no_folder(model: Path, scan: tuple[Path, Path], tmp_path: Path, anamorph: Run) -> None:
    for image, trained in ((tmp_path / "nowhere.nii.gz", model), (scan[0], tmp_path / "nothing")):
        ended = anamorph("segment", image, "--model", trained, "--out", tmp_path / "out")
        assert (ended.code, ended.err[:9]) == (3, "E-IO-001:")
        assert not (tmp_path / "out").exists()


def test_the_models_folder_is_not_written_to(model: Path, scan: tuple[Path, Path], anamorph: Run) -> None:
    for out in (model, model.parent):
        ended = anamorph("segment", scan[0], "--model", model, "--out", out)
        assert (ended.code, ended.err[:9]) == (2, "E-OUT-004")
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.safetensors"]


# -- register --model --------------------------------------------------------------------------------------------------


def write_voxelmorph(folder: Path, plan: Plan, bias: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Path:
    """VoxelMorph whose last layer gives the same velocity everywhere, voxels."""
    kind = METHODS["voxelmorph"]
    settings = kind.Settings(encoder=(2, 2), decoder=(2, 2), squarings=4)  # type: ignore[call-arg]
    method = kind(settings, domain_of(plan))
    last = list(method.head.modules())[-1]  # type: ignore[union-attr]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(bias))
    write_model(folder, method, "voxelmorph", plan, facts={})
    return folder


@pytest.fixture
def registrar(tmp_path: Path, pair: Any) -> Path:
    """A model that knows the pair's shift: (4, -2.5, 3) mm."""
    plan = small_plan(spacing=(2.0, 2.5, 3.0), shape=(16, 16, 16), modalities={"mr": Intensity()}, labels={})
    return write_voxelmorph(tmp_path / "trained" / "model", plan, tuple(pair.shift / (2.0, 2.5, 3.0)))


def test_a_model_registers_and_everything_else_is_as_ever(
    pair: Any, registrar: Path, tmp_path: Path, anamorph: Run
) -> None:
    out = tmp_path / "result"
    ended = anamorph("register", pair.fixed, pair.moving, "--model", registrar, "--out", out, *pair.scoring)
    assert ended.code == 0, ended.err
    transform = read_transform(out / "transform.h5")
    points = np.array([[16.0, 20, 24], [20, 17, 27]])
    np.testing.assert_allclose(transform(points) - points, np.broadcast_to(pair.shift, (2, 3)), atol=0.02)
    rows = rows_of(out)
    assert rows["tre_mean_mm", ""] < 0.05
    assert rows["inverse_residual_p95_mm", ""] < 0.05
    assert {path.name for path in out.iterdir()} >= {"displacement.nii.gz", "inverse_displacement.nii.gz", "affine.tfm"}
    record = json.loads((out / "run.json").read_text())
    assert record["model"]["method"] == "voxelmorph"
    assert "kept" not in record
    assert list(record["seconds"]) == ["normalise", "network", "evaluate"]
    assert "model: trained (voxelmorph)" in ended.out
    page = (out / "report.html").read_text()
    assert "voxelmorph" in page
    assert "Checkerboard" in page


def test_flags_of_the_pairwise_engine_do_not_go_with_a_model(
    pair: Any, registrar: Path, tmp_path: Path, anamorph: Run
) -> None:
    command = ["register", pair.fixed, pair.moving, "--model", registrar, "--out", tmp_path / "result"]
    ended = anamorph(*command, "--smoothness", "0.4", "--transform", "rigid")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "transform, smoothness would do nothing with a model" in ended.err
    ended = anamorph(*command, "--fixed-mask", pair.fixed_labels)
    assert (ended.code, ended.err[:9]) == (2, "E-MOD-012")


def test_modalities_have_the_models_names(pair: Any, registrar: Path, tmp_path: Path, anamorph: Run) -> None:
    command = ["register", pair.fixed, pair.moving, "--out", tmp_path / "result", "--fixed-modality", "mri"]
    ended = anamorph(*command)
    assert (ended.code, ended.err.partition(":")[0]) == (2, "E-CFG-010")
    assert "--fixed-modality: found mri, expected ct, mr, t1" in ended.err
    ended = anamorph(*command, "--model", registrar)
    assert (ended.code, ended.err.partition(":")[0]) == (3, "E-MOD-005")
    assert "did you mean mr?" in ended.err


def test_pickled_weights_end_with_6(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "weights.pt").write_bytes(b"\x80\x02}q\x00.")
    ended = anamorph("register", pair.fixed, pair.moving, "--model", tmp_path / "weights.pt", "--out", tmp_path / "r")
    assert (ended.code, ended.err.partition(":")[0]) == (6, "E-MOD-001")
