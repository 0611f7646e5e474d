"""What is wrong with an atlas, its cases, or what is to be carried by it; rows of the fault catalogue end names."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.cli.main import main
from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import write_cohort
from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.landmark_files import write_landmarks
from anamorph.data.plan import Intensity, Plan
from anamorph.errors import AnamorphWarning
from anamorph.inference.atlas import build_atlas
from anamorph.inference.atlas_cases import scans_of
from anamorph.inference.atlas_folder import Atlas, AtlasCard, CaseFacts, RoundFacts, read_atlas, write_atlas
from anamorph.inference.atlas_rounds import RoundFolder, write_map
from anamorph.inference.correspondence import meshes_of, subject_of
from anamorph.inference.model_folder import domain_of, read_model, write_model
from anamorph.methods import METHODS
from anamorph.pairwise.groupwise_settings import GroupwiseSettings
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine

Refuses = Callable[..., Any]
GRID = Grid.from_spacing((12, 12), 2.0)
QUICK = GroupwiseSettings(
    iterations=1, transform="rigid", search="header", similarity="mse", linear_similarity="mse", blur=0.0
)  # fmt: skip


def disc(shape: tuple[int, ...] = (12, 12), radius: float = 4.0) -> np.ndarray:
    nodes = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"))
    return (np.linalg.norm(nodes, axis=0) < radius).astype(np.uint8)


def scan_of(folder: Path, name: str, labels: np.ndarray | None = None, shape: tuple[int, ...] = (12, 12)) -> Scan:
    affine = np.diag([*[2.0] * len(shape), 1.0])
    write(Image.from_array(100.0 * disc(shape), affine), folder / f"{name}.nii.gz")
    scan = Scan(name, "mr", folder / f"{name}.nii.gz")
    if labels is None:
        return scan
    write(Labelmap.from_array(labels, affine), folder / f"{name}_labels.nii.gz")
    return replace(scan, labels=folder / f"{name}_labels.nii.gz")


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """A healthy one of two cases."""
    folder = tmp_path / "atlas"
    folder.mkdir()
    rounds = RoundFacts(
        number=1, kind="affine", cases=2, change=0.1, deformation_mm=0.0, mean_deformation_mm=0.0, sharpness=0.2,
        relative_sharpness=0.9,
    )  # fmt: skip
    cases = tuple(
        CaseFacts(case=f"{name}_mr", similarity=0.9, deformation_mm=0.0, z_dissimilarity=0.0, z_deformation=0.0)
        for name in "ab"
    )
    card = AtlasCard(
        modality="mr", shape=GRID.shape, affine=tuple(map(tuple, GRID.affine.tolist())), labels={1: "disc"},
        labelled=2, rounds=(rounds,), cases=cases,
    )  # fmt: skip
    shape = torch.from_numpy(disc()).float()
    soft = torch.stack([1 - shape, shape])
    write_atlas(Atlas(Image(shape[None], GRID), card.labels, soft, "atlas", card, None, folder), folder)
    files = RoundFolder(folder, 1)
    for name in "ab":
        write_map(files.map_file(f"{name}_mr"), Affine.identity(2), grid=GRID)
    write_map(files.mean_file, Affine.identity(2))
    read_atlas(folder).to_case("a")
    return folder


def other_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "atlas.json").read_text())
    (folder / "atlas.json").write_text(json.dumps(card | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def elsewhere(path: Path) -> None:
    affine = GRID.affine.copy()
    affine[0, 2] += 5.0
    write(Image(torch.zeros(1, *GRID.shape), Grid(GRID.shape, affine)), path)


@pytest.mark.parametrize(
    ("damage", "code", "told"),
    [
        pytest.param(lambda f: (f / "atlas.json").unlink(), "E-ATL-001", "no atlas.*atlas build", id="no-card"),
        pytest.param(lambda f: cut(f / "atlas.json"), "E-ATL-001", "atlas.json: ", id="card-cut"),
        pytest.param(lambda f: other_card(f, version=9), "E-ATL-001", "atlas.json: version", id="card-version"),
        pytest.param(lambda f: other_card(f, affine=[[0.0] * 3] * 3), "E-ATL-001", "atlas.json: ", id="card-affine"),
        pytest.param(lambda f: other_card(f, shape=[12, 12, 12]), "E-ATL-001", "atlas.json: ", id="card-shape"),
        pytest.param(lambda f: (f / "atlas_image.nii.gz").unlink(), "E-IO-001", "atlas_image.nii.gz", id="no-image"),
        pytest.param(lambda f: cut(f / "atlas_image.nii.gz"), "E-NII-006", "atlas_image.nii.gz", id="image-cut"),
        pytest.param(lambda f: elsewhere(f / "atlas_image.nii.gz"), "E-ATL-001", "another grid", id="image-elsewhere"),
        pytest.param(
            lambda f: (f / "atlas_probabilities_1.nii.gz").unlink(), "E-IO-001", "probabilities_1", id="no-label"
        ),
        pytest.param(
            lambda f: elsewhere(f / "atlas_probabilities_0.nii.gz"), "E-ATL-001", "another grid", id="label-elsewhere"
        ),
        pytest.param(lambda f: other_card(f, labels={1: "disc", 4: "x"}), "E-IO-001", "probabilities_4", id="label-4"),
    ],
)
def test_a_damaged_atlas_is_refused(
    damage: Callable[[Path], Any], code: str, told: str, atlas: Path, tmp_path: Path, refuses: Refuses
) -> None:
    damage(atlas)
    with refuses(code, 3, tmp_path, match=told):
        read_atlas(atlas)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: RoundFolder(f, 1).map_file("b_mr").unlink(), id="no-map"),
        pytest.param(lambda f: cut(RoundFolder(f, 1).map_file("b_mr")), id="map-cut"),
        pytest.param(lambda f: RoundFolder(f, 1).mean_file.unlink(), id="no-mean"),
        pytest.param(lambda f: other_card(f, rounds=[]), id="no-rounds"),
    ],
)
def test_an_atlas_without_a_map_serves_for_all_but_that(
    damage: Callable[[Path], Any], atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(atlas)
    assert main(["atlas", "export", str(atlas), "--out", str(tmp_path / "own"), "--quiet"]) == 0
    assert main(["atlas", "export", str(atlas), "--case", "b", "--out", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert told.startswith("E-ATL-005: ")
    assert "map of b_mr is missing or damaged; build the atlas again" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--meshes",), "E-ATL-008", "leave out --meshes"),
        (("--case", "a", "a"), "E-ATL-011", "cases of one name"),
        (("--case", "a", "--modality", "mr"), "E-CFG-007", "--modality does nothing"),
        (("--case", "a", "--device", "cpu"), "E-CFG-007", "--device does nothing"),
        (("--case", "a", "--landmarks", "absent.csv"), "E-IO-001", "absent.csv"),
        (("--case", "a", "--from-case", "z"), "E-ATL-005", "no case 'z', expected a_mr, b_mr"),
    ],
)
def test_what_cannot_be_exported_leaves_no_folder(
    words: tuple[str, ...], code: str, told: str, atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["atlas", "export", str(atlas), *words, "--out", str(tmp_path / "out")]) in (2, 3)
    found = capsys.readouterr().err
    assert found.startswith(f"{code}: ")
    assert told in found
    assert found.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_landmark_outside_the_atlas_is_told_L20(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_landmarks(Landmarks(np.array([[4.0, 4], [90, 4]]), ("in", "off")), tmp_path / "points.csv")
    words = ["atlas", "export", str(atlas), "--case", "a", "--landmarks", str(tmp_path / "points.csv")]
    assert main([*words, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert capsys.readouterr().err.strip() == "W-LMK-020: points.csv: 1 of 2 lie outside the image: off"


def test_landmarks_of_another_dimension_are_refused_L20(
    atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_landmarks(Landmarks(np.array([[4.0, 4, 1]])), tmp_path / "points.csv")
    words = ["atlas", "export", str(atlas), "--case", "a", "--landmarks", str(tmp_path / "points.csv")]
    assert main([*words, "--out", str(tmp_path / "out")]) == 3
    assert "E-LMK-019: points.csv: 3-D points for a 2-D image" in capsys.readouterr().err


# -- models ------------------------------------------------------------------------------------------------------------


def model(folder: Path, method: str, shape: tuple[int, ...] = (16, 16)) -> Path:
    """An untrained one."""
    plan = Plan(
        orientation="RAS"[: len(shape)], spacing=(2.0,) * len(shape), shape=shape, modalities={"mr": Intensity()},
        labels={1: "disc", 2: "nowhere"},
    )  # fmt: skip
    kind = METHODS[method]
    write_model(folder, kind(kind.Settings(), domain_of(plan)), method, plan, facts={})
    return folder


def test_a_model_without_an_atlas_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    folder = model(tmp_path / "unet", "unet")
    with refuses("E-ATL-003", 3, tmp_path, match="a model of unet, which holds no atlas, expected one that learns"):
        read_atlas(folder)


def test_what_is_no_image_of_the_models_kind_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    atlas = read_atlas(model(tmp_path / "istn", "atlas-istn"))
    solid = scan_of(tmp_path, "solid", shape=(12, 12, 12)).image
    with refuses("E-MOD-005", 3, tmp_path, match=r"solid.nii.gz: a 3-D image, expected a 2-D one"):
        subject_of(atlas, str(solid))
    for absent in ("case7", str(tmp_path)):
        with refuses("E-ATL-005", 3, tmp_path, match=r"no file '.*', expected an image; a model knows no cases"):
            subject_of(atlas, absent)
    flat = scan_of(tmp_path, "flat").image
    write(Image.from_array(np.full((12, 12), 7.0), np.eye(3)), flat)
    with refuses("E-VAL-004", 5, tmp_path, match="no contrast"):
        subject_of(atlas, str(flat))
    disc_image = str(scan_of(tmp_path, "disc").image)
    with refuses("E-MOD-005", 3, tmp_path, match="modality ct"):
        subject_of(atlas, disc_image, modality="ct")


def test_two_images_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model(tmp_path / "istn", "atlas-istn")
    for name in "ab":
        (tmp_path / name).mkdir()
        scan_of(tmp_path / name, "scan")
    images = [str(tmp_path / name / "scan.nii.gz") for name in "ab"]
    assert main(["atlas", "export", str(folder), "--case", *images, "--out", str(tmp_path / "out")]) == 2
    assert "E-ATL-011: cases of one name, whose files would be one: scan" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_label_that_is_nowhere_in_the_atlas_has_no_surface_L11(tmp_path: Path) -> None:
    folder = model(tmp_path / "istn", "atlas-istn", (16, 16, 16))
    found = read_model(folder, "cpu")
    labels = found.method.state_dict()["atlas_labels"]
    labels[:, 0] = 1.0
    labels[:, 1, 4:9, 4:9, 4:9] = 2.0
    labels[:, 2, 5:8, 5:8, 5:8] = 1.5
    write_model(folder, found.method, "atlas-istn", found.card.plan, facts={})
    labelmap = read_atlas(folder).labels()
    assert labelmap is not None
    with pytest.warns(AnamorphWarning, match=r"W-ATL-003: no voxel of the atlas has nowhere \(2\)"):
        assert [value for value, _ in meshes_of(labelmap)] == [1]


# -- cases -------------------------------------------------------------------------------------------------------------


def test_one_case_is_no_group_P04(tmp_path: Path, refuses: Refuses) -> None:
    cohort = Cohort(tmp_path, (scan_of(tmp_path, "a"),))
    with refuses("E-ATL-002", 3, tmp_path, match="1 usable case, expected at least 2"):
        scans_of(cohort, "train", None)
    with refuses("E-ATL-002", 3, tmp_path, match="0 usable cases"):
        scans_of(cohort, "test", None)


def test_one_case_that_can_be_read_is_no_group_either_P01(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    scans = [scan_of(tmp_path / "in", "a"), scan_of(tmp_path / "in", "b")]
    cut(scans[1].image)
    write_cohort(Cohort(tmp_path / "in", tuple(scans)), tmp_path / "in")
    assert main(["atlas", "build", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--quiet"]) == 3
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("W-ATL-001: b_mr is left out: E-NII-0")
    assert told[-1].startswith("E-ATL-002: 1 usable case; b_mr: E-NII-0")
    assert len(told) == 2


def test_flat_cases_among_solid_ones_are_left_out(tmp_path: Path) -> None:
    scans = [*(scan_of(tmp_path, name, shape=(8, 8, 8)) for name in "ab"), scan_of(tmp_path, "flat")]
    with pytest.warns(AnamorphWarning, match="W-ATL-001: flat_mr is left out: 2-D, 2 cases are 3-D"):
        found = build_atlas(scans, tmp_path / "out", QUICK)
    assert found.grid.ndim == 3
    assert found.card is not None
    assert list(found.card.left_out) == ["flat_mr"]


def test_labels_of_different_sets_are_joined_and_told_L10(tmp_path: Path) -> None:
    both, one = disc(), disc()
    both[4:8, 4:8] = 5
    scans = [scan_of(tmp_path, "a", both), scan_of(tmp_path, "b", both), scan_of(tmp_path, "c", one)]
    scans.append(scan_of(tmp_path, "d"))
    with pytest.warns(AnamorphWarning, match=r"W-ATL-002: not in every labelled case: core \(5\) in 2 of 3"):
        found = build_atlas(scans, tmp_path / "out", QUICK, names={5: "core"})
    assert list(found.names) == [1, 5]
    assert found.probabilities is not None
    assert float(found.probabilities[2, 5, 5]) == pytest.approx(2 / 3, abs=0.05)
    assert found.card is not None
    assert found.card.labelled == 3


def test_cases_without_labels_make_an_atlas_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = build_atlas([scan_of(tmp_path, name, shape=(8, 8, 8)) for name in "ab"], tmp_path / "out", QUICK)
    assert (found.labels(), found.topology(), found.names) == (None, {}, {})
    assert main(["atlas", "export", str(tmp_path / "out"), "--meshes", "--out", str(tmp_path / "own")]) == 2
    assert "E-ATL-009: out: meshes of an atlas without labels; leave out --meshes" in capsys.readouterr().err
    words = ["atlas", "export", str(tmp_path / "out"), "--case", "a", "--out", str(tmp_path / "own"), "--quiet"]
    assert main(words) == 0
    assert not list((tmp_path / "own").glob("*label*"))
    assert not (tmp_path / "own" / "scores.csv").exists()


def test_a_case_500_mm_off_is_brought_in_P12(tmp_path: Path) -> None:
    scans = [scan_of(tmp_path, name) for name in "abc"]
    affine = np.diag([2.0, 2.0, 1.0])
    affine[0, 2] = 500.0
    write(Image.from_array(100.0 * disc(), affine), scans[2].image)
    found = build_atlas(scans, tmp_path / "out", QUICK.model_copy(update={"search": "auto"}))
    assert found.card is not None
    assert not found.card.left_out
    assert min(facts.similarity for facts in found.card.cases) > 0.95
    points = np.array([found.grid.centre])
    ends = [found.to_case(name)[0](points)[0] for name in "abc"]
    assert np.allclose(ends[2] - ends[0], [500.0, 0], atol=1.0)
