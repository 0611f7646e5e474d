"""A model whose atlas is a ball, fitted to images of balls elsewhere: what lies on it comes to them, and from one to
the other."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from anamorph.cli.main import main
from anamorph.data.files import read_labels, write
from anamorph.data.image import Image, Landmarks
from anamorph.data.landmark_files import read_landmarks, write_landmarks
from anamorph.data.mesh_files import Mesh, read_mesh, write_mesh
from anamorph.data.plan import Intensity, Plan
from anamorph.data.transform_files import read_transform
from anamorph.errors import AnamorphWarning
from anamorph.evaluation.topology import topology
from anamorph.inference.atlas_folder import atlas_of, read_atlas
from anamorph.inference.correspondence import subject_of
from anamorph.inference.model_card import ModelCard
from anamorph.inference.model_folder import Model, domain_of, write_model
from anamorph.inference.warp import warp
from anamorph.methods import METHODS
from anamorph.methods.atlas_istn import AtlasISTN, RefinementSettings

SHAPE, SPACING, RADIUS = (16, 16, 16), 4.0, 15.0
"""Voxels of the network, mm, mm."""
SHIFTS = {"a": np.array([6.0, -3.0, 2.0]), "b": np.array([-5.0, 4.0, 4.0])}
"""How far the middle of a case's ball lies from that of its image, mm."""
POINTS = Landmarks(np.array([[0.0, 0, 0], [8, 8, -8]]), ("middle", "off"))


class Threshold(nn.Module):
    """Grey g -> 1 - g for the background and g for the class."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 - image, image], 1)


class Centroids(nn.Module):
    """Moves the atlas's centre of mass to the case's, after a deformation that vanishes there and at the edge."""

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SHAPE], indexing="ij"))
        case, atlas = (
            (part[:, None] * places).flatten(2).sum(2) / part.flatten(1).sum(1)[:, None] for part in seen.unbind(1)
        )
        shift = case - atlas
        waves = torch.sin(2 * torch.pi * (torch.arange(8) + 0.5) / 8)
        velocity = 0.1 * shift[:, :, None, None, None] * torch.einsum("i,j,k->ijk", waves, waves, waves)
        still = torch.zeros(len(seen), 6)
        return velocity, torch.cat([torch.atanh(2 * shift / torch.tensor(SHAPE)), still], 1)


def ball(shape: tuple[int, ...], spacing: float, centre: np.ndarray) -> np.ndarray:
    """1 within the radius of a point, as seen from the middle of the image."""
    places = np.stack(np.meshgrid(*(spacing * (np.arange(n) - (n - 1) / 2) for n in shape), indexing="ij"), -1)
    return (np.linalg.norm(places - centre, axis=-1) < RADIUS).astype(np.uint8)


def plan_of_balls() -> Plan:
    return Plan(
        orientation="RAS",
        spacing=(SPACING,) * 3,
        shape=SHAPE,
        modalities={"mr": Intensity(kind="window", low=0, high=100)},
        labels={7: "ball"},
    )


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One whose networks are set by hand; its own answer is that of the segmentation network."""
    kind, plan = METHODS["atlas-istn"], plan_of_balls()

    class ByHand(kind):
        def __init__(self, settings: Any, domain: Any) -> None:
            super().__init__(settings, domain)
            self.image_transformer = Threshold()
            self.spatial_transformer = Centroids()

    monkeypatch.setitem(METHODS, "atlas-istn", ByHand)
    method = ByHand(kind.Settings(affine_from_epoch=0, test="one_pass"), domain_of(plan))
    atlas = torch.from_numpy(ball(SHAPE, SPACING, np.zeros(3))).float()
    method.atlas_labels.copy_(torch.stack([1 - atlas, atlas])[None])
    method.atlas_image.copy_(atlas[None, None])
    write_model(tmp_path / "balls" / "model", method, "atlas-istn", plan, facts={"modality": "mr"})
    return tmp_path / "balls" / "model"


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Two images on a finer grid than the network's, far apart in the world."""
    files = {}
    for case, shift in SHIFTS.items():
        affine = np.diag([3.0, 3, 3, 1])
        affine[:3, 3] = middle(case) - 3.0 * (np.array([24, 22, 22]) - 1) / 2
        files[case] = tmp_path / f"{case}.scan.nii.gz"
        write(Image.from_array(100.0 * ball((24, 22, 22), 3.0, shift), affine), files[case])
    return files


def middle(case: str) -> np.ndarray:
    """Of a case's image in the world."""
    return np.array([0.0, 0, 0]) if case == "a" else np.array([300.0, -200, 100])


def exported(*words: object) -> None:
    assert main(["atlas", "export", *map(str, words), "--quiet"]) == 0


def test_what_lies_on_the_atlas_comes_to_each_image(model: Path, images: dict[str, Path], tmp_path: Path) -> None:
    write_landmarks(POINTS, tmp_path / "points.csv")
    square = Mesh(np.array([[0.0, 0, 0], [8, 0, 0], [0, 8, 0]]), np.array([[0, 1, 2]]))
    write_mesh(square, tmp_path / "patch.vtk")
    given = ("--landmarks", tmp_path / "points.csv", "--surfaces", tmp_path / "patch.vtk", "--meshes")
    out = tmp_path / "out"
    exported(model, "--case", *images.values(), *given, "--out", out)
    exported(model, "--meshes", "--out", tmp_path / "own")
    own_mesh = read_mesh(tmp_path / "own" / "mesh_7.vtk")
    for case, image in images.items():
        folder, shift = out / f"{case}.scan", middle(case) + SHIFTS[case]
        truth, own = read_labels(image).data.numpy() > 50, read_labels(folder / "atlas_labels.nii.gz")
        found = own.data.numpy() == 7
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.9
        moved = read_landmarks(folder / "landmarks.csv")
        assert moved.names == POINTS.names
        assert np.linalg.norm(moved.points[0] - shift) < 0.3  # mm: the centre of mass is that of voxels
        to_case = read_transform(folder / "atlas_to_case.h5")
        assert np.allclose(to_case(POINTS.points), moved.points)
        assert np.allclose(read_mesh(folder / "patch.vtk").points, to_case(square.points))
        mesh = read_mesh(folder / "mesh_7.vtk")
        assert np.allclose(mesh.points, to_case(own_mesh.points), atol=1e-4)
        assert mesh.volume_mm3 == pytest.approx(own_mesh.volume_mm3, rel=0.05)
    with (out / "scores.csv").open() as file:
        rows = {(row["case"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}
    for case in images:
        assert rows[f"{case}.scan", "components"] == 1
        assert rows[f"{case}.scan", "atlas_betti_error"] == 0
        assert rows[f"{case}.scan", "mice_voxels"] < 0.1
        assert rows[f"{case}.scan", "ic_dice_mean"] > 0.95
    assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_from_image_to_image_and_back(model: Path, images: dict[str, Path], tmp_path: Path) -> None:
    """Equations 22 and 23, as files that ITK reads."""
    on_a = Landmarks(POINTS.points + middle("a") + SHIFTS["a"], POINTS.names)
    write_landmarks(on_a, tmp_path / "a.csv")
    given = ("--case", images["b"], "--from-case", images["a"], "--landmarks", tmp_path / "a.csv")
    exported(model, *given, "--out", tmp_path / "out")
    on_b = read_landmarks(tmp_path / "out" / "landmarks.csv").points
    assert np.linalg.norm(on_b[0] - middle("b") - SHIFTS["b"]) < 0.5
    assert np.linalg.norm(on_b[1] - on_b[0] - POINTS.points[1]) > 0.1  # it is no shift
    back = read_transform(tmp_path / "out" / "case_to_from_case.h5")
    assert np.abs(back(on_b) - on_a.points).max() < 0.05
    with pytest.warns(AnamorphWarning, match="W-TRF-006"):  # the image is larger than what the network sees
        pulled = warp(read_labels(images["a"]), back, read_labels(images["b"]).grid).data.numpy() > 50
    truth = read_labels(images["b"]).data.numpy() > 50
    assert 2 * (pulled & truth).sum() / (pulled.sum() + truth.sum()) > 0.9  # labels of a where b has its own
    for name, start, end in (("from_case_to_case", on_a.points, on_b), ("case_to_from_case", on_b, back(on_b))):
        theirs = sitk.ReadTransform(str(tmp_path / "out" / f"{name}.h5"))
        flip = np.array([-1.0, -1, 1])  # RAS and LPS
        found = np.array([theirs.TransformPoint((flip * point).tolist()) for point in start]) * flip
        assert np.allclose(found, end, atol=1e-3)


def test_a_subject_in_python(model: Path, images: dict[str, Path]) -> None:
    found = subject_of(read_atlas(model), str(images["a"]))
    assert found.name == "a.scan"
    assert found.grid.same_as(read_labels(images["a"]).grid)
    assert found.labels is not None
    assert found.labels.names == {7: "ball"}


def test_a_model_that_answers_by_its_network_answers_by_its_atlas_here(images: dict[str, Path]) -> None:
    kind, plan = AtlasISTN, plan_of_balls()
    settings = kind.Settings(
        channels=(2, 2), stn_channels=(2, 2), test="itn", refinement=RefinementSettings(iterations=0)
    )
    torch.manual_seed(0)
    method = kind(settings, domain_of(plan)).eval().requires_grad_(False)
    method.atlas_labels[:, 0] = 1.0
    method.atlas_labels[:, :, 4:12, 4:12, 4:12] = torch.tensor([0.0, 1.0])[:, None, None, None]
    card = ModelCard(version=1, method="atlas-istn", settings={}, plan=plan, environment={}, weights_sha256="0" * 64)
    atlas = atlas_of(Model(method, card, torch.device("cpu")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        found = subject_of(atlas, str(images["a"]))
    assert found.labels is not None
    assert topology(found.labels.data.numpy() == 7).components == 1  # the atlas's one, whatever the network says
    assert method.chosen.test == "itn"
