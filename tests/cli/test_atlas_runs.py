"""``anamorph atlas``: built, shown and exported in process, from a cohort and from a model that holds an atlas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import write_cohort
from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.landmark_files import read_landmarks, write_landmarks
from anamorph.data.mesh_files import read_mesh
from anamorph.data.plan import Intensity, Plan
from anamorph.data.transform_files import read_transform
from anamorph.inference.model_folder import domain_of, write_model
from anamorph.methods import METHODS
from anamorph.methods.base import Method, MethodSettings

Run = Callable[..., Any]
FAST = ("--iterations", "1", "--search", "header", "--linear-similarity", "mse", "--threads", "1")
CASES = ("a", "b", "c")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three balls with a core, of unlike sizes and places, and one file that is no image."""
    folder = tmp_path_factory.mktemp("balls")
    nodes = np.stack(np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij"), -1)
    scans = []
    for number, case in enumerate(CASES):
        radius = np.linalg.norm(nodes - [7.5, 7.5 + 0.7 * number, 7.5], axis=-1) / (1 + 0.07 * number)
        labels = np.where(radius < 2.4, 2, np.where(radius < 5, 1, 0)).astype(np.uint8)
        write(
            Image.from_array(40.0 * labels + 3 * np.cos(nodes[..., 0]), np.diag([2.0, 2, 2, 1])),
            folder / f"{case}.nii.gz",
        )
        write(Labelmap.from_array(labels, np.diag([2.0, 2, 2, 1])), folder / f"{case}_labels.nii.gz")
        scans.append(Scan(case, "mr", folder / f"{case}.nii.gz", folder / f"{case}_labels.nii.gz"))
    (folder / "d.nii.gz").write_bytes(b"nothing")
    write_cohort(Cohort(folder, (*scans, Scan("d", "mr", folder / "d.nii.gz"))), folder)
    return folder


@pytest.fixture(scope="module")
def built(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from anamorph.cli.main import main

    out = tmp_path_factory.mktemp("atlas") / "balls"
    assert main(["atlas", "build", str(cohort), "--out", str(out), "--quiet", *FAST]) == 0
    return out


def test_a_build_leaves_its_files_and_names_what_it_left_out(built: Path, anamorph: Run, cohort: Path) -> None:
    labels = read_labels(built / "atlas_labels.nii.gz")
    assert labels.values() == [0, 1, 2]
    layers = [read(built / f"atlas_probabilities_{value}.nii.gz").data for value in (0, 1, 2)]
    assert torch.allclose(torch.stack(layers).sum(0), torch.ones(1, 16, 16, 16), atol=1e-5)
    card = json.loads((built / "atlas.json").read_text())
    assert list(card["left_out"]) == ["d_mr"]
    record = json.loads((built / "run.json").read_text())
    assert record["status"] == "complete"
    assert {"atlas_image.nii.gz", "atlas_labels.nii.gz", "atlas_probabilities_2.nii.gz", "report.html"} <= {
        *record["outputs"]
    }
    assert any("W-ATL-001" in line for line in record["warnings"])
    assert (built / "report.html").read_text().count("<svg") > 3
    ended = anamorph("atlas", "build", cohort, "--out", built, *FAST)
    assert (ended.code, "E-OUT-016" in ended.err) == (2, True)


def test_a_build_into_its_cohort_is_refused(cohort: Path, anamorph: Run) -> None:
    before = sorted(cohort.iterdir())
    ended = anamorph("atlas", "build", cohort, "--out", cohort, *FAST)
    assert (ended.code, "E-OUT-004" in ended.err) == (2, True)
    assert sorted(cohort.iterdir()) == before


def test_show_tells_the_facts_and_writes_the_page(built: Path, anamorph: Run, tmp_path: Path) -> None:
    ended = anamorph("atlas", "show", built, "--out", tmp_path / "page")
    assert ended.code == 0
    assert "cases: 3" in ended.out
    assert "left out: d_mr" in ended.out
    assert "1: 1 piece, 0 tunnels, 1 cavity" in ended.out
    assert "d_mr" in (tmp_path / "page" / "report.html").read_text()


def test_export_into_the_space_of_a_case(built: Path, anamorph: Run, tmp_path: Path, cohort: Path) -> None:
    out = tmp_path / "out"
    points = Landmarks(np.array([[15.0, 16, 15], [20, 14, 12]]), ("one", "two"))
    write_landmarks(points, tmp_path / "points.csv")
    asked = ("--case", "b", "--landmarks", tmp_path / "points.csv", "--meshes")
    assert anamorph("atlas", "export", built, "--out", out, *asked).code == 0
    own, theirs = read_labels(out / "atlas_labels.nii.gz"), read_labels(cohort / "b_labels.nii.gz")
    assert own.grid.same_as(theirs.grid)
    overlap = ((own.data > 0) & (theirs.data > 0)).sum() * 2 / ((own.data > 0).sum() + (theirs.data > 0).sum())
    assert overlap > 0.9
    to_case, back = read_transform(out / "atlas_to_case.h5"), read_transform(out / "case_to_atlas.h5")
    assert np.allclose(back(to_case(points.points)), points.points, atol=1e-4)
    field = read_transform(out / "atlas_to_case.nii.gz")
    assert np.allclose(field(points.points), to_case(points.points), atol=1e-3)
    moved = read_landmarks(out / "landmarks.csv")
    assert moved.names == ("one", "two")
    assert np.allclose(moved.points, to_case(points.points))
    mesh = read_mesh(out / "mesh_2.vtk")
    assert np.abs(mesh.points.mean(0) - theirs.grid.to_world(np.argwhere(theirs.data.numpy() == 2)).mean(0)).max() < 1.5
    scores = (out / "scores.csv").read_text()
    assert "mice_mm" in scores
    assert "cavities" in scores
    ended = anamorph("atlas", "export", built, "--out", out, *asked)
    assert "E-OUT-016" in ended.err


def test_export_from_case_to_case(built: Path, anamorph: Run, tmp_path: Path) -> None:
    points = Landmarks(np.array([[15.0, 16, 15]]), ("one",))
    write_landmarks(points, tmp_path / "points.csv")
    asked = ("--case", "c_mr", "--from-case", "a", "--landmarks", tmp_path / "points.csv")
    assert anamorph("atlas", "export", built, "--out", tmp_path / "out", *asked).code == 0
    between = read_transform(tmp_path / "out" / "from_case_to_case.h5")
    assert np.allclose(read_landmarks(tmp_path / "out" / "landmarks.csv").points, between(points.points))
    # The cores lie 1.4 voxels apart along the second axis.
    assert between(points.points)[0, 1] - 16 == pytest.approx(2.8, abs=0.8)
    ended = anamorph("atlas", "export", built, "--case", "a", "z", "--out", tmp_path / "none")
    assert (ended.code, "E-ATL-005" in ended.err) == (3, True)
    assert not (tmp_path / "none").exists()


def test_several_cases_get_a_folder_each(built: Path, anamorph: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert anamorph("atlas", "export", built, "--out", out, "--case", "a", "c").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["a", "c", "run.json", "scores.csv"]
    own = [read_labels(out / case / "atlas_labels.nii.gz").data for case in "ac"]
    assert not torch.equal(*own)
    record = json.loads((out / "run.json").read_text())
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} - {"run.json"} == set(record["outputs"])
    rows = [line.split(",") for line in (out / "scores.csv").read_text().splitlines()]
    assert {row[0] for row in rows[1:]} == {"a", "c"}
    # An annulus about a core: what came of it has the atlas's topology.
    assert {float(row[5]) for row in rows if row[3] == "atlas_betti_error"} == {0.0}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("build", "x"), "needs --out"),
        (("export", "x", "--out", "y", "--iterations", "3"), "would do nothing"),
        (("build", "x", "--out", "y", "--meshes"), "would do nothing"),
        (("show", "x", "--device", "cpu"), "would do nothing in show"),
        (("export", "x", "--out", "y", "--surfaces", "a.vtk"), "go with --case"),
        (("show", "x", "--force"), "would do nothing"),
        (("export", "x", "--out", "y", "--from-case", "a"), "go with --case"),
        (("build", "x", "--out", "y", "--levels", "4", "--steps", "4", "5"), "levels and steps"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags: tuple[str, ...], told: str, anamorph: Run) -> None:
    ended = anamorph("atlas", *flags)
    assert ended.code == 2
    assert "E-CFG-010" in ended.err
    assert told in ended.err


class AtlasHolder(Method):
    """A method that holds an atlas and does nothing."""

    Settings = MethodSettings

    def __init__(self, settings: MethodSettings, domain: Any) -> None:
        super().__init__(settings, domain)
        self.gain = nn.Parameter(torch.ones(1))
        labels = torch.zeros(1, 1 + domain.classes, *domain.shape)
        labels[:, 0] = 1.0
        labels[0, :, 3:9, 3:9] = torch.tensor([0.2, 0.9]).view(2, 1, 1)
        self.register_buffer("atlas_labels", labels)
        self.register_buffer(
            "atlas_image", torch.arange(float(domain.shape[0])).view(1, 1, -1, 1).expand(1, 1, *domain.shape).clone()
        )

    def networks_of(self, player: str) -> list[nn.Module]:
        return []

    def terms(self, batch: Any, player: str) -> dict[str, torch.Tensor]:
        return {}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(METHODS, "holder", AtlasHolder)
    plan = Plan(
        spacing=(2.0, 3.0), shape=(12, 14), orientation="LA", modalities={"mr": Intensity()}, labels={5: "square"}
    )
    folder = tmp_path / "run" / "model"
    write_model(
        folder, AtlasHolder(MethodSettings(), domain_of(plan)), "holder", plan, facts={"trained": {"epochs": 3}}
    )
    return folder


def test_the_atlas_of_a_model(model: Path, anamorph: Run, tmp_path: Path) -> None:
    assert anamorph("atlas", "export", model, "--out", tmp_path / "out").code == 0
    image = read(tmp_path / "out" / "atlas_image.nii.gz")
    assert image.grid.shape == (12, 14)
    assert np.allclose(image.grid.centre, 0, atol=1e-4)
    assert np.allclose(np.diag(image.grid.affine)[:2], [-2, 3])
    assert float(image.data[0, 7, 0]) == 7
    assert read_labels(tmp_path / "out" / "atlas_labels.nii.gz").values() == [0, 5]
    soft = read(tmp_path / "out" / "atlas_probabilities_5.nii.gz").data
    assert float(soft[0, 4, 4]) == pytest.approx(0.9 / 1.1)
    ended = anamorph("atlas", "show", model.parent)
    assert ended.code == 0
    assert "a model of holder" in ended.out
    assert "square: 1 piece, 0 holes" in ended.out
    assert (model / "report.html").exists()
    refused = anamorph("atlas", "export", model, "--case", "a", "--out", tmp_path / "none")
    assert (refused.code, refused.err.partition(":")[0]) == (2, "E-ATL-010")  # it has no way to fit its atlas


def test_a_model_without_an_atlas(model: Path, anamorph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anamorph.inference.atlas_folder.LABELS", "nothing")
    ended = anamorph("atlas", "show", model)
    assert (ended.code, "E-ATL-003" in ended.err) == (3, True)
