"""The letter B: as the images of the Atlas-ISTN paper are, and not to be had by a threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from scipy import ndimage

from anamorph.data.phantoms import PhantomScan, phantom
from anamorph.evaluation.overlap import dice

MEASURED = {
    # of the 1000 training shapes: mean and standard deviation, pixels and degrees
    "row": (65.94, 5.87),
    "column": (63.52, 5.97),
    "angle": (3.72, 15.05),
    "area": (2064.9, 240.3),
    "height": (79.63, 6.40),
    "width": (58.34, 6.69),
}
CASES = 150


def shape_of(letter: np.ndarray) -> dict[str, float]:
    """Statistics of a mask whose rows run downwards."""
    rows, columns = np.nonzero(letter)
    values, vectors = np.linalg.eigh(np.cov(np.stack([rows, columns])))
    along = vectors[:, np.argmax(values)]
    return {
        "row": float(rows.mean()),
        "column": float(columns.mean()),
        "angle": float((np.degrees(np.arctan2(along[1], along[0])) + 90) % 180 - 90),
        "area": float(len(rows)),
        "height": float(np.ptp(rows) + 1),
        "width": float(np.ptp(columns) + 1),
    }


def clutter_of(image: np.ndarray, letter: np.ndarray) -> tuple[list[float], float]:
    """Radii of bright blobs away from the letter, and the share of it that is as dark as the background."""
    smooth = ndimage.gaussian_filter(image.astype(float), 1.5)
    blobs, _ = ndimage.label((smooth > 127) & ~ndimage.binary_dilation(letter, iterations=3))
    areas = np.bincount(blobs.ravel())[1:]
    inner = ndimage.binary_erosion(letter, iterations=2)
    return [float(np.sqrt(area / np.pi)) for area in areas if area > 12], float((smooth[inner] < 123).mean())


def rows_of(scan: PhantomScan) -> tuple[np.ndarray, np.ndarray]:
    """Image and letter with rows downwards, as Pillow has them."""
    assert scan.labels is not None
    return scan.image.data[0].numpy().T, scan.labels.data.numpy().T > 0


@pytest.fixture(scope="module")
def clean() -> list[tuple[np.ndarray, np.ndarray]]:
    letters = phantom("letter_b", 0, {"truth": False})
    return [rows_of(letters.case(index).scans[0]) for index in range(CASES)]


@pytest.fixture(scope="module")
def corrupt() -> list[tuple[np.ndarray, np.ndarray]]:
    letters = phantom("letter_b", 0, {"corrupt": "all"})
    return [rows_of(letters.case(index).scans[0]) for index in range(60)]


@pytest.mark.parametrize("statistic", MEASURED)
def test_shapes_are_spread_like_those_of_the_paper(statistic: str, clean: list) -> None:
    found = np.array([shape_of(letter)[statistic] for _, letter in clean])
    mean, sd = MEASURED[statistic]
    assert abs(found.mean() - mean) < 4 * sd / np.sqrt(CASES)
    assert 0.8 * sd < found.std() < 1.25 * sd


def test_intensities_are_those_of_the_paper(clean: list) -> None:
    image, letter = (np.stack(arrays) for arrays in zip(*clean, strict=True))
    assert image.min() == 0
    np.testing.assert_array_equal(image, np.rint(image))
    for inside, mean in ((letter, 150), (~letter, 100)):
        assert image[inside].mean() == pytest.approx(mean, abs=0.3)
        assert image[inside].std() == pytest.approx(25, abs=0.3)
    corner = image[:, :10, :10] - 100
    assert abs((corner[:, 1:] * corner[:, :-1]).mean()) < 0.03 * 25**2  # neighbours know nothing of each other


def test_a_letter_is_whole_and_has_two_holes(clean: list) -> None:
    parts = [(ndimage.label(letter)[1], ndimage.label(~letter)[1]) for _, letter in clean]
    assert np.mean([part == (1, 3) for part in parts]) > 0.9
    assert not any(letter[[0, -1]].any() or letter[:, [0, -1]].any() for _, letter in clean)


def test_no_threshold_finds_the_letter(clean: list) -> None:
    for image, letter in clean[:20]:
        assert max(dice(image > level, letter) for level in range(90, 190, 4)) < 0.7


def test_corrupt_images_have_clutter_and_gaps_and_true_labels(clean: list, corrupt: list) -> None:
    assert not any(clutter_of(*pair)[0] for pair in clean[:30])
    found = [clutter_of(*pair) for pair in corrupt]
    numbers, radii = [len(blobs) for blobs, _ in found], [radius for blobs, _ in found for radius in blobs]
    assert 4 < np.mean(numbers) < 7.5  # the paper's: 5.1
    assert 4.5 < np.median(radii) < 6.5  # 5.5
    assert 0.03 < np.mean([erased for _, erased in found]) < 0.09  # 0.047
    for (_, letter), (_, same) in zip(clean, corrupt, strict=False):
        np.testing.assert_array_equal(letter, same)


def test_only_test_images_are_corrupt_where_that_is_asked() -> None:
    letters, plain = phantom("letter_b", 0, {"corrupt": "test"}), phantom("letter_b", 0)
    train, test = (letters.case(3, split).scans[0].image.data for split in ("train", "test"))
    assert (train == plain.case(3).scans[0].image.data).all()
    assert (train != test).any()


def test_landmarks_lie_on_strokes() -> None:
    letters = phantom("letter_b", 0)
    for index in range(10):
        scan = letters.case(index).scans[0]
        assert scan.labels is not None
        assert scan.landmarks is not None
        voxels = np.rint(scan.labels.grid.to_voxel(scan.landmarks.points)).astype(int)
        assert scan.labels.data.numpy()[tuple(voxels.T)].all()


@pytest.mark.parametrize("part", ["train", "test_corrupt"])
def test_the_papers_own_images_give_the_numbers_used_here(part: str, real_data: Path) -> None:
    files = sorted((real_data / "letter_b" / part).glob("*_seg.png"))
    if not files:
        pytest.skip("ANAMORPH_DATA has no letter_b")
    letters = [np.asarray(Picture.open(file)) > 127 for file in files]
    if part == "train":
        for statistic, (mean, sd) in MEASURED.items():
            found = np.array([shape_of(letter)[statistic] for letter in letters])
            assert (found.mean(), found.std()) == (pytest.approx(mean, rel=0.01), pytest.approx(sd, rel=0.01))
    else:
        images = [np.asarray(Picture.open(str(file).replace("_seg", "_img"))) for file in files]
        found = [clutter_of(image, letter) for image, letter in zip(images, letters, strict=True)]
        assert np.mean([len(blobs) for blobs, _ in found]) == pytest.approx(5.1, abs=0.1)
        assert np.median([radius for blobs, _ in found for radius in blobs]) == pytest.approx(5.5, abs=0.1)
        assert np.mean([erased for _, erased in found]) == pytest.approx(0.047, abs=0.002)
