"""Every kind through every written format: the same values at the same places, and the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anamorph.data.files import atomic_write, label_dtype, read, read_labels, read_mask, write
from anamorph.data.image import Image, Labelmap, Mask
from anamorph.spatial.grid import Grid

NAMES = ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"]
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = TURN @ np.diag([0.6, 1.2, 3.0]), [10, -200, 37.5]
NOISE = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_image(name, tmp_path):
    image = Image.from_array(NOISE, AFFINE, "t1")
    write(image, tmp_path / name)
    again = read(tmp_path / name, modality="t1")
    assert again.data.equal(image.data)
    assert again.grid.same_as(image.grid)
    assert (again.name, again.modality) == (name, "t1")


@pytest.mark.parametrize("name", NAMES)
def test_labels(name, tmp_path):
    labels = Labelmap.from_array((NOISE * 1000).astype(np.int32), AFFINE)
    write(labels, tmp_path / name)
    again = read_labels(tmp_path / name)
    assert again.data.equal(labels.data)
    assert again.dtype == np.int32


@pytest.mark.parametrize("name", NAMES)
def test_mask(name, tmp_path):
    inside = torch.zeros(9, 8, 7, dtype=torch.bool)
    inside[2:7, 1:6, 2:5] = True
    mask = Mask(inside, Grid((9, 8, 7), AFFINE))
    write(mask, tmp_path / name)
    assert read_mask(tmp_path / name, mask.grid).data.equal(inside)


@pytest.mark.parametrize("name", NAMES)
def test_2d(name, tmp_path):
    image = Image.from_array(NOISE[0], np.array([[0.5, 0, 3], [0, -2, 4], [0, 0, 1.0]]))
    write(image, tmp_path / name)
    again = read(tmp_path / name)
    assert again.data.equal(image.data)
    assert again.grid.same_as(image.grid)


@pytest.mark.parametrize("name", NAMES)
def test_same_item_same_bytes(name, tmp_path):
    image = Image.from_array(NOISE, AFFINE)
    (tmp_path / "later").mkdir()
    write(image, tmp_path / name)
    write(image, tmp_path / "later" / name)
    assert (tmp_path / name).read_bytes() == (tmp_path / "later" / name).read_bytes()


def test_several_channels_are_not_written_into_one_file(tmp_path):
    with pytest.raises(ValueError, match="E-OUT-005"):
        write(Image.from_array(np.zeros((2, 9, 8, 7)), AFFINE), tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


CHOSEN = [
    ([0, 255], "uint8", "uint8"),
    ([0, 256], "uint8", "int16"),
    ([0, 255], "float64", "uint8"),
    ([-1, 5], "float32", "int8"),
    ([0, 40000], "float32", "uint16"),
    ([-1, 40000], "uint16", "int32"),
    ([0, 3_000_000_000], "int32", "uint32"),
    ([-1, 3_000_000_000], "int32", "int64"),
    ([0, 1], "bool", "uint8"),
    ([0, 1], "int64", "int64"),
]


@pytest.mark.parametrize(("values", "wanted", "chosen"), CHOSEN)
def test_type_of_written_labels(values, wanted, chosen):
    assert label_dtype(np.array(values), np.dtype(wanted)) == chosen


def test_nothing_is_there_before_all_of_it_is(tmp_path):
    with atomic_write(tmp_path / "table.csv") as part:
        part.write_text("new")
        assert part.parent == tmp_path
        assert not (tmp_path / "table.csv").exists()
    assert (tmp_path / "table.csv").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1
