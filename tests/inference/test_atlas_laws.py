"""An atlas does not depend on its cases' order or place, lies in their middle, and is built on where it stopped."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.files import read, write
from anamorph.data.image import Image, Labelmap
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError
from anamorph.inference import atlas as building
from anamorph.inference.atlas import build_atlas
from anamorph.inference.atlas_cases import scans_of
from anamorph.inference.atlas_folder import Atlas, evolution_of, read_atlas
from anamorph.pairwise.groupwise_settings import GroupwiseSettings
from anamorph.spatial.transform import Affine

SIZE = 32
QUICK = GroupwiseSettings(
    iterations=2, tolerance=0, search="header", similarity="mse", linear_similarity="mse", levels=(2,), steps=(15,),
    blur=1.0, control_spacing=3.0,
)  # fmt: skip
RADII = ((7, 9), (9, 7), (10, 10))


def cohort(folder: Path, shift: float = 0.0, labels: bool = True, ndim: int = 2) -> tuple[Scan, ...]:
    """Ellipses with a darker hole, of several radii and places."""
    folder.mkdir(parents=True, exist_ok=True)
    scans = []
    rng = np.random.default_rng(0)
    size = SIZE if ndim == 2 else 16
    nodes = np.stack(np.meshgrid(*[np.arange(size)] * ndim, indexing="ij")).astype(float)
    for number, radii in enumerate(RADII):
        centre = size / 2 + rng.uniform(-1.5, 1.5, ndim)
        radius = np.resize(radii, ndim) * size / SIZE
        away = np.linalg.norm((nodes - centre.reshape(-1, *[1] * ndim)) / radius.reshape(-1, *[1] * ndim), axis=0)
        values = np.where(away < 0.45, 60.0, np.where(away < 1, 100.0, 0.0)) + rng.normal(0, 2, away.shape)
        affine = np.diag([*[2.0] * ndim, 1.0])
        affine[:-1, -1] = shift
        name = f"c{number}"
        write(Image.from_array(values, affine), folder / f"{name}.nii.gz")
        scan = Scan(name, "mr", folder / f"{name}.nii.gz")
        if labels:
            ring = np.where(away < 0.45, 7, np.where(away < 1, 3, 0)).astype(np.uint8)
            write(Labelmap.from_array(ring, affine), folder / f"{name}_labels.nii.gz")
            scan = replace(scan, labels=folder / f"{name}_labels.nii.gz")
        scans.append(scan)
    return tuple(scans)


def built(scans: tuple[Scan, ...], out: Path, **changes: Any) -> Atlas:
    out.mkdir(exist_ok=True)
    return build_atlas(scans, out, QUICK.model_copy(update=changes), device="cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Scan, ...], Atlas]:
    root = tmp_path_factory.mktemp("atlas")
    scans = cohort(root / "scans")
    return scans, built(scans, root / "out")


def test_it_is_sharp_and_in_the_middle_of_its_cases(finished: tuple[tuple[Scan, ...], Atlas]) -> None:
    scans, atlas = finished
    card = atlas.card
    assert card is not None
    assert [row.kind for row in card.rounds] == ["affine", "deformable"]
    last = card.rounds[-1]
    assert last.cases == len(scans)
    assert last.mean_deformation_mm < 0.15 * last.deformation_mm
    assert last.relative_sharpness > 0.8
    assert min(row.similarity for row in card.cases) > 0.95
    found = {value: row for value, row in atlas.topology().items()}
    assert (found[3].components, found[3].tunnels) == (1, 1)
    assert (found[7].components, found[7].tunnels) == (1, 0)
    # Its size is the mean of the cases' (geometric, as scales have it), and it lies where they do on average.
    labels = atlas.labels()
    assert labels is not None
    areas = [int((read(scan.labels).data > 0).sum()) for scan in scans if scan.labels]
    assert int((labels.data > 0).sum()) == pytest.approx(np.exp(np.mean(np.log(areas))), rel=0.06)
    assert atlas.probabilities is not None
    assert torch.allclose(atlas.probabilities.sum(0), torch.ones(SIZE, SIZE), atol=1e-5)


def test_the_order_of_the_cases_changes_nothing(finished: tuple[tuple[Scan, ...], Atlas], tmp_path: Path) -> None:
    scans, atlas = finished
    again = built(scans[::-1], tmp_path / "again")
    assert float((again.image.data - atlas.image.data).abs().max()) < 1e-5
    assert again.grid.same_as(atlas.grid)


def test_cases_further_off_have_their_atlas_there(finished: tuple[tuple[Scan, ...], Atlas], tmp_path: Path) -> None:
    _, atlas = finished
    moved = built(cohort(tmp_path / "far", shift=64.0), tmp_path / "out")
    assert np.allclose(moved.grid.affine[:-1, -1] - atlas.grid.affine[:-1, -1], 64.0)
    assert float((moved.image.data - atlas.image.data).abs().mean()) < 1e-3


def test_a_folder_comes_back_as_it_was_and_knows_its_maps(finished: tuple[tuple[Scan, ...], Atlas]) -> None:
    scans, atlas = finished
    assert atlas.folder is not None
    found = read_atlas(atlas.folder)
    assert torch.equal(found.image.data, atlas.image.data)
    assert np.array_equal(found.grid.affine, atlas.grid.affine)
    assert found.card == atlas.card
    assert found.names == {3: "3", 7: "7"}
    assert [name for name, _ in evolution_of(found)] == ["start", "round 1", "round 2"]
    assert np.array_equal(evolution_of(found)[-1][1], atlas.image.data[0].numpy())
    maps = []
    for scan in scans:
        to_case, grid = found.to_case(scan.case)
        image = read(scan.image)
        assert grid.same_as(image.grid)
        maps.append(to_case)
        points = atlas.grid.to_world(np.array([[16.0, 16], [12, 20]]))
        assert np.abs(to_case.inverse()(to_case(points)) - points).max() < 0.05
    centre = atlas.grid.centre[None]
    mean = np.mean([to_case(centre)[0] - centre[0] for to_case in maps], axis=0)
    assert np.abs(mean).max() < 1.0  # mm, half a voxel
    with pytest.raises(InputError, match="E-ATL-005"):
        found.to_case("someone")
    with pytest.raises(InputError, match="E-ATL-005"):
        found.to_case("../c0")


def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = cohort(tmp_path / "scans", labels=False)
    asked: list[int] = []
    interrupted = True

    def counting(fixed: Image, moving: Image, **_: Any) -> Any:
        """Found at once: a shift that depends on both images."""
        asked.append(1)
        if interrupted and len(asked) == 5:  # in the second round
            raise KeyboardInterrupt
        shift = np.eye(3)
        shift[0, 2] = float(fixed.data.mean()) + 0.1 * float(moving.data.mean())
        return SimpleNamespace(transform=Affine(shift))

    def again(**changes: Any) -> Atlas:
        asked.clear()
        return built(scans, tmp_path / "out", transform="rigid", iterations=3, **changes)

    monkeypatch.setattr(building, "register", counting)
    with pytest.raises(KeyboardInterrupt):
        again()
    interrupted = False
    first = again()
    assert len(asked) == 9 - 4
    assert torch.equal(again().image.data, first.image.data)
    assert asked == []
    assert first.card is not None
    # A build that is to end sooner needs the maps of its last round, and so of those before it.
    asked.clear()
    sooner = built(scans, tmp_path / "out", transform="rigid", iterations=2)
    assert len(asked) == 6
    assert sooner.card is not None
    assert sooner.card.rounds == first.card.rounds[:2]
    # Other settings, or another file, are another atlas.
    again(blur=1.5)
    assert len(asked) == 9
    os.utime(scans[0].image, ns=(1, 1))
    again(blur=1.5)
    assert len(asked) == 9


def test_a_case_that_fails_is_left_out_by_name(tmp_path: Path) -> None:
    scans = cohort(tmp_path / "scans", labels=False)
    (tmp_path / "scans" / "c1.nii.gz").write_bytes(b"no image")
    flat = tmp_path / "scans" / "c3.nii.gz"
    write(Image.from_array(np.full((SIZE, SIZE), 5.0), np.eye(3)), flat)
    scans = (*scans, Scan("c3", "mr", flat))
    with pytest.warns(AnamorphWarning, match="W-ATL-001") as seen:
        atlas = built(scans, tmp_path / "out", iterations=1)
    assert len(seen) == 2
    assert atlas.card is not None
    assert list(atlas.card.left_out) == ["c1_mr", "c3_mr"]
    assert "E-VAL-004" in atlas.card.left_out["c3_mr"]
    assert [facts.case for facts in atlas.card.cases] == ["c0_mr", "c2_mr"]
    assert atlas.probabilities is None
    (tmp_path / "scans" / "c0.nii.gz").write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        with pytest.raises(InputError, match="E-ATL-002"):
            built(scans, tmp_path / "out", iterations=1)


def test_with_a_reference_the_atlas_lies_on_its_grid_and_keeps_its_size(tmp_path: Path) -> None:
    scans = cohort(tmp_path / "scans")
    large = read(scans[2].image)  # of the largest radii
    out = tmp_path / "out"
    out.mkdir()
    atlas = build_atlas(scans[:2], out, QUICK, reference=large, device="cpu")
    assert np.array_equal(atlas.grid.affine, large.grid.affine)
    labels, given = atlas.labels(), scans[2].labels
    assert labels is not None
    assert given is not None
    assert int((labels.data > 0).sum()) == pytest.approx(int((read(given).data > 0).sum()), rel=0.08)


def test_three_dimensions(tmp_path: Path) -> None:
    atlas = built(cohort(tmp_path / "scans", ndim=3), tmp_path / "out")
    assert atlas.grid.shape == (16, 16, 16)
    assert {value: row.components for value, row in atlas.topology().items()} == {3: 1, 7: 1}
    assert atlas.topology()[3].cavities == 1


def test_which_scans(tmp_path: Path) -> None:
    scans = cohort(tmp_path, labels=False)
    others = (replace(scans[0], modality="ct"), replace(scans[2], split="test"))
    mixed = Cohort(tmp_path, (*scans[:2], *others))
    assert scans_of(mixed, "train", "mr") == scans[:2]
    assert len(scans_of(mixed, None, "mr")) == 3
    with pytest.raises(ConfigurationError, match="E-ATL-006"):
        scans_of(mixed, None, None)
    with pytest.raises(ConfigurationError, match="E-ATL-006"):
        scans_of(mixed, None, "us")
    with pytest.raises(InputError, match="E-ATL-002"):
        scans_of(mixed, "train", "ct")


def test_a_folder_without_an_atlas(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E-ATL-001"):
        read_atlas(tmp_path)
    (tmp_path / "atlas.json").write_text('{"version": 1, "shape": [4, 4], "affine": [[1, 0], [0, 1]]}')
    with pytest.raises(InputError, match="E-ATL-001"):
        read_atlas(tmp_path)


def test_a_cropped_case_still_fills_the_common_grid(tmp_path: Path) -> None:
    scans = cohort(tmp_path / "scans", labels=False)
    image = read(scans[0].image)
    write(Image(image.data[:, 4:28], image.grid.cropped((4, 0), (24, 32))), scans[0].image)
    atlas = built(scans, tmp_path / "out", iterations=1)
    assert atlas.grid.shape == (SIZE, SIZE)
    assert np.allclose(atlas.grid.spacing, 2)
