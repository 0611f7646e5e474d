"""A model that labels by grey value: what comes back on the image's own grid."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Scan
from anamorph.data.files import read, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.plan import Intensity, Plan
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError, NumericalError
from anamorph.inference.contenders import Segmenter, segmenting_model
from anamorph.inference.evaluate import evaluate_segmentation
from anamorph.inference.model_folder import Model
from anamorph.inference.segment import segment_with
from anamorph.spatial.grid import Grid

Trained = Callable[..., Model]
MakePlan = Callable[..., Plan]
LABELS = {70: "liver", 3: "spleen"}


def two_blocks(grid: Grid, name: str = "scan.nii.gz") -> tuple[Image, torch.Tensor]:
    """Two boxes along the world's axes, grey 1 (class 1, label 70) and grey 2 (class 2, label 3), and the labels.

    Where a face is nearer than 4 mm, greys mix; the labels say -1.
    """
    points = grid.to_world(grid.voxels())
    side = np.zeros(len(points))
    inside = (np.abs(points) < 14).all(axis=1)
    side[inside] = np.where(points[inside, 0] < 0, 1, 2)
    grey = torch.from_numpy(side.reshape(grid.shape)).float()
    near = (np.abs(np.abs(points) - 14) < 4).any(axis=1) | (np.abs(points[:, 0]) < 4)
    truth = torch.tensor([0, 70, 3])[grey.long()]
    truth[torch.from_numpy(near.reshape(grid.shape))] = -1
    return Image(grey[None], grid, name=name), truth


def centred(shape: tuple[int, ...], axes: np.ndarray) -> Grid:
    affine = np.eye(len(shape) + 1)
    affine[:-1, :-1] = axes
    affine[:-1, -1] = -axes @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


ORIENTED = [
    np.eye(3)[:, list(order)] * np.array(signs)
    for order, signs in zip(permutations(range(3)), product((1, -1), repeat=3), strict=False)
]


@pytest.mark.parametrize("axes", ORIENTED, ids=range(len(ORIENTED)))
def test_labels_have_the_files_values_on_the_files_grid(axes: np.ndarray, trained: Trained, plan: MakePlan) -> None:
    """Along all of six orders of axes, flipped in six ways, and with voxels of three lengths."""
    grid = centred((15, 21, 12), axes @ np.diag([2.9, 2.1, 3.8]))
    image, truth = two_blocks(grid)
    model = trained("threshold", plan(labels=LABELS, spacing=(2.5, 2.5, 2.5), shape=(24, 24, 24)))
    found = segment_with(model, image)
    assert found.labels.grid is grid
    assert found.labels.values() == [0, 3, 70]
    assert dict(found.labels.names) == LABELS
    assert found.labels.dtype == np.uint8
    assert {*truth.unique().tolist()} == {-1, 0, 3, 70}
    assert torch.equal(found.labels.data[truth >= 0], truth[truth >= 0].int())
    assert found.volumes()[70] == pytest.approx(int((found.labels.data == 70).sum()) * 2.9 * 2.1 * 3.8)
    assert set(found.seconds) == {"normalise", "network", "labels"}


def test_an_oblique_slice_in_two_dimensions(trained: Trained, plan: MakePlan) -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    grid = centred((24, 31), np.array([[c, -s], [s, c]]) @ np.diag([1.9, -1.4]))
    image, truth = two_blocks(grid)
    model = trained("threshold", plan(labels=LABELS, orientation="AL", spacing=(1.5, 1.5), shape=(32, 32)))
    found = segment_with(model, image, probabilities=True)
    assert torch.equal(found.labels.data[truth >= 0], truth[truth >= 0].int())
    assert found.probabilities is not None
    assert tuple(found.probabilities.shape) == (3, *grid.shape)
    assert set(found.volumes()) == {70, 3}


def test_beyond_the_networks_view_is_background(trained: Trained, plan: MakePlan) -> None:
    image, _ = two_blocks(centred((30, 30, 30), np.eye(3) * 3.0))
    model = trained("threshold", plan(labels=LABELS, spacing=(3.0,) * 3, shape=(8, 8, 8)))
    with pytest.warns(AnamorphWarning) as told:
        found = segment_with(model, image, probabilities=True)
    assert [str(warning.message)[:9] for warning in told] == ["W-MOD-012", "W-MOD-016"]
    assert "liver (70), spleen (3) reach the edge" in str(told[1].message)
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities.sum(0), torch.ones(30, 30, 30))
    assert float(found.probabilities[0, 0, 0, 0]) == 1
    assert int((found.labels.data > 0).sum()) == 8**3


def test_the_edge_of_the_image_itself_cuts_nothing(trained: Trained, plan: MakePlan) -> None:
    image, _ = two_blocks(centred((8, 8, 8), np.eye(3) * 3.0))
    segment_with(trained("threshold", plan(labels=LABELS, spacing=(3.0,) * 3, shape=(10, 8, 8))), image)


def test_the_method_is_told_the_modality(trained: Trained, plan: MakePlan) -> None:
    image, _ = two_blocks(centred((16, 14, 12), np.diag([3.0, 3.0, 4.0])))
    two = {"t1": Intensity(kind="none"), "t2": Intensity(kind="none")}
    model = trained("threshold", plan(labels=LABELS, modalities=two))
    with pytest.raises(ConfigurationError, match=r"E-MOD-010: .*the modality of the image is open, .*--modality"):
        segment_with(model, image)
    segment_with(model, Image(image.data, image.grid, "t2"))
    assert model.method.modality == "t2"  # type: ignore[attr-defined]
    only = trained("threshold", plan(labels=LABELS, modalities=two), {"modality": "t1"})
    assert segment_with(only, image).image.modality == "t1"
    with pytest.raises(InputError, match=r"E-MOD-005: modality t2, expected t1 as the image"):
        segment_with(only, Image(image.data, image.grid, "t2"))


def test_a_model_of_aligned_images_says_so(trained: Trained, plan: MakePlan) -> None:
    image, truth = two_blocks(centred((16, 14, 12), np.diag([3.0, 3.0, 4.0])))
    model = trained("threshold", plan(labels=LABELS, alignment="given", middle=(500.0, 0.0, 0.0)))
    with pytest.warns(AnamorphWarning, match=r"W-MOD-014: scan.nii.gz"):
        found = segment_with(model, image)
    assert torch.equal(found.labels.data[truth >= 0], truth[truth >= 0].int())


def test_what_is_no_answer_is_refused(trained: Trained, plan: MakePlan) -> None:
    image, _ = two_blocks(centred((16, 14, 12), np.diag([3.0, 3.0, 4.0])))
    model = trained("threshold", plan(labels=LABELS))
    broken: Any = lambda *_: torch.full((1, 3, 16, 14, 12), float("nan"))  # noqa: E731
    model.method.segment = broken  # type: ignore[method-assign]
    with pytest.raises(NumericalError, match=r"E-MOD-013"):
        segment_with(model, image)
    with pytest.raises(NumericalError, match=r"E-VAL-004"):
        segment_with(model, Image(torch.ones(1, 16, 14, 12), image.grid))


def test_a_registering_model_does_not_segment(trained: Trained, plan: MakePlan) -> None:
    image, _ = two_blocks(centred((16, 14, 12), np.diag([3.0, 3.0, 4.0])))
    with pytest.raises(ConfigurationError, match=r"E-MOD-009.*one that can segment; use anamorph register"):
        segment_with(trained("shift", plan()), image)


def test_dimensions_and_channels(trained: Trained, plan: MakePlan) -> None:
    image, _ = two_blocks(centred((16, 14, 12), np.diag([3.0, 3.0, 4.0])))
    flat = trained("threshold", plan(labels=LABELS, orientation="RA", spacing=(1.0, 1.0), shape=(8, 8)))
    with pytest.raises(InputError, match=r"E-MOD-005: scan.nii.gz: a 3-D image, expected a 2-D one"):
        segment_with(flat, image)
    with pytest.raises(InputError, match=r"E-MOD-005.*2 channels, expected 1"):
        segment_with(trained("threshold", plan(labels=LABELS)), Image(image.data.expand(2, -1, -1, -1), image.grid))


def test_on_the_networks_grid_it_is_judged_by_the_truth_brought_there(
    tmp_path: Path, trained: Trained, plan: MakePlan
) -> None:
    """A network in voxels of 4 mm, images in voxels of 2: what is lost between them is not its fault there."""
    grid = centred((16, 16, 16), np.eye(3) * 2.0)
    column = torch.zeros(16, 16, 16)
    column[3:13, 3:14, 4:12] = 1
    column[8:, 3:14, 4:12] *= 2
    write(Image(column[None], grid), tmp_path / "image.nii.gz")
    write(Labelmap(torch.tensor([0, 70, 3])[column.long()].int(), grid), tmp_path / "labels.nii.gz")
    scan = Scan("case", "mr", tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz")
    model = trained("threshold", plan(labels=LABELS, spacing=(4.0,) * 3, shape=(8, 8, 8)))
    here, there = (segmenting_model(model, "x", native=native) for native in (True, False))
    assert here.stamp != there.stamp
    found = there.run(scan, read(scan.image, modality="mr"))
    assert found.truth is not None
    assert found.truth.grid.shape == found.labels.grid.shape == (8, 8, 8)
    assert found.truth.values() == found.labels.values() == [0, 3, 70]
    assert here.run(scan, read(scan.image, modality="mr")).truth is None

    def dice(segmenter: Segmenter) -> float:
        rows = evaluate_segmentation([scan], [segmenter], tmp_path / "rows")
        return next(row.value for row in rows if row.metric == "dice_mean")

    agree = found.truth.data == found.labels.data
    expected = [
        2 * int((agree & (found.truth.data == label)).sum())
        / int((found.truth.data == label).sum() + (found.labels.data == label).sum())
        for label in (3, 70)
    ]  # fmt: skip
    assert dice(there) == pytest.approx(np.mean(expected))
    assert dice(there) > dice(here)
