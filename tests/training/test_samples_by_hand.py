"""Pictures: panels where they belong, labels outlined in colour, the grid pulled as the image is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from anamorph.training.samples import COLOURS, GAP, SIDE, TITLE, draw_sample


def drawn(sample: dict[str, Any], tmp_path: Path) -> np.ndarray:
    path = tmp_path / "epoch_0001.png"
    draw_sample({"name": "a", "epoch": 1, "spacing": (1.0,) * sample_ndim(sample), **sample}, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def sample_ndim(sample: dict[str, Any]) -> int:
    return next(iter(sample.values())).ndim - 1


def panel(pixels: np.ndarray, column: int, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    left, top = GAP + column * (width + GAP), 2 * TITLE
    return pixels[top : top + height, left : left + width]


def test_up_is_the_second_axis_and_left_the_first(tmp_path: Path) -> None:
    """As in all other pages: the patient's right is on the left."""
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 15:, 15:] = 1
    shown = panel(drawn({"image": image}, tmp_path), 0)
    assert shown[10, 10].min() > 200
    assert shown[-10, 10].max() < 50
    assert shown[10, -10].max() < 50


def test_labels_are_outlines_in_colours_of_their_own(tmp_path: Path) -> None:
    """Within them the image is what it is without."""
    image = np.tile(np.linspace(0, 1, 20, dtype=np.float32), (1, 20, 1))
    labels = np.zeros((1, 20, 20), np.int64)
    labels[0, :10, 8:12], labels[0, 10:, 8:12], labels[0, 3, 2] = 1, 2, 3
    pixels = drawn({"image": image, "labels": labels, "prediction": labels[0]}, tmp_path)
    plain, truth, found = (panel(pixels, column) for column in range(3))
    assert np.abs(plain[..., 0] - plain[..., 2]).max() == 0
    voxel, left, right = SIDE // 20, SIDE // 4, 3 * SIDE // 4
    top, bottom = 8 * voxel, 12 * voxel - 1
    for y in (top, bottom):
        assert tuple(truth[y, right]) == COLOURS[0]
        assert tuple(truth[y, left]) == COLOURS[1]
    assert np.array_equal(truth[top + 1 : bottom, left], plain[top + 1 : bottom, left])
    assert (truth == COLOURS[2]).all(-1).any()  # a single voxel
    assert np.array_equal(truth, found)


def test_every_image_of_a_pair_has_its_labels(tmp_path: Path) -> None:
    """A translated image those of what it was made of; the grid none."""
    names = ("fixed", "moving", "warped", "moving_translated", "fixed_translated")
    sample: dict[str, Any] = {name: np.zeros((1, 20, 20), np.float32) for name in names}
    for label, side in enumerate(("fixed", "moving", "warped"), 1):
        sample[f"{side}_labels"] = np.zeros((1, 20, 20), np.int64)
        sample[f"{side}_labels"][0, 5:15, 5:15] = label
    sample["displacement"] = np.zeros((2, 20, 20), np.float32)
    pixels = drawn(sample, tmp_path)
    shown = [
        {label for label in (1, 2, 3) if (panel(pixels, column) == COLOURS[label - 1]).all(-1).any()}
        for column in range(6)
    ]
    assert shown == [{1}, {2}, {3}, set(), {2}, {1}]


def test_a_pair_has_four_panels_and_three_dimensions_three_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {name: rng.random((1, 20, 16, 10)).astype(np.float32) for name in ("fixed", "moving", "warped")}
    pixels = drawn({**images, "displacement": np.zeros((3, 20, 16, 10), np.float32)}, tmp_path)
    heights = (160, 100, 100)
    assert pixels.shape[:2] == (2 * TITLE + GAP + sum(heights) + 3 * GAP, GAP + 4 * (SIDE + GAP))


def test_voxels_have_their_size_in_mm(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = np.zeros((1, 20, 20), np.float32)
    draw_sample({"name": "a", "epoch": 1, "spacing": (1.0, 2.0), "image": image}, path)
    with Image.open(path) as found:
        assert found.size == (GAP + 2 * (SIDE // 2 + GAP), 2 * TITLE + SIDE + 2 * GAP)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_lines_of_the_grid_move_with_the_image(tmp_path: Path, shift: float) -> None:
    """A line of the moving image at y stands in the warped one at x with x + u(x) = y."""
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32)[:, None], (1, 1, 40))
    displacement = np.zeros((2, 40, 40), np.float32)
    displacement[0] = shift
    pixels = drawn({"fixed": ramp, "moving": ramp, "warped": ramp, "displacement": displacement}, tmp_path)
    lines = panel(pixels, 3)[..., 0].mean(0)
    voxel = SIDE / 40
    line = 4 * 40 / 12  # the fourth one
    at = SIDE - round((line - shift + 0.5) * voxel)
    assert lines[at - 2 : at + 3].max() > 250
    assert lines[round(at + 1.5 * voxel)] < 120


def test_an_atlas_is_its_image_its_labels_and_their_share(tmp_path: Path) -> None:
    image = np.tile(np.linspace(0, 1, 20, dtype=np.float32), (1, 20, 1))
    labels, share = np.zeros((20, 20), np.int64), np.zeros((1, 20, 20), np.float32)
    labels[5:15, 5:15] = 1
    share[0, :10] = 1
    pixels = drawn({"template": image, "template_labels": labels, "foreground": share}, tmp_path)
    assert pixels.shape[1] == GAP + 3 * (SIDE + GAP)
    plain, coloured, foreground = (panel(pixels, column) for column in range(3))
    assert np.abs(plain[..., 0] - plain[..., 2]).max() == 0
    line = (coloured != plain).any(-1)
    assert (coloured[line] == COLOURS[0]).all()
    assert line.any(0).sum() == line.any(1).sum() == SIDE // 2
    assert not line[SIDE // 2, SIDE // 2]
    assert (foreground[:, : SIDE // 2 - 20] < 20).all()
    assert (foreground[:, SIDE // 2 + 20 :] > 235).all()


def test_translated_images_have_the_grey_values_of_the_side_that_they_are_to_look_like(tmp_path: Path) -> None:
    bright = np.tile(np.linspace(0, 1, 20, dtype=np.float32), (1, 20, 1))
    sides = {"fixed": bright, "moving": 4 * bright}
    pixels = drawn({**sides, "moving_translated": bright, "fixed_translated": bright}, tmp_path)
    assert pixels.shape[1] == GAP + 4 * (SIDE + GAP)
    fixed, _, moving_translated, fixed_translated = (panel(pixels, column)[:, SIDE // 2, 0] for column in range(4))
    assert np.array_equal(moving_translated, fixed)
    np.testing.assert_allclose(fixed_translated, fixed / 4, atol=3)


def titles(*words: str) -> np.ndarray:
    """The line of titles, of panels of the usual width."""
    line = Image.new("RGB", (GAP + len(words) * (SIDE + GAP), TITLE), (16, 16, 16))
    for place, word in enumerate(words):
        ImageDraw.Draw(line).text((GAP + place * (SIDE + GAP), 2), word, (255, 255, 255), ImageFont.load_default(12))
    return np.asarray(line).astype(int)


BY_SIDE = ("fixed", "moving", "warped", "deformation", "moving translated", "fixed translated")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            {"modalities": ("t1", "t2")},
            ("t1, fixed", "t2, moving", "t2, warped", "deformation", "t2 as t1", "t1 as t2"),
        ),
        ({"modalities": ("t1", "t1")}, BY_SIDE),
        ({"modalities": ("", "t2")}, BY_SIDE),
        ({}, BY_SIDE),
    ],
)
def test_images_of_two_modalities_are_called_by_them(extra: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    names = ("fixed", "moving", "warped", "moving_translated", "fixed_translated")
    sample: dict[str, Any] = {name: np.zeros((1, 20, 20), np.float32) for name in names}
    sample["displacement"] = np.zeros((2, 20, 20), np.float32)
    pixels = drawn({**sample, **extra}, tmp_path)
    assert np.array_equal(pixels[TITLE : 2 * TITLE], titles(*words))
