"""An atlas whose maps are known: read back, carried, and refused where something is missing or does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.files import read, write
from anamorph.data.image import Image
from anamorph.errors import InputError
from anamorph.inference.atlas_folder import Atlas, AtlasCard, CaseFacts, RoundFacts, files_of, read_atlas, write_atlas
from anamorph.inference.atlas_rounds import RoundFolder, read_map, write_map
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Velocity

GRID = Grid((5, 6), np.array([[1 / 3, 0, 10.1], [0, 0.7, -3], [0, 0, 1]]))
ROUND = RoundFacts(
    number=2, kind="deformable", cases=2, change=0.1, deformation_mm=1.0, mean_deformation_mm=0.1, sharpness=0.2,
    relative_sharpness=0.9,
)  # fmt: skip


def shift(*mm: float) -> Affine:
    matrix = np.eye(len(mm) + 1)
    matrix[:-1, -1] = mm
    return Affine(matrix)


def case(name: str) -> CaseFacts:
    return CaseFacts(case=name, similarity=0.9, deformation_mm=1.0, z_dissimilarity=0.0, z_deformation=0.0)


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    """Two cases, shifted by 3 and 5 mm; their mean, 4 mm, was taken out in the second round."""
    card = AtlasCard(
        modality="mr", shape=GRID.shape, affine=tuple(map(tuple, GRID.affine.tolist())), labels={2: "two", -1: "minus"},
        labelled=2, rounds=(ROUND.model_copy(update={"number": 1}), ROUND), cases=(case("a_mr"), case("b_mr")),
    )  # fmt: skip
    soft = torch.full((3, *GRID.shape), 1 / 3)
    soft[1, 1:3, 1:3] = 0.5
    soft[2, 4] = 0.6
    found = Atlas(Image(torch.rand(1, *GRID.shape), GRID), card.labels, soft, tmp_path.name, card, None, tmp_path)
    write_atlas(found, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(files_of(found))
    files = RoundFolder(tmp_path, 2)
    write_map(files.map_file("a_mr"), shift(3.0, 0), grid=GRID.resized((7, 8)))
    write_map(files.map_file("b_mr"), shift(5.0, 0), grid=GRID)
    write_map(files.mean_file, shift(4.0, 0))
    return found


def test_labels_are_the_likeliest_the_lower_class_at_a_tie(atlas: Atlas) -> None:
    labels = atlas.labels()
    assert labels is not None
    expected = np.zeros(GRID.shape, int)
    expected[1:3, 1:3], expected[4] = 2, -1
    assert np.array_equal(labels.data.numpy(), expected)
    assert atlas.topology()[2].components == 1


def test_it_comes_back_with_every_digit_of_its_grid(atlas: Atlas, tmp_path: Path) -> None:
    found = read_atlas(tmp_path)
    assert np.array_equal(found.grid.affine, GRID.affine)
    assert torch.equal(found.image.data, atlas.image.data)
    assert found.probabilities is not None
    assert atlas.probabilities is not None
    assert torch.equal(found.probabilities, atlas.probabilities)
    assert list(found.names.items()) == [(2, "two"), (-1, "minus")]
    assert found.card == atlas.card


@pytest.mark.parametrize(("name", "expected"), [("a", -1.0), ("a_mr", -1.0), ("b", 1.0)])
def test_a_map_to_a_case_has_the_mean_taken_out(atlas: Atlas, tmp_path: Path, name: str, expected: float) -> None:
    to_case, grid = read_atlas(tmp_path).to_case(name)
    assert np.allclose(to_case(np.zeros((1, 2))), [[expected, 0]])
    assert grid.shape == ((7, 8) if name.startswith("a") else GRID.shape)


def test_maps_come_back_exactly(tmp_path: Path) -> None:
    values = torch.randn(2, 5, 6)
    given = Chain((Velocity(values, GRID, 4), shift(0.1, 1 / 3)))
    write_map(tmp_path / "deep" / "a.safetensors", given, "stamp", GRID)
    stored = read_map(tmp_path / "deep" / "a.safetensors", "stamp")
    assert stored is not None
    assert stored.grid is not None
    assert np.array_equal(stored.grid.affine, GRID.affine)
    points = GRID.to_world(np.array([[1.0, 2.0], [3, 3]]))
    assert np.array_equal(stored.transform(points), given(points))
    assert read_map(tmp_path / "deep" / "a.safetensors", "another") is None
    assert read_map(tmp_path / "absent") is None


def test_several_channels_are_several_files(atlas: Atlas, tmp_path: Path) -> None:
    image = Image(torch.stack([torch.zeros(5, 6), torch.ones(5, 6)]), GRID)
    (tmp_path / "two").mkdir()
    write_atlas(Atlas(image), tmp_path / "two")
    names = files_of(Atlas(image))
    assert (
        names
        == ["atlas_image_0.nii.gz", "atlas_image_1.nii.gz"]
        == sorted(f.name for f in (tmp_path / "two").iterdir())
    )
    assert float(read(tmp_path / "two" / names[1]).data.mean()) == 1


def test_what_is_missing_or_does_not_fit_is_refused(atlas: Atlas, tmp_path: Path) -> None:
    maps = RoundFolder(tmp_path, 2)
    maps.map_file("a_mr").write_bytes(maps.map_file("a_mr").read_bytes()[:40])
    with pytest.raises(InputError, match=r"E-ATL-005.*missing or damaged"):
        read_atlas(tmp_path).to_case("a")
    with pytest.raises(InputError, match=r"E-ATL-005.*no case 'c'.*a_mr, b_mr"):
        read_atlas(tmp_path).to_case("c")
    write(Image(atlas.image.data[:, 1:], GRID.cropped((1, 0), (4, 6))), tmp_path / "atlas_image.nii.gz")
    with pytest.raises(InputError, match=r"E-ATL-001.*another grid"):
        read_atlas(tmp_path)
    card = tmp_path / "atlas.json"
    text = card.read_text()
    for broken in (text[:-30], text.replace('"version": 1', '"version": 2'), text.replace("0.9", "NaN", 1)):
        assert broken != text
        card.write_text(broken)
        with pytest.raises(InputError, match="E-ATL-001"):
            read_atlas(tmp_path)
