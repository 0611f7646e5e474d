"""Greyscale pictures of every mode."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture

from anamorph.data.files import read, read_labels

GREY = np.arange(12 * 9, dtype=np.uint8).reshape(9, 12)


def saved(tmp_path, picture, name="slice.png", **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def palette():
    picture = Picture.fromarray(GREY).convert("P")
    picture.putpalette([value for value in range(256) for _ in range(3)])
    return picture


PICTURES = [
    (lambda: Picture.fromarray(GREY), GREY),
    (lambda: Picture.fromarray(GREY).convert("RGB"), GREY),
    (palette, GREY),
    (lambda: Picture.fromarray(GREY.astype(np.uint16) * 500), GREY.astype(np.float32) * 500),
    (lambda: Picture.fromarray(GREY > 50), GREY > 50),
]


@pytest.mark.parametrize(("make", "expected"), PICTURES, ids=["grey", "rgb", "palette", "16-bit", "1-bit"])
def test_columns_come_first(make, expected, tmp_path):
    with pytest.warns(match="W-FMT-010"):
        image = read(saved(tmp_path, make()))
    np.testing.assert_array_equal(image.data[0].numpy(), expected.T)
    np.testing.assert_array_equal(image.grid.spacing, [1, 1])


def test_float_tiff(tmp_path):
    with pytest.warns(match="W-FMT-010"):
        image = read(saved(tmp_path, Picture.fromarray(GREY.astype(np.float32) / 7), "slice.tif"))
    np.testing.assert_array_equal(image.data[0].numpy(), GREY.T.astype(np.float32) / np.float32(7))


def test_labels_of_a_picture(tmp_path):
    with pytest.warns(match="W-FMT-010"):
        labels = read_labels(saved(tmp_path, Picture.fromarray((GREY > 50).astype(np.uint8) * 255)))
    assert labels.values() == [0, 255]


def test_alpha_is_told(tmp_path):
    picture = Picture.fromarray(GREY)
    picture = Picture.merge("LA", (picture, Picture.new("L", picture.size, 128)))
    with pytest.warns(match="W-FMT-010"), pytest.warns(match="W-FMT-011"):
        read(saved(tmp_path, picture))


def test_pages_are_refused(tmp_path):
    pages = [Picture.fromarray(GREY), Picture.fromarray(GREY)]
    path = saved(tmp_path, pages[0], "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"E-GEO-017.* 2 pages"):
        read(path)
